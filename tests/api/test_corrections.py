"""Corrections over HTTP: once for each key, in both books, on the statement, and refused with the reason."""

from api.offices import Office
from shop.shopfront import Shop
from tokenworks.core.usage import Tokens
from tokenworks.shop import parties


async def used(office: Office) -> tuple[str, str, str]:
    """A customer who bought a package and used some of it: customer, order and bucket."""
    customer = await office.furnished()
    order = await office.post("/orders", {"customer": customer, "offer": "p10"})
    async with office.context.pool.connection() as connection:
        who = await parties.customer(connection, customer)
    await Shop(office.context.pool, office.clock, office.context.orders, who).use(Tokens(input=300))
    return customer, str(order["id"]), str(order["bucket_id"])


async def test_a_refund_happens_once_and_is_on_the_statement(office: Office) -> None:
    customer, _, bucket = await used(office)
    body = {"request": "req-j1-1", "amount": {"amount": 100, "unit": "token"}, "reason": "slow answer"}
    made = await office.post("/corrections/refunds", body, key="r1")
    assert await office.post("/corrections/refunds", body, key="r1") == made
    refused = await office.post("/corrections/refunds", body | {"reason": "another"}, 409, key="r1")
    assert refused["error"]["code"] == "idempotency_conflict"
    assert (made["kind"], made["customer_id"], made["about"]) == ("usage_refunded", customer, "req-j1-1")
    assert made["lines"][0] == {
        "bucket_id": bucket,
        "amount": {"amount": 100, "unit": "token"},
        "charge": 0,
        "replacement_id": None,
        "revenue": {"amount": "0.000093397", "unit": "CNY"},
        "net": {"amount": "0", "unit": "CNY"},
        "tax": {"amount": "0", "unit": "CNY"},
        "due": {"amount": "0", "unit": "CNY"},
    }
    statement = await office.get("/statements", customer=customer)
    [line], [moved] = statement["corrections"], statement["balances"]
    assert (line["correction_id"], line["reason"], line["used_at"]) == (
        made["id"],
        "slow answer",
        "1970-01-01T00:00:00.000Z",
    )
    assert (moved["refunded"], moved["spent"], moved["closing"]) == (100, 300, 10_000_000 - 200)
    assert await office.get(f"/corrections/{made['id']}") == made
    assert (await office.get("/corrections", customer=customer))["items"] == [made]
    assert (await office.get("/ledger/verify"))["ok"]


async def test_the_other_corrections(office: Office) -> None:
    customer, order, bucket = await used(office)
    part = {"bucket": bucket, "amount": {"amount": 1_000_000, "unit": "token"}, "reason": "too much"}
    withdrawn = await office.post("/corrections/withdrawals", part)
    assert withdrawn["lines"][0]["tax"] == {"amount": "0.056037736", "unit": "CNY"}
    back = {"amount": "0.99", "unit": "CNY"}
    settled = {"payer": "carrier/sandbox", "amount": back, "reason": "July"}
    await office.post("/corrections/refund-settlements", settled)
    await office.post("/suppliers", {"id": "sup", "name": "S", "currency": "CNY"})
    nano = {"amount": "0.000000001", "unit": "CNY"}
    credit = {"supplier": "sup", "amount": nano, "reason": "outage", "reference": "CN-1"}
    await office.post("/corrections/supplier-credits", credit)
    await office.post("/corrections/chargebacks", {"order": order, "reason": "disputed", "reference": "CB-1"})
    await office.post("/corrections/write-offs", {"customer": customer, "reason": "gone"})
    kinds = [each["kind"] for each in (await office.get("/corrections"))["items"]]
    assert kinds == [
        "receivable_written_off",
        "payment_charged_back",
        "supplier_credited",
        "refund_settled",
        "package_withdrawn",
    ]
    bill = await office.post("/bills", {"customer": customer})
    assert bill["total"] == {"amount": "0.000297", "unit": "CNY"}
    assert await office.get(f"/bills/{bill['id']}") == bill
    assert (await office.get("/ledger/verify"))["ok"]


async def test_what_is_refused(office: Office) -> None:
    customer, order, bucket = await used(office)
    for path, body, status in (
        ("refunds", {"request": "req-j1-1", "reason": ""}, 400),
        ("refunds", {"request": "nothing", "reason": "x"}, 404),
        ("refunds", {"request": "req-j1-1", "reason": "x", "validity": "PT1H"}, 400),
        ("refunds", {"request": "req-j1-1", "reason": "x", "amount": {"amount": 301, "unit": "token"}}, 409),
        ("withdrawals", {"bucket": "nothing", "reason": "x"}, 404),
        ("withdrawals", {"bucket": bucket, "reason": "x", "amount": {"amount": 1, "unit": "coin"}}, 400),
        ("chargebacks", {"order": "nothing", "reason": "x"}, 404),
        ("write-offs", {"customer": customer, "reason": "x"}, 409),
        ("refund-settlements", {"payer": "p", "reason": "x", "amount": {"amount": "1", "unit": "CNY"}}, 409),
        ("supplier-credits", {"supplier": "s", "reason": "x", "amount": {"amount": "1", "unit": "CNY"}}, 404),
        ("chargebacks", {"order": order}, 400),
    ):
        await office.post(f"/corrections/{path}", body, status)
    assert (await office.get("/corrections"))["items"] == []
    await office.get("/corrections/nothing", 404)


async def test_balances_and_accounts_as_they_were(office: Office) -> None:
    customer, _, bucket = await used(office)
    before, after = "2026-01-31T03:59:59Z", "2026-01-31T04:00Z"
    now = (await office.get("/balances", customer=customer))["items"]
    assert (await office.get("/balances", customer=customer, at=after))["items"] == now
    assert (await office.get("/balances", at=after, by="used"))["items"] == now
    assert (await office.get("/balances", customer=customer, at=before))["items"] == []
    accounts = await office.get("/ledger/accounts", prefix=f"bucket/{bucket}/spent", at=after)
    assert accounts == await office.get("/ledger/accounts", prefix=f"bucket/{bucket}/spent")
    assert (await office.get("/ledger/accounts", at=before))["items"] == []
    await office.get("/balances", 400, at="2026-01-31")


async def test_the_ledger_as_plain_text(office: Office) -> None:
    await used(office)
    for form, line in (("beancount", ' * "package_sold" "order/'), ("hledger", " * package_sold | order/")):
        answer = await office.http.get("/api/v1/ledger/export", params={"format": form, "from": "2026-01-01T00:00Z"})
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert line in answer.text
        assert answer.text.endswith("; 3 transactions, complete\n")
    await office.get("/ledger/export", 400, format="ledger")
