"""Every edit of any column and every deleted row, in any table of ledger and meter, is found by the checks."""

import itertools

from psycopg import AsyncConnection

from ledger.books import SEALED, SECOND, SETTINGS, Journal, bucket, charge, faults, lease, sell, verified
from tokenworks.base.database import Pool
from tokenworks.core.journal import LeaseClose
from tokenworks.ledger.buckets import expire_due
from tokenworks.ledger.leases import LeaseDesk

CACHES = {"seal", "seal_stream", "journal"}
TABLES = sorted(CACHES | {table.name for table in SEALED})

CHANGED = {
    "text": "coalesce({0}, '') || 'x'",
    "boolean": "NOT {0}",
    "jsonb": """'["x"]'""",
    "bigint[]": "coalesce({0}, '{{}}') || 1::bigint",
    "text[]": "{0} || 'x'::text",
}
NUMBER = "coalesce({0}, 0) + 1"


async def history(pool: Pool) -> None:
    """A past that leaves at least one row in every table."""
    await sell(pool, bucket("b"))
    await sell(pool, bucket("short", until_s=2, priority=1), granted=500)
    first, second = await lease(pool, 1, 50), await lease(pool, 2, 300)
    book = Journal()
    book.close(book.open(first), charge(first, 40))
    book.add(LeaseClose(first.lease_id, 10))
    await book.ship(pool)
    book.close(book.open(second), charge(second, 30), reported=False)
    book.open(second)
    await book.ship(pool)
    await expire_due(pool, 3 * SECOND)
    await LeaseDesk(pool, SETTINGS).reclaim_due(10 * SECOND)
    await expire_due(pool, 11 * SECOND)


async def columns(conn: AsyncConnection) -> list[tuple[str, str, str]]:
    """Table, column and type of everything that belongs to the two rooms."""
    cursor = await conn.execute(
        """
        SELECT c.relname, a.attname, format_type(a.atttypid, NULL)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY 1, a.attnum
        """,
        (TABLES,),
    )
    return [(str(row[0]), str(row[1]), str(row[2])) for row in await cursor.fetchall()]


async def lift_guards(conn: AsyncConnection) -> None:
    """Take away what would stop a clumsy editor: constraints, generated ids, triggers."""
    await conn.execute("SET LOCAL session_replication_role = replica")
    await conn.execute(
        """
        DO $$ DECLARE one record; BEGIN
            FOR one IN SELECT conrelid::regclass AS t, conname FROM pg_constraint
                WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'u', 'c', 'f')
            LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', one.t, one.conname); END LOOP;
            FOR one IN SELECT attrelid::regclass AS t, attname FROM pg_attribute WHERE attidentity <> '' AND attnum > 0
            LOOP EXECUTE format('ALTER TABLE %s ALTER %I DROP IDENTITY', one.t, one.attname); END LOOP;
        END $$
        """
    )


async def found(conn: AsyncConnection, change: str) -> bool:
    """Whether the checks find this change, which must touch exactly one row; it is undone."""
    async with conn.transaction(force_rollback=True):
        assert (await conn.execute(change.encode())).rowcount == 1, change
        return not all(check.ok for check in await verified(conn))


async def test_every_edited_column_and_every_deleted_row_is_found(database: Pool) -> None:
    await history(database)
    assert await faults(database) == []
    missed: list[str] = []
    async with database.connection() as conn:
        await lift_guards(conn)
        assert all(check.ok for check in await verified(conn))
        for table, column, kind in await columns(conn):
            value = CHANGED.get(kind, NUMBER).format(column)
            row = f"ctid = (SELECT max(ctid) FROM {table})"
            if not await found(conn, f"UPDATE {table} SET {column} = {value} WHERE {row}"):
                missed.append(f"{table}.{column}")
        for table, end in itertools.product(TABLES, ("min", "max")):
            if not await found(conn, f"DELETE FROM {table} WHERE ctid = (SELECT {end}(ctid) FROM {table})"):
                missed.append(f"{end} row of {table}")
        await conn.rollback()
    assert missed == []


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
