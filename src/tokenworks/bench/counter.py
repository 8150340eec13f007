"""Another yardstick of the ledger: a counter for each account in Redis or Valkey, where one is installed.

It keeps no history and no second entry; it is what many gateways count budgets with. It is started for the measurement
on a socket of its own, and made as durable as the ledger: each command is on disk before its answer.
"""

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tokenworks.base import processes
from tokenworks.base.processes import Program, StartFault
from tokenworks.bench.load import LoadFault

CONNECTIONS = 32
_SERVERS = {"redis-server": "redis-benchmark", "valkey-server": "valkey-benchmark"}
_VERSION = re.compile(r"v=([0-9.]+)")
_RATE = re.compile(r"([0-9.]+) requests per second")
_STOP_PATIENCE_MS = 5_000
_LOOK_EVERY_S = 0.02


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """A running server: its name and version, its socket, and the program that loads it."""

    version: str
    socket: Path
    loader: str


@asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[Counters | None]:
    """A server of its own with its files in `folder`; None where neither is installed."""
    found = next((name for name in _SERVERS if shutil.which(name) and shutil.which(_SERVERS[name])), None)
    if found is None:
        yield None
        return
    await asyncio.to_thread(folder.mkdir, mode=0o700)
    socket, output = folder / "socket", folder / "log"
    durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
    argv = (str(shutil.which(found)), "--port", "0", "--unixsocket", str(socket), "--dir", str(folder), *durable)
    process = await processes.spawn(Program(argv=argv, environ={}, output=output))
    try:
        while not socket.exists():
            if process.returncode is not None:
                raise StartFault(f"{found} did not start: {processes.last_line(output)}")
            await asyncio.sleep(_LOOK_EVERY_S)
        _, said = await processes.run(Program(argv=(argv[0], "--version"), environ={}))
        version = _VERSION.search(said)
        shown = f"{found.partition('-')[0].capitalize()} {version[1] if version else ''}".strip()
        yield Counters(version=shown, socket=socket, loader=str(shutil.which(_SERVERS[found])))
    finally:
        await processes.stop(process, signal.SIGTERM, _STOP_PATIENCE_MS)


async def charges_per_s(counters: Counters, accounts: int, charges: int) -> int:
    """Charges in a second, over evenly drawn accounts: its load generator knows no other law."""
    load = ("-n", str(charges), "-c", str(CONNECTIONS), "-r", str(accounts), "-q")
    command = ("DECRBY", "account:__rand_int__", "7")
    argv = (counters.loader, "-s", str(counters.socket), *load, *command)
    code, said = await processes.run(Program(argv=argv, environ={}))
    rates = _RATE.findall(said)
    if code != 0 or not rates:
        raise LoadFault(f"{counters.loader} ended with {processes.how_it_ended(code)}")
    return round(float(rates[-1]))
