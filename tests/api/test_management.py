"""The management API over HTTP: the whole business, shapes of answers, refusals, repetition, secrets."""

import msgspec

from api.offices import LEGAL_ENTITY, OFFER, TARIFF, Office
from shop.shopfront import NOON, Shop
from tokenworks.access.keys import digest
from tokenworks.core.usage import Tokens
from tokenworks.core.wire import KeyChanged
from tokenworks.shop import parties

ENDPOINT = {
    "supplier": "sup",
    "model": {"id": "m", "context_window": 2048},
    "base_url": "http://127.0.0.1:9/v1/",
    "api_key": "upstream-secret",
    "purchase": {"input": "0.30", "output": "0.60"},
}


async def test_a_coin_and_a_token_from_end_to_end(office: Office) -> None:
    customer = await office.furnished()
    order = await office.post("/orders", {"customer": customer, "offer": "p10", "payment": "carrier"})
    assert (order["state"], order["price"], order["net"], order["tax"]) == (
        "completed",
        {"amount": "9.9", "unit": "CNY"},
        {"amount": "9.339622642", "unit": "CNY"},
        {"amount": "0.560377358", "unit": "CNY"},
    )
    async with office.context.pool.connection() as connection:
        who = await parties.customer(connection, customer)
    shop = Shop(office.context.pool, office.clock, office.context.orders, who)
    await shop.use(Tokens(input=30, output=12), lease=100)
    await shop.use(Tokens(cached_input=3))

    [bucket] = (await office.get("/balances", customer=customer))["items"]
    assert [bucket[name] for name in ("granted", "available", "leased", "spent", "expired", "unit")] == [
        10_000_000,
        9_999_955,
        0,
        45,
        0,
        "token",
    ]
    assert bucket["recognised"] == {"amount": "0.000042028", "unit": "CNY"}
    assert (await office.get("/balances"))["items"] == [bucket]

    newest = await office.get("/usage", customer=customer, limit=1)
    [record] = newest["items"]
    assert (record["customer_id"], record["tokens"]["cached_input"], record["tokens"]["total"]) == (customer, 3, 3)
    assert record["charges"][0]["amount"] == {"amount": 3, "unit": "token"}
    assert record["attempts"][0]["cost"] == {"amount": "0.000000003", "unit": "CNY"}
    [older] = (await office.get("/usage", customer=customer, limit=1, cursor=newest["next"]))["items"]
    assert (await office.get("/usage", request=older["request_id"]))["items"] == [older]
    assert (await office.get("/usage", before="1970-01-01T00:00:00Z"))["items"] == []
    assert len((await office.get("/usage", before="1970-01-01T00:00:01+00:00"))["items"]) == 2

    summed = (await office.get("/usage/summary", by="hour", customer=customer))["items"]
    assert [(each["unit"], each["requests"], each["charged"], each["revenue"], each["cost"]) for each in summed] == [
        ("CNY", 0, "0", "0.000042028", "0.000000006"),
        ("token", 2, 45, 0, 0),
    ]
    assert (await office.get("/usage/summary", to="1970-01-01T23:59Z"))["items"] == []

    statement = await office.get("/statements", customer=customer)
    bill = await office.post("/bills", {"customer": customer}, key="b1")
    assert {name: bill[name] for name in statement} == statement
    assert (bill["number"], bill["total"]) == ("le-00000001", {"amount": "9.9", "unit": "CNY"})
    assert (bill["records"], bill["tokens"]["total"]) == (2, 45)
    assert bill["period"]["from"] == "2026-01-31T04:00:00.000Z"
    assert await office.get(f"/bills/{bill['id']}") == bill
    assert (await office.get("/bills", customer=customer))["items"] == [bill]
    assert await office.post("/bills", {"customer": customer}, key="b1") == bill

    margin = await office.get("/margin", customer=customer)
    assert margin == await office.get("/margin")
    assert margin["margin"] == {"amount": "0.000042022", "unit": "CNY"}
    codes = [account["code"] for account in (await office.get("/ledger/accounts", prefix="rev"))["items"]]
    assert codes == ["revenue/tokens"]
    verification = await office.get("/ledger/verify")
    assert verification["ok"], verification


