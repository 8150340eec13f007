"""A gateway worker: builds the parts, serves on a listening socket, and stops in good order.

The way into the room is `run`. The process around it (arguments, event loop, exit code) is `app.gateway`.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Any

from tokenworks.base import bus as buses
from tokenworks.base import clock, ids, log, tls
from tokenworks.base.bus import BusFault
from tokenworks.base.config import Settings
from tokenworks.base.journal import Disk, GroupSync, JournalDamaged, JournalFault, JournalWriter, finish
from tokenworks.base.vault import Vault
from tokenworks.core import journal
from tokenworks.gateway.catalog import CatalogInUse
from tokenworks.gateway.delivery import Gateway
from tokenworks.gateway.dispatch import leave_hung
from tokenworks.gateway.flow import Errands
from tokenworks.gateway.keys import Keys
from tokenworks.gateway.leases import Leases
from tokenworks.gateway.limits import LimitsInUse
from tokenworks.gateway.peers import Peers
from tokenworks.gateway.pools import Upstreams
from tokenworks.gateway.queues import Queues
from tokenworks.gateway.records import Records
from tokenworks.gateway.routes import Routes
from tokenworks.gateway.safety import safety
from tokenworks.gateway.server import TICK_MS, Server
from tokenworks.gateway.status import Status
from tokenworks.grid.dispatch import Board
from tokenworks.shipping.keeping import keep
from tokenworks.shipping.office import BusOffice
from tokenworks.shipping.shipper import Shipper, finished
from tokenworks.shipping.succession import succeed

_BACKLOG = 4096
_SUCCESSION_S = 10
# While the ledger waits for the journals of this disk, it grants no lease.
_SUCCESSION_HASTE_S = 1
_CANCEL_AGAIN_S = 0.1
_TLS_SHUTDOWN_S = 2
_DISK = Disk()

_log = log.get(__name__)


async def run(settings: Settings, listener: socket.socket, index: int, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM, or until SIGUSR2 says that another worker accepts in this one's place.

    Raises `BusFault` or `JournalFault` when it cannot start or cannot go on.
    """
    stop, replaced = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, replaced.set)
    name = worker_name(settings, index)
    bus = await buses.connect_as(settings, name)
    try:
        worker = Worker(settings, BusOffice(bus), name)
        await worker.serve(listener, stop, ready, replaced)
    finally:
        await bus.close()


def worker_name(settings: Settings, index: int) -> str:
    """What a worker is called in leases and journals: unlike any worker of another machine."""
    return f"{settings.gateway_name or 'gw'}-{index}"


