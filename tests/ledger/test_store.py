"""The ledger's store: named postings on balances, repeated events, overdrafts, sales and expiry."""

import asyncio

import msgspec
import psycopg
import pytest

from ledger.books import GRANTED, NET, SECOND, TAX, Journal, balances, bucket, charge, faults, lease, sell
from tokenworks.base.database import Pool
from tokenworks.core.journal import LeaseClose
from tokenworks.core.postings import Posting, Transfer
from tokenworks.ledger.balance import accounts, wallet
from tokenworks.ledger.buckets import expire_due
from tokenworks.ledger.faults import EventConflict, LedgerFault, Overdrawn
from tokenworks.ledger.store import post, post_all, transaction

AMOUNT = 10**20


def move(event: str, debit: str, credit: str, amount: int) -> Posting:
    return Posting("test", event, "le", 1, (Transfer(debit, credit, "CNY", amount),), {"why": "test"})


async def book(pool: Pool, *postings: Posting) -> list[int]:
    async with transaction(pool, "test", 5) as conn:
        return [posted.id for posted in await post_all(conn, postings, 5)]


async def test_a_sale_books_nine_yuan_ninety(database: Pool) -> None:
    await sell(database, bucket("b"))
    assert (NET, TAX, NET + TAX) == (9_339_622_642, 560_377_358, 9_900_000_000)
    assert await balances(database) == {
        "bucket/b/issued": GRANTED,
        "bucket/b/available": GRANTED,
        "contract_liability/b": NET,
        "tax/output": TAX,
        "receivable/carrier/sandbox": NET + TAX,
    }
    async with database.connection() as conn:
        (shown,) = await wallet(conn, "acc")
        assert (shown.issued, shown.available, shown.recognised, shown.bucket.id) == (GRANTED, GRANTED, 0, "b")
        assert [line.code for line in await accounts(conn, "bucket/b/") if line.balance] == [
            "bucket/b/available",
            "bucket/b/issued",
        ]
        assert await accounts(conn, "", "another") == []


async def test_the_same_order_again_changes_nothing_and_another_content_is_refused(database: Pool) -> None:
    first = await sell(database, bucket("b"))
    before = await balances(database)
    assert await sell(database, bucket("b")) == first
    assert await balances(database) == before
    with pytest.raises(EventConflict):
        await sell(database, bucket("b"), granted=5)
    with pytest.raises(EventConflict):
        await sell(database, msgspec.structs.replace(bucket("b"), priority=3))
    assert await faults(database) == []


async def test_an_amount_beyond_64_bits_is_exact(database: Pool) -> None:
    await book(database, move("e1", "cost/tokens/s", "payable/s", AMOUNT), move("e2", "cost/tokens/s", "payable/s", 1))
    assert await balances(database) == {"cost/tokens/s": AMOUNT + 1, "payable/s": AMOUNT + 1}
    assert await faults(database) == []


async def test_an_overdraft_is_refused_whole(database: Pool) -> None:
    await book(database, move("e1", "cost/tokens/s", "payable/s", 5))
    with pytest.raises(Overdrawn) as caught:
        await book(database, move("e2", "cost/tokens/s", "payable/s", 1), move("e3", "payable/s", "cost/tokens/s", 7))
    assert caught.value.code in {"payable/s", "cost/tokens/s"}
    assert await balances(database) == {"cost/tokens/s": 5, "payable/s": 5}


async def test_the_database_itself_refuses_a_balance_below_zero(database: Pool) -> None:
    await book(database, move("e1", "cost/tokens/s", "payable/s", 5))
    with pytest.raises(psycopg.errors.CheckViolation):
        async with database.connection() as conn:
            await conn.execute("UPDATE account SET balance = balance - 6")


async def test_an_event_is_posted_once_whatever_the_order(database: Pool) -> None:
    (first,) = await book(database, move("e1", "cost/tokens/s", "payable/s", 5))
    again = await book(
        database, move("e2", "cost/tokens/s", "payable/s", 1), move("e1", "cost/tokens/s", "payable/s", 5)
    )
    assert again[1] == first
    with pytest.raises(EventConflict):
        await book(database, move("e1", "cost/tokens/s", "payable/s", 6))
    assert await balances(database) == {"cost/tokens/s": 6, "payable/s": 6}


@pytest.mark.parametrize(
    "posting",
    [
        Posting("test", "e", "le", 1, ()),
        move("e", "payable/s", "payable/s", 1),
        move("e", "cost/tokens/s", "payable/s", 0),
    ],
    ids=["moves nothing", "to itself", "zero"],
)
async def test_what_is_no_posting_is_a_fault(database: Pool, posting: Posting) -> None:
    with pytest.raises(LedgerFault):
        async with transaction(database, "test", 5) as conn:
            await post(conn, posting, 5)


async def test_seals_are_numbered_in_the_order_of_commits(database: Pool) -> None:
    await asyncio.gather(*(book(database, move(f"e{n}", "cost/tokens/s", "payable/s", n)) for n in range(1, 11)))
    async with transaction(database, "test", 5) as conn:
        await conn.execute("SELECT 1")
    async with database.connection() as conn:
        assert await (await conn.execute("SELECT seq FROM seal ORDER BY seq")).fetchall() == [
            (n,) for n in range(1, 11)
        ]
        assert await (await conn.execute("SELECT seq FROM posting ORDER BY id")).fetchall() == [
            (n,) for n in range(1, 11)
        ]
    assert await faults(database) == []


async def test_expiry_turns_what_is_left_into_breakage_without_residue(database: Pool) -> None:
    await sell(database, bucket("b", until_s=2), granted=1_000, net=9_339)
    held = await lease(database, 1, 300)
    await sell(database, bucket("later"))
    assert await expire_due(database, 2 * SECOND - 1) == 0
    assert await expire_due(database, 2 * SECOND) == 1
    assert await expire_due(database, 2 * SECOND) == 0
    left = await balances(database)
    assert (left["bucket/b/expired"], left["revenue/breakage"], left["contract_liability/b"]) == (700, 6_537, 2_802)
    worker = Journal()
    worker.close(worker.open(held), charge(held, 100))
    worker.add(LeaseClose(held.lease_id, 200))
    await worker.ship(database, 3 * SECOND)
    assert await expire_due(database, 3 * SECOND) == 1
    left = await balances(database)
    assert (left["bucket/b/expired"], left["bucket/b/spent"]) == (900, 100)
    assert "contract_liability/b" not in left
    assert left["revenue/tokens"] + left["revenue/breakage"] == 9_339
    assert await faults(database) == []
