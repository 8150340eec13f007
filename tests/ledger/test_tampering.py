"""Every edit of any column and every deleted row, in any table of ledger and meter, is found by the checks."""

from ledger.books import SEALED, SECOND, SETTINGS, Journal, bucket, charge, faults, head, lease, sell, verified
from ledger.edits import edits_missed
from tokenworks.base.database import Pool
from tokenworks.core.corrections import Charged
from tokenworks.core.journal import LeaseClose, LeaseReturn
from tokenworks.ledger import corrections, hours
from tokenworks.ledger.buckets import expire_due
from tokenworks.ledger.epoch import Epochs
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.store import transaction
from tokenworks.meter import usage_hours

CACHES = {"seal", "seal_stream", "journal", "account_hour", "hours_cursor", "usage_hour", "usage_hour_cursor"}
TABLES = sorted(CACHES | {table.name for table in SEALED})


async def history(pool: Pool) -> None:
    """A past that leaves at least one row in every table."""
    epochs = Epochs(pool, SETTINGS)
    first_epoch = await epochs.notice(SECOND)
    assert first_epoch is not None
    await epochs.site_shipped(first_epoch.epoch, "site", SECOND)
    await sell(pool, bucket("b"))
    await sell(pool, bucket("short", until_s=2, priority=1), granted=500)
    first, second = await lease(pool, 1, 50), await lease(pool, 2, 300)
    book = Journal()
    book.close(book.open(first), charge(first, 40))
    book.add(LeaseClose(first.lease_id, 10))
    await book.ship(pool)
    book.close(book.open(second), charge(second, 30), reported=False)
    book.add(LeaseReturn(second.lease_id, 20))
    book.add(LeaseReturn(second.lease_id, 7))
    waiting = book.open(second, amount=5)
    await book.ship(pool)
    book.extend(waiting, second, amount=6)
    await book.ship(pool)
    book.extend(waiting, second, amount=7)
    await book.ship(pool)
    await expire_due(pool, 3 * SECOND)
    await LeaseDesk(pool, SETTINGS).reclaim_due(10 * SECOND)
    await expire_due(pool, 11 * SECOND)
    async with transaction(pool, "shop", 12 * SECOND, SEALED) as conn:
        both = [Charged(0, first.bucket.id, "token", 40)]
        await corrections.refund(conn, head("cor_1", "usage_refunded", "req-j1-1"), both, (15, "token"), 50 * SECOND)
        await corrections.withdraw(conn, head("cor_2", "package_withdrawn", "b"), 1_000)
    await hours.keep_up(pool)
    await usage_hours.keep_up(pool)


async def test_every_edited_column_and_every_deleted_row_is_found(database: Pool) -> None:
    await history(database)
    assert await faults(database) == []
    assert await edits_missed(database, TABLES, verified) == []


async def test_every_table_of_the_two_rooms_is_looked_at(database: Pool) -> None:
    """A table added by our migrations must be sealed or be checked as a cache."""
    async with database.connection() as conn:
        cursor = await conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        )
        tables = {str(row[0]) for row in await cursor.fetchall()}
    assert tables >= set(TABLES)


async def test_a_row_cannot_be_added_outside_a_sealed_transaction(database: Pool) -> None:
    async with database.connection() as conn:
        cursor = await conn.execute(
            """
            SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'seq'
                AND table_name = ANY(%s) AND column_default LIKE '%%current_setting%%' AND is_nullable = 'NO'
            """,
            ([table.name for table in SEALED],),
        )
        assert await cursor.fetchall() == [(len(SEALED),)]
