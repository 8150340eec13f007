"""Statements and bills: every purchase and every charge on exactly one bill, sums exact, numbers without a gap."""

import asyncio

import psycopg
import pytest

from shop.shopfront import (
    NOON,
    SECOND,
    all_checks,
    another,
    balances,
    faults,
    ground,
    offer,
    opened,
    used_collected_and_paid,
)
from tokenworks.base.database import Pool
from tokenworks.core.amounts import MILLION, exact
from tokenworks.core.commands import CommandCode, CommandRefused
from tokenworks.core.purse import Charge
from tokenworks.core.tariff import flat
from tokenworks.core.usage import Tokens
from tokenworks.ledger import buckets
from tokenworks.shop import bills, corrections, margin, offers, sealed, tariffs
from tokenworks.shop.period import open_period


async def test_an_open_period_shows_purchases_use_and_balances(database: Pool) -> None:
    shop = await opened(database)
    order = await shop.desk.place(shop.customer.id, "p10")
    await shop.use(Tokens(input=30, cached_input=5, output=12))
    await shop.use(Tokens(input=3, output=2, reasoning=1))
    period = await open_period(database, shop.customer.id, NOON + 5)
    [line], [used], [moved] = period.purchases, period.usage, period.balances
    assert (exact(line.total, "CNY"), exact(line.net, "CNY"), exact(line.tax, "CNY")) == (
        "9.9",
        "9.339622642",
        "0.560377358",
    )
    assert (line.order_id, line.bucket_id, line.granted) == (order.id, order.bucket_id, 10 * MILLION)
    assert (used.bucket_id, used.model, used.tariff, used.records, used.tokens, used.amount) == (
        order.bucket_id,
        "m",
        "plain@1",
        2,
        Tokens(33, 5, 0, 14, 1),
        53,
    )
    assert (moved.opening, moved.granted, moved.spent, moved.expired, moved.closing) == (
        0,
        10 * MILLION,
        53,
        0,
        10 * MILLION - 53,
    )
    assert (period.from_ns, period.to_ns) == (NOON, NOON + 5)


async def test_a_second_bill_covers_nothing_twice(database: Pool) -> None:
    shop = await opened(database)
    await shop.desk.place(shop.customer.id, "p10")
    await shop.use(Tokens(input=40))
    first = await bills.close(database, shop.customer.id, NOON + 1)
    second = await bills.close(database, shop.customer.id, NOON + 2)
    await shop.use(Tokens(output=7))
    await shop.desk.place(shop.customer.id, "p10")
    third = await bills.close(database, shop.customer.id, NOON + 3)
    assert [exact(bill.period.total, "CNY") for bill in (first, second, third)] == ["9.9", "0", "9.9"]
    assert [sum(line.amount for line in bill.period.usage) for bill in (first, second, third)] == [40, 0, 7]
    assert [bill.number for bill in (first, second, third)] == ["le-00000001", "le-00000002", "le-00000003"]
    assert (second.period.from_ns, third.period.from_ns) == (NOON + 1, NOON + 2)
    assert sorted((moved.opening, moved.closing) for moved in third.period.balances) == [
        (0, 10 * MILLION),
        (10 * MILLION - 40, 10 * MILLION - 47),
    ]
    assert await faults(database) == []


async def test_a_bill_is_read_as_it_was_written(database: Pool) -> None:
    shop = await opened(database)
    await shop.desk.place(shop.customer.id, "p10")
    await shop.use(Tokens(input=40))
    written = await bills.close(database, shop.customer.id, NOON + 1, "bil_1")
    later = await bills.close(database, shop.customer.id, NOON + 2, "bil_2")
    async with database.connection() as connection:
        assert await bills.get(connection, "bil_1") == written
        assert await bills.listed(connection, shop.customer.id, 10, "") == [later, written]
        assert await bills.listed(connection, "", 10, "bil_2") == [written]
        assert await bills.listed(connection, "another", 10, "") == []
        with pytest.raises(CommandRefused, match="no bill"):
            await bills.get(connection, "bil_3")


async def test_closing_again_under_the_same_id_gives_the_same_bill(database: Pool) -> None:
    shop = await opened(database)
    other = await another(shop, "+8613800000124")
    first = await bills.close(database, shop.customer.id, NOON + 1, "bil_1")
    assert await bills.close(database, shop.customer.id, NOON + 9, "bil_1") == first
    with pytest.raises(CommandRefused) as refused:
        await bills.close(database, other.id, NOON + 9, "bil_1")
    assert refused.value.code is CommandCode.IDEMPOTENCY_CONFLICT


