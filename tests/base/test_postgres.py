"""The embedded PostgreSQL on folders of its own: first start, restarts, crashes, long paths, orphans."""

import asyncio
import os
import signal
from pathlib import Path

import psycopg
import pytest

from tokenworks.base import processes
from tokenworks.base.postgres import Postgres
from tokenworks.base.processes import StartFault


async def started(server: Postgres) -> asyncio.subprocess.Process:
    process = await server.spawn()
    await server.ready(process)
    return process


async def ask(server: Postgres, query: str) -> str:
    async with await psycopg.AsyncConnection.connect(server.url) as connection:
        cursor = await connection.execute(query.encode())
        row = await cursor.fetchone() if cursor.description else None
        return str(row[0]) if row else ""


async def test_it_keeps_what_was_committed_through_a_kill(scratch: Path) -> None:
    server = Postgres(scratch / "crash")
    process = await started(server)
    await ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    process.kill()
    await process.wait()
    process = await started(server)
    assert await ask(server, "SELECT answer FROM kept") == "42"
    assert await processes.stop(process, server.stop_signal, 10_000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
    ],
)
async def test_its_settings_are_safe(durable: Postgres, name: str, value: str) -> None:
    assert await ask(durable, f"SHOW {name}") == value


@pytest.fixture(scope="module")
async def durable(scratch: Path) -> Postgres:
    """A server as it is sold; it ends with the process, like every child."""
    server = Postgres(scratch / "durable")
    await started(server)
    return server


async def test_its_files_and_socket_are_private(durable: Postgres, scratch: Path) -> None:
    assert durable.url.endswith("/tokenworks?host=" + str(scratch / "durable" / "sockets"))
    for folder in ("postgres", "sockets"):
        found = (scratch / "durable" / folder).stat()
        assert found.st_mode & 0o077 == 0
        assert found.st_uid != 0


async def test_an_orphan_is_ended_before_the_next_server_starts(scratch: Path) -> None:
    first, second = Postgres(scratch / "orphan"), Postgres(scratch / "orphan")
    orphan = await started(first)
    process = await started(second)
    assert await orphan.wait() == 0
    assert await ask(second, "SELECT 1") == "1"
    await processes.stop(process, second.stop_signal, 10_000)


async def test_a_pid_file_that_names_somebody_else_does_no_harm(scratch: Path) -> None:
    server = Postgres(scratch / "stale")
    process = await started(server)
    await processes.stop(process, signal.SIGKILL, 10_000)
    pid_file = scratch / "stale" / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    process = await started(server)
    assert pid_file.read_text().startswith(f"{process.pid}\n")
    assert await ask(server, "SELECT 1") == "1"
    await processes.stop(process, server.stop_signal, 10_000)


async def test_a_path_too_long_for_a_socket_is_no_hindrance(scratch: Path) -> None:
    server = Postgres(scratch / ("long-" * 20) / "with space")
    process = await started(server)
    assert len(server.url) < 120
    assert await ask(server, "SELECT 1") == "1"
    await processes.stop(process, server.stop_signal, 10_000)
    os.rmdir(server.url.partition("host=")[2])  # noqa: PTH106 - the folder is outside the scratch one


async def test_files_that_are_no_database_are_told_in_one_sentence(scratch: Path) -> None:
    (scratch / "junk" / "postgres").mkdir(parents=True)
    server = Postgres(scratch / "junk")
    with pytest.raises(StartFault, match="PostgreSQL did not start: "):
        await started(server)


async def test_it_starts_again_although_a_busy_backend_outlived_its_kill(scratch: Path) -> None:
    server = Postgres(scratch / "busy", durable=False)
    process = await started(server)
    async with await psycopg.AsyncConnection.connect(server.url) as connection:
        busy = asyncio.create_task(connection.execute("SELECT count(*) FROM generate_series(1, 1000000000000)"))
        while (
            await ask(server, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series(1, %'") != "2"
        ):
            pass
        process.kill()
        await process.wait()
        process = await started(server)
        with pytest.raises(psycopg.OperationalError):
            await busy
    assert await ask(server, "SELECT 1") == "1"
    assert await processes.stop(process, server.stop_signal, 10_000)
