"""Credit offers: a limit for each period, owed as it is spent, put on the phone bill or paid by invoice."""

import pytest

from shop.shopfront import LE as SELLER
from shop.shopfront import (
    NOON,
    SECOND,
    Shop,
    another,
    balances,
    credit,
    faults,
    losing_the_first,
    opened,
    paid,
    with_credit,
)
from tokenworks.base.database import Pool
from tokenworks.core.amounts import MILLION, exact, parse
from tokenworks.core.commands import CommandCode, CommandRefused
from tokenworks.core.usage import Tokens
from tokenworks.ledger import balance, buckets
from tokenworks.ledger.balance import BucketBalance
from tokenworks.shop import agreements, bills, parties, payments, sealed
from tokenworks.shop.collections import CollectionDesk
from tokenworks.shop.payments import PaymentReceived
from tokenworks.shop.period import open_period

DAY = 86_400 * SECOND
LIMIT = parse("100", "CNY")
ORDER = "ord_c"
OWED = f"receivable/credit/{ORDER}"


async def agreed(pool: Pool, payer: str = "carrier") -> Shop:
    """A shop whose customer has an agreement of RMB 100 a month."""
    shop = await opened(pool)
    await with_credit(shop, credit(payer=payer))
    await shop.desk.place(shop.customer.id, "credit", ORDER)
    return shop


async def wallet(shop: Shop) -> list[BucketBalance]:
    async with shop.pool.connection() as connection:
        return await balance.wallet(connection, shop.customer.billing_account_id)


async def receive(shop: Shop, payment: PaymentReceived) -> None:
    async with sealed.transaction(shop.pool, shop.clock.now_ns) as connection:
        await payments.receive(connection, SELLER, payment)


async def collect(shop: Shop, days: int = 0) -> int:
    """The chores of the office, some days later."""
    shop.clock.now_ns += days * DAY
    await buckets.expire_due(shop.pool, shop.clock.now_ns)
    await agreements.open_due(shop.pool, shop.clock.now_ns)
    return await CollectionDesk(shop.pool, shop.desk.carrier, shop.clock).collect_due()


async def test_an_order_of_credit_asks_nobody_for_money(database: Pool) -> None:
    shop = await agreed(database)
    order = await shop.desk.place(shop.customer.id, "credit", ORDER)
    assert (order.state, order.payment, order.bucket_id, order.closed_at_ns) == ("completed", None, f"{ORDER}.1", NOON)
    [held] = await wallet(shop)
    assert (held.kind, held.available, held.net + held.tax, held.bucket.priority) == ("credit", LIMIT, LIMIT, 1_000)
    assert set(await balances(database)) == {f"bucket/{ORDER}.1/issued", f"bucket/{ORDER}.1/available"}
    with pytest.raises(CommandRefused, match="has this credit already") as refused:
        await shop.desk.place(shop.customer.id, "credit")
    assert refused.value.code is CommandCode.CONFLICT
    assert await faults(database) == []


async def test_a_month_on_the_phone_bill(database: Pool) -> None:
    """RMB 2 a million: 5,000,123 tokens are RMB 10.000246, of which ten can be put on the phone bill."""
    shop = await agreed(database)
    await shop.use(Tokens(5_000_123))
    period = await open_period(database, shop.customer.id, NOON + 5)
    [line], [due] = period.on_credit, period.owed
    assert (exact(line.used, "CNY"), exact(line.total, "CNY"), line.net + line.tax) == (
        "10.000246",
        "10.000246",
        line.total,
    )
    assert (due.opening, due.used, due.paid, due.closing, period.total) == (0, line.total, 0, line.total, line.total)
    assert await collect(shop) == 0
    assert await collect(shop, 28) == 1
    left = await balances(database)
    assert (exact(left[OWED], "CNY"), exact(left["receivable/carrier/sandbox"], "CNY")) == ("0.000246", "10")
    assert left["revenue/tokens"] + left["tax/output"] == line.total
    await shop.use(Tokens(2_500_000))
    bill = await bills.close(database, shop.customer.id, shop.clock.now_ns)
    assert [exact(used.total, "CNY") for used in bill.period.on_credit] == ["10.000246", "5"]
    [due] = bill.period.owed
    assert [exact(amount, "CNY") for amount in (due.opening, due.used, due.paid, due.closing)] == [
        "0",
        "15.000246",
        "10",
        "5.000246",
    ]
    async with database.connection() as connection:
        assert await bills.get(connection, bill.id) == bill
    assert await collect(shop, 31) == 1
    nothing_used = await bills.close(database, shop.customer.id, shop.clock.now_ns)
    [due] = nothing_used.period.owed
    assert [exact(amount, "CNY") for amount in (due.opening, due.used, due.paid, due.closing)] == [
        "5.000246",
        "0",
        "5",
        "0.000246",
    ]
    assert (nothing_used.period.on_credit, nothing_used.period.total) == ((), 0)
    assert await faults(database) == []


