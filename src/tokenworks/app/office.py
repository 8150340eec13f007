"""The office's process: `python -m tokenworks.app.office --listen-fd N --ready-fd M`.

It puts the rooms together: lease desk, metering, key lookup and catalog on the bus; management API, console, metrics
and the sandbox carrier over HTTP; housekeeping. Usage is posted by clerks, processes of its own. The contract with
the supervisor is in `app.children`.
"""

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType
from typing import TypeVar

import psycopg
import uvicorn
import uvloop
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

import tokenworks
from tokenworks import api, console
from tokenworks.access.counts import CountDesk
from tokenworks.api import sandbox_carrier
from tokenworks.app import backups, children, collector, housekeeping, killing, ports, seed, spares, verification
from tokenworks.app.contact import Contact
from tokenworks.app.housekeeping import HousekeepingOver
from tokenworks.app.publishing import Publisher
from tokenworks.app.seed import Demonstration
from tokenworks.app.settling import Settling
from tokenworks.app.workers import Workers
from tokenworks.base import bus, clock, config, database, log
from tokenworks.base.bus import Bus, BusFault
from tokenworks.base.config import Settings
from tokenworks.base.database import DatabaseFault, Pool
from tokenworks.base.vault import Vault
from tokenworks.console import ConsoleContext, books
from tokenworks.ledger.epoch import Epochs
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.service import LeaseService
from tokenworks.meter.clerks import Clerks
from tokenworks.meter.feed import Feed
from tokenworks.meter.metrics import Metrics
from tokenworks.meter.service import Metering
from tokenworks.meter.sites import Sites
from tokenworks.shop import carrier
from tokenworks.shop.carrier import Carrier
from tokenworks.shop.orders import OrderDesk

_POOL_MAX = 12
# Leases are granted by one transaction at a time. Who waits for one waits for no other work's connection, and not for
# a process of the database's server that has long done something else.
_LEASE_POOL_MAX = 1
_TRY_AGAIN_S = 0.1

_Connected = TypeVar("_Connected")

_log = log.get(__name__)


def main() -> int:
    """Serve until SIGTERM; exit code 1 when the office cannot start or go on."""
    parser = argparse.ArgumentParser(prog="tokenworks.app.office", description="The office.")
    parser.add_argument("--listen-fd", type=int, required=True, help="descriptor of a listening socket")
    parser.add_argument("--ready-fd", type=int, required=True, help="descriptor that is told `ready`")
    parser.add_argument("--go-fd", type=int, help="descriptor that says when to begin")
    given = parser.parse_args()
    if given.go_fd is not None and spares.told(given.go_fd) is None:
        return 0
    settings = config.load()
    log.set_up(settings, "office")
    collector.look_rarely()
    try:
        uvloop.run(_run(settings, socket.socket(fileno=given.listen_fd), lambda: _tell(given.ready_fd)))
    except (DatabaseFault, BusFault, HousekeepingOver, psycopg.OperationalError) as fault:
        _log.error("the office stops", extra={"reason": str(fault).partition("\n")[0]})
        return 1
    return 0


