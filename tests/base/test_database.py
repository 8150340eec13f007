"""The pool, the migrations and the sentences for a database that cannot be used."""

from pathlib import Path

import psycopg
import psycopg.conninfo
import psycopg.sql
import pytest

from tokenworks.base import database as databases
from tokenworks.base import processes
from tokenworks.base.config import Settings
from tokenworks.base.database import DatabaseFault, Pool
from tokenworks.base.postgres import Postgres


async def test_a_fresh_database_has_the_newest_schema(database_url: str) -> None:
    assert await databases.check(database_url) == databases.newest_revision()
    assert await databases.migrate(database_url) is False


async def test_what_a_connection_block_does_is_committed_at_its_end(database: Pool) -> None:
    async with database.connection() as connection:
        await connection.execute("CREATE TABLE kept (amount NUMERIC)")
        await connection.execute("INSERT INTO kept VALUES (%s)", (10**30,))
    async with database.connection() as connection:
        row = await (await connection.execute("SELECT amount FROM kept")).fetchone()
    assert row is not None
    assert int(row[0]) == 10**30


async def test_a_fault_in_a_connection_block_takes_everything_back(database: Pool) -> None:
    async def fail_in_the_middle() -> None:
        async with database.connection() as connection:
            await connection.execute("CREATE TABLE lost ()")
            await connection.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        await fail_in_the_middle()
    async with database.connection() as connection:
        row = await (await connection.execute("SELECT to_regclass('lost')::text")).fetchone()
    assert row == (None,)


@pytest.mark.parametrize("name", ["test", "test ü'x"])
async def test_an_empty_database_is_migrated_once(services: Settings, name: str) -> None:
    server = services.database_url
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
    url = psycopg.conninfo.make_conninfo(server, dbname=name)
    assert await databases.check(url) == ""
    assert await databases.migrate(url) is (databases.newest_revision() != "")
    assert await databases.check(url) == databases.newest_revision()


async def test_a_schema_from_the_future_is_refused(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)")
        await connection.execute("DELETE FROM alembic_version")
        await connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    with pytest.raises(DatabaseFault, match="schema 9999, newer than this program's"):
        await databases.migrate(database_url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:hush@127.0.0.1:9/books", "the database at 127.0.0.1:9/books cannot be used: "),
        ("postgresql://no-such-host.invalid/books", "no-such-host.invalid"),
        ("mysql://localhost/books", "the database at the configured URL cannot be used: "),
        ("postgresql://x/?colour=red", "colour"),
    ],
)
async def test_a_database_that_cannot_be_used_is_told_in_one_sentence(url: str, said: str) -> None:
    with pytest.raises(DatabaseFault) as fault:
        await databases.open_pool(url)
    assert said in str(fault.value)
    assert "hush" not in str(fault.value)
    assert "\n" not in str(fault.value)


async def test_a_pool_survives_the_death_of_its_server(scratch: Path) -> None:
    server = Postgres(scratch / "pool", durable=False)
    process = await server.spawn()
    await server.ready(process)
    pool = await databases.open_pool(server.url, min_size=4, max_size=4)
    process.kill()
    await process.wait()
    process = await server.spawn()
    await server.ready(process)
    for _ in range(8):
        async with pool.connection() as connection:
            assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
    await pool.close()
    assert await processes.stop(process, server.stop_signal, 10_000)