async def test_an_invoice_is_paid_in_parts_and_never_overpaid(database: Pool) -> None:
    shop = await agreed(database, "customer")
    await shop.use(Tokens(5 * MILLION))
    await bills.close(database, shop.customer.id, NOON)
    assert await collect(shop, 40) == 0
    await receive(shop, paid(ORDER, "4"))
    for amount, reference, field in (("6.01", "wire-2", "amount"), ("1", "wire-1", "reference")):
        with pytest.raises(CommandRefused) as refused:
            await receive(shop, paid(ORDER, amount, reference=reference))
        assert (refused.value.code, refused.value.field) == (CommandCode.CONFLICT, field)
    await receive(shop, paid(ORDER, "6", reference="wire-2"))
    left = await balances(database)
    assert (left.get(OWED), exact(left["cash/clearing"], "CNY")) == (None, "10")
    bill = await bills.close(database, shop.customer.id, shop.clock.now_ns)
    [due] = bill.period.owed
    assert [exact(amount, "CNY") for amount in (due.opening, due.used, due.paid, due.closing)] == ["10", "0", "10", "0"]
    async with database.connection() as connection:
        listed = await payments.listed(connection, f"credit/{ORDER}", 10, "")
        assert {payment.reference for payment in listed} == {"wire-1", "wire-2"}
        assert await payments.listed(connection, "nobody", 10, "") == []
    assert await faults(database) == []


async def test_a_carrier_pays_what_it_has_taken_over(database: Pool) -> None:
    shop = await opened(database)
    await shop.desk.place(shop.customer.id, "p10")
    for wrong in ({"amount": 0}, {"currency": "USD"}, {"reference": ""}):
        with pytest.raises(CommandRefused):
            await receive(shop, PaymentReceived(**(_carrier_pays() | wrong)))  # type: ignore[arg-type]
    await receive(shop, PaymentReceived(**_carrier_pays()))  # type: ignore[arg-type]
    left = await balances(database)
    assert (left.get("receivable/carrier/sandbox"), exact(left["cash/clearing"], "CNY")) == (None, "9.9")
    assert await faults(database) == []


def _carrier_pays() -> dict[str, object]:
    return {
        "id": "pmt",
        "legal_entity_id": "le",
        "payer": "carrier/sandbox",
        "amount": parse("9.9", "CNY"),
        "currency": "CNY",
        "reference": "january",
        "received_at_ns": NOON,
    }


async def test_tokens_priced_afterwards(database: Pool) -> None:
    """A limit in tokens: three million for RMB 10, of which a third costs 3.333333333."""
    shop = await opened(database)
    terms = {"unit": "token", "granted": 3 * MILLION, "price": parse("10", "CNY"), "tariff_id": "plain"}
    await with_credit(shop, credit("tokens", **terms))
    await shop.desk.place(shop.customer.id, "tokens", ORDER)
    for expected in ("3.333333333", "6.666666667", "10"):
        await shop.use(Tokens(MILLION))
        assert exact((await balances(database))[OWED], "CNY") == expected
    assert await faults(database) == []


