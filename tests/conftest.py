"""Real services for every test: one embedded PostgreSQL and one NATS for the session, a fresh database for a test."""

import itertools
import logging
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import hypothesis
import nats
import pytest
from psycopg import AsyncConnection

from tokenworks.app.services import services as run_services
from tokenworks.app.spawned import Spawned, spawned, throwaway
from tokenworks.base import bus as buses
from tokenworks.base import database as databases
from tokenworks.base.bus import Bus
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool

# How long an example takes says something about the machine and its neighbours, nothing about the code.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _log_lines_go_where_they_went() -> Generator[None]:
    """A command run inside a test sends log lines to that test's standard error, which is closed after it."""
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers


@pytest.fixture(scope="session")
def scratch() -> Generator[Path]:
    """A folder for the session; not pytest's own, whose mode the database's user could not pass."""
    folder = Path(tempfile.mkdtemp(prefix="tokenworks-tests-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
async def services(scratch: Path) -> AsyncGenerator[Settings]:
    """Settings whose URLs lead to the running services; the database `tokenworks` is at its newest schema."""
    async with run_services(Settings(data_dir=str(scratch / "services"), nats_port=0), durable=False) as settings:
        await databases.migrate(settings.database_url)
        yield settings


@pytest.fixture
async def database_url(services: Settings) -> AsyncGenerator[str]:
    """A fresh database with the newest schema and nothing in it, copied from the session's."""
    name = f"test_{next(_numbers)}"
    template = services.database_url
    server = template.replace("/tokenworks?", "/postgres?")
    async with await AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE tokenworks STRATEGY file_copy")
    yield template.replace("/tokenworks?", f"/{name}?")
    async with await AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Pool]:
    """A pool of connections to a fresh database."""
    pool = await databases.open_pool(database_url, min_size=1, max_size=8)
    yield pool
    await pool.close()


@pytest.fixture
async def bus(services: Settings) -> AsyncGenerator[Bus]:
    """A connection to the bus; what the test keeps there is removed after it."""
    connection = await buses.connect(services.nats_url, services.nats_token, "test", timeout_ms=2_000)
    yield connection
    await connection.close()
    await _empty(services)


@pytest.fixture(scope="session")
def system(scratch: Path) -> Generator[Spawned]:
    """A whole system with the demonstration operator, started as an operator starts it, on free ports."""
    with spawned(throwaway(scratch / "system", Settings())) as running:
        yield running


async def _empty(services: Settings) -> None:
    client = await nats.connect(services.nats_url, token=services.nats_token)
    streams = client.jetstream()
    for stream in await streams.streams_info():
        await streams.delete_stream(str(stream.config.name))
    await client.close()
