"""Credit over HTTP: an offer, its agreement, what is owed and paid, statements, refusals, repetition."""

from api.offices import Office
from shop.shopfront import Shop
from tokenworks.core.usage import Tokens
from tokenworks.shop import parties

METERED = {"id": "metered", "unit": "CNY", "rates": {"*/*": {"input": "2", "output": "2"}}}
CREDIT = {
    "id": "credit",
    "name": "Up to RMB 100 a month",
    "kind": "credit",
    "payer": "customer",
    "price": {"amount": "100", "unit": "CNY"},
    "grant": {"amount": "100", "unit": "CNY"},
    "tariff": "metered",
}


def cny(amount: str) -> dict[str, str]:
    return {"amount": amount, "unit": "CNY"}


async def test_credit_from_the_offer_to_the_payment(office: Office) -> None:
    customer = await office.furnished()
    await office.post("/tariffs", METERED)
    offer = await office.post("/offers", CREDIT)
    assert (offer["kind"], offer["payer"], offer["priority"]) == ("credit", "customer", 1_000)
    assert (await office.get("/offers/p10"))["priority"] == 100
    order = await office.post("/orders", {"customer": customer, "offer": "credit"}, key="o1")
    assert await office.post("/orders", {"customer": customer, "offer": "credit"}, key="o1") == order
    assert (order["state"], order["payment"], order["bucket_id"]) == ("completed", None, f"{order['id']}.1")

    async with office.context.pool.connection() as connection:
        who = await parties.customer(connection, customer)
    shop = Shop(office.context.pool, office.clock, office.context.orders, who)
    await shop.use(Tokens(2_000_001))
    [bucket] = (await office.get("/balances", customer=customer))["items"]
    assert (bucket["kind"], bucket["spent"], bucket["net"], bucket["recognised"]) == (
        "credit",
        "4.000002",
        cny("94.339622642"),
        cny("3.773586792"),
    )
    [agreement] = (await office.get("/credits", customer=customer))["items"]
    assert agreement == await office.get(f"/credits/{order['id']}")
    assert (agreement["owed"], agreement["payable"], agreement["period"]["limit"]) == (
        cny("4.000002"),
        cny("4"),
        cny("100"),
    )
    statement = await office.get("/statements", customer=customer)
    [line], [owed] = statement["credit"], statement["owed"]
    assert (line["used"], line["net"], line["tax"], line["total"], statement["total"]) == (
        cny("4.000002"),
        cny("3.773586792"),
        cny("0.226415208"),
        cny("4.000002"),
        cny("4.000002"),
    )
    payment = {"payer": agreement["payer_name"], "amount": cny("4"), "reference": "wire-1"}
    received = await office.post("/payments", payment, key="p1")
    assert await office.post("/payments", payment, key="p1") == received
    assert (await office.get("/payments", payer=agreement["payer_name"]))["items"] == [received]
    bill = await office.post("/bills", {"customer": customer})
    [owed] = bill["owed"]
    assert (owed["opening"], owed["used"], owed["paid"], owed["closing"]) == (
        cny("0"),
        cny("4.000002"),
        cny("4"),
        cny("0.000002"),
    )
    assert (await office.get("/margin", customer=customer))["revenue"] == cny("3.773586792")
    assert (await office.get("/ledger/verify"))["ok"] is True


async def test_what_is_refused_about_credit(office: Office) -> None:
    customer = await office.furnished()
    await office.post("/tariffs", METERED)
    wrong = await office.post("/offers", CREDIT | {"grant": cny("99")}, 400)
    assert wrong["error"] == {
        "code": "invalid_value",
        "message": "A limit in money is its own price.",
        "field": "price",
    }
    await office.post("/offers", CREDIT)
    order = await office.post("/orders", {"customer": customer, "offer": "credit"})
    assert (await office.post("/orders", {"customer": customer, "offer": "credit"}, 409))["error"]["field"] == "offer"
    payer = f"credit/{order['id']}"
    for body, status, field in (
        ({"payer": payer, "amount": cny("0.01"), "reference": "r"}, 409, "amount"),
        ({"payer": payer, "amount": cny("0"), "reference": "r"}, 400, "amount"),
        ({"payer": "nobody", "amount": cny("1"), "reference": "r"}, 409, "amount"),
    ):
        assert (await office.post("/payments", body, status))["error"]["field"] == field
    assert (await office.get("/credits/nothing", 404))["error"]["code"] == "not_found"
    for _ in range(2):
        ended = await office.http.patch(f"/api/v1/credits/{order['id']}", json={"state": "ended"})
        assert (ended.status_code, ended.json()["state"]) == (200, "ended")
    again = await office.http.patch(f"/api/v1/credits/{order['id']}", json={"state": "active"})
    assert again.status_code == 400
