"""`tokenworks up`: the whole system on one machine, from the data folder to the listening sockets, in the foreground.

It starts, watches and stops processes; what they do is theirs. Addresses given in the settings replace the embedded
database and bus.
"""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import msgspec
from msgspec.structs import replace

from tokenworks.app import archive, claim, ports, services
from tokenworks.app.children import Child, PythonChild, all_of, program
from tokenworks.app.claim import Running
from tokenworks.app.renewal import Renewal
from tokenworks.app.spares import Spares
from tokenworks.base import bus, clock, database, log, tls
from tokenworks.base.bus import BusFault
from tokenworks.base.config import Settings
from tokenworks.base.database import DatabaseFault
from tokenworks.base.processes import StartFault
from tokenworks.base.tls import TlsFault
from tokenworks.base.vault import Vault, VaultFault
from tokenworks.gateway import keywords
from tokenworks.gateway.keywords import KeywordsFault

FAULTS = (StartFault, DatabaseFault, BusFault, VaultFault, TlsFault, KeywordsFault, OSError)
"""What can keep a system from starting; `sentence` tells each in one sentence."""

_log = log.get(__name__)


class Modules(msgspec.Struct, frozen=True, kw_only=True):
    """The Python modules that are run as processes; tests of the supervision put stand-ins here."""

    engine: str = "tokenworks.plant.engine"
    office: str = "tokenworks.app.office"
    gateway: str = "tokenworks.app.gateway"


MODULES = Modules()


def up(settings: Settings, on_ready: Callable[[Running], None], modules: Modules = MODULES) -> int:
    """Run until Ctrl-C or SIGTERM; gives the exit code. `on_ready` is called once, when everything answers."""
    return in_foreground("up", settings, system(settings, modules), on_ready)


def in_foreground(
    name: str, settings: Settings, system: AbstractAsyncContextManager[Running], on_ready: Callable[[Running], None]
) -> int:
    """Run what this context runs until Ctrl-C or SIGTERM; gives the exit code, and says in one sentence what failed."""
    log.set_up(settings, name)
    try:
        asyncio.run(_until_asked_to_stop(system, on_ready))
    except FAULTS as fault:
        sys.stderr.write(f"tokenworks: {sentence(fault)}\n")
        return _exit_code(fault)
    return 0


def _exit_code(fault: Exception) -> int:
    """As docs/cli.md has them: a bad setting, a database that cannot be reached, or anything else."""
    if isinstance(fault, (TlsFault, KeywordsFault)):
        return 2
    return 3 if isinstance(fault, DatabaseFault) else 1


@asynccontextmanager
async def system(settings: Settings, modules: Modules = MODULES) -> AsyncGenerator[Running]:
    """A running system; stopped in good order when the context ends: workers, office, engine, bus, database."""
    async with AsyncExitStack() as stack:
        stack.enter_context(claim.claimed(settings.data))
        claim.withdraw(settings.data)
        plan = await _plan(settings, modules, stack)
        if not settings.database_url:
            await stack.enter_async_context(archive.followed(settings))
        for group in plan.groups:
            stack.push_async_callback(stop, group)
        for spares in plan.spares:
            stack.push_async_callback(spares.stop)
        await plan.start()
        await stack.enter_async_context(plan.renewal.offered())
        plan.announce()
        stack.callback(claim.withdraw, settings.data)
        yield plan.running()


def sentence(fault: Exception) -> str:
    """One sentence for the operator, without a trace."""
    if not isinstance(fault, OSError) or fault.errno is None:
        return str(fault)
    where = f" {fault.filename}" if fault.filename else ""
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: no space to write{where or ' the data folder'}"
    if fault.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to use{where or ' the data folder'}; change its owner or set TOKENWORKS_DATA_DIR"
    return f"cannot use{where}: {os.strerror(fault.errno).lower()}"


class _Plan:
    """All children of one system, in the order they start in."""

    def __init__(self, settings: Settings, addresses: dict[str, str]) -> None:
        self.settings = settings
        self.addresses = addresses
        self.ground: list[Child] = []
        self.engines: list[Child] = []
        self.serving: list[list[Child]] = []
        self.spares: list[Spares] = []
        self.renewal = Renewal((), self.announce)
        self._started_at_ns = clock.wall_ns()

    @property
    def groups(self) -> list[list[Child]]:
        """In reverse they are stopped, each group at once."""
        return [*([child] for child in self.ground), self.engines, *self.serving]

    async def start(self) -> None:
        """The engine loads its model while database, bus, office and workers start."""
        await all_of([*(child.start() for child in self.engines), self._start_serving()])

    async def _start_serving(self) -> None:
        await all_of(child.start() for child in self.ground)
        await all_of([check_bus(self.settings), _migrate(self.settings)])
        await all_of(child.start() for group in self.serving for child in group)

    def announce(self) -> None:
        """Say in the data folder what runs where."""
        claim.announce(self.settings.data, self.running())

    def running(self) -> Running:
        """What runs now."""
        children = [child for group in self.groups for child in group]
        return Running(
            pid=os.getpid(),
            started_at_ns=self._started_at_ns,
            addresses=self.addresses,
            pids={child.name: child.pid for child in children},
            settings=claim.without_secrets(self.settings),
            renewals=self.renewal.rounds,
            renewal_fault=self.renewal.fault,
        )


