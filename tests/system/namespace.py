"""A machine of its own for a test: a process in a network namespace, and links to it that can be cut and healed."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2

from system.inside import FORBIDDEN, join
from tokenworks.base import config
from tokenworks.base.config import Settings

INSIDE = Path(__file__).parent / "inside.py"
PORT = 8700


class Link:
    """What comes out of the namespace for one port goes on to the same port of this machine, unless it is cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_cut = False
        self._passes = asyncio.Event()
        self._passes.set()
        self._joined: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Break every connection, and every one that is tried from now on."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def swallow(self) -> None:
        """Pass nothing on and say nothing, as a network does that loses every packet."""
        self._passes.clear()

    def heal(self) -> None:
        """Let connections through; what was swallowed comes late, as the kernel would send it again."""
        self._is_cut = False
        self._passes.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from inside."""
        task = asyncio.current_task()
        assert task is not None
        self._joined.add(task)
        try:
            if self._is_cut:
                return
            there = await asyncio.open_connection("127.0.0.1", self._port)
            both = {writer, there[1]}
            self._writers |= both
            await join((reader, writer), there, self._passes)
            self._writers -= both
        finally:
            writer.close()
            self._joined.discard(task)

    async def stop(self) -> None:
        """End all connections."""
        for task in list(self._joined):
            task.cancel()
        await asyncio.gather(*self._joined, return_exceptions=True)


class Machine:
    """A running `tokenworks gateway` elsewhere. `http` reaches its API as a customer there would."""

    def __init__(self, process: asyncio.subprocess.Process, places: dict[str, Any], http: httpx2.AsyncClient) -> None:
        self.process = process
        self.places = places
        self.http = http


@contextlib.asynccontextmanager
async def machine(settings: Settings, *links: tuple[int, Link]) -> AsyncGenerator[Machine]:
    """Start the gateway in a namespace that has only these links, and stop it in the end."""
    # Paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="tw-ns-") as name:
        folder = Path(name)
        servers = [await asyncio.start_unix_server(link.serve, folder / f"out-{port}") for port, link in links]
        process = await _started(settings, folder, [port for port, _ in links])
        try:
            transport = httpx2.AsyncHTTPTransport(uds=str(folder / "in"))
            async with httpx2.AsyncClient(transport=transport, base_url="http://there", timeout=30) as http:
                yield Machine(process, await _places(process), http)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            for server, (_, link) in zip(servers, links, strict=True):
                server.close()
                await link.stop()


async def _started(settings: Settings, folder: Path, ports: list[int]) -> asyncio.subprocess.Process:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(config.PREFIX)}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(INSIDE), str(folder), str(PORT), ",".join(map(str, ports)), "--"),
        *(sys.executable, "-P", "-m", "tokenworks.cli", "gateway", "--json"),
        env=inherited | config.environment(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _places(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """What it says when it serves. Where there can be no namespace, the test fails and says why."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = await process.stdout.readline()
    if not line:
        said = (await process.stderr.read()).decode()
        assert await process.wait() != FORBIDDEN, said
        raise AssertionError(said)
    return json.loads(line)
