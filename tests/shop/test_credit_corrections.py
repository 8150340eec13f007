"""Use on credit given back: less is owed, or it is owed back once paid; and what is given up is never asked for."""

import pytest

from shop.shopfront import Shop, balances, faults, ground, losing_the_first, opened, paid, with_credit
from shop.test_credit import ORDER, OWED, agreed, collect, receive, wallet
from tokenworks.base.database import Pool
from tokenworks.core.amounts import MILLION, exact, parse
from tokenworks.core.commands import CommandRefused
from tokenworks.core.usage import Tokens
from tokenworks.shop import bills, corrections, sealed
from tokenworks.shop.bills import Bill

DUE_BACK = f"refund_due/credit/{ORDER}"


async def refund(shop: Shop, name: str, amount: str = "", request: str = "req-j1-1") -> None:
    part = (parse(amount, "CNY"), "CNY") if amount else None
    async with sealed.transaction(shop.pool, shop.clock.now_ns) as connection:
        await corrections.refund(connection, ground(name, shop.clock.now_ns), request, part, "P1M")


async def write_off(shop: Shop, name: str, amount: str = "", agreement: str = ORDER) -> None:
    part = parse(amount, "CNY") if amount else None
    async with sealed.transaction(shop.pool, shop.clock.now_ns) as connection:
        await corrections.write_off(connection, ground(name), shop.customer.id, agreement, part)


async def billed(shop: Shop) -> Bill:
    return await bills.close(shop.pool, shop.customer.id, shop.clock.now_ns)


def owed_on(bill: Bill) -> list[str]:
    [line] = bill.period.owed
    return [exact(amount, "CNY") for amount in (line.opening, line.used, line.paid, line.closing)]


async def test_a_refund_within_the_period_is_simply_not_owed(database: Pool) -> None:
    shop = await agreed(database)
    await shop.use(Tokens(5 * MILLION))
    await refund(shop, "cor_1", "4")
    left = await balances(database)
    assert (exact(left[OWED], "CNY"), DUE_BACK in left) == ("6", False)
    [held] = await wallet(shop)
    assert exact(held.available, "CNY") == "94"
    bill = await billed(shop)
    [moved], [line] = bill.period.balances, bill.period.on_credit
    assert [exact(amount, "CNY") for amount in (moved.spent, moved.refunded, moved.closing)] == ["10", "4", "94"]
    assert (exact(line.used, "CNY"), exact(bill.period.total, "CNY")) == ("6", "6")
    assert owed_on(bill) == ["0", "6", "0", "6"]
    assert await faults(database) == []


async def test_a_refund_of_what_was_paid_is_owed_back_and_settled_with_the_next_period(database: Pool) -> None:
    shop = await agreed(database)
    await shop.use(Tokens(5 * MILLION))
    await billed(shop)
    assert await collect(shop, 30) == 1
    await refund(shop, "cor_1")
    left = await balances(database)
    assert (left.get(OWED), exact(left[DUE_BACK], "CNY")) == (None, "10")
    bill = await billed(shop)
    assert (owed_on(bill), exact(bill.period.total, "CNY")) == (["10", "-10", "10", "-10"], "-10")
    await shop.use(Tokens(6 * MILLION))
    assert await collect(shop, 31) == 1
    left = await balances(database)
    assert [exact(left[code], "CNY") for code in (OWED, DUE_BACK, "receivable/carrier/sandbox")] == ["10", "10", "12"]
    async with sealed.transaction(database, shop.clock.now_ns) as connection:
        due = parse("10", "CNY")
        await corrections.settle_refund(connection, ground("cor_2"), "le", f"credit/{ORDER}", due, "CNY")
    left = await balances(database)
    assert (left.get(OWED), left.get(DUE_BACK)) == (None, None)
    assert owed_on(await billed(shop)) == ["-10", "12", "2", "0"]
    assert await faults(database) == []


async def test_what_a_carrier_is_being_asked_for_may_be_paid_already(database: Pool) -> None:
    shop = await opened(database, losing_the_first([]))
    await with_credit(shop)
    await shop.desk.place(shop.customer.id, "credit", ORDER)
    await shop.use(Tokens(5 * MILLION))
    assert await collect(shop, 30) == 0
    await refund(shop, "cor_1", "3")
    with pytest.raises(CommandRefused, match="does not owe that much"):
        await write_off(shop, "cor_2", "1")
    assert await collect(shop) == 1
    left = await balances(database)
    assert (left.get(OWED), exact(left[DUE_BACK], "CNY")) == (None, "3")
    assert await faults(database) == []


async def test_what_is_given_up_is_not_asked_for(database: Pool) -> None:
    shop = await agreed(database)
    await shop.use(Tokens(5 * MILLION))
    with pytest.raises(CommandRefused, match="no credit agreement"):
        await write_off(shop, "cor_1", agreement="ord_x")
    await write_off(shop, "cor_2", "4")
    assert await collect(shop, 30) == 1
    left = await balances(database)
    assert (left.get(OWED), exact(left["loss/bad_debt"], "CNY"), exact(left["receivable/carrier/sandbox"], "CNY")) == (
        None,
        "4",
        "6",
    )
    assert owed_on(await billed(shop)) == ["0", "10", "10", "0"]
    assert await faults(database) == []


async def test_an_invoice_paid_in_part_is_given_up_for_the_rest(database: Pool) -> None:
    shop = await agreed(database, payer="customer")
    await shop.use(Tokens(5 * MILLION))
    await receive(shop, paid(ORDER, "7"))
    await write_off(shop, "cor_1")
    await refund(shop, "cor_2", "1")
    left = await balances(database)
    assert [exact(left[code], "CNY") for code in ("loss/bad_debt", "cash/clearing", DUE_BACK)] == ["3", "7", "1"]
    assert await faults(database) == []