async def _plan(settings: Settings, modules: Modules, stack: AsyncExitStack) -> _Plan:
    """Choose ports, URLs and secrets, take the sockets, and say which children there will be."""
    gateway = stack.enter_context(
        await ports.listen(settings.host, settings.gateway_port, "TOKENWORKS_GATEWAY_PORT"),
    )
    office = stack.enter_context(await ports.listen(settings.host, settings.office_port, "TOKENWORKS_OFFICE_PORT"))
    settings, ground = services.with_database(settings)
    settings, more = await services.with_bus(settings)
    settings = replace(
        settings,
        gateway_name=settings.gateway_name or claim.gateway_name(settings.data),
        gateway_port=ports.port_of(gateway),
        office_port=ports.port_of(office),
        admin_token=settings.admin_token or claim.secret(settings.data, "admin-token"),
        engine_api_key=settings.engine_api_key or claim.secret(settings.data, "engine-key"),
    )
    Vault(settings.master_keys).ready()
    check_files(settings)
    if settings.embedded_engine:
        settings = replace(settings, engine_port=await ports.free_port(settings.engine_port, "TOKENWORKS_ENGINE_PORT"))
    plan = _Plan(
        settings,
        _addresses(
            settings,
            ports.gateway_url(settings),
            ports.url_of(settings.host, settings.office_port),
        ),
    )
    plan.ground = [Child(service, settings, plan.announce) for service in [*ground, *more]]
    if settings.embedded_engine:
        plan.engines = [Child(PythonChild("engine", modules.engine, settings), settings, plan.announce)]
    on_bus = plan.ground[len(ground) :]
    clerks = Spares(program(modules.office, settings, office.fileno()), settings.spare_after_ms)
    desk = PythonChild("office", modules.office, settings, listen_fd=office.fileno(), spares=clerks)
    serving = workers(settings, gateway, modules)
    crew = [Child(each, settings, plan.announce, on_bus) for each in serving.services]
    plan.spares = [clerks, serving.spares]
    plan.serving = [[Child(desk, settings, plan.announce, plan.ground)], crew]
    plan.renewal = Renewal(crew, plan.announce, serving.spares)
    return plan


class Workers(msgspec.Struct, frozen=True):
    """The gateway workers of a machine, and the spare of all of them."""

    services: list[PythonChild]
    spares: Spares


def workers(settings: Settings, listener: socket.socket, modules: Modules) -> Workers:
    """The gateway workers of this machine, on one listening socket."""
    number = listener.fileno()
    spares = Spares(program(modules.gateway, settings, number), settings.spare_after_ms)
    services = [
        PythonChild(f"worker-{index}", modules.gateway, settings, listen_fd=number, index=index, spares=spares)
        for index in range(settings.workers)
    ]
    return Workers(services, spares)


def _addresses(settings: Settings, gateway: str, office: str) -> dict[str, str]:
    addresses = {
        "gateway": gateway,
        "office": office,
        "nats": claim.without_password(settings.nats_url),
        "database": claim.without_password(settings.database_url),
    }
    if settings.embedded_engine:
        addresses["engine"] = f"http://127.0.0.1:{settings.engine_port}"
    return addresses


async def _migrate(settings: Settings) -> None:
    await database.migrate(settings.database_url)


async def check_bus(settings: Settings) -> None:
    """A wrong URL or token is said here, once, and not by every child."""
    connection = await bus.connect_as(settings, "up")
    await connection.close()


def check_files(settings: Settings) -> None:
    """Files of the workers that do not load are told here, once, and not by every worker."""
    tls.certificate(settings)
    tls.to_endpoints(settings)
    if settings.safety_keywords_file:
        keywords.read(settings.safety_keywords_file)


async def stop(group: Sequence[Child]) -> None:
    """Stop these all at once."""
    await asyncio.gather(*(child.stop() for child in group))


async def _until_asked_to_stop(
    system: AbstractAsyncContextManager[Running], on_ready: Callable[[Running], None]
) -> None:
    """The first signal begins an orderly stop, also in the middle of starting; further ones change nothing."""
    asked = asyncio.Event()
    main = asyncio.current_task()

    def ask() -> None:
        if main and not asked.is_set():
            asked.set()
            _log.info("stopping")
            main.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ask)
    try:
        async with system as running:
            on_ready(running)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not asked.is_set():
            raise
        _log.info("stopped")
