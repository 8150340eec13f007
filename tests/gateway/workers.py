"""A whole gateway worker in this process, on the real bus, with a stand-in office and a scripted supplier."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import openai
from openai import AsyncOpenAI

from stand_in_office import SECRET, StandInOffice, catalog, endpoint
from supplier import Supplier, supplier
from tokenworks.base import bus as buses
from tokenworks.base.bus import Bus
from tokenworks.base.config import Settings
from tokenworks.base.journal import Disk
from tokenworks.core import wire
from tokenworks.core.snapshot import Catalog
from tokenworks.gateway.worker import Worker
from tokenworks.shipping.office import BusOffice

MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
DISK = Disk()


@dataclass
class Running:
    """A worker that serves, and its surroundings."""

    office: StandInOffice
    supplier: Supplier
    bus: Bus
    settings: Settings
    stop: asyncio.Event
    task: asyncio.Task[None]
    client: AsyncOpenAI

    async def publish(self, used: Catalog) -> None:
        await self.bus.put(wire.CATALOG_BUCKET, wire.CATALOG_KEY, msgspec.msgpack.encode(used))

    async def end(self) -> None:
        self.stop.set()
        await self.task


@asynccontextmanager
async def worker(
    services: Settings, bus: Bus, folder: Path, disk: Disk = DISK, **given: int
) -> AsyncGenerator[Running]:
    """A worker that serves; `given` are more of its settings."""
    settings = msgspec.structs.replace(
        services, **{"data_dir": str(folder), "journal_segment_bytes": 1 << 20, "bus_timeout_ms": 1_000} | given
    )
    office = StandInOffice()
    office.give(1_000_000)
    await office.serve_on(bus)
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    mine = await buses.connect(settings.nats_url, settings.nats_token, "gw-0")
    ready, stop = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(Worker(settings, BusOffice(mine), "gw-0", disk).serve(listener, stop, ready.set))
    async with (
        supplier() as made,
        AsyncOpenAI(base_url=f"http://{host}:{port}/v1", api_key=SECRET, max_retries=0) as client,
    ):
        running = Running(office, made, bus, settings, stop, serving, client)
        await running.publish(catalog(endpoint(made.url)))
        async with asyncio.timeout(5):
            await ready.wait()
        yield running
        if not serving.done():
            await running.end()
    await mine.close()
