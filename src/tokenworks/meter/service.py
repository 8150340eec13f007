"""Shipments from the bus into the ledger: one at a time for each journal, answered when they are committed.

Who posts them is given; metrics, the live page and those who wait for leases hear of each.
"""

import asyncio
from weakref import WeakValueDictionary

import msgspec

from tokenworks.base import clock, log
from tokenworks.base.bus import Bus, Served
from tokenworks.core.wire import SHIP, ShipReply, ShipRequest
from tokenworks.meter import answers
from tokenworks.meter.answers import Moved
from tokenworks.meter.desk import Poster
from tokenworks.meter.feed import Feed
from tokenworks.meter.metrics import Metrics

# How many shipments may be under way; as many journals are served in turn.
AT_ONCE = 64

_log = log.get(__name__)
_decode = msgspec.msgpack.Decoder(ShipRequest).decode
_encode = msgspec.msgpack.Encoder().encode


class Metering:
    """Serves `wire.SHIP`; `start` and `stop` frame its life. `moved` hears whose balance changed, after each commit."""

    def __init__(self, poster: Poster, bus: Bus, feed: Feed, metrics: Metrics, moved: Moved = lambda _: None) -> None:
        self._poster = poster
        self._bus = bus
        self._served: Served | None = None
        self._feed = feed
        self._metrics = metrics
        self._moved = moved
        # A lock is there for as long as a shipment of its journal is: many journals never ship a final one.
        self._journals: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._heard_ns: dict[str, int] = {}

    @property
    def is_ready(self) -> bool:
        """Whether anybody posts now."""
        return self._poster.is_ready

    async def start(self) -> None:
        """Subscribe; shipments are posted from now on."""
        self._served = await self._bus.subscribe(SHIP, self._on_shipment, queue=SHIP, at_once=AT_ONCE)

    async def stop(self) -> None:
        """Take no more shipments and finish those begun."""
        if self._served:
            await self._served.finish()

    async def post(self, ship: ShipRequest) -> ShipReply:
        """Post one shipment, and tell of it."""
        self._metrics.waiting(ship.worker, ship.bytes_behind)
        async with self._journals.setdefault(ship.journal_id, asyncio.Lock()):
            answer = await self._poster.post(ship, is_watched=self._feed.watched)
        answers.tell(answer, self._feed, self._metrics, self._moved)
        reply = answer.reply
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
