"""Shipments from the bus into the ledger: one at a time for each journal, answered when they are committed.

Each is read as it comes, in small steps; those that are read are posted turn by turn, several journals in one
transaction. While one turn commits, the next is read. A database that cannot be used is answered with a fault and one
log line; the shipper keeps its bytes and comes again.
"""

import asyncio
from weakref import WeakValueDictionary

import msgspec
import psycopg

from tokenworks.base import clock, log
from tokenworks.base.bus import Bus, Served
from tokenworks.base.database import Pool
from tokenworks.core.wire import SHIP, ShipReply, ShipRequest
from tokenworks.ledger.faults import LedgerFault
from tokenworks.meter import posting, shipments
from tokenworks.meter.feed import Feed
from tokenworks.meter.metrics import Metrics
from tokenworks.meter.posting import Moved, Posted
from tokenworks.meter.shipments import Shipment, ShipmentFault
from tokenworks.meter.turns import Turns, Waiting

# How many shipments may be under way; as many journals are served in turn.
AT_ONCE = 64
# How many large ones may be in memory as entries: some are posted, some are read.
BACKLOG_AT_ONCE = 4

_log = log.get(__name__)
_decode = msgspec.msgpack.Decoder(ShipRequest).decode
_encode = msgspec.msgpack.Encoder().encode


class Metering:
    """Serves `wire.SHIP`; `start` and `stop` frame its life. `moved` hears whose balance changed, after each commit."""

    def __init__(self, pool: Pool, bus: Bus, feed: Feed, metrics: Metrics, moved: Moved = lambda _: None) -> None:
        self._pool = pool
        self._bus = bus
        self._served: Served | None = None
        self._feed = feed
        self._metrics = metrics
        self._moved = moved
        # A lock is there for as long as a shipment of its journal is: many journals never ship a final one.
        self._journals: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._heard_ns: dict[str, int] = {}
        self._backlog = asyncio.Semaphore(BACKLOG_AT_ONCE)
        self._reading = asyncio.Lock()
        self._turns = Turns()
        self._worker: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Subscribe; shipments are posted from now on."""
        self._served = await self._bus.subscribe(SHIP, self._on_shipment, queue=SHIP, at_once=AT_ONCE)

    async def stop(self) -> None:
        """Take no more shipments and finish those begun."""
        if self._served:
            await self._served.finish()
        if self._telling:
            await self._telling

    async def post(self, ship: ShipRequest) -> ShipReply:
        """Post one shipment. After a fault of the database nothing is claimed beyond what the shipper knew."""
        try:
            async with self._journals.setdefault(ship.journal_id, asyncio.Lock()):
                reply = await self._reply(ship)
        except (psycopg.Error, LedgerFault) as fault:
            first_line = str(fault).partition("\n")[0]
            reply = ShipReply(ship.from_position, f"the ledger cannot post now: {first_line}")
        if not reply.fault and (ship.frames or ship.from_position == reply.posted_through):
            self._heard_ns[ship.journal_id] = clock.boot_ns()
        if reply.fault:
            _log.error("shipment not posted", extra={"journal": ship.journal_id, "reason": reply.fault})
        return reply

    def shipping(self, within_ns: int) -> list[str]:
        """Journals that came nearer to their end, or said that they are at it, within this time."""
        since_ns = clock.boot_ns() - within_ns
        self._heard_ns = {name: heard_ns for name, heard_ns in self._heard_ns.items() if heard_ns >= since_ns}
        return list(self._heard_ns)

    async def _on_shipment(self, _subject: str, payload: bytes) -> bytes:
        return _encode(await self.post(_decode(payload)))

    async def _reply(self, ship: ShipRequest) -> ShipReply:
        self._metrics.waiting(ship.worker, ship.bytes_behind)
        if not ship.frames and not ship.final:
            return await posting.told(self._pool, ship)
        try:
            if ship.bytes_behind:
                async with self._backlog:
                    # One after another: the first is whole sooner, and what waits for its turn at the loop less long.
                    async with self._reading:
                        shipment = await shipments.read(ship)
                    posted = await self._posted(shipment)
            else:
                posted = await self._posted(await shipments.read(ship))
        except ShipmentFault as fault:
            return await posting.refused(self._pool, ship, str(fault))
        if posted.is_gap:
            self._metrics.gap()
        return posted.reply

    async def _posted(self, shipment: Shipment) -> Posted:
        """Wait for a turn and its commit."""
        waiting = Waiting(shipment, asyncio.get_running_loop().create_future())
        self._turns.add(waiting)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await waiting.answer

    async def _work(self) -> None:
        while turn := self._turns.next():
            await self._answer(turn)

    async def _answer(self, turn: list[Waiting]) -> None:
        """Post a turn. What one journal breaks in the ledger must not keep the others out: then each goes alone."""
        now_ns = clock.wall_ns()
        post = posting.post_shipments(self._pool, [each.shipment for each in turn], now_ns)
        (posted,) = await asyncio.gather(post, return_exceptions=True)
        if isinstance(posted, LedgerFault) and len(turn) > 1:
            for each in turn:
                await self._answer([each])
            return
        if isinstance(posted, BaseException):
            for each in turn:
                _settle(each, posted)
            return
        self._moved({account for one in posted for account in one.accounts})
        if turn[0].shipment.request.bytes_behind:
            # The next turn goes first: a backlog is told of while the database is busy with it.
            self._telling = asyncio.create_task(self._tell(posted, now_ns, self._telling))
        else:
            await self._tell(posted, now_ns, self._telling)
        for each, answer in zip(turn, posted, strict=True):
            _settle(each, answer)

    async def _tell(self, posted: list[Posted], now_ns: int, before: "asyncio.Task[None] | None") -> None:
        """Let metrics and feed know of what was committed, in the order of commits and in steps."""
        if before:
            await before
        for one in posted:
            if one.outcome is not None:
                posting.tell([one], now_ns, self._feed, self._metrics)
                await asyncio.sleep(0)


def _settle(waiting: Waiting, answer: Posted | BaseException) -> None:
    if waiting.answer.done():
        return
    if isinstance(answer, BaseException):
        waiting.answer.set_exception(answer)
    else:
        waiting.answer.set_result(answer)
