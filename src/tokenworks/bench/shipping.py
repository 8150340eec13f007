"""The shipper of a measurement, a process: `python -m tokenworks.bench.shipping`, a plan as JSON on standard input.

It is the gateway's own shipper, one for each journal and all at once, and it ends when everything is posted.
"""

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import uvloop

from tokenworks.base import bus, clock, config, processes
from tokenworks.base.bus import Bus
from tokenworks.base.config import Settings
from tokenworks.bench import machine
from tokenworks.bench.load import LoadFault
from tokenworks.bench.python import module
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.shipping.office import BusOffice
from tokenworks.shipping.shipper import Shipper


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Journals by folder with their ends, and the settings that say where the bus is."""

    journals: dict[str, int]
    settings: dict[str, str]


class Shipped(msgspec.Struct, frozen=True, kw_only=True):
    """How long it took from the first shipment to the last answer, and the CPU time of the process in it."""

    elapsed_ns: int
    cpu_ns: int


def main() -> None:
    """Ship everything and say how long it took."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    shipped = uvloop.run(_ship(plan, config.load(plan.settings)))
    sys.stdout.write(msgspec.json.encode(shipped).decode() + "\n")


async def ship(plan: Plan) -> Shipped:
    """Let a process of its own ship the journals, to the end."""
    code, said = await processes.run(module("tokenworks.bench.shipping"), msgspec.json.encode(plan))
    last = said.strip().rpartition("\n")[2]
    if code != 0:
        raise LoadFault(f"the shipper ended with {processes.how_it_ended(code)}: {last}")
    return msgspec.json.decode(last, type=Shipped)


class _Asked(BusOffice):
    """The office over the bus; an event for each journal says that all of it is posted."""

    def __init__(self, connection: Bus, ends: dict[str, int]) -> None:
        super().__init__(connection)
        self.posted = {journal_id: asyncio.Event() for journal_id in ends}
        self._ends = ends

    async def ship(self, request: ShipRequest) -> ShipReply:
        reply = await super().ship(request)
        if reply.posted_through >= self._ends[request.journal_id]:
            self.posted[request.journal_id].set()
        return reply


async def _ship(plan: Plan, settings: Settings) -> Shipped:
    connection = await bus.connect(settings.nats_url, settings.nats_token, "bench", timeout_ms=settings.bus_timeout_ms)
    try:
        office = _Asked(connection, {Path(folder).name: end for folder, end in plan.journals.items()})
        began_ns, cpu_ns = clock.boot_ns(), machine.cpu_ns(os.getpid())
        async with asyncio.TaskGroup() as group:
            for folder, end in plan.journals.items():
                group.create_task(_one(office, settings, Path(folder), end))
        return Shipped(elapsed_ns=clock.boot_ns() - began_ns, cpu_ns=machine.cpu_ns(os.getpid()) - cpu_ns)
    finally:
        await connection.close()


async def _one(office: _Asked, settings: Settings, folder: Path, end: int) -> None:
    shipper = Shipper(office, settings, folder, start=0, through=lambda: end, keep_from=lambda: 0)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(shipper.run())
        await office.posted[folder.name].wait()
        running.cancel()


if __name__ == "__main__":
    main()