class Worker:
    """One process's worth of gateway. `disk` is where its journals lie; tests pass one that breaks."""

    def __init__(self, settings: Settings, office: BusOffice, name: str, disk: Disk = _DISK) -> None:
        self._certificate = tls.certificate(settings)
        self._settings = settings
        self._office = office
        self._disk = disk
        self._damage: JournalDamaged | None = None
        self._errands = Errands()
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        journal_id = ids.new("jrn")
        folder = settings.journal_dir / name / journal_id
        self._writer = JournalWriter.create(folder, settings.journal_segment_bytes, disk)
        self._writer.append(journal.encode(journal.Head(journal_id, name, clock.wall_ns())))
        self._writer.flush()
        self._sync = GroupSync(self._writer, settings.journal_fsync_ms)
        self._records = Records(
            self._writer, self._sync if settings.durability == "every" else None, self._errands, self._on_fault
        )
        self._leases = Leases(office, self._errands, self._records.append, settings, worker=name, epoch=journal_id)
        self._limits = LimitsInUse(office, self._errands, settings, journal_id)
        self._keys = Keys(office, self._errands, settings.key_cache_entries, settings.key_stale_ms, self._limits.know)
        self._catalog = CatalogInUse(settings.catalog_stale_ms, Vault(settings.master_keys))
        self._upstreams = Upstreams(settings, self._errands)
        self._board = Board(settings.endpoint_rest_ms * clock.MS)
        self._queues = Queues(settings, self._board)
        self._peers = Peers(office, self._errands, journal_id, self._share_places)
        self._safety = safety(settings, self._errands)
        self._status = Status(office, self._errands, name, self._queues, self._board)
        gateway = self._gateway = Gateway(
            settings,
            self._keys,
            self._catalog,
            self._leases,
            self._records,
            self._upstreams,
            self._board,
            self._limits,
            self._queues,
            self._safety,
        )
        self._server = Server(settings, Routes(gateway, self._is_ready).handle, name)
        self._shipper = Shipper(
            office,
            settings,
            self._writer.folder,
            start=0,
            through=lambda: self._writer.synced,
            keep_from=lambda: self._records.keep_from,
        )

    async def serve(
        self,
        listener: socket.socket,
        stop: asyncio.Event,
        ready: Callable[[], None],
        replaced: asyncio.Event | None = None,
    ) -> None:
        """Serve until `stop`, then drain. When `replaced`, serve out first what is connected, until `stop` at most."""
        await self._office.on_key_changed(self._keys.forget, self._keys.doubt_all)
        await self._office.on_recall(self._leases.recall)
        await self._office.on_counts(self._limits.hear, self._limits.tell_all)
        await self._office.on_hello(self._peers.hear)
        has_catalog = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._sync.run()),
                group.create_task(self._ship(stop)),
                group.create_task(self._follow_catalog(has_catalog)),
                group.create_task(self._tick()),
                group.create_task(self._succeed()),
            ]
            stopped = group.create_task(stop.wait())
            if await self._first(stopped, group.create_task(has_catalog.wait())):
                tcp = await self._listen(listener)
                ready()
                _log.info("serving", extra={"journal": self._writer.folder.name})
                if replaced is not None:
                    tasks.append(group.create_task(self._hand_over(replaced, tcp, stop)))
                await self._first(stopped, self._fault)
                tcp.close()
                await self._server.drain(self._settings.drain_ms)
            await _end(tasks)
        await self._leave()
        if self._damage:
            raise self._damage

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        secure: dict[str, Any] = {}
        if self._certificate is not None:
            secure = {
                "ssl": self._certificate.context,
                "ssl_handshake_timeout": self._settings.tls_handshake_ms / 1000,
                "ssl_shutdown_timeout": _TLS_SHUTDOWN_S,
            }
        return await asyncio.get_running_loop().create_server(
            self._server.connection, sock=listener, backlog=_BACKLOG, **secure
        )

    async def _first(self, stopped: asyncio.Task[bool], other: asyncio.Future[Any]) -> bool:
        """Wait for either; False when it is time to stop. A fault is raised."""
        await asyncio.wait([stopped, other], return_when=asyncio.FIRST_COMPLETED)
        if other.done():
            other.result()
        else:
            other.cancel()
        return not stopped.done()

    async def _hand_over(self, replaced: asyncio.Event, tcp: asyncio.Server, stop: asyncio.Event) -> None:
        await replaced.wait()
        tcp.close()
        _log.info("another worker serves, finishing", extra={"connections": len(self._server.connections)})
        # What was accepted in this moment, and is perhaps still shaking hands, is not among the connections yet.
        accepting_ms = TICK_MS + (self._settings.tls_handshake_ms if self._certificate is not None else 0)
        await self._server.hand_over(self._settings.handover_ms, accepting_ms)
        stop.set()

    async def _leave(self) -> None:
        """No request runs: give the leases back and ship the rest. Where that fails, the journal stays."""
        # A reply that came after the leases are closed would be for nobody: first the errands end.
        await self._errands.cancel()
        self._upstreams.close()
        if self._safety is not None:
            self._safety.close()
        await self._leases.close_all()
        try:
            self._writer.close()
            async with asyncio.timeout(self._settings.bus_timeout_ms / 1000):
                is_posted = await self._shipper.finish()
            if is_posted:
                finish(self._writer.folder, finished(self._shipper.reply))
                return
            reason = "the ledger does not take it"
        except (JournalFault, OSError) as fault:
            reason = str(fault) or "the office is away"
        _log.warning("the journal stays for a successor", extra={"journal": self._writer.folder.name, "reason": reason})

    async def _follow_catalog(self, has_catalog: asyncio.Event) -> None:
        async for catalog in self._office.catalogs():
            if self._catalog.take(catalog):
                _log.info("catalog in use", extra={"version": catalog.version, "models": len(catalog.models)})
                endpoint_ids = self._catalog.endpoint_ids
                self._upstreams.keep(endpoint_ids)
                self._board.keep(endpoint_ids)
                self._share_places()
            has_catalog.set()

    async def _ship(self, stop: asyncio.Event) -> None:
        """Ship until cancelled. A journal whose bytes are gone cannot be shipped on, but it can be written to its end:
        the worker stops in good order, and its successor saves what can be saved."""
        try:
            await self._shipper.run()
        except JournalDamaged as damage:
            _log.error("the journal is damaged, this worker makes room for another", extra={"reason": str(damage)})
            self._damage = damage
            stop.set()

    async def _succeed(self) -> None:
        while True:
            await succeed(self._office, self._settings, self._writer.folder, self._disk)
            try:
                is_kept = await keep(self._office, self._settings, self._writer.folder, self._disk)
            except BusFault:
                is_kept = True  # nobody waits who cannot be reached
            await asyncio.sleep(_SUCCESSION_S if is_kept else _SUCCESSION_HASTE_S)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_MS / 1000)
            self._server.tick()
            self._upstreams.tick()
            leave_hung(self._gateway)
            self._leases.tick()
            self._limits.tick()
            self._peers.tick()
            self._queues.freed_all()
            if self._safety is not None:
                self._safety.tick()
            self._status.tick()
            if self._certificate is not None:
                self._certificate.refresh()

    def _share_places(self) -> None:
        """The catalog or the number of workers changed: how many requests of this one each endpoint may run."""
        limited = self._catalog.concurrency_max
        self._peers.need(needed=bool(limited))
        places = dict.fromkeys(self._catalog.endpoint_ids, 0)
        self._board.limit(places | {endpoint_id: self._peers.part(limit) for endpoint_id, limit in limited.items()})
        self._queues.freed_all()

    def _is_ready(self) -> bool:
        return self._catalog.ready and not self._server.draining

    def _on_fault(self, fault: JournalFault) -> None:
        if not self._fault.done():
            self._fault.set_exception(fault)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel until all have ended: a reply of the bus in the same moment makes Python 3.11 forget a cancellation."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)