async def test_bills_closed_at_once_share_nothing(database: Pool) -> None:
    shop = await opened(database)
    await shop.desk.place(shop.customer.id, "p10")
    closings = (bills.close(database, shop.customer.id, NOON + 1) for _ in range(4))
    closed = await asyncio.gather(*closings, return_exceptions=True)
    done = [bill for bill in closed if isinstance(bill, bills.Bill)]
    assert sum(bill.period.total for bill in done) == 9_900_000_000
    assert [bill.serial for bill in sorted(done, key=lambda bill: bill.serial)] == list(range(1, len(done) + 1))
    assert all(isinstance(other, bills.Bill | CommandRefused) for other in closed)
    assert await faults(database) == []


async def test_use_that_cost_nothing_after_its_bucket_is_used_up(database: Pool) -> None:
    """A request on a free model closes after the bucket was emptied and billed: nothing moved, so the bill agrees."""
    shop = await opened(database)
    async with sealed.transaction(database, NOON) as connection:
        await tariffs.publish(connection, "mixed", "token", {"free/*": flat(0), "*/*": flat(MILLION)}, NOON)
        await offers.add(connection, offer("small", granted=10, tariff_id="mixed"))
    order = await shop.desk.place(shop.customer.id, "small")
    held = await shop.lease(10)
    book = await shop.journal()
    free, paid = (book.open(held, account=shop.customer.billing_account_id, amount=amount) for amount in (0, 10))
    for opening, tokens, amount in ((paid, 10, 10), (free, 5, 0)):
        book.close(opening, Charge(held.lease_id, held.bucket.id, "mixed@1", "token", Tokens(tokens), amount))
        assert (await book.ship(database, NOON)).fault == ""
        bill = await bills.close(database, shop.customer.id, NOON)
        [used] = bill.period.usage
        assert (used.bucket_id, used.tokens, used.amount) == (order.bucket_id, Tokens(tokens), amount)
    assert bill.period.balances == ()
    assert await faults(database) == []


async def test_expired_tokens_and_breakage(database: Pool) -> None:
    shop = await opened(database)
    await shop.desk.place(shop.customer.id, "p10")
    await shop.use(Tokens(input=1_000))
    await bills.close(database, shop.customer.id, NOON + 1)
    shop.clock.now_ns += 40 * 86_400 * SECOND
    assert await buckets.expire_due(database, shop.clock.now_ns) == 1
    bill = await bills.close(database, shop.customer.id, shop.clock.now_ns)
    [moved] = bill.period.balances
    assert (moved.opening, moved.spent, moved.expired, moved.closing) == (
        10 * MILLION - 1_000,
        0,
        10 * MILLION - 1_000,
        0,
    )
    empty = await bills.close(database, shop.customer.id, shop.clock.now_ns)
    assert empty.period.balances == ()
    left = await balances(database)
    assert left["revenue/tokens"] + left["revenue/breakage"] == 9_339_622_642
    assert await faults(database) == []


async def test_margin_of_business_and_customer(database: Pool) -> None:
    shop = await opened(database)
    await shop.desk.place(shop.customer.id, "p10")
    await shop.use(Tokens(input=1_000_000))
    async with database.connection() as connection:
        [whole] = await margin.of_business(connection)
        [own] = await margin.of_customer(connection, shop.customer.billing_account_id)
    assert whole == own
    assert (whole.currency, whole.revenue, whole.cost, whole.margin) == ("CNY", 933_962_264, 3, 933_962_261)


async def test_what_is_sealed_stays_and_its_absence_is_found(database: Pool) -> None:
    shop = await opened(database)
    declining = await another(shop, "+8613800000000")
    for customer in (shop.customer, declining):
        await shop.desk.place(customer.id, "p10")
    await shop.use(Tokens(input=5))
    async with sealed.transaction(database, NOON) as connection:
        await corrections.refund(connection, ground("cor_1"), "req-j1-1", None, "P1M")
    await bills.close(database, shop.customer.id, NOON + 1)
    await used_collected_and_paid(shop)
    async with database.connection() as connection:
        for table in sealed.SEALED:
            with pytest.raises(psycopg.errors.RestrictViolation):
                await connection.execute(f"DELETE FROM {table.name}".encode())
            await connection.rollback()
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute(f"DELETE FROM {table.name}".encode())
            found = [check.name for check in await all_checks(connection) if not check.ok]
            await connection.rollback()
            assert "rows are as they were sealed" in found, table.name
