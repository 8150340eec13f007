"""The text of copied rows is PostgreSQL's own, whatever is in a text; and a row that came another way is found."""

from collections.abc import AsyncGenerator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from ledger.books import ENTITY, SEALED, SECOND, bucket, faults, sell
from tokenworks.base.database import Pool
from tokenworks.core.postings import leased
from tokenworks.ledger import seal
from tokenworks.ledger.copied import composites, elements, nested, plain, remembered
from tokenworks.ledger.store import post_all, transaction

# What any of the three layers (row, array, COPY) treats in its own way, and what only looks like it.
NASTY = st.text(st.sampled_from("a1\\\"',(){}[]|;: \t\n\r\v\f\b\x01\x7fäß中😀N\u2028\xa0"), max_size=8)
WORDS = st.sampled_from(["", "NULL", "null", "\\N", "\\.", "t", "1", "req_01-2", "glm-5/*", "{}", "()", '"', "\\"])
TEXT = NASTY | WORDS | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
LINES = st.lists(st.tuples(st.integers(-(2**62), 2**62), TEXT, TEXT, st.integers(0, 10**39)), max_size=3)


@pytest.fixture
async def conn(database_url: str) -> AsyncGenerator[AsyncConnection]:
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "CREATE TEMPORARY TABLE probe (a text, b text, c text[], d reserved_part[], e bigint[])"
        )
        yield connection


async def copied_in(conn: AsyncConnection, line: str) -> None:
    async with conn.cursor() as cursor, cursor.copy("COPY probe FROM STDIN (ENCODING 'UTF8')") as copy:
        await copy.write(line.encode())


async def copied_out(conn: AsyncConnection) -> str:
    async with conn.cursor() as cursor, cursor.copy("COPY (SELECT * FROM probe) TO STDOUT (ENCODING 'UTF8')") as copy:
        return b"".join([bytes(piece) async for piece in copy]).decode()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT, flags=st.lists(TEXT, max_size=3), lines=LINES)
@example(text="\\.", flags=["", "NULL", "a b", "{"], lines=[(1, "", "a\tb", 0)])
async def test_our_text_is_what_the_database_gives_back(
    conn: AsyncConnection, text: str, flags: list[str], lines: list[tuple[int, str, str, int]]
) -> None:
    rows = [f"{number},{nested[one]},{nested[two]},{amount}" for number, one, two, amount in lines]
    line = f"{plain(text)}\t{remembered[text]}\t{elements(flags)}\t{composites(rows)}\t{{1,-2}}\n"
    await conn.execute("TRUNCATE probe")
    await copied_in(conn, line)
    assert await copied_out(conn) == line
    if "\\" not in line:
        await conn.execute("TRUNCATE probe")
        await conn.execute("INSERT INTO probe VALUES (%s, %s, %s, %s, %s)", line[:-1].split("\t"))
        assert await copied_out(conn) == line, "as `seal.copy` does with a few rows"
    found: Any = await (await conn.execute("SELECT a, b, c, to_jsonb(d), e FROM probe")).fetchone()
    values = [(part["lease_id"], part["bucket_id"], part["unit"], part["amount"]) for part in found[3]]
    assert (*found[:3], values, found[4]) == (text, text, flags, lines, [1, -2])


def test_what_is_remembered_is_bounded() -> None:
    for number in range(120_000):
        assert nested[f"n{number}"] == remembered[f"n{number}"] == f"n{number}"
    assert max(len(nested), len(remembered)) <= 50_000


@pytest.mark.parametrize("count", [1, 8, 9, 600])
async def test_few_rows_and_many_are_sealed_alike(database: Pool, count: int) -> None:
    for number in range(count):
        await sell(database, bucket(f"b{number}"))
    postings = [leased(number, f"b{number}", ENTITY, SECOND, "token", 1) for number in range(count)]
    async with transaction(database, "shop", SECOND, SEALED) as conn:
        await post_all(conn, postings, SECOND)
    async with database.connection() as conn:
        found = await conn.execute(
            "SELECT count(*) FROM transfer t JOIN posting p ON p.id = posting_id AND kind = 'lease_granted'"
        )
        assert await found.fetchone() == (count,)
    assert not [check for check in await faults(database) if "sealed" in check.name]


async def test_a_row_added_to_a_copied_table_in_another_way_is_found(database: Pool) -> None:
    await sell(database, bucket("b"))
    async with transaction(database, "shop", SECOND, SEALED) as conn:
        await conn.execute(
            """INSERT INTO transfer
               SELECT posting_id, 9, debit_account_id, credit_account_id, unit, 1 FROM transfer LIMIT 1"""
        )
    assert "rows are as they were sealed" in [check.name for check in await faults(database)]


async def test_a_row_cannot_be_added_outside_of_a_sealed_transaction(database: Pool) -> None:
    async with database.connection() as conn:
        with pytest.raises(psycopg.errors.UndefinedObject):
            await conn.execute("INSERT INTO transfer VALUES (1, 0, 1, 2, 'token', 1)")


async def test_a_transaction_may_copy_several_times(database: Pool) -> None:
    async with transaction(database, "test", SECOND, SEALED) as conn:
        for number in range(3):
            table = next(table for table in SEALED if table.name == "usage_opening")
            await seal.copy(conn, table, [f"j\t{number}\tr\t1\tle\tacc\tkey\tm\tt\t1\t1\t{{}}"])
    assert [check.name for check in await faults(database)] == ["openings = closings + requests still open"]
