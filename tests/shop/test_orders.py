"""Orders: one payment, one bucket, one posting, whatever breaks in between."""

import asyncio
import json

import httpx2
import pytest

from shop.shopfront import (
    NOON,
    SECOND,
    Answering,
    another,
    balances,
    faults,
    offer,
    opened,
    payment_for,
    scripted,
)
from tokenworks.base.database import Pool
from tokenworks.core.amounts import MILLION, parse
from tokenworks.core.commands import CommandCode, CommandRefused
from tokenworks.ledger import balance
from tokenworks.shop import offers, order_rows, parties, sealed
from tokenworks.shop.carrier import at_url
from tokenworks.shop.orders import UNHEARD_OF_NS, OrderDesk

PAID = {
    "receivable/carrier/sandbox": 9_900_000_000,
    "tax/output": 560_377_358,
}


async def payments(pool: Pool) -> int:
    async with pool.connection() as connection:
        row = await (await connection.execute("SELECT count(*) FROM sandbox_payment")).fetchone()
        return int(row[0]) if row else 0


async def test_the_package_of_the_model_case(database: Pool) -> None:
    shop = await opened(database)
    order = await shop.desk.place(shop.customer.id, "p10")
    assert (order.state, order.price, order.net, order.tax) == ("completed", 9_900_000_000, 9_339_622_642, 560_377_358)
    async with database.connection() as connection:
        [bucket] = await balance.wallet(connection, shop.customer.billing_account_id)
    assert (bucket.bucket.id, bucket.issued, bucket.available) == (order.bucket_id, 10 * MILLION, 10 * MILLION)
    assert bucket.bucket.valid_to_ns == NOON + 28 * 86_400 * SECOND
    assert await balances(database) == PAID | {
        f"bucket/{order.bucket_id}/issued": 10 * MILLION,
        f"bucket/{order.bucket_id}/available": 10 * MILLION,
        f"contract_liability/{order.bucket_id}": 9_339_622_642,
    }
    assert await faults(database) == []


async def test_the_same_order_twice_is_one_order(database: Pool) -> None:
    shop = await opened(database)
    first = await shop.desk.place(shop.customer.id, "p10", "ord_1")
    assert await shop.desk.place(shop.customer.id, "p10", "ord_1") == first
    assert await payments(database) == 1
    async with sealed.transaction(database, NOON) as connection:
        await offers.add(connection, offer("p20"))
    with pytest.raises(CommandRefused) as refused:
        await shop.desk.place(shop.customer.id, "p20", "ord_1")
    assert refused.value.code is CommandCode.IDEMPOTENCY_CONFLICT


async def test_the_same_order_five_times_at_once(database: Pool) -> None:
    shop = await opened(database)
    placed = await asyncio.gather(*(shop.desk.place(shop.customer.id, "p10", "ord_1") for _ in range(5)))
    assert {order.bucket_id for order in placed} == {placed[0].bucket_id}
    assert await payments(database) == 1
    assert (await balances(database))["receivable/carrier/sandbox"] == 9_900_000_000
    assert await faults(database) == []


DECLINED = {
    "+8613800000000": "CARRIER_BILLING.USER_AMOUNT_THRESHOLD_OVERPASSED",
    "+8613800000001": "IDENTIFIER_NOT_FOUND",
}


async def test_a_declined_payment_leaves_nothing_behind(database: Pool) -> None:
    shop = await opened(database)
    for phone, code in DECLINED.items():
        customer = await another(shop, phone)
        order = await shop.desk.place(customer.id, "p10", f"ord_{phone[-1]}")
        assert (order.state, order.failure_code, order.payment, order.bucket_id) == ("failed", code, None, None)
        assert await shop.desk.place(customer.id, "p10", order.id) == order
    assert await balances(database) == {}
    assert await payments(database) == 0
    assert await faults(database) == []


