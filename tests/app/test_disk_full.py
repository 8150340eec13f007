"""The database's disk is full: everything that would write is refused, nothing crashes, and it goes on by itself."""

import asyncio

import msgspec
import psycopg
from prometheus_client import CollectorRegistry

from api.offices import LEGAL_ENTITY, running
from ledger.books import SETTINGS, TARIFFS, Journal, ask, bucket, charge, faults, sell
from tokenworks.app import housekeeping
from tokenworks.base.bus import Bus
from tokenworks.base.database import Pool
from tokenworks.core.refusals import Code
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.service import LeaseService
from tokenworks.meter.desk import Desk
from tokenworks.meter.feed import Feed
from tokenworks.meter.metrics import Metrics
from tokenworks.meter.service import Metering

FULL = """
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
    END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON seal FOR EACH STATEMENT EXECUTE FUNCTION full_disk();
"""


async def test_a_full_disk_of_the_database_is_refused_and_got_over(database_url: str, database: Pool, bus: Bus) -> None:
    await sell(database, msgspec.structs.replace(bucket("b"), valid_to_ns=1 << 62))
    desk = LeaseDesk(database, SETTINGS)
    leases = LeaseService(desk, bus, lambda: TARIFFS, 1_000)
    metering = Metering(Desk(database), bus, Feed(), Metrics(CollectorRegistry()))
    held = (await leases.ask(ask(1, 100))).leases[0]
    book = Journal("e1")
    book.close(book.open(held), charge(held, 40))
    rounds = 0
    again = asyncio.Event()

    async def chore() -> int:
        nonlocal rounds
        rounds += 1
        if rounds > 2:
            again.set()
        return await desk.reclaim_due(1 << 61)

    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn,
        running(database) as office,
    ):
        await conn.execute(FULL)
        refused = await leases.ask(ask(2, 100))
        assert refused.refusal is not None
        assert refused.refusal.code == Code.LEASE_UNAVAILABLE
        reply = await metering.post(book.rest())
        assert (reply.posted_through, "No space left" in reply.fault) == (0, True)
        answer = await office.post("/legal-entities", LEGAL_ENTITY, status=503)
        assert answer["error"]
        async with housekeeping.kept({"reclaim leases": chore}, pause_ms=1):
            await asyncio.wait_for(again.wait(), 5)
        await conn.execute("DROP FUNCTION full_disk CASCADE")
        assert (await leases.ask(ask(2, 100))).refusal is None
        assert (await metering.post(book.rest())).fault == ""
    assert await faults(database) == []
