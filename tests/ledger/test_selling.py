"""Several buckets sold at once: as one by one, also where some were sold before."""

import msgspec
import pytest

from ledger.books import ENTITY, GRANTED, NET, TAX, bucket, faults, sell
from tokenworks.base.database import Pool
from tokenworks.core.bucket import Bucket
from tokenworks.ledger import buckets
from tokenworks.ledger.buckets import Priced
from tokenworks.ledger.faults import EventConflict, LedgerFault
from tokenworks.ledger.store import transaction


def priced(sold: Bucket) -> Priced:
    return Priced(
        bucket=sold,
        granted=GRANTED,
        net=NET,
        tax=TAX,
        currency="CNY",
        payer="carrier/sandbox",
        offer_id="offer",
        order_id=f"order-{sold.id}",
    )


async def sell_all(pool: Pool, *sold: Bucket) -> list[int]:
    async with transaction(pool, "shop", 1) as conn:
        return await buckets.sell_all(conn, [priced(each) for each in sold], 1)


async def test_several_are_sold_as_one_by_one(database: Pool) -> None:
    first = await sell(database, bucket("a"))
    several = await sell_all(database, bucket("b"), bucket("c", "acc2"), bucket("d"))
    assert first < several[0] < several[1] < several[2]
    async with database.connection() as conn:
        cursor = await conn.execute("SELECT id, billing_account_id, granted, net, tax, kind FROM bucket ORDER BY id")
        rows = await cursor.fetchall()
    accounts = {"a": "acc", "b": "acc", "c": "acc2", "d": "acc"}
    assert rows == [(name, account, GRANTED, NET, TAX, "prepaid") for name, account in accounts.items()]
    assert await faults(database) == []


async def test_none_are_sold_without_a_word(database: Pool) -> None:
    assert await sell_all(database) == []
    assert await faults(database) == []


async def test_those_that_were_sold_before_change_nothing(database: Pool) -> None:
    first = await sell(database, bucket("a"))
    again, fresh = await sell_all(database, bucket("a"), bucket("b"))
    assert again == first
    assert fresh > first
    assert await sell_all(database, bucket("a"), bucket("b")) == [again, fresh]
    assert await faults(database) == []


async def test_other_terms_of_one_keep_all_from_being_sold(database: Pool) -> None:
    await sell(database, bucket("a"))
    with pytest.raises(EventConflict):
        await sell_all(database, bucket("b"), bucket("a", priority=1))
    assert await sold(database) == ["a"]
    assert await faults(database) == []


@pytest.mark.parametrize("before", [True, False])
async def test_two_legal_entities_do_not_sell_to_one_account(database: Pool, before: bool) -> None:
    other = msgspec.structs.replace(bucket("b"), legal_entity_id="le2")
    if before:
        await sell(database, bucket("a"))
    with pytest.raises(LedgerFault, match=f"acc is of {ENTITY}: it gets no bucket of le2"):
        await sell_all(database, *([] if before else [bucket("a")]), other)
    assert await sold(database) == (["a"] if before else [])
    assert await faults(database) == []


async def sold(pool: Pool) -> list[str]:
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT id FROM bucket ORDER BY id")
        return [str(name) for (name,) in await cursor.fetchall()]