async def test_the_monthly_limit_of_a_line(database: Pool) -> None:
    shop = await opened(database)
    async with sealed.transaction(database, NOON) as connection:
        await offers.add(connection, offer("dear", price=parse("600", "CNY")))
    states = [(await shop.desk.place(shop.customer.id, "dear")).state for _ in range(2)]
    shop.clock.now_ns += 31 * 86_400 * SECOND
    states.append((await shop.desk.place(shop.customer.id, "dear")).state)
    assert states == ["completed", "failed", "completed"]


async def test_a_crash_after_the_payment_is_healed(database: Pool) -> None:
    """The carrier has charged, and then we are gone: the answer never reaches the order."""
    shop = await opened(database)
    paid = shop.desk.carrier

    class Crash(Exception):
        pass

    class CrashingCarrier:
        payer = paid.payer

        async def charge(self, charge: object) -> object:
            await paid.charge(charge)  # type: ignore[arg-type]
            raise Crash

    crashing = OrderDesk(database, CrashingCarrier(), shop.clock)  # type: ignore[arg-type]
    with pytest.raises(Crash):
        await crashing.place(shop.customer.id, "p10", "ord_1")
    assert await balances(database) == {}
    assert await shop.desk.complete_paid() == 1
    assert await shop.desk.complete_paid() == 0
    async with database.connection() as connection:
        order = await order_rows.get(connection, "ord_1")
    assert order.state == "completed"
    assert await payments(database) == 1
    assert (await balances(database))["receivable/carrier/sandbox"] == 9_900_000_000
    assert await faults(database) == []


async def test_an_order_the_carrier_never_heard_of_fails_after_a_while(database: Pool) -> None:
    def silent(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, json=[])
        raise httpx2.ConnectError("refused", request=request)

    shop = await opened(database, scripted(silent))
    with pytest.raises(CommandRefused) as refused:
        await shop.desk.place(shop.customer.id, "p10", "ord_1")
    assert refused.value.code is CommandCode.CARRIER_UNAVAILABLE
    assert await shop.desk.complete_paid() == 0
    shop.clock.now_ns += UNHEARD_OF_NS + 1
    assert await shop.desk.complete_paid() == 1
    order = await shop.desk.place(shop.customer.id, "p10", "ord_1")
    assert (order.state, order.failure_code) == ("failed", "not_charged")
    assert await balances(database) == {}


async def test_a_repeat_that_is_being_charged_is_not_given_up(database: Pool) -> None:
    """The carrier answers "not heard of" just before a repeat of the order is charged; the answer comes late."""
    charged: list[bytes] = []
    asked, repeated = asyncio.Event(), asyncio.Event()
    away = True

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if away:
            raise httpx2.ConnectError("away", request=request)
        if request.method == "GET":
            asked.set()
            await repeated.wait()
            return httpx2.Response(200, json=[])
        charged.append(request.content)
        repeated.set()
        await chore
        return payment_for(request)

    shop = await opened(database, scripted(answer))
    with pytest.raises(CommandRefused):
        await shop.desk.place(shop.customer.id, "p10", "ord_1")
    away = False
    shop.clock.now_ns += UNHEARD_OF_NS + 1
    chore = asyncio.create_task(shop.desk.complete_paid())
    await asked.wait()
    order = await shop.desk.place(shop.customer.id, "p10", "ord_1")
    assert (len(charged), order.state, await chore) == (1, "completed", 0)
    assert (await balances(database))["receivable/carrier/scripted"] == 9_900_000_000
    assert await faults(database) == []


async def test_a_payment_is_never_ignored(database: Pool) -> None:
    """A repeat is charged so late that the order was given up meanwhile: who has paid has the bucket."""
    order_ids: list[str] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, json=[])
        if not order_ids:
            order_ids.append("ord_1")
            raise httpx2.ConnectError("away", request=request)
        shop.clock.now_ns += UNHEARD_OF_NS + 1
        assert await shop.desk.complete_paid() == 1
        return payment_for(request)

    shop = await opened(database, scripted(answer))
    with pytest.raises(CommandRefused):
        await shop.desk.place(shop.customer.id, "p10", "ord_1")
    order = await shop.desk.place(shop.customer.id, "p10", "ord_1")
    assert (order.state, order.failure_code, order.failure) == ("completed", "", "")
    assert (await balances(database))[f"bucket/{order.bucket_id}/available"] == 10 * MILLION
    assert await faults(database) == []