async def test_a_declined_payment_is_402_and_stays_declined(office: Office) -> None:
    customer = await office.furnished("+8613800000000")
    wanted = {"customer": customer, "offer": "p10", "payment": "carrier"}
    for _ in range(2):
        refused = await office.post("/orders", wanted, 402, key="o1")
        assert refused["error"]["code"] == "payment_declined"
    [order] = (await office.get("/orders", customer=customer))["items"]
    assert (order["state"], order["failure_code"], order["payment"]) == (
        "failed",
        "CARRIER_BILLING.USER_AMOUNT_THRESHOLD_OVERPASSED",
        None,
    )
    assert (await office.get("/balances", customer=customer))["items"] == []


async def test_a_repeated_command_gives_its_first_answer(office: Office) -> None:
    customer = await office.furnished()
    wanted = {"customer": customer, "offer": "p10"}
    order = await office.post("/orders", wanted, key="k")
    assert await office.post("/orders", wanted, key="k") == order
    assert len((await office.get("/orders"))["items"]) == 1
    conflict = await office.post("/orders", wanted | {"offer": "p20"}, 409, key="k")
    assert conflict["error"]["code"] == "idempotency_conflict"
    someone = {"name": "B", "phone": "+8613800000124"}
    first = await office.post("/customers", someone, key="k")
    assert await office.post("/customers", dict(reversed(someone.items())), key="k") == first
    await office.post("/customers", someone | {"name": "C"}, 409, key="k")
    assert (await office.post("/customers", someone))["id"] != first["id"]


async def test_a_key_is_shown_once_and_dies_at_once(office: Office) -> None:
    customer = await office.furnished()
    wanted = {"customer": customer, "name": "laptop"}
    made = await office.post("/keys", wanted, key="k")
    secret = str(made["secret"])
    assert await office.post("/keys", wanted, key="k") == made | {"secret": None}
    [shown] = (await office.get("/keys", customer=customer))["items"]
    assert "secret" not in shown
    assert await office.get(f"/keys/{made['id']}") == shown
    revoked = await office.http.delete(f"/api/v1/keys/{made['id']}")
    assert revoked.json()["state"] == "revoked"
    assert office.told.keys == [KeyChanged(digest=digest(secret))]
    state = await office.http.patch(f"/api/v1/customers/{customer}", json={"state": "suspended"})
    assert state.json()["state"] == "suspended"
    assert office.told.keys[1].billing_account_id == state.json()["billing_account_id"]
    assert (await office.post("/keys", wanted))["state"] == "suspended"
    async with office.context.pool.connection() as connection:
        rows = await (await connection.execute("SELECT answer::text FROM command_answer")).fetchall()
    assert secret not in str(rows)


async def test_an_endpoint_is_added_changed_and_never_shows_its_key(office: Office) -> None:
    await office.post("/suppliers", {"id": "sup", "name": "Works", "currency": "CNY"})
    generated = await office.post("/suppliers", {"name": "Other works", "currency": "USD"})
    assert str(generated["id"]).startswith("sup_")
    added = await office.post("/endpoints", ENDPOINT, key="e")
    assert office.told.catalogs == 1
    assert (added["base_url"], added["upstream_model"], added["api_key_set"], added["state"]) == (
        "http://127.0.0.1:9/v1",
        "m",
        True,
        "in_service",
    )
    assert added["purchase"] == {
        "input": "0.3",
        "cached_input": "0.3",
        "cache_write": "0.3",
        "output": "0.6",
        "reasoning": "0.6",
        "tariff": f"{added['id']}@1",
        "currency": "CNY",
    }
    change = {"state": "out_of_service", "purchase": {"input": "0.2", "output": "0.4"}}
    changed = (await office.http.patch(f"/api/v1/endpoints/{added['id']}", json=change)).json()
    assert (changed["state"], changed["purchase"]["tariff"]) == ("out_of_service", f"{added['id']}@2")
    assert await office.get(f"/endpoints/{added['id']}") == changed
    listed = await office.get("/endpoints")
    assert listed == {"items": [changed], "next": None}
    assert "upstream-secret" not in str(listed)
    [model] = (await office.get("/models"))["items"]
    assert (model["id"], model["context_window"], model["output_max"]) == ("m", 2048, 2048)
    for body, status, code, field in (
        (ENDPOINT | {"model": "unknown"}, 404, "not_found", "model"),
        (ENDPOINT | {"supplier": "nobody"}, 404, "not_found", "supplier"),
        (ENDPOINT | {"model": {"id": "m", "context_window": 4096}}, 409, "conflict", "model"),
        (ENDPOINT | {"base_url": "engine"}, 400, "invalid_value", "base_url"),
        (ENDPOINT | {"purchase": {"input": "0.3", "output": "x"}}, 400, "invalid_value", "purchase.output"),
        (ENDPOINT | {"purchase": {"input": 0.3, "output": "1"}}, 400, "invalid_value", None),
        (ENDPOINT | {"supplier": generated["id"], "purchase": {"input": "1", "output": "1", "currency": "CNY"}},
         400, "invalid_value", "purchase.currency"),
    ):  # fmt: skip
        error = (await office.post("/endpoints", body, status))["error"]
        assert error["code"] == code
        assert field is None or error["field"] == field
    assert office.told.catalogs == 2


