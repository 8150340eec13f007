"""Leases: the purses of all accounts a worker serves, filled from the ledger when a request needs more.

One lease request at a time for each account; requests that need balance meanwhile wait and are asked for together. One
whose answer is not known is sent again until it is, before anything else is asked for the account.
Reserving, splitting and releasing are `core.purse`'s; what to grant is the ledger's decision.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from itertools import count

import msgspec

from tokenworks.base import clock
from tokenworks.base.bus import BusFault
from tokenworks.core.bounds import Need
from tokenworks.core.journal import LeaseClose, LeaseTaken
from tokenworks.core.leasing import LeaseReply, LeaseRequest
from tokenworks.core.purse import Charge, Purse, Reservation, Slice
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.tariff import Tariff
from tokenworks.gateway.flow import Errands, Wait, pause, resolve_each
from tokenworks.gateway.office import Office

_RETRY_S = 0.05
# Grants that leave a request short although they answered its own need: the ledger and we do not see the same terms.
_ROUNDS_MAX = 3
# What one request is refused for, others may still get: they may need less.
_OF_ONE = frozenset({Code.BALANCE_USED_UP, Code.BALANCE_RESERVED})
_NOTHING = Need(0, 0)
_UNAVAILABLE = Refusal(
    Code.LEASE_UNAVAILABLE, "Balance cannot be reserved right now. Retry shortly.", retry_after_ms=1_000
)

Append = Callable[[LeaseTaken | LeaseClose], bool]


class Pace(msgspec.Struct):
    """What was reserved for a model in this lease life and in the one before."""

    since_ns: int
    input: int = 0
    output: int = 0
    input_before: int = 0
    output_before: int = 0

    def add(self, need: Need, now_ns: int, life_ns: int) -> None:
        """Count a reservation."""
        if now_ns - self.since_ns > life_ns:
            is_next = now_ns - self.since_ns <= 2 * life_ns
            self.input_before, self.output_before = (self.input, self.output) if is_next else (0, 0)
            self.since_ns, self.input, self.output = now_ns, 0, 0
        self.input += need.input_max
        self.output += need.output_max

    def need(self) -> Need:
        """The larger of the two lives."""
        return Need(max(self.input, self.input_before), max(self.output, self.output_before))


class Ask(msgspec.Struct, eq=False):
    """A request that waits for balance. Resolved with the refusal, or with whether the answer was to its own need."""

    model: str
    short: Need
    least: Need
    wait: Wait[Refusal | bool]
    is_over: bool = False


class Sent(msgspec.Struct, frozen=True):
    """A lease request on its way. Unanswered, it is sent again as it was: the grant may have been made."""

    request: LeaseRequest
    sent_ns: int


class Holding(msgspec.Struct, eq=False):
    """What this worker holds for one account. `reserving` counts the requests that are within `reserve`.

    `due_ns` is when it is looked at next, 0 for never.
    """

    account: str
    purse: Purse
    asks: list[Ask] = []
    pace: dict[str, Pace] = {}
    unanswered: Sent | None = None
    is_asking: bool = False
    reserving: int = 0
    due_ns: int = 0
    active_ns: int = 0

    def is_needed(self) -> bool:
        """Whether forgetting it would lose a request or balance."""
        return bool(self.purse.slices or self.reserving or self.is_asking or self.unanswered)


class Leases:
    """All holdings of a worker, by billing account; the only one that changes purses."""

    def __init__(
        self, office: Office, errands: Errands, append: Append, *, worker: str, epoch: str, use_ms: int, wait_ms: int
    ) -> None:
        self._office = office
        self._errands = errands
        self._append = append
        self._worker = worker
        self._epoch = epoch
        self._life_ns = use_ms * clock.MS
        self._wait_ns = wait_ms * clock.MS
        self._holdings: dict[str, Holding] = {}
        self._sequences = count(1)
        self._due: list[tuple[int, int, Holding]] = []
        self._turns = count()

    def holding(self, account: str) -> Holding:
        """What is held for the account."""
        found = self._holdings.get(account)
        if found is None:
            found = self._holdings[account] = Holding(account, Purse())
        return found

    async def reserve(
        self, holding: Holding, need: Need, choices: int, model: str, tariffs: dict[str, Tariff]
    ) -> Reservation | Refusal:
        """Reserve the need, asking the ledger for what is missing.

        The reservation may cover less output than needed, at least one token for each choice, when no more is to be
        had. Refusals: `balance_used_up`, `no_matching_bucket`, `balance_reserved` after waiting, `lease_unavailable`.
        """
        holding.reserving += 1
        try:
            return await self._reserve(holding, need, choices, model, tariffs)
        finally:
            holding.reserving -= 1

    def settle(self, holding: Holding, reservation: Reservation, charges: tuple[Charge, ...]) -> None:
        """Take the charges out of the reservation and release the rest."""
        holding.purse.settle(reservation, charges)

    def give_back(self, holding: Holding) -> None:
        """Close slices that are not worth keeping. To be called after the closing that last named them was written."""
        for idle in list(holding.purse.returnable(clock.boot_ns())):
            if self._append(LeaseClose(idle.lease_id, idle.free)):
                holding.purse.remove(idle)

    def tick(self) -> None:
        """Close slices whose time is over, and forget accounts that were not served for a lease life."""
        now_ns = clock.boot_ns()
        while self._due and self._due[0][0] <= now_ns:
            due_ns, _, holding = heapq.heappop(self._due)
            if due_ns != holding.due_ns:
                continue  # it was looked at, or is to be, at another time
            holding.due_ns = 0
            self.give_back(holding)
            if holding.unanswered:
                self._start_asking(holding)
            if holding.is_needed() or now_ns - holding.active_ns < self._life_ns:
                self._watch(holding, now_ns)
            else:
                del self._holdings[holding.account]

    async def close_all(self) -> None:
        """The worker stops, no request runs and no errand: give everything back, what may have been granted too."""
        sending = [self._send(each, each.unanswered) for each in self._holdings.values() if each.unanswered]
        await asyncio.gather(*sending)
        for holding in self._holdings.values():
            for held in list(holding.purse.slices):
                if self._append(LeaseClose(held.lease_id, held.free)):
                    holding.purse.remove(held)

    async def _reserve(
        self, holding: Holding, need: Need, choices: int, model: str, tariffs: dict[str, Tariff]
    ) -> Reservation | Refusal:
        give_up_ns = 0
        rounds = 0
        while True:
            now_ns = clock.boot_ns()
            reservation = holding.purse.reserve(need, model, tariffs, clock.wall_ns(), now_ns)
            short = reservation.short
            least = Need(short.input_max, max(0, choices - (need.output_max - short.output_max)))
            if short == _NOTHING or (rounds and least == _NOTHING):
                self._count(holding, model, need, now_ns)
                return reservation
            holding.purse.release(reservation)
            if rounds == _ROUNDS_MAX:
                return _UNAVAILABLE
            answer = await self._ask(holding, Ask(model, short, least, Wait()))
            if not isinstance(answer, Refusal):
                rounds += answer
                continue
            give_up_ns = give_up_ns or now_ns + self._wait_ns
            if answer.code is not Code.BALANCE_RESERVED or now_ns >= give_up_ns:
                return answer
            await pause(_RETRY_S)

    def _count(self, holding: Holding, model: str, need: Need, now_ns: int) -> None:
        holding.active_ns = now_ns
        pace = holding.pace.get(model)
        if pace is None:
            pace = holding.pace[model] = Pace(now_ns)
        pace.add(need, now_ns, self._life_ns)

    async def _ask(self, holding: Holding, ask: Ask) -> Refusal | bool:
        holding.asks.append(ask)
        self._start_asking(holding)
        try:
            return await ask.wait
        finally:
            ask.is_over = True

    def _start_asking(self, holding: Holding) -> None:
        if not holding.is_asking:
            holding.is_asking = True
            self._watch(holding, clock.boot_ns())
            self._errands.start(self._serve_asks(holding))

    async def _serve_asks(self, holding: Holding) -> None:
        """Settle what is unanswered, then ask for the first that waits, and for all others of its model with it."""
        try:
            if holding.unanswered is not None:
                refusal = await self._send(holding, holding.unanswered)
                if refusal is None or refusal.code is not Code.LEASE_UNAVAILABLE:
                    # Perhaps it brought what they wait for; asking for more, they might be refused.
                    waiting, holding.asks = holding.asks, []
                    resolve_each(deque(ask.wait for ask in waiting), False)
            while group := _next_group(holding):
                refusal = _UNAVAILABLE
                try:
                    if holding.unanswered is None:
                        refusal = await self._send(holding, Sent(self._request(holding, group), clock.boot_ns()))
                finally:
                    _tell(group, refusal)
        finally:
            holding.is_asking = False
            # What came for customers who have left meanwhile is not kept.
            self.give_back(holding)
            if any(not ask.is_over for ask in holding.asks):
                self._start_asking(holding)

    async def _send(self, holding: Holding, sent: Sent) -> Refusal | None:
        """Send a lease request and take what is granted. As long as it is not known what was, it stays unanswered."""
        holding.unanswered = sent
        try:
            reply = await self._office.lease(sent.request)
        except BusFault:
            return _UNAVAILABLE
        if reply.refusal is not None and reply.refusal.code is Code.LEASE_UNAVAILABLE:
            return reply.refusal
        holding.unanswered = None
        self._take(holding, reply, sent)
        return reply.refusal

    def _request(self, holding: Holding, group: list[Ask]) -> LeaseRequest:
        first = group[0]
        pace = holding.pace.get(first.model)
        return LeaseRequest(
            worker=self._worker,
            epoch=self._epoch,
            sequence=next(self._sequences),
            billing_account_id=holding.account,
            model=first.model,
            need=Need(sum(ask.short.input_max for ask in group), sum(ask.short.output_max for ask in group)),
            least=first.least,
            pace=pace.need() if pace else _NOTHING,
        )

    def _take(self, holding: Holding, reply: LeaseReply, sent: Sent) -> None:
        wall_ns = clock.wall_ns() - clock.boot_ns()
        for ordinal, lease in enumerate(reply.leases):
            # Time runs from when the request was sent: the ledger's clock started no earlier.
            use_until_ns = sent.sent_ns + lease.use_for_ns
            name = (lease.bucket.id, sent.request.sequence, ordinal)
            self._append(LeaseTaken(lease.lease_id, lease.amount, *name, wall_ns + use_until_ns))
            holding.purse.add(
                Slice(lease.lease_id, lease.bucket, lease.amount, lease.amount, use_until_ns, lease.linger)
            )
        self._watch(holding, clock.boot_ns())

    def _watch(self, holding: Holding, now_ns: int) -> None:
        """Look at the holding when its first slice lapses, or after a lease life; not later than was meant before."""
        lapses = [held.use_until_ns for held in holding.purse.slices if held.use_until_ns > now_ns]
        due_ns = min(lapses, default=now_ns + self._life_ns)
        if holding.due_ns == 0 or due_ns < holding.due_ns:
            holding.due_ns = due_ns
            heapq.heappush(self._due, (due_ns, next(self._turns), holding))


def _next_group(holding: Holding) -> list[Ask]:
    """The first request that waits and all others of its model; the rest goes on waiting."""
    waiting = [ask for ask in holding.asks if not ask.is_over]
    group = [ask for ask in waiting if ask.model == waiting[0].model]
    holding.asks = [ask for ask in waiting if ask.model != waiting[0].model]
    return group


def _tell(group: list[Ask], refusal: Refusal | None) -> None:
    others = deque(ask.wait for ask in group[1:])
    try:
        group[0].wait.resolve(True if refusal is None else refusal)
    finally:
        resolve_each(others, False if refusal is None or refusal.code in _OF_ONE else refusal)
