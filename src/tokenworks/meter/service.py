"""Shipments from the bus into the ledger: one at a time for each journal, answered when they are committed.

A database that cannot be used is answered with a fault and one log line; the shipper keeps its bytes and comes again.
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
from tokenworks.meter.feed import Feed
from tokenworks.meter.metrics import Metrics
from tokenworks.meter.posting import Moved, post_batch

# While one shipment commits, the next ones are decoded.
AT_ONCE = 4

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

    async def start(self) -> None:
        """Subscribe; shipments are posted from now on."""
        self._served = await self._bus.subscribe(SHIP, self._on_shipment, queue=SHIP, at_once=AT_ONCE)

    async def stop(self) -> None:
        """Take no more shipments and finish those begun."""
        if self._served:
            await self._served.finish()

    async def post(self, ship: ShipRequest) -> ShipReply:
        """Post one shipment. After a fault of the database nothing is claimed beyond what the shipper knew."""
        try:
            async with self._journals.setdefault(ship.journal_id, asyncio.Lock()):
                reply = await post_batch(self._pool, ship, clock.wall_ns(), self._feed, self._metrics, self._moved)
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
