"""Clerks as processes: what they post, and what becomes of shipments when one dies or cannot start."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import msgspec
import psycopg
import pytest
from prometheus_client import CollectorRegistry

from ledger.books import faults, used_journals
from tokenworks.app.children import program
from tokenworks.base.bus import Bus
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.processes import Program
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.meter.clerks import Clerks, serve
from tokenworks.meter.desk import Desk
from tokenworks.meter.feed import Feed
from tokenworks.meter.metrics import Metrics
from tokenworks.meter.service import Metering


@pytest.fixture
async def clerks(services: Settings, database_url: str) -> AsyncGenerator[Clerks]:
    """Two clerks on a fresh database."""
    settings = msgspec.structs.replace(services, database_url=database_url)
    both = Clerks(program("tokenworks.app.clerk", settings), 2, patience_ms=10_000)
    both.start()
    yield both
    await both.stop()


def processes() -> list[int]:
    """The clerks of this process."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"tokenworks.app.clerk" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_what_clerks_post_is_told_to_the_office(clerks: Clerks, database: Pool, bus: Bus) -> None:
    books = await used_journals(database, 6)
    registry, feed, moved = CollectorRegistry(), Feed(), set[str]()
    metering = Metering(clerks, bus, feed, Metrics(registry), moved.update)
    with feed.subscribe() as stream:
        replies = await asyncio.gather(*(metering.post(book.rest(final=True)) for book in books))
        events = [await anext(stream) for _ in range(18)]
    assert [(reply.posted_through, reply.fault) for reply in replies] == [(len(book.data), "") for book in books]
    assert sorted(event.kind for event in events) == ["closed"] * 6 + ["opened"] * 6 + ["posted"] * 6
    assert moved == {"acc"}
    value = registry.get_sample_value
    assert value("tokenworks_shipments_total") == 6
    assert value("tokenworks_tokens_total", {"gen_ai_request_model": "m", "token_class": "input"}) == 60
    duration = "gen_ai_server_request_duration_seconds"
    labels = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "m", "error_type": ""}
    assert value(f"{duration}_count", labels) == value(f"{duration}_bucket", labels | {"le": "+Inf"}) == 6
    assert await faults(database) == []


async def test_a_clerk_that_is_killed_posts_all_or_nothing(clerks: Clerks, database: Pool, database_url: str) -> None:
    """While one waits in its transaction, the record written, they are killed; others take their places."""
    (book,) = await used_journals(database, 1)
    async with await psycopg.AsyncConnection.connect(database_url) as holding:
        await holding.execute("LOCK TABLE account IN SHARE MODE")
        posting = asyncio.create_task(clerks.post(book.rest(final=True), is_watched=False))
        async with asyncio.timeout(10):
            await waiting_for_a_lock(database)
        killed = processes()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        answer = await posting
        assert (answer.reply.posted_through, "has ended" in answer.reply.fault) == (0, True)
    async with asyncio.timeout(10):
        while (answer := await clerks.post(book.rest(final=True), is_watched=False)).reply.fault:
            assert "has ended" in answer.reply.fault
    # Once more, as if the answer had been lost.
    again = await clerks.post(book.rest(final=True), is_watched=False)
    assert again.reply == answer.reply == ShipReply(len(book.data))
    assert not set(processes()) & set(killed)
    async with database.connection() as conn:
        assert await (await conn.execute("SELECT count(*) FROM usage_record")).fetchone() == (1,)
    assert await faults(database) == []


async def waiting_for_a_lock(pool: Pool) -> None:
    """Return when a transaction of this database waits for a lock."""
    count = 0
    while not count:
        async with pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            ((count,),) = await cursor.fetchall()


async def test_without_a_clerk_nothing_is_claimed() -> None:
    broken = Clerks(Program(argv=("/bin/false",), environ={}), 1, patience_ms=300)
    broken.start()
    answer = await broken.post(ShipRequest("j", "gw", 7, b"x"), is_watched=False)
    assert (answer.reply, broken.is_ready) == (ShipReply(7, "no clerk is ready to post"), False)
    await broken.stop()


async def test_the_office_that_is_gone_ends_the_clerk() -> None:
    ours, theirs = socket.socketpair()
    serving = asyncio.create_task(serve(Desk(cast(Pool, None)), theirs))
    ours.close()
    await serving


async def test_what_nobody_foresaw_is_answered() -> None:
    class Away:
        def connection(self) -> None:
            raise ZeroDivisionError

    answer = await Desk(cast(Pool, Away())).post(ShipRequest("j", "gw", 7, b""), is_watched=False)
    assert answer.reply == ShipReply(7, "it cannot be posted: ZeroDivisionError()")
