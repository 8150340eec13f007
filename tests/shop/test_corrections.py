"""Corrections of what was sold and used: both books, statements and bills, and who is refused."""

import pytest

from shop.shopfront import NOON, SECOND, Shop, balances, faults, ground, opened
from tokenworks.base.database import Pool
from tokenworks.core.amounts import MILLION
from tokenworks.core.commands import CommandCode, CommandRefused
from tokenworks.core.corrections import Head
from tokenworks.core.usage import Tokens
from tokenworks.ledger import buckets
from tokenworks.ledger.balance import wallet
from tokenworks.ledger.correction_rows import Correction, listed
from tokenworks.shop import bills, corrections, margin, sealed
from tokenworks.shop.period import open_period
from tokenworks.supply import credit_notes, suppliers
from tokenworks.supply.suppliers import Supplier

NET, TAX = 9_339_622_642, 560_377_358
DAY = 86_400 * SECOND


async def bought(pool: Pool) -> Shop:
    shop = await opened(pool)
    await shop.desk.place(shop.customer.id, "p10", "ord_1")
    return shop


async def refund(shop: Shop, name: str, amount: int | None = None, request: str = "req-j1-1") -> Correction:
    now_ns = shop.clock.now_ns
    async with sealed.transaction(shop.pool, now_ns) as connection:
        asked = None if amount is None else (amount, "token")
        return await corrections.refund(connection, ground(name, now_ns), request, asked, "P1M")


async def test_a_refund_leaves_the_books_as_if_nothing_was_used_but_the_purchase(database: Pool) -> None:
    shop = await bought(database)
    before = await balances(database)
    await shop.use(Tokens(input=400))
    made = await refund(shop, "cor_1")
    assert (made.head.used_at_ns, made.head.at_ns, made.lines[0].amount, made.lines[0].revenue) == (
        9,
        NOON,
        400,
        373_585,
    )
    assert await balances(database) == before | {"cost/tokens/sup": 3, "payable/sup": 3}
    with pytest.raises(CommandRefused, match="Nothing of this use"):
        await refund(shop, "cor_2")
    with pytest.raises(CommandRefused, match="no usage record"):
        await refund(shop, "cor_3", request="req-unknown")
    assert await faults(database) == []


async def test_refunds_in_parts_never_pass_what_was_charged(database: Pool) -> None:
    shop = await bought(database)
    await shop.use(Tokens(input=400))
    await refund(shop, "cor_1", 150)
    with pytest.raises(CommandRefused, match="250 token can be refunded"):
        await refund(shop, "cor_2", 251)
    await refund(shop, "cor_3", 250)
    async with database.connection() as connection:
        [held] = await wallet(connection, shop.customer.billing_account_id)
        found = await listed(connection, shop.customer.billing_account_id, 10, "")
        [own] = await margin.of_customer(connection, shop.customer.billing_account_id)
    assert (held.available, held.spent, held.recognised, own.revenue) == (10 * MILLION, 0, 0, 0)
    assert [each.id for each in found] == ["cor_3", "cor_1"]
    assert await faults(database) == []


async def test_use_of_an_expired_bucket_comes_back_in_a_dated_one(database: Pool) -> None:
    shop = await bought(database)
    await shop.use(Tokens(input=1_000))
    first = await bills.close(database, shop.customer.id, NOON + 1)
    shop.clock.now_ns += 40 * DAY
    await buckets.expire_due(database, shop.clock.now_ns)
    made = await refund(shop, "cor_1", 600)
    async with database.connection() as connection:
        old, new = await wallet(connection, shop.customer.billing_account_id)
        [own] = await margin.of_customer(connection, shop.customer.billing_account_id)
    assert (old.spent, old.withdrawn, new.available, new.issued, new.order_id) == (400, 600, 600, 600, "ord_1")
    assert (new.net, new.tax, new.recognised) == (560_377, 33_623, 0)
    assert new.bucket.valid_from_ns == shop.clock.now_ns < new.bucket.valid_to_ns
    assert own.revenue == NET - 560_377
    assert made.lines[0].replacement_id == new.bucket.id
    await shop.use(Tokens(output=200))
    second = await bills.close(database, shop.customer.id, shop.clock.now_ns)
    assert (first.period.total, second.period.total, second.period.purchases) == (NET + TAX, 0, ())
    [line] = second.period.corrections
    assert (line.amount, line.used_at_ns, line.net, line.replacement_id) == (600, 9, 0, new.bucket.id)
    gone, come = second.period.balances
    assert (gone.opening, gone.refunded, gone.withdrawn, gone.expired, gone.closing) == (
        10 * MILLION - 1_000,
        600,
        600,
        10 * MILLION - 1_000,
        0,
    )
    assert (come.granted, come.spent, come.closing) == (600, 200, 400)
    await refund(shop, "cor_2", request="req-j2-1")
    assert await faults(database) == []


