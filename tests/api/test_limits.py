"""Limits over HTTP: set, changed, listed with what is used, removed; gateways are told each time."""

from api.offices import Office
from tokenworks.core.wire import KeyChanged


async def test_the_life_of_a_limit(office: Office) -> None:
    customer = await office.furnished()
    key = str((await office.post("/keys", {"customer": customer, "name": "laptop"}))["id"])
    wanted = {"customer": customer, "metric": "tokens", "amount": 1_000, "window": "day"}
    made = await office.post("/limits", wanted, key="l1")
    assert await office.post("/limits", wanted, key="l1") == made
    assert [made[name] for name in ("id", "amount", "window", "rolling", "timezone", "version", "used")] == [
        f"{customer}.tokens.day",
        1_000,
        "day",
        False,
        "Asia/Shanghai",
        1,
        7,
    ]
    assert [bool(told.billing_account_id) for told in office.told.keys] == [True]
    spend = {"key": key, "metric": "spend", "amount": "9.90", "unit": "CNY", "window": "month", "rolling": True}
    of_key = await office.post("/limits", spend)
    assert (of_key["id"], of_key["amount"], of_key["key_id"]) == (f"{key}.spend.CNY.month", "9.9", key)
    assert office.told.keys[1].digest != b""
    changed = await office.post("/limits", wanted | {"amount": 5})
    assert (changed["version"], changed["amount"]) == (2, 5)
    assert (await office.get("/limits", customer=customer))["items"] == [changed, of_key]
    assert (await office.get("/limits", key=key))["items"] == [of_key]
    for limit in (changed, of_key):
        removed = (await office.http.delete(f"/api/v1/limits/{limit['id']}")).json()
        assert removed["amount"] is None
        assert await office.get(f"/limits/{limit['id']}") == removed
    assert (await office.get("/limits"))["items"] == []
    assert len(office.told.keys) == 5
    assert office.told.keys[4] == KeyChanged(digest=office.told.keys[1].digest)


async def test_limits_that_are_refused(office: Office) -> None:
    customer = await office.furnished()
    plain = {"customer": customer, "metric": "requests", "amount": 1, "window": "minute"}
    await office.post("/limits", plain | {"key": "key_1"}, 400)
    await office.post("/limits", {"metric": "requests", "amount": 1, "window": "minute"}, 400)
    await office.post("/limits", plain | {"amount": "1.5"}, 400)
    await office.post("/limits", plain | {"window": "hour"}, 400)
    await office.post("/limits", plain | {"customer": "cus_none"}, 404)
    await office.post("/limits", plain | {"metric": "spend", "unit": "USD"}, 400)  # it could never be reached
    await office.get("/limits/nobody.requests.minute", 404)
    assert office.told.keys == []
