"""The office as the gateway sees it: its questions over the bus, and what it announces.

Encodes and decodes; decides nothing and remembers nothing. Where the office cannot be asked, `BusFault` comes through.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import msgspec

from tokenworks.base.bus import BusFault, Entry, Handler
from tokenworks.core import wire
from tokenworks.core.leasing import LeaseReply, LeaseRequest
from tokenworks.core.snapshot import Catalog, Key

_pack = msgspec.msgpack.encode
# Where a customer's request waits for the answer, an office that is started again is waited for.
_ABSENT_MS = 2_000


class Office(Protocol):
    """What workers ask. `BusOffice` is the real one; tests answer from memory."""

    async def lease(self, request: LeaseRequest) -> LeaseReply:
        """Balance for an account."""
        ...

    async def find_key(self, digest: bytes) -> Key | None:
        """Whose key this is."""
        ...

    async def ship(self, request: wire.ShipRequest) -> wire.ShipReply:
        """Journal frames for the ledger."""
        ...

    async def report(self, report: wire.SiteReport) -> wire.SiteAnswer:
        """Which journals of a disk the ledger does not have yet."""
        ...

    async def tell_counts(self, counts: wire.LimitCounts) -> None:
        """What was counted of limits, for the other workers."""
        ...

    async def say_hello(self, epoch: str) -> None:
        """That this worker lives, for the other workers."""
        ...

    async def tell_state(self, state: wire.WorkerState) -> None:
        """How this worker is, for people."""
        ...


class Line(Protocol):
    """What is needed of a bus; see `base.bus.Bus`, which is one. The simulation has another."""

    def when_back(self, call: Callable[[], None]) -> None:
        """Call this each time the connection is back."""
        ...

    async def publish(self, subject: str, payload: bytes) -> None:
        """Tell whoever listens now; `BusFault` if that cannot be done."""
        ...

    async def request(self, subject: str, payload: bytes, *, wait_ms: int = 0, absent_ms: int = 0) -> bytes:
        """Ask and wait for the answer, which may take so much longer on purpose, and so long for somebody to answer at
        all; `BusFault` if there is none.
        """
        ...

    async def subscribe(self, subject: str, handler: Handler) -> object:
        """Call the handler for each message."""
        ...

    def watch(self, bucket: str, key: str) -> AsyncIterator[Entry]:
        """A shared value, again and again."""
        ...


class BusOffice:
    """The office over NATS."""

    def __init__(self, bus: Line) -> None:
        self._bus = bus

    async def lease(self, request: LeaseRequest) -> LeaseReply:
        """Balance for an account; the answer may wait for as long as the request may."""
        return await self._ask(wire.LEASE_REQUEST, request, LeaseReply, wait_ms=request.wait_ms, absent_ms=_ABSENT_MS)

    async def find_key(self, digest: bytes) -> Key | None:
        """Whose key this is."""
        return (await self._ask(wire.KEY_LOOKUP, wire.KeyLookup(digest), wire.KeyAnswer, absent_ms=_ABSENT_MS)).key

    async def ship(self, request: wire.ShipRequest) -> wire.ShipReply:
        """Journal frames for the ledger."""
        return await self._ask(wire.SHIP, request, wire.ShipReply)

    async def report(self, report: wire.SiteReport) -> wire.SiteAnswer:
        """Which journals of a disk the ledger does not have yet."""
        return await self._ask(wire.SITE, report, wire.SiteAnswer)

    async def on_key_changed(self, forget: Callable[[wire.KeyChanged], None], doubt_all: Callable[[], None]) -> None:
        """Call `forget` for every announcement that a key changed, and `doubt_all` after some may have been missed."""

        async def handle(_subject: str, payload: bytes) -> None:
            forget(msgspec.msgpack.decode(payload, type=wire.KeyChanged))

        self._bus.when_back(doubt_all)
        await self._bus.subscribe(wire.KEY_CHANGED, handle)

    async def on_recall(self, recall: Callable[[wire.Recall], None]) -> None:
        """Call `recall` when another worker needs balance of an account."""

        async def handle(_subject: str, payload: bytes) -> None:
            recall(msgspec.msgpack.decode(payload, type=wire.Recall))

        await self._bus.subscribe(wire.LEASE_RECALL, handle)

    async def tell_counts(self, counts: wire.LimitCounts) -> None:
        """Let the other workers and the office know what was counted of limits here."""
        await self._bus.publish(wire.LIMIT_COUNTS, _pack(counts))

    async def say_hello(self, epoch: str) -> None:
        """Let the other workers know that this one lives."""
        await self._bus.publish(wire.WORKER_HELLO, epoch.encode())

    async def tell_state(self, state: wire.WorkerState) -> None:
        """Let the office know how this worker is."""
        await self._bus.publish(wire.WORKER_STATE, _pack(state))

    async def on_hello(self, hear: Callable[[str], None]) -> None:
        """Call `hear` with the epoch of each worker that says that it lives."""

        async def handle(_subject: str, payload: bytes) -> None:
            hear(payload.decode())

        await self._bus.subscribe(wire.WORKER_HELLO, handle)

    async def on_counts(self, hear: Callable[[wire.LimitCounts], None], tell_all: Callable[[], None]) -> None:
        """Call `hear` for what workers counted, and `tell_all` after they may have missed what is counted here."""

        async def handle(_subject: str, payload: bytes) -> None:
            hear(msgspec.msgpack.decode(payload, type=wire.LimitCounts))

        self._bus.when_back(tell_all)
        await self._bus.subscribe(wire.LIMIT_COUNTS, handle)

    async def catalogs(self) -> AsyncIterator[Catalog]:
        """The catalog now, after each change, and again from time to time as a confirmation."""
        revision = -1
        catalog: Catalog | None = None
        async for entry in self._bus.watch(wire.CATALOG_BUCKET, wire.CATALOG_KEY):
            if catalog is None or entry.revision != revision:
                catalog = msgspec.msgpack.decode(entry.value, type=Catalog)
                revision = entry.revision
            yield catalog

    async def _ask(self, subject: str, question: object, kind: Any, *, wait_ms: int = 0, absent_ms: int = 0) -> Any:
        answer = await self._bus.request(subject, _pack(question), wait_ms=wait_ms, absent_ms=absent_ms)
        try:
            return msgspec.msgpack.decode(answer, type=kind)
        except msgspec.DecodeError as fault:
            raise BusFault(f"the answer on {subject} cannot be read: {fault}") from fault
