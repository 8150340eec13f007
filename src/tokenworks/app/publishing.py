"""What the office tells the gateways: the catalog as a snapshot, whose a key is, and which key to forget."""

import asyncio

import msgspec
import psycopg

from tokenworks.access.counts import CountDesk
from tokenworks.access.lookup import KeyDesk
from tokenworks.app import catalog
from tokenworks.base import clock, log
from tokenworks.base.bus import Bus, BusFault
from tokenworks.base.database import Pool
from tokenworks.core import wire
from tokenworks.core.snapshot import Catalog
from tokenworks.core.tariff import Tariff

QUEUE = "access"
# How many keys may be asked for at once.
_LOOKUPS_AT_ONCE = 4_096

_log = log.get(__name__)
_lookup = msgspec.msgpack.Decoder(wire.KeyLookup).decode
_encode = msgspec.msgpack.Encoder().encode


class Publisher:
    """The newest catalog and its publication. Tariffs for lease decisions are those of the newest catalog built."""

    def __init__(self, pool: Pool, bus: Bus, counts: CountDesk) -> None:
        self._counts = counts
        self._keys = KeyDesk(pool)
        self._pool = pool
        self._bus = bus
        self._building = asyncio.Lock()
        self._current = Catalog(0, 0, {}, (), {})
        self._published = 0

    def tariffs(self) -> dict[str, Tariff]:
        """Selling tariffs by id."""
        return self._current.tariffs

    async def start(self) -> None:
        """Publish the catalog and answer key lookups from now on."""
        await self.catalog_changed()
        await self._bus.subscribe(wire.KEY_LOOKUP, self._on_lookup, queue=QUEUE, at_once=_LOOKUPS_AT_ONCE)

    async def catalog_changed(self) -> None:
        """Build the catalog anew and publish it. Without the bus it is kept for `publish_pending`."""
        async with self._building:
            async with self._pool.connection() as connection:
                self._current = await catalog.build(connection, clock.wall_ns())
            await self._publish()

    async def publish_pending(self) -> None:
        """Publish the newest catalog if the bus was away when it was built."""
        if self._published < self._current.version:
            async with self._building:
                await self._publish()

    async def key_changed(self, change: wire.KeyChanged) -> None:
        """Make the gateways forget a key. A gateway that is cut off forgets it after `key_stale_ms` by itself."""
        try:
            await self._bus.publish(wire.KEY_CHANGED, _encode(change))
        except BusFault as fault:
            _log.warning("a changed key is not announced", extra={"reason": str(fault)})

    async def _publish(self) -> None:
        try:
            await self._bus.put(wire.CATALOG_BUCKET, wire.CATALOG_KEY, _encode(self._current))
        except BusFault as fault:
            _log.warning("the catalog is not published yet", extra={"reason": str(fault)})
            return
        self._published = self._current.version
        _log.info(
            "published the catalog",
            extra={"version": self._current.version, "endpoints": len(self._current.endpoints)},
        )

    async def _on_lookup(self, _subject: str, payload: bytes) -> bytes | None:
        """No answer while the database is away: the gateway then says so instead of calling a good key bad."""
        try:
            found = await self._keys.find(_lookup(payload).digest)
        except psycopg.Error as fault:
            _log.error("a key cannot be looked up", extra={"reason": str(fault).partition("\n")[0]})
            return None
        if found is not None and found.limits is not None:
            found = msgspec.structs.replace(found, limits=self._counts.counts(found.limits))
        return _encode(wire.KeyAnswer(found))
