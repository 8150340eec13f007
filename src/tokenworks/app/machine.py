"""`tokenworks gateway`: the gateway workers of another machine, without office, database, bus or engine of its own.

It reaches the first machine over NATS alone: keys, catalog, leases and the posting of its journals. Its journals lie on
its own disk, where its own workers settle those of the dead. While the link is cut it serves on the leases it holds.
"""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec.structs import replace

from tokenworks.app import claim, ports, up
from tokenworks.app.children import Child, all_of
from tokenworks.app.claim import Running
from tokenworks.app.renewal import Renewal
from tokenworks.app.up import MODULES, Modules
from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.base.processes import StartFault


def gateway(settings: Settings, on_ready: Callable[[Running], None], modules: Modules = MODULES) -> int:
    """Run until Ctrl-C or SIGTERM; gives the exit code. `on_ready` is called once, when every worker serves."""
    return up.in_foreground("gateway", settings, machine(settings, modules), on_ready)


@asynccontextmanager
async def machine(settings: Settings, modules: Modules = MODULES) -> AsyncGenerator[Running]:
    """The running workers; stopped in good order when the context ends."""
    if not settings.nats_url:
        raise StartFault("TOKENWORKS_NATS_URL is not set: say where the NATS of the first machine is")
    async with AsyncExitStack() as stack:
        stack.enter_context(claim.claimed(settings.data))
        claim.withdraw(settings.data)
        listener = stack.enter_context(
            await ports.listen(settings.host, settings.gateway_port, "TOKENWORKS_GATEWAY_PORT")
        )
        settings = replace(
            settings,
            data_dir=str(settings.data),
            gateway_port=ports.port_of(listener),
            gateway_name=settings.gateway_name or claim.gateway_name(settings.data),
        )
        up.check_files(settings)
        await up.check_bus(settings)
        started_at_ns = clock.wall_ns()
        children: list[Child] = []

        def running() -> Running:
            return Running(
                pid=os.getpid(),
                started_at_ns=started_at_ns,
                addresses={
                    "gateway": ports.gateway_url(settings),
                    "nats": claim.without_password(settings.nats_url),
                },
                pids={child.name: child.pid for child in children},
                settings=claim.without_secrets(settings),
                renewals=renewal.rounds,
                renewal_fault=renewal.fault,
            )

        def announce() -> None:
            claim.announce(settings.data, running())

        serving = up.workers(settings, listener, modules)
        children += [Child(each, settings, announce) for each in serving.services]
        renewal = Renewal(children, announce, serving.spares)
        stack.push_async_callback(up.stop, children)
        stack.push_async_callback(serving.spares.stop)
        await all_of(child.start() for child in children)
        await stack.enter_async_context(renewal.offered())
        announce()
        stack.callback(claim.withdraw, settings.data)
        yield running()
