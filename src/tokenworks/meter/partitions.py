"""Partitions of usage records, one for each day (UTC) on which requests were opened.

Housekeeping makes those of the coming days; a posting makes those that it lacks, for records that are late or early,
so that none is ever refused for want of one. There is no default partition: rows in it would keep the proper one from
being made.
"""

from collections.abc import Collection

from tokenworks.base import clock
from tokenworks.base.database import Pool
from tokenworks.ledger.seal import Connection
from tokenworks.ledger.store import transaction
from tokenworks.meter.tables import STREAM

DAYS_AHEAD = 2

# Days are counted from 1970.
DAY_NS = 24 * 60 * 60 * clock.SECOND
# The day of a record `r`, in SQL.
OPENED_ON = f"DATE '1970-01-01' + (r.opened_at_ns / {DAY_NS})::integer"
_NS_MAX = (1 << 63) - 1
# Nothing is ever looked for by these, and to analyse samples of them took a second of a core every minute.
_UNPLANNED = ", ".join(
    f"ALTER COLUMN {column} SET STATISTICS 0"
    for column in ("reserved", "counted", "reported", "flags", "charges", "attempts")
)


async def make(conn: Connection, days: Collection[int]) -> int:
    """Make the partitions that are missing, inside a transaction of the stream `meter`; how many.

    A table is made first and attached then: that locks out neither readers nor other tables' writers.
    """
    wanted = {name(day): day for day in sorted(days)}
    cursor = await conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY(%s)",
        (list(wanted),),
    )
    for row in await cursor.fetchall():
        del wanted[str(row[0])]
    for table, day in wanted.items():
        last = "MAXVALUE" if (day + 1) * DAY_NS > _NS_MAX else f"{(day + 1) * DAY_NS}"
        await conn.execute(f"CREATE TABLE {table} (LIKE usage_record INCLUDING ALL)".encode())
        await conn.execute(f"ALTER TABLE {table} {_UNPLANNED}".encode())
        await conn.execute(
            f"ALTER TABLE usage_record ATTACH PARTITION {table} FOR VALUES FROM ({day * DAY_NS}) TO ({last})".encode()
        )
    return len(wanted)


async def make_ahead(pool: Pool, now_ns: int) -> int:
    """Make the partitions of today and the days to come; how many were missing."""
    async with transaction(pool, STREAM, now_ns) as conn:
        return await make(conn, range(now_ns // DAY_NS, now_ns // DAY_NS + DAYS_AHEAD + 1))


def name(day: int) -> str:
    """The table of a day: `usage_record_2026_01_31`."""
    return f"usage_record_{clock.utc(day * DAY_NS):%Y_%m_%d}"