async def test_a_model_says_what_it_is_offered_on_and_an_endpoint_what_it_speaks(office: Office) -> None:
    await office.post("/suppliers", {"id": "sup", "name": "Works", "currency": "CNY"})
    image = {"tokens_max": 1_445, "tokens_low": 85, "tile_pixels": 512, "tokens_per_tile": 170, "tokens_base": 85}
    told = {"apis": ["chat", "embeddings"], "image": image | {"urls": True}, "thinking": "effort"}
    model = await office.post("/models", {"id": "all", "context_window": 2_048} | told)
    assert {name: model[name] for name in told} == told
    plain = await office.post("/models", {"id": "plain", "context_window": 2_048})
    assert (plain["apis"], plain["image"], plain["thinking"]) == (["chat"], None, "none")
    added = await office.post("/endpoints", ENDPOINT | {"model": "all", "dialect": "anthropic"})
    assert added["dialect"] == "anthropic"
    added = await office.post("/endpoints", ENDPOINT | {"model": "all", "dialect": "responses", "id": "keeper"})
    assert added["dialect"] == "responses"
    for body, field in (
        ({"apis": ["chats"]}, None),
        ({"apis": []}, "apis"),
        ({"image": {"tokens_max": 0}}, "image"),
        ({"thinking": "deep"}, None),
    ):
        error = (await office.post("/models", {"id": "other", "context_window": 2_048} | body, 400))["error"]
        assert error["code"] == "invalid_value"
        assert field is None or error["field"] == field


