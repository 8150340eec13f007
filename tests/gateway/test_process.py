"""The process of a worker as the supervisor starts it: descriptors, readiness, SIGTERM, exit codes."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import httpx2
import msgspec

from gateway_bench import BODY, PATH
from stand_in_office import SECRET, StandInOffice, catalog, endpoint
from supplier import supplier
from tokenworks.base.bus import Bus
from tokenworks.base.config import Settings, environment
from tokenworks.base.journal import list_journals
from tokenworks.core import wire


async def start(settings: Settings, listener: socket.socket, ready_fd: int) -> asyncio.subprocess.Process:
    descriptors = {"--listen-fd": listener.fileno(), "--ready-fd": ready_fd, "--index": 3}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tokenworks.app.gateway"),
        *(text for name, value in descriptors.items() for text in (name, str(value))),
        env=os.environ | environment(settings),
        pass_fds=(listener.fileno(), ready_fd),
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(ready_fd)
    return process


async def test_a_worker_from_start_to_end(services: Settings, bus: Bus, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(services, data_dir=str(tmp_path), journal_segment_bytes=1 << 20)
    office = StandInOffice()
    office.give(1_000_000)
    await office.serve_on(bus)
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    read_fd, ready_fd = os.pipe()
    async with supplier() as made:
        await bus.put(wire.CATALOG_BUCKET, wire.CATALOG_KEY, msgspec.msgpack.encode(catalog(endpoint(made.url))))
        process = await start(settings, listener, ready_fd)
        assert await asyncio.to_thread(os.read, read_fd, 64) == b"ready\n"
        headers = {"authorization": f"Bearer {SECRET}"}
        async with httpx2.AsyncClient(base_url=f"http://{host}:{port}", headers=headers) as client:
            assert (await client.post(PATH, json=BODY)).headers["x-tokenworks-charged"] == "17 token"
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    os.close(read_fd)
    listener.close()
    assert (process.returncode, b"Traceback" in errors) == (0, False)
    assert office.balance() == 1_000_000 - 17
    assert (len(office.final), list_journals(settings.journal_dir)) == (1, [])


async def test_a_worker_without_a_bus_says_so_and_exits(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path), nats_url="nats://127.0.0.1:1")
    listener = socket.create_server(("127.0.0.1", 0))
    read_fd, ready_fd = os.pipe()
    process = await start(settings, listener, ready_fd)
    _, errors = await process.communicate()
    assert os.read(read_fd, 64) == b""
    os.close(read_fd)
    listener.close()
    assert process.returncode == 1
    assert b"the worker stops" in errors
    assert b"Traceback" not in errors