async def test_a_cancelled_package_is_owed_back_and_settled(database: Pool) -> None:
    shop = await bought(database)
    await shop.use(Tokens(input=MILLION))
    bucket_id = str((await shop.desk.place(shop.customer.id, "p10", "ord_1")).bucket_id)
    async with sealed.transaction(database, NOON) as connection:
        await corrections.withdraw(connection, ground("cor_1"), bucket_id, 4 * MILLION)
        made = await corrections.withdraw(connection, ground("cor_2"), bucket_id, None)
    assert (made.lines[0].amount, made.lines[0].net, made.lines[0].tax) == (5 * MILLION, 4_669_811_321, 280_188_679)
    left = await balances(database)
    due = left["refund_due/carrier/sandbox"]
    assert due == NET + TAX - 933_962_264 - 56_037_736
    assert "contract_liability/" + bucket_id not in left
    period = await open_period(database, shop.customer.id, NOON + 1)
    assert period.total == NET + TAX - due
    async with sealed.transaction(database, NOON) as connection:
        with pytest.raises(CommandRefused, match="less than that"):
            await corrections.settle_refund(connection, ground("cor_3"), "le", "carrier/sandbox", due + 1, "CNY")
        await corrections.settle_refund(connection, ground("cor_4"), "le", "carrier/sandbox", due, "CNY")
    left = await balances(database)
    assert left["receivable/carrier/sandbox"] == NET + TAX - due == left["revenue/tokens"] + left["tax/output"]
    await bills.close(database, shop.customer.id, NOON + 2)
    assert await faults(database) == []


async def test_what_is_with_gateways_is_waited_for(database: Pool) -> None:
    shop = await bought(database)
    held = await shop.lease(500)
    async with sealed.transaction(database, NOON) as connection:
        for attempt in (
            corrections.withdraw(connection, ground("cor_1"), held.bucket.id, None),
            corrections.charge_back(connection, ground("cor_2"), "ord_1"),
        ):
            with pytest.raises(CommandRefused, match=r"500 token .* are with gateways") as refused:
                await attempt
            assert refused.value.code is CommandCode.CONFLICT
        await corrections.withdraw(connection, ground("cor_3"), held.bucket.id, 10 * MILLION - 500)
    assert await faults(database) == []


async def test_a_chargeback_of_spent_value_is_owed_by_the_customer_and_written_off(database: Pool) -> None:
    shop = await bought(database)
    await shop.use(Tokens(input=MILLION))
    await bills.close(database, shop.customer.id, NOON + 1)
    async with sealed.transaction(database, NOON) as connection:
        await corrections.charge_back(connection, ground("cor_1"), "ord_1")
        for attempt in (
            corrections.charge_back(connection, ground("cor_2"), "ord_1"),
            corrections.refund(connection, ground("cor_3"), "req-j1-1", None, "P1M"),
        ):
            with pytest.raises(CommandRefused, match="charged back"):
                await attempt
    left = await balances(database)
    owed = 933_962_264 + 56_037_736
    code = f"receivable/customer/{shop.customer.billing_account_id}"
    assert (left[code], left.get("receivable/carrier/sandbox", 0), left["revenue/tokens"]) == (owed, 0, 933_962_264)
    second = await bills.close(database, shop.customer.id, NOON + 2)
    [line] = second.period.corrections
    assert (second.period.total, line.due) == (owed - NET - TAX, owed)
    async with sealed.transaction(database, NOON) as connection:
        await corrections.write_off(connection, ground("cor_4"), shop.customer.id, "", 1)
        await corrections.write_off(connection, ground("cor_5"), shop.customer.id, "", None)
    left = await balances(database)
    assert (left.get(code), left["loss/bad_debt"]) == (None, owed)
    assert await faults(database) == []


async def test_a_credit_note_lowers_payable_and_cost(database: Pool) -> None:
    shop = await bought(database)
    await shop.use(Tokens(input=10))
    head = Head(
        id="cor_1", kind="supplier_credited", legal_entity_id="le", billing_account_id="", about="sup",
        reason="outage", reference="CN-7", used_at_ns=NOON, at_ns=NOON,
    )  # fmt: skip
    async with sealed.transaction(database, NOON) as connection:
        await suppliers.add(connection, Supplier(id="sup", name="S", currency="CNY", created_at_ns=NOON))
        for currency, amount in (("USD", 1), ("CNY", 4)):
            with pytest.raises(CommandRefused):
                await credit_notes.credit(connection, head, currency, amount)
        await credit_notes.credit(connection, head, "CNY", 2)
    left = await balances(database)
    assert (left["payable/sup"], left["cost/tokens/sup"]) == (1, 1)
    assert await faults(database) == []
