"""The embedded database and bus of a data folder, alone or as the ground that `tokenworks up` builds on.

For tests, the demonstration and `verify` on a stopped folder: they need the services without the processes that
serve customers.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec.structs import replace

from tokenworks.app import claim, ports
from tokenworks.app.children import Child, all_of
from tokenworks.base import hosts, log
from tokenworks.base.config import Settings
from tokenworks.base.nats_server import NatsServer
from tokenworks.base.postgres import Postgres
from tokenworks.base.processes import Service

_OF_THIS_MACHINE = frozenset({hosts.LOOPBACK, "::1", "localhost"})

_log = log.get(__name__)


@asynccontextmanager
async def services(settings: Settings, *, durable: bool = True, bus: bool = True) -> AsyncGenerator[Settings]:
    """Own the data folder and run what has no URL; gives the settings with all URLs filled in. Migrates nothing."""
    async with AsyncExitStack() as stack:
        stack.enter_context(claim.claimed(settings.data))
        settings, wanted = with_database(settings, durable=durable)
        if bus:
            settings, more = await with_bus(settings)
            wanted += more
        children = [Child(service, settings) for service in wanted]
        for child in children:
            stack.push_async_callback(child.stop)
        await all_of(child.start() for child in children)
        yield settings


def with_database(settings: Settings, *, durable: bool = True) -> tuple[Settings, list[Service]]:
    """The settings with the database's URL and an absolute data folder, and the server to start, if one is needed."""
    settings = replace(settings, data_dir=str(settings.data))
    if settings.database_url:
        return settings, []
    postgres = Postgres(settings.data, durable=durable)
    return replace(settings, database_url=postgres.url), [postgres]


async def with_bus(settings: Settings) -> tuple[Settings, list[Service]]:
    """The settings with the bus's URL and token, and the server to start, if one is needed."""
    if settings.nats_url:
        return settings, []
    port = await ports.free_port(settings.nats_port, "TOKENWORKS_NATS_PORT", settings.nats_host, "TOKENWORKS_NATS_HOST")
    token = settings.nats_token or claim.secret(settings.data, "nats-token")
    nats = NatsServer(
        settings.data,
        port=port,
        token=token,
        host=settings.nats_host,
        certificate=settings.nats_cert_file,
        key=settings.nats_key_file,
    )
    if not settings.nats_cert_file and settings.nats_host not in _OF_THIS_MACHINE:
        _log.warning("NATS is open to other machines without TLS", extra={"host": settings.nats_host})
    return replace(settings, nats_port=port, nats_token=token, nats_url=nats.url), [nats]