def another_amount(request: httpx2.Request) -> httpx2.Response:
    asked = json.loads(request.content)["amountTransaction"]
    asked["paymentAmount"]["chargingInformation"]["amount"] = 9
    return payment_for(request, amountTransaction=asked)


def no_number(request: httpx2.Request) -> object:
    asked = json.loads(request.content)["amountTransaction"]
    asked["paymentAmount"]["chargingInformation"]["amount"] = "sNaN"
    return asked


UNCLEAR: dict[str, Answering] = {
    "ord_fault": lambda _: httpx2.Response(500, text="oh"),
    "ord_our_credentials": lambda _: httpx2.Response(401, json={"status": 401, "code": "NO", "message": "no"}),
    "ord_no_payment": lambda _: httpx2.Response(201, text="no json"),
    "ord_no_error": lambda _: httpx2.Response(403, text="no json"),
    "ord_not_yet": lambda request: payment_for(request, "processing"),
    "ord_another_amount": another_amount,
    "ord_no_number": lambda request: payment_for(request, amountTransaction=no_number(request)),
    "ord_no_text": lambda _: httpx2.Response(201, content=b'{"paymentId":"\xff"}'),
    "ord_no_postgres_text": lambda request: payment_for(request, paymentId="pay\0"),
    "ord_too_deep": lambda _: httpx2.Response(201, content=b'{"unknown":' + b"[" * 100_000),
}


async def test_an_unclear_answer_keeps_the_order(database: Pool) -> None:
    shop = await opened(database)
    for order_id, answer in UNCLEAR.items():
        desk = OrderDesk(database, scripted(answer), shop.clock)
        with pytest.raises(CommandRefused) as refused:
            await desk.place(shop.customer.id, "p10", order_id)
        assert refused.value.code is CommandCode.CARRIER_UNAVAILABLE
    async with database.connection() as connection:
        assert {order.id for order in await order_rows.undecided(connection, 20)} == set(UNCLEAR)
    assert await balances(database) == {}


async def test_the_request_is_exact(database: Pool) -> None:
    bodies: list[bytes] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        return payment_for(request)

    shop = await opened(database, scripted(answer))
    order = await shop.desk.place(shop.customer.id, "p10", "ord_1")
    assert order.payment is not None
    assert (order.payment.payer, order.payment.reference) == ("carrier/scripted", "pay-1")
    [body] = bodies
    assert body == (
        b'{"amountTransaction":{"phoneNumber":"+8613800000123","paymentAmount":{"chargingInformation":'
        b'{"amount":9.9,"currency":"CNY","description":["Package p10"]}},"referenceCode":"ord_1",'
        b'"clientCorrelator":"ord_1"}}'
    )


async def test_who_may_not_buy(database: Pool) -> None:
    shop = await opened(database)
    for customer, wanted, field in (("nobody", "p10", "customer"), (shop.customer.id, "nothing", "offer")):
        with pytest.raises(CommandRefused) as refused:
            await shop.desk.place(customer, wanted)
        assert (refused.value.code, refused.value.field) == (CommandCode.NOT_FOUND, field)
    async with database.connection() as connection:
        await parties.set_state(connection, shop.customer.id, "suspended")
    with pytest.raises(CommandRefused, match="suspended"):
        await shop.desk.place(shop.customer.id, "p10")


async def test_a_carrier_is_named_by_its_host() -> None:
    carrier = at_url("https://billing.carrier.example/v1/")
    assert carrier.payer == "carrier/billing.carrier.example"
    await carrier.close()
