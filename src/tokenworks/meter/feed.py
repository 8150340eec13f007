"""The feed: what metering has just posted, told to whoever watches in this process, for the live page.

Nothing depends on it: a slow watcher loses the oldest events, and after a restart there is no past.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec

from tokenworks.core.journal import Opening
from tokenworks.core.metering import Line, Outcome, Record, moves
from tokenworks.core.usage import NONE, Tokens

EVENTS_WAITING_MAX = 1_000


class Charged(msgspec.Struct, frozen=True):
    """One line of a record as a page shows it."""

    bucket_id: str
    tariff: str
    unit: str
    amount: int
    proven: bool
    revenue: int
    currency: str


class Event(msgspec.Struct, frozen=True):
    """A request was opened, closed or posted. Amounts by unit or currency; durations since the opening."""

    kind: Literal["opened", "closed", "posted"]
    at_ns: int
    request_id: str
    legal_entity_id: str
    billing_account_id: str
    model: str
    opened_at_ns: int
    reserved: dict[str, int]
    tokens: Tokens = NONE
    basis: str = ""
    ending: str = ""
    flags: tuple[str, ...] = ()
    charges: tuple[Charged, ...] = ()
    cost: dict[str, int] = {}
    first_token_after_ns: int = 0
    duration_ns: int = 0
    posting_id: int = 0


class Feed:
    """Broadcast within the process."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()

    @property
    def watched(self) -> bool:
        """Whether anybody would notice an event."""
        return bool(self._watchers)

    def publish(self, event: Event) -> None:
        """Hand an event to every watcher; never waits."""
        for watcher in self._watchers:
            watcher.put(event)

    @contextmanager
    def subscribe(self) -> Generator[AsyncIterator[Event]]:
        """`with feed.subscribe() as stream: async for event in stream`, from now on."""
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)


class _Watcher:
    """The events one watcher has not seen yet."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque(maxlen=EVENTS_WAITING_MAX)
        self._any = asyncio.Event()

    def put(self, event: Event) -> None:
        self._waiting.append(event)
        self._any.set()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._waiting:
            self._any.clear()
            await self._any.wait()
        return self._waiting.popleft()


def events(outcome: Outcome, posting_ids: dict[str, int], at_ns: int) -> Iterator[Event]:
    """The events of a committed batch: its openings first, then each record closed and posted."""
    for _, opening in outcome.opened:
        yield _opened(opening)
    for record in outcome.records:
        closed = _closed(record)
        yield closed
        posting_id = posting_ids[record.opening.legal_entity_id] if moves(record.closing) else 0
        yield msgspec.structs.replace(closed, kind="posted", at_ns=at_ns, posting_id=posting_id)


def _opened(opening: Opening) -> Event:
    reserved: Counter[str] = Counter()
    for part in opening.reserved:
        reserved[part.unit] += part.amount
    return Event(
        kind="opened",
        at_ns=opening.opened_at_ns,
        request_id=opening.request_id,
        legal_entity_id=opening.legal_entity_id,
        billing_account_id=opening.billing_account_id,
        model=opening.model,
        opened_at_ns=opening.opened_at_ns,
        reserved=dict(reserved),
    )


def _closed(record: Record) -> Event:
    closing = record.closing
    cost: Counter[str] = Counter()
    for attempt in closing.attempts:
        cost[attempt.currency] += attempt.cost
    return msgspec.structs.replace(
        _opened(record.opening),
        kind="closed",
        at_ns=closing.closed_at_ns,
        tokens=closing.tokens,
        basis=closing.basis,
        ending=closing.ending,
        flags=record.flags,
        charges=tuple(_charged(line) for line in record.lines),
        cost=dict(cost),
        first_token_after_ns=closing.first_token_after_ns,
        duration_ns=closing.closed_at_ns - record.opening.opened_at_ns,
    )


def _charged(line: Line) -> Charged:
    charge = line.charge
    return Charged(
        charge.bucket_id, charge.tariff, charge.unit, charge.amount, line.proven, line.revenue, line.currency
    )
