"""What a worker holds for one account: its purse, what was used lately, and the requests that wait for balance.

Only data and its bookkeeping. Who is served, what is asked of the ledger and what goes back is decided in `leases`.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec
from msgspec import field

from tokenworks.core.bounds import Need
from tokenworks.core.leasing import LeaseRequest
from tokenworks.core.purse import Purse, Reservation
from tokenworks.core.refusals import Refusal
from tokenworks.core.tariff import Tariff

# An answer is taken to need a quarter more than the longest of late, and this much.
_MARGIN_TOKENS = 16
# How fast long answers are forgotten: an eighth of the difference with each shorter one.
_FORGETTING = 8
# A life that has just begun is taken to bring at most so many times what it brought so far.
_AHEAD_MAX = 16


class Pace(msgspec.Struct):
    """What was reserved for a model in this lease life and in the one before, and how long its answers were.

    `written` follows the longest answers of late, per choice; -1 before any is known.
    """

    since_ns: int
    input: int = 0
    output: int = 0
    input_before: int = 0
    output_before: int = 0
    written: int = -1

    def add(self, need: Need, now_ns: int, life_ns: int) -> None:
        """Count a reservation."""
        if now_ns - self.since_ns > life_ns:
            is_next = now_ns - self.since_ns <= 2 * life_ns
            self.input_before, self.output_before = (self.input, self.output) if is_next else (0, 0)
            self.since_ns, self.input, self.output = now_ns, 0, 0
        self.input += need.input_max
        self.output += need.output_max

    def need(self, now_ns: int, life_ns: int) -> Need:
        """What the next life is likely to reserve: as the one before, or as this one has begun, if that is more."""
        seen_ns = max(now_ns - self.since_ns, life_ns // _AHEAD_MAX)
        return Need(
            max(self.input * life_ns // seen_ns, self.input_before),
            max(self.output * life_ns // seen_ns, self.output_before),
        )

    def learn(self, written: int) -> None:
        """An answer ended with this many output tokens for each choice."""
        known = self.written
        self.written = written if written >= known else known + (written - known) // _FORGETTING

    def likely(self, first_guess: int) -> int:
        """Output tokens that are likely to be enough for one choice."""
        return first_guess if self.written < 0 else self.written + self.written // 4 + _MARGIN_TOKENS


def ahead_of(need: Need) -> Need:
    """What the life is likely to reserve that this need begins, where nothing was reserved before."""
    return Need(need.input_max * _AHEAD_MAX, need.output_max * _AHEAD_MAX)


class Ask(msgspec.Struct, eq=False):
    """A request that waits for balance, or a stream that waits for more.

    It wants `need` on top of `base`, which is empty for a new request; `likely` and `least` are parts of it. `answer`
    takes the grown reservation or the refusal, and says whether anybody was there to take it.
    """

    model: str
    base: Reservation
    need: Need
    likely: Need
    least: Need
    tariffs: dict[str, Tariff]
    answer: Callable[[Reservation | Refusal], bool]
    deadline_ns: int
    extends: bool = False
    is_over: bool = False
    rounds: int = 0
    timer: asyncio.TimerHandle | None = None


class Sent(msgspec.Struct, frozen=True):
    """A lease request on its way. Unanswered, it is sent again as it was: the grant may have been made."""

    request: LeaseRequest
    sent_ns: int


class Line(msgspec.Struct, eq=False):
    """The asks for one model, in their order: those of new requests, or those of streams that run.

    One lease request is under way for it at a time. `renewal`: what a request needed that found little left.
    """

    model: str
    extends: bool
    asks: deque[Ask] = field(default_factory=deque[Ask])
    unanswered: Sent | None = None
    is_asking: bool = False
    renewal: Need | None = None

    def first(self) -> Ask | None:
        """The ask that has waited longest."""
        while self.asks and self.asks[0].is_over:
            self.asks.popleft()
        return self.asks[0] if self.asks else None


class Holding(msgspec.Struct, eq=False):
    """What this worker holds for one account. `waiting` counts asks that are not over.

    Until `short_until_ns` the account is taken to be low: nobody overtakes who waits, and the ledger is asked for one
    request at a time. Until `recalled_until_ns` others need its balance: nothing free is kept. `renew_after_ns`: no
    slice is asked for early before. `due_ns` is when it is looked at next, 0 for never.
    """

    account: str
    purse: Purse
    paces: dict[str, Pace] = {}
    lines: dict[tuple[str, bool], Line] = {}
    waiting: int = 0
    is_tended: bool = False
    short_until_ns: int = 0
    recalled_until_ns: int = 0
    renew_after_ns: int = 0
    due_ns: int = 0
    active_ns: int = 0

    def line(self, model: str, *, extends: bool) -> Line:
        """The line of asks for a model."""
        found = self.lines.get((model, extends))
        if found is None:
            found = self.lines[model, extends] = Line(model, extends)
        return found

    def lines_in_order(self) -> list[Line]:
        """Streams that run come before new requests, and of these the line whose first has waited longest."""
        return sorted(self.lines.values(), key=_place)

    @property
    def is_asking(self) -> bool:
        """Whether an answer of the ledger is waited for, or is not known."""
        return any(line.is_asking or line.unanswered for line in self.lines.values())

    def is_needed(self) -> bool:
        """Whether forgetting it would lose a request or balance."""
        return bool(self.purse.slices or self.waiting or self.is_asking)


def _place(line: Line) -> tuple[bool, int]:
    first = line.first()
    return (not line.extends, first.deadline_ns if first is not None else 0)
