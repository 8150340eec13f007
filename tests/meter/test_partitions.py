"""Partitions of usage records: one for each day of opening, made ahead and whenever a record needs one."""

import pytest

from ledger.books import SECOND, Journal, bucket, charge, faults, lease, sell
from tokenworks.base.database import Pool
from tokenworks.base.journal_frames import frame
from tokenworks.core import journal
from tokenworks.core.journal import Opening, Reserved
from tokenworks.meter import partitions
from tokenworks.meter.partitions import DAY_NS, DAYS_AHEAD
from tokenworks.meter.usage import records

LAST_NS = (1 << 63) - 1


async def made(pool: Pool) -> list[str]:
    async with pool.connection() as conn:
        rows = await conn.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_record'::regclass ORDER BY 1"
        )
        return [str(row[0]) for row in await rows.fetchall()]


async def test_lines_are_not_analysed(database: Pool) -> None:
    async with database.connection() as conn:
        await partitions.make(conn, [1])
        found = await conn.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attstattarget = 0",
            (partitions.name(1),),
        )
        assert {name for (name,) in await found.fetchall()} >= {"charges", "attempts"}


class Dated(Journal):
    """A journal whose requests are opened at given times."""

    def opened_at(self, at_ns: int) -> int:
        self.requests += 1
        name = f"req-{self.name}-{self.requests}"
        opening = Opening(
            name, at_ns, self.entity, "acc", self.key, "m", True, 90, 10, (Reserved(1, "b", "token", 90),)
        )
        position = len(self.data)
        self.data += frame(journal.encode(opening))
        return position


@pytest.mark.parametrize(
    ("day", "table"),
    [
        (0, "usage_record_1970_01_01"),
        (19_782, "usage_record_2024_02_29"),
        (LAST_NS // DAY_NS, "usage_record_2262_04_11"),
    ],
)
def test_names(day: int, table: str) -> None:
    assert partitions.name(day) == table


async def test_the_coming_days_are_made_once(database: Pool) -> None:
    for expected in (DAYS_AHEAD + 1, 0):
        assert await partitions.make_ahead(database, 20_000 * DAY_NS + 7) == expected
    assert await made(database) == ["usage_record_2024_10_04", "usage_record_2024_10_05", "usage_record_2024_10_06"]
    assert await partitions.make_ahead(database, 20_001 * DAY_NS) == 1
    assert await faults(database) == []


async def test_late_and_early_records_find_a_place_and_are_listed_together(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 1_000)
    await partitions.make_ahead(database, 20_000 * DAY_NS)
    times = [20_000 * DAY_NS, 3, LAST_NS, 19_999 * DAY_NS - 1, 20_000 * DAY_NS + 1, DAY_NS]
    book = Dated()
    for at_ns in times:
        book.close(book.opened_at(at_ns), charge(held, 10))
    assert (await book.ship(database)).fault == ""
    assert len(await made(database)) == DAYS_AHEAD + 1 + 4
    async with database.connection() as conn:
        listed = await records(conn)
        assert [record.opened_at_ns for record in listed] == times[::-1]
        (late,) = await records(conn, request_id="req-j1-2")
    assert late == listed[-2]
    assert await faults(database) == []


async def test_a_closing_that_comes_again_is_known_on_every_day(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 1_000)
    book = Dated()
    first, second, third = [book.opened_at(day * DAY_NS) for day in (5, 6, 7)]
    await book.ship(database)
    for opening in (first, second, first):
        book.close(opening, charge(held, 10))
    await book.ship(database)
    for opening in (second, third, third):
        book.close(opening, charge(held, 10))
    reply = await book.ship(database, SECOND, final=True)
    assert (reply.fault, reply.posted_through) == ("", len(book.data))
    async with database.connection() as conn:
        assert len(await records(conn)) == 3
        rows = await conn.execute("SELECT sum(repeats) FROM shipment")
        assert await rows.fetchall() == [(3,)]
    assert await faults(database) == []
