"""The system under test as a measurement sees it: what its processes cost, and who its customers are."""

import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from tokenworks.app import claim
from tokenworks.app.spawned import spawned, throwaway
from tokenworks.base import database
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.bench import books, machine

MEGABYTE = 1 << 20


def one_worker(given: Settings) -> AbstractContextManager[Settings]:
    """A system of one worker, as contenders are measured."""
    return a_system(given, 1)


@contextmanager
def a_system(given: Settings, workers: int) -> Generator[Settings]:
    """A system in a throw-away folder; gives its settings. For the main thread, as `spawned` is."""
    with tempfile.TemporaryDirectory(prefix="tokenworks-bench-") as folder:
        settings = of_its_own(Path(folder), given, workers)
        with spawned(settings):
            yield settings


def of_its_own(folder: Path, given: Settings, workers: int) -> Settings:
    """The settings of a system in a throw-away folder: all that charges for requests, nothing that produces tokens."""
    return msgspec.structs.replace(
        throwaway(folder, given), workers=workers, embedded_engine=False, demo_operator=False
    )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[tuple[claim.Running, Pool]]:
    """The system that these settings have started, and connections to its database."""
    running = claim.started_on(settings.data)
    pool = await database.open_pool(running.addresses["database"])
    try:
        yield running, pool
    finally:
        await pool.close()


class Subject:
    """A running system of one worker."""

    def __init__(self, running: claim.Running) -> None:
        self.port = int(running.addresses["gateway"].rpartition(":")[2])
        self._worker = running.pids["worker-0"]
        self._office = running.pids["office"]
        self._database = running.pids["postgres"]

    def cpu_ns(self) -> tuple[int, int, int]:
        """CPU time so far of the worker, of the office with its clerks, and of the database."""
        return machine.cpu_ns(self._worker), machine.family_cpu_ns(self._office), machine.family_cpu_ns(self._database)

    def rss_bytes(self) -> int:
        """Memory of the worker."""
        return machine.rss_bytes(self._worker)


async def customers(pool: Pool, count: int) -> list[str]:
    """Make so many customers, each with a package and a key; gives the keys."""
    secrets: list[str] = []
    async for batch in books.customers(pool, count):
        secrets += [buyer.secret for buyer in batch]
    return secrets
