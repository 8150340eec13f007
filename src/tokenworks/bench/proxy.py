"""A running peer of the gateway, and how its program is started and found ready: when it passes a chat completion on.

Which programs there are and how each is configured is in `peers`.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tokenworks.base import clock, processes
from tokenworks.base.processes import Program, StartFault
from tokenworks.bench import load, machine

_STOP_PATIENCE_MS = 5_000
_START_PATIENCE_NS = 180 * clock.SECOND
_ANSWER_PATIENCE_S = 10
_LOOK_EVERY_S = 0.05


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How to start one peer: its arguments, its environment, and the files it reads.

    `key` is the one it knows, empty if it looks at none. `masters` is how many generations of processes only watch over
    those that serve.
    """

    argv: tuple[str, ...]
    environ: dict[str, str]
    files: dict[Path, str]
    key: str = ""
    masters: int = 0


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """A peer that answers: where it listens, and the processes that serve."""

    name: str
    port: int
    pids: tuple[int, ...]
    key: str

    def cpu_ns(self) -> int:
        """CPU time of all its processes so far."""
        return sum(machine.cpu_ns(pid) for pid in self.pids)

    def rss_bytes(self) -> int:
        """Memory of all its processes."""
        return sum(machine.rss_bytes(pid) for pid in self.pids)

    def threads(self) -> int:
        """Threads of all its processes."""
        return sum(machine.threads(pid) for pid in self.pids)

    def keys(self, others: list[str]) -> list[str]:
        """The keys to ask it with: its own, or those of the customers, which it does not look at."""
        return [self.key] if self.key else others


@asynccontextmanager
async def running(name: str, launch: Launch, folder: Path, port: int) -> AsyncGenerator[Proxy]:
    """The peer, once it passes requests on. Its output is `output.log` in its folder."""
    _prepare(folder, launch)
    output = folder / "output.log"
    process = await processes.spawn(Program(argv=launch.argv, environ=launch.environ, output=output))
    try:
        await _ready(name, process, launch, port, output)
        pids = machine.descendants(process.pid)[launch.masters :]
        yield Proxy(name=name, port=port, pids=tuple(pids), key=launch.key)
    finally:
        await processes.stop(process, signal.SIGTERM, _STOP_PATIENCE_MS)


def _prepare(folder: Path, launch: Launch) -> None:
    # nginx started by root serves as another user, who must be able to pass.
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    for path, text in launch.files.items():
        path.write_text(text)


async def _ready(name: str, process: asyncio.subprocess.Process, launch: Launch, port: int, output: Path) -> None:
    end_ns = clock.boot_ns() + _START_PATIENCE_NS
    said = "nothing"
    while process.returncode is None and clock.boot_ns() < end_ns:
        try:
            async with asyncio.timeout(_ANSWER_PATIENCE_S):
                said = await _asked(port, launch.key or "no-key")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            said = "nothing"
        if said == "200":
            return
        await asyncio.sleep(_LOOK_EVERY_S)
    why = processes.last_line(output) if process.returncode is not None else f"it answered {said}"
    raise StartFault(f"{name} did not start: {why}")


async def _asked(port: int, key: str) -> str:
    """The status of one chat completion."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(load.request(key))
        head = await reader.readuntil(b"\r\n")
    finally:
        writer.close()
    return head.split(b" ", 2)[1].decode("latin-1")