async def test_each_period_has_its_own_limit_dated_from_the_beginning(database: Pool) -> None:
    """From 31 January: 28 February, 31 March; what was not used of one is not there in the next."""
    shop = await agreed(database)
    await shop.use(Tokens(MILLION))
    assert await agreements.open_due(database, NOON + 27 * DAY) == 0
    assert await agreements.open_due(database, NOON + 28 * DAY - agreements.AHEAD_NS) == 1
    assert await agreements.open_due(database, NOON + 28 * DAY) == 0
    await collect(shop, 28)
    await shop.use(Tokens(MILLION))
    first, second = await wallet(shop)
    rest = LIMIT - parse("2", "CNY")
    assert (first.available, first.expired, second.available) == (0, rest, rest)
    assert [(held.bucket.valid_to_ns - NOON) // DAY for held in (first, second)] == [28, 59]
    # The office was away for three months: only the running period is granted.
    await collect(shop, 120)
    assert [held.bucket.id for held in await wallet(shop)] == [f"{ORDER}.{number}" for number in (1, 2, 5)]
    running = (await wallet(shop))[-1].bucket
    assert running.valid_from_ns <= shop.clock.now_ns < running.valid_to_ns
    assert await faults(database) == []


async def test_no_limit_for_the_suspended_or_after_the_end(database: Pool) -> None:
    shop = await agreed(database)
    async with database.connection() as connection:
        await parties.set_state(connection, shop.customer.id, "suspended")
    assert await agreements.open_due(database, NOON + 40 * DAY) == 0
    async with sealed.transaction(database, NOON) as connection:
        await parties.set_state(connection, shop.customer.id, "active")
        for at_ns in (NOON + 1, NOON + 2):
            ended = await agreements.end(connection, ORDER, at_ns)
            assert (ended.state, ended.ended_at_ns, ended.owed) == ("ended", NOON + 1, 0)
        assert await agreements.listed(connection, shop.customer.id, 10, "") == [ended]
        with pytest.raises(CommandRefused, match="no credit agreement"):
            await agreements.get(connection, "p10")
    assert await agreements.open_due(database, NOON + 40 * DAY) == 0
    shop.clock.now_ns += DAY
    assert (await shop.desk.place(shop.customer.id, "credit", "ord_again")).bucket_id == "ord_again.1"


async def test_the_rest_of_a_package_and_credit_in_one_request(database: Pool) -> None:
    shop = await agreed(database)
    order = await shop.desk.place(shop.customer.id, "p10")
    await shop.use(Tokens(10 * MILLION - 5))
    held = await shop.leases(20)
    assert [(one.bucket.id, one.bucket.unit) for one in held] == [(order.bucket_id, "token"), (f"{ORDER}.1", "CNY")]
    assert held[0].amount == 5
    await shop.spend(held, (5, 5), (15, 30_000))
    left = await balances(database)
    assert (left[OWED], left.get(f"contract_liability/{order.bucket_id}")) == (30_000, None)
    bill = await bills.close(database, shop.customer.id, NOON)
    assert exact(bill.period.total, "CNY") == "9.90003"
    assert await faults(database) == []


async def test_a_carrier_that_does_not_answer_charges_once(database: Pool) -> None:
    """The first answer is lost: the same charge is asked again, and an invoice cannot pay it meanwhile."""
    asked: list[bytes] = []
    shop = await opened(database, losing_the_first(asked))
    await with_credit(shop)
    await shop.desk.place(shop.customer.id, "credit", ORDER)
    await shop.use(Tokens(5 * MILLION))
    assert await collect(shop, 30) == 0
    with pytest.raises(CommandRefused, match="owes 0 CNY that nobody is asked for yet"):
        await receive(shop, paid(ORDER, "1"))
    assert await collect(shop) == 1
    assert await collect(shop) == 0
    assert len(asked) == 2
    assert asked[0] == asked[1]
    left = await balances(database)
    assert (left.get(OWED), exact(left["receivable/carrier/scripted"], "CNY")) == (None, "10")
    assert await faults(database) == []


async def test_what_a_phone_bill_declines_stays_owed_and_is_asked_with_the_next_period(database: Pool) -> None:
    shop = await opened(database)
    poor = await another(shop, "+8613800000000")
    await with_credit(shop)
    shop.customer = poor
    await shop.desk.place(poor.id, "credit", ORDER)
    await shop.use(Tokens(5 * MILLION))
    assert await collect(shop, 30) == 1
    assert await collect(shop) == 0
    assert exact((await balances(database))[OWED], "CNY") == "10"
    await receive(shop, paid(ORDER, "1"))
    assert await collect(shop, 31) == 1
    async with database.connection() as connection:
        rows = await connection.execute("SELECT amount FROM collection ORDER BY placed_at_ns")
        assert [exact(int(row[0]), "CNY") for row in await rows.fetchall()] == ["10", "9"]
    assert await faults(database) == []


async def test_leases_that_are_still_out_keep_a_period_from_being_collected(database: Pool) -> None:
    shop = await agreed(database)
    await shop.use(Tokens(MILLION))
    [held] = await shop.leases(10)
    assert await collect(shop, 30) == 0
    await shop.spend([held], (10, 20_000))
    assert await collect(shop) == 1
    assert (await balances(database))[OWED] == 20_000


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"granted": 5}, "price"),
        ({"kind": "prepaid", "payer": "customer", "granted": 1, "unit": "token", "tariff_id": "plain"}, "payer"),
        ({"unit": "florin"}, "grant"),
    ],
    ids=["a limit that is not its price", "a package by invoice", "no unit"],
)
async def test_what_is_no_credit_offer(database: Pool, changes: dict[str, object], field: str) -> None:
    shop = await opened(database)
    with pytest.raises(CommandRefused) as refused:
        await with_credit(shop, credit(**changes))
    assert refused.value.field == field
