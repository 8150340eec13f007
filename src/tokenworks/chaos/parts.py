"""The parts of a running system that can be killed: which process each one is now, and whether it is back.

Workers, office, NATS and PostgreSQL are looked up in the run file of the system under test. A backend is a child of
PostgreSQL that serves a client; after its death PostgreSQL ends all others and recovers by itself. A clerk is a child
of the office. The endpoints are not the system's own: their supervisor is here.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import psycopg
from psycopg import AsyncConnection

from tokenworks.app import claim
from tokenworks.app.children import Child

DATABASE = "postgres"
BACKEND = "postgres-backend"
_CONNECT_TIMEOUT_S = 2


class Part(msgspec.Struct, frozen=True):
    """One part. `kind` is what kills are counted by; `pid` gives its process, 0 while there is none."""

    name: str
    kind: str
    pid: Callable[[], int]


def of_system(data: Path, workers: int, clerks: int, endpoints: list[Child]) -> list[Part]:
    """All parts, in the order in which they are killed: those that lean on each other are apart."""
    gateways = [Part(f"worker-{index}", "worker", _announced(data, f"worker-{index}")) for index in range(workers)]
    scripted = [Part(child.name, "endpoint", _running(child)) for child in endpoints]
    postgres, office = _announced(data, DATABASE), _announced(data, "office")
    ground = [
        Part("office", "office", office),
        Part("nats", "nats", _announced(data, "nats")),
        Part(DATABASE, DATABASE, postgres),
        Part(BACKEND, BACKEND, lambda: max(_children(postgres(), b" [local] "), default=0)),
        Part("clerk", "clerk", lambda: _all_there(_children(office(), b"tokenworks.app.clerk"), clerks)),
    ]
    return _interleaved(gateways, ground, scripted)


def kill(pid: int) -> bool:
    """SIGKILL; False if the process is gone already."""
    if pid <= 0:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


async def answers(database_url: str) -> bool:
    """Whether the database takes a client now."""
    try:
        connection = await AsyncConnection.connect(database_url, connect_timeout=_CONNECT_TIMEOUT_S)
        async with connection:
            await connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def _interleaved(*groups: list[Part]) -> list[Part]:
    """One of each group in turn, until all are in."""
    longest = max(len(group) for group in groups)
    return [group[place] for place in range(longest) for group in groups if place < len(group)]


def _announced(data: Path, name: str) -> Callable[[], int]:
    def pid() -> int:
        running = claim.running_on(data)
        return running.pids.get(name, 0) if running else 0

    return pid


def _running(child: Child) -> Callable[[], int]:
    return lambda: child.pid


def _children(parent: int, named: bytes) -> list[int]:
    """Children with this in their command line: processes of PostgreSQL that serve clients, or clerks of the office."""
    with suppress(FileNotFoundError):
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(child) for child in children if named in _command(child)]
    return []


def _all_there(pids: list[int], count: int) -> int:
    """The youngest of them if there are so many: where one is missing, whoever was killed is not back."""
    return max(pids) if len(pids) == count else 0


def _command(pid: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