async def test_refusals_have_one_shape(office: Office) -> None:
    await office.furnished()
    cases = [
        ("POST", "/customers", {"name": "B"}, 400, "invalid_value", "phone"),
        ("POST", "/customers", {"name": "B", "phone": "12"}, 400, "invalid_value", "phone"),
        ("POST", "/customers", {"name": "B", "phone": "+8613800000124", "x": 1}, 400, "invalid_value", "x"),
        ("POST", "/customers", {"name": 5, "phone": "+8613800000124"}, 400, "invalid_value", "name"),
        ("POST", "/offers", OFFER, 409, "conflict", "id"),
        ("POST", "/offers", OFFER | {"id": "n", "price": {"amount": 9.9, "unit": "CNY"}}, 400, "invalid_value", None),
        ("POST", "/offers", OFFER | {"id": "n", "tariff": "none"}, 404, "not_found", None),
        ("POST", "/legal-entities", LEGAL_ENTITY | {"id": "b", "timezone": "Mars"}, 400, "invalid_value", "timezone"),
        ("POST", "/tariffs", TARIFF | {"unit": "gold"}, 400, "invalid_value", "unit"),
        ("GET", "/customers/nobody", None, 404, "not_found", None),
        ("GET", "/statements?customer=nobody", None, 404, "not_found", "customer"),
        ("GET", "/customers?limit=0", None, 400, "invalid_value", "limit"),
        ("GET", "/usage?cursor=x", None, 400, "invalid_value", "cursor"),
        ("GET", "/usage?before=yesterday", None, 400, "invalid_value", "before"),
        ("GET", "/nothing", None, 404, "not_found", None),
        ("DELETE", "/offers", None, 405, "method_not_allowed", None),
    ]
    for method, path, body, status, code, field in cases:
        answer = await office.http.request(method, f"/api/v1{path}", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code), (path, answer.text)
        assert field is None or error["field"] == field, answer.text
    broken = await office.http.post("/api/v1/customers", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_value")


async def test_nothing_is_open_without_the_token(office: Office) -> None:
    schema = (await office.http.get("/api/openapi.json")).json()
    for path, methods in schema["paths"].items():
        for method in methods:
            for header in ("", "Bearer wrong", "Bearer "):
                answer = await office.http.request(method, path, headers={"authorization": header}, json={})
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized"), path


async def test_lists_come_in_pages(office: Office) -> None:
    await office.furnished()
    for number in range(4):
        await office.customer(f"+861380000012{number}")
    seen: list[str] = []
    cursor = ""
    while True:
        found = await office.get("/customers", limit=2, cursor=cursor)
        seen += [entry["id"] for entry in found["items"]]
        if found["next"] is None:
            break
        cursor = str(found["next"])
    assert len(seen) == len(set(seen)) == 5
    assert seen == sorted(seen, reverse=True)


async def test_the_office_says_how_it_is(office: Office) -> None:
    assert await office.get("/health") == {"status": "ok", "version": "test", "database": "ok", "bus": "ok"}
    assert (await office.http.get("/healthz")).text == "ok\n"
    assert (await office.http.get("/readyz")).status_code == 200
    assert (await office.http.get("/metrics")).headers["content-type"].startswith("text/plain")
    office.told.bus = "not connected"
    assert (await office.get("/health"))["status"] == "degraded"
    ready = await office.http.get("/readyz")
    assert (ready.status_code, ready.text) == (503, "bus: not connected\n")


async def test_the_sandbox_carrier_speaks_like_a_carrier(office: Office) -> None:
    def asked(phone: str = "+8613800000123", amount: str = "9.9", correlator: str = "c") -> bytes:
        information = {"amount": msgspec.Raw(amount.encode()), "currency": "CNY"}
        transaction = {
            "phoneNumber": phone,
            "clientCorrelator": correlator,
            "referenceCode": "r",
            "paymentAmount": {"chargingInformation": information},
        }
        return msgspec.json.encode({"amountTransaction": transaction})

    async def pay(body: bytes) -> tuple[int, dict[str, object]]:
        answer = await office.http.post("/sandbox/carrier/payments", content=body)
        return answer.status_code, answer.json()

    status, payment = await pay(asked())
    assert (status, payment["paymentStatus"]) == (201, "succeeded")
    assert await pay(asked()) == (201, payment)
    for body, expected, code in (
        (asked(amount="9.8"), 409, "CONFLICT"),
        (asked(amount="0", correlator="d"), 400, "INVALID_ARGUMENT"),
        (asked(amount="1.0000000001", correlator="d"), 400, "INVALID_ARGUMENT"),
        (asked(correlator=""), 400, "INVALID_ARGUMENT"),
        (b"{", 400, "INVALID_ARGUMENT"),
        (asked(amount="1000", correlator="e"), 422, "CARRIER_BILLING.USER_AMOUNT_THRESHOLD_OVERPASSED"),
        (asked("+8613800000000", correlator="f"), 422, "CARRIER_BILLING.USER_AMOUNT_THRESHOLD_OVERPASSED"),
        (asked("+8613800000001", correlator="g"), 404, "IDENTIFIER_NOT_FOUND"),
    ):
        status, error = await pay(body)
        assert (status, error["code"], error["status"]) == (expected, code, expected)
    found = await office.http.get("/sandbox/carrier/payments", params={"clientCorrelator": "c"})
    assert found.json() == [payment]
    assert found.text.count('"amount":9.9,') == 1
    assert (await office.http.get("/sandbox/carrier/payments", params={"clientCorrelator": "x"})).json() == []
    assert office.clock.now_ns == NOON