async def _run(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    url = settings.database_url
    pool = await _patiently(settings, lambda: database.open_pool(url, min_size=2, max_size=_POOL_MAX))
    leasing = await _patiently(settings, lambda: database.open_pool(url, max_size=_LEASE_POOL_MAX))
    connection = await _patiently(settings, lambda: bus.connect_as(settings, "office"))
    try:
        await _Office(settings, pool, LeaseDesk(leasing, settings), connection).serve(listener, ready)
    finally:
        await connection.close()
        await leasing.close()
        await pool.close()


async def _patiently(settings: Settings, connect: Callable[[], Awaitable[_Connected]]) -> _Connected:
    """What is starting again at this moment is waited for: starting anew would take the office longer."""
    give_up_ns = clock.boot_ns() + settings.bus_timeout_ms * clock.MS
    while True:
        try:
            return await connect()
        except (DatabaseFault, BusFault):
            if clock.boot_ns() > give_up_ns:
                raise
        await asyncio.sleep(_TRY_AGAIN_S)


class _Office:
    """All parts of the office over one database and one bus."""

    def __init__(self, settings: Settings, pool: Pool, desk: LeaseDesk, connection: Bus) -> None:
        self._settings = settings
        self._pool = pool
        self._bus = connection
        self._registry = CollectorRegistry()
        self._feed = Feed()
        self._counts = CountDesk(pool, connection)
        self._workers = Workers(connection, self._registry)
        self._publisher = Publisher(pool, connection, self._counts)
        self._leases = LeaseService(desk, connection, self._publisher.tariffs, settings.lease_recall_ms)
        self._clerks = Clerks(
            children.program("tokenworks.app.clerk", settings), settings.clerks, settings.bus_timeout_ms
        )
        metrics = Metrics(self._registry)
        self._metering = Metering(self._clerks, connection, self._feed, metrics, self._leases.came_back)
        epochs = Epochs(pool, settings)
        self._sites = Sites(pool, connection, epochs, self._registry)
        self._settling = Settling(pool, epochs, Contact(pool, connection, settings), desk, self._metering)

    async def serve(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        """Start every part, say `ready` when HTTP is answered, and go on until SIGTERM."""
        billing = self._carrier()
        orders = OrderDesk(self._pool, billing, clock.wall_ns)
        app = api.create(self._context(orders))
        end_console = self._mount_console(app, await self._seeded(orders))
        async with self._services(orders):
            await _Server(app, end_console, ready).serve([listener])
        await billing.close()

    def _carrier(self) -> Carrier:
        """The carrier that the settings name, or the sandbox."""
        if self._settings.carrier_url:
            return carrier.at_url(self._settings.carrier_url)
        return sandbox_carrier.carrier(self._pool, clock.wall_ns)

    def _context(self, orders: OrderDesk) -> api.OfficeContext:
        return api.OfficeContext(
            settings=self._settings,
            admin_token=self._settings.admin_token,
            version=tokenworks.__version__,
            pool=self._pool,
            orders=orders,
            wall_ns=clock.wall_ns,
            catalog_changed=self._publisher.catalog_changed,
            key_changed=self._publisher.key_changed,
            checks=verification.CHECKS,
            health={"bus": self._bus_state},
            metrics=self._registry,
            vault=Vault(self._settings.master_keys),
            limit_use=self._counts.used,
            workers=self._workers.states,
        )

    async def _bus_state(self) -> str:
        return "ok" if self._bus.connected else "not connected"

    async def _seeded(self, orders: OrderDesk) -> Demonstration | None:
        if not self._settings.demo_operator:
            return None
        return await seed.seed(self._pool, self._settings, orders, clock.wall_ns)

    def _mount_console(self, app: FastAPI, demonstration: Demonstration | None) -> Callable[[], None]:
        """The live page shows the demonstration customer; without one there is nothing to show."""
        if demonstration is None:
            return lambda: None
        context = ConsoleContext(
            settings=self._settings,
            admin_token=self._settings.admin_token,
            gateway_url=ports.gateway_url(self._settings),
            live_key=demonstration.key,
            model=demonstration.model,
            read=books.reader(self._pool, demonstration.customer_id, clock.wall_ns),
            verify=books.verifier(self._pool, verification.CHECKS, clock.wall_ns, clock.boot_ns),
            happenings=books.happenings(self._feed, demonstration.billing_account_id),
            wall_ns=clock.wall_ns,
            kill=partial(killing.kill_worker, self._settings.data),
        )
        return console.create(app, context).end

    @asynccontextmanager
    async def _services(self, orders: OrderDesk) -> AsyncGenerator[None]:
        """Everything on the bus, and housekeeping; in reverse order at the end."""
        await self._settling.notice(backups.why(self._settings))
        backups.begun(self._settings)
        await self._counts.start()
        await self._workers.start()
        await self._publisher.start()
        await self._leases.start()
        self._clerks.start()
        await self._metering.start()
        await self._sites.start()
        chores = housekeeping.rounds(
            self._pool, self._settings, self._settling, orders, self._publisher.publish_pending
        )
        try:
            async with (
                housekeeping.kept(chores, self._settings.housekeeping_ms),
                housekeeping.kept(housekeeping.sums(self._pool), self._settings.hours_interval_ms),
            ):
                yield
        finally:
            await self._sites.stop()
            await self._metering.stop()
            await self._clerks.stop()
            await self._leases.stop()
            await self._counts.stop()
            await self._workers.stop()


class _Server(uvicorn.Server):
    """Uvicorn on a socket that the supervisor owns, which tells when it answers and when it is told to stop."""

    def __init__(self, app: FastAPI, stopping: Callable[[], None], ready: Callable[[], None]) -> None:
        super().__init__(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))
        self._stopping = stopping
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the event streams first: the server waits for them otherwise.

        Uvicorn's own would raise the signal again afterwards, but the office has parts to stop after its server.
        """
        del sig, frame
        self._stopping()
        self.should_exit = True


def _tell(ready_fd: int) -> None:
    os.write(ready_fd, b"ready\n")
    os.close(ready_fd)


if __name__ == "__main__":
    sys.exit(main())
