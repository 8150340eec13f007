"""Somebody who edits the books by hand: each column and each row of some tables, one at a time, and what is noticed."""

import itertools
from collections.abc import Awaitable, Callable, Sequence

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.base.database import Pool
from tokenworks.ledger.verify import Check

Connection = AsyncConnection[TupleRow]
Checks = Callable[[Connection], Awaitable[list[Check]]]

CHANGED = {
    "text": "coalesce({0}, '') || 'x'",
    "boolean": "NOT {0}",
    "bytea": "{0} || '\\x00'::bytea",
    "jsonb": """'["x"]'""",
    "bigint[]": "coalesce({0}, '{{}}') || 1::bigint",
    "text[]": "{0} || 'x'::text",
    "reserved_part[]": "array_append({0}, NULL)",
    "charge_line[]": "array_append({0}, NULL)",
    "attempt_line[]": "array_append({0}, NULL)",
}
NUMBER = "coalesce({0}, 0) + 1"


async def edits_missed(pool: Pool, tables: Sequence[str], checks: Checks) -> list[str]:
    """Edit every column of the last row, then delete the first and the last row of each table; what no check found."""
    missed: list[str] = []
    async with pool.connection() as conn:
        await _lift_guards(conn)
        assert all(check.ok for check in await checks(conn))
        for table, column, kind in await _columns(conn, tables):
            value = CHANGED.get(kind, NUMBER).format(column)
            row = f"ctid = (SELECT max(ctid) FROM {table})"
            if not await _found(conn, checks, f"UPDATE {table} SET {column} = {value} WHERE {row}"):
                missed.append(f"{table}.{column}")
        for table, end in itertools.product(tables, ("min", "max")):
            if not await _found(conn, checks, f"DELETE FROM {table} WHERE ctid = (SELECT {end}(ctid) FROM {table})"):
                missed.append(f"{end} row of {table}")
        await conn.rollback()
    return missed


async def _columns(conn: Connection, tables: Sequence[str]) -> list[tuple[str, str, str]]:
    """Table, column and type of everything in the tables."""
    cursor = await conn.execute(
        """
        SELECT c.relname, a.attname, format_type(a.atttypid, NULL)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY 1, a.attnum
        """,
        (list(tables),),
    )
    return [(str(row[0]), str(row[1]), str(row[2])) for row in await cursor.fetchall()]


async def _lift_guards(conn: Connection) -> None:
    """Take away what would stop a clumsy editor: constraints, generated ids, triggers."""
    await conn.execute("SET LOCAL session_replication_role = replica")
    await conn.execute(
        """
        DO $$ DECLARE one record; BEGIN
            FOR one IN SELECT conrelid::regclass AS t, conname FROM pg_constraint
                WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'u', 'c', 'f') AND coninhcount = 0
            LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', one.t, one.conname); END LOOP;
            FOR one IN SELECT attrelid::regclass AS t, attname FROM pg_attribute WHERE attidentity <> '' AND attnum > 0
            LOOP EXECUTE format('ALTER TABLE %s ALTER %I DROP IDENTITY', one.t, one.attname); END LOOP;
        END $$
        """
    )


async def _found(conn: Connection, checks: Checks, change: str) -> bool:
    """Whether the checks find this change, which must touch exactly one row; it is undone."""
    async with conn.transaction(force_rollback=True):
        assert (await conn.execute(change.encode())).rowcount == 1, change
        return not all(check.ok for check in await checks(conn))
