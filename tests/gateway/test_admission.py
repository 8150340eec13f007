"""Before the first byte goes upstream: keys, models, leases, reservations, and what refuses a request."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway_bench import BODY, PATH, Bench, bench
from stand_in_office import ACCOUNT, SECRET, bucket, catalog, endpoint
from supplier import held, usage, whole
from tokenworks.core.bounds import Need
from tokenworks.core.wire import KeyChanged

# Input bound 80 and 20 output tokens for the request of the bench.
WHOLE = 100


async def post(gateway: Bench, headers: dict[str, str], **fields: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=gateway.url) as client:
        return await client.post(PATH, json=BODY | fields, headers=headers)


def error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


KEYS: list[tuple[dict[str, str], int, str]] = [
    ({}, 401, "key_missing"),
    ({"authorization": "Basic eDp5"}, 401, "key_missing"),
    ({"authorization": "Bearer"}, 401, "key_missing"),
    ({"authorization": "Bearer sk-tw-wrong"}, 401, "invalid_api_key"),
    ({"authorization": "Bearer sk-tw-revoked"}, 401, "key_revoked"),
    ({"x-api-key": "sk-tw-suspended"}, 403, "account_suspended"),
]


@pytest.mark.parametrize(("headers", "status", "code"), KEYS)
async def test_keys_that_are_refused(tmp_path: Path, headers: dict[str, str], status: int, code: str) -> None:
    async with bench(tmp_path) as gateway:
        gateway.office.add_key("sk-tw-revoked", refused="key_revoked")
        gateway.office.add_key("sk-tw-suspended", refused="account_suspended")
        assert error(await post(gateway, headers)) == (status, code)
        assert gateway.supplier.calls == []


@pytest.mark.parametrize("headers", [{"authorization": f"bearer {SECRET}"}, {"x-api-key": SECRET}])
async def test_keys_that_are_taken(tmp_path: Path, headers: dict[str, str]) -> None:
    async with bench(tmp_path) as gateway:
        assert (await post(gateway, headers)).status_code == 200


async def test_a_key_is_looked_up_once_and_forgotten_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        answers = await asyncio.gather(*(gateway.ask() for _ in range(5)))
        assert [answer.status_code for answer in answers] == [200] * 5
        assert gateway.office.lookups == 1
        digest = gateway.office.add_key(SECRET, refused="key_revoked")
        assert (await gateway.ask()).status_code == 200
        gateway.gateway.keys.forget(KeyChanged(digest=digest))
        assert error(await gateway.ask()) == (401, "key_revoked")
        gateway.office.add_key(SECRET)
        gateway.gateway.keys.forget(KeyChanged(billing_account_id=ACCOUNT))
        assert (await gateway.ask()).status_code == 200
        assert gateway.office.lookups == 3


async def test_the_oldest_key_makes_room(tmp_path: Path) -> None:
    async with bench(tmp_path, key_cache_entries=2) as gateway:
        for name in "abca":
            gateway.office.add_key(name)
            assert (await post(gateway, {"x-api-key": name})).status_code == 200
        assert gateway.office.lookups == 4
        assert (await post(gateway, {"x-api-key": "c"})).status_code == 200
        assert gateway.office.lookups == 4


async def test_without_the_office_remembered_keys_and_leases_go_on(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        for _ in range(2):
            assert (await gateway.ask()).status_code == 200
        gateway.office.is_down = True
        assert (await gateway.ask()).status_code == 200
        assert error(await post(gateway, {"x-api-key": "unknown"})) == (503, "lease_unavailable")
        answer = await gateway.ask(max_tokens=100, n=16)
        assert error(answer) == (503, "lease_unavailable")
        assert answer.headers["retry-after"] == "1"


async def test_after_missed_announcements_a_key_is_asked_for_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        assert (await gateway.ask()).status_code == 200
        digest = gateway.office.add_key(SECRET, refused="key_revoked")
        gateway.gateway.keys.doubt_all()
        assert error(await gateway.ask()) == (401, "key_revoked")
        del gateway.office.keys[digest]
        gateway.gateway.keys.doubt_all()
        assert error(await gateway.ask()) == (401, "invalid_api_key")
        gateway.office.is_down = True
        assert error(await gateway.ask()) == (503, "lease_unavailable")


async def test_after_missed_announcements_a_key_holds_while_nobody_can_be_asked(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        for _ in range(2):
            assert (await gateway.ask()).status_code == 200
        gateway.office.is_down = True
        gateway.gateway.keys.doubt_all()
        for _ in range(3):
            assert (await gateway.ask()).status_code == 200
        gateway.office.is_down = False
        gateway.office.add_key(SECRET, refused="key_revoked")
        async with asyncio.timeout(5):
            while (answer := await gateway.ask()).status_code == 200:
                pass
        assert error(answer) == (401, "key_revoked")


async def test_a_key_is_not_trusted_for_ever(tmp_path: Path) -> None:
    async with bench(tmp_path, key_stale_ms=1) as gateway:
        assert (await gateway.ask()).status_code == 200
        gateway.office.is_down = True
        async with asyncio.timeout(5):
            while (await gateway.ask()).status_code == 200:
                pass
        assert error(await gateway.ask()) == (503, "lease_unavailable")


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "other"}, 404, "model_not_found", "model"),
        ({"model": "lonely"}, 503, "endpoint_unavailable", None),
        ({"n": 0}, 400, "invalid_value", "n"),
        ({"web_search_options": {}}, 400, "field_not_supported", "web_search_options"),
    ],
)
async def test_requests_that_are_refused(
    tmp_path: Path, fields: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    async with bench(tmp_path) as gateway:
        answer = await gateway.ask(**fields)
        assert error(answer) == (status, code)
        assert answer.json()["error"]["param"] == param
        assert gateway.office.asked == []


async def test_a_stale_catalog_is_not_served_from(tmp_path: Path) -> None:
    async with bench(tmp_path, catalog_stale_ms=1) as gateway:
        async with asyncio.timeout(5):
            while (answer := await gateway.ask()).status_code == 200:
                pass
        assert error(answer) == (503, "stale_snapshot")
        gateway.use(catalog(endpoint(gateway.supplier.url), version=2))


async def test_the_last_token_can_be_spent_and_no_more(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=WHOLE + 17) as gateway:
        assert "x-tokenworks-output-limit" not in (await gateway.ask()).headers
        await gateway.ship()
        clipped = await gateway.ask(max_tokens=30)
        assert clipped.headers["x-tokenworks-output-limit"] == "20"
        assert gateway.supplier.calls[-1].body["max_tokens"] == 20
        await gateway.ship()
        gateway.supplier.default = whole("x", usage(80, 3))
        assert (await gateway.ask()).headers["x-tokenworks-charged"] == "83 token"
        await gateway.ship()
        assert error(await gateway.ask()) == (402, "balance_used_up")
        assert [sum(charge.amount for charge in closing.charges) for closing in gateway.closings()] == [17, 17, 83]
        assert (gateway.held(), gateway.office.balance()) == ((0, 0, 0), 0)


def reply_amounts(gateway: Bench) -> list[int]:
    return [lease.amount for reply in gateway.office.answered.values() for lease in reply.leases]


async def test_the_choices_share_what_can_be_paid(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=80 + 11) as gateway:
        answer = await gateway.ask(n=3)
        assert answer.headers["x-tokenworks-output-limit"] == "3"
        assert gateway.closings()[0].tokens.output <= 9


async def test_no_bucket_for_the_model(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.office.buckets.clear()
        gateway.office.give(1_000_000, bucket(models=("another",)))
        assert error(await gateway.ask()) == (402, "no_matching_bucket")


async def test_a_request_waits_for_balance_that_others_have_reserved(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with bench(tmp_path, balance=WHOLE + 20, lease_wait_ms=5_000) as gateway:
        gateway.supplier.script(held(release, whole("x")))
        first = asyncio.create_task(gateway.ask())
        await gateway.supplier.call(0)
        second = asyncio.create_task(gateway.ask())
        async with asyncio.timeout(5):
            while len(gateway.office.asked) < 2:
                await gateway.gateway_turn()
        release.set()
        await first
        await gateway.ship()
        assert (await second).status_code == 200


async def test_a_request_does_not_wait_for_ever(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with bench(tmp_path, balance=WHOLE, lease_wait_ms=1) as gateway:
        gateway.supplier.script(held(release, whole("x")))
        first = asyncio.create_task(gateway.ask())
        await gateway.supplier.call(0)
        answer = await gateway.ask()
        assert error(answer) == (429, "balance_reserved")
        assert answer.headers["retry-after"] == "1"
        release.set()
        assert (await first).status_code == 200


async def test_many_requests_share_one_lease_request(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        answers = await asyncio.gather(*(gateway.ask() for _ in range(20)))
        assert [answer.status_code for answer in answers] == [200] * 20
        assert len(gateway.office.asked) < 20
        assert len({request.sequence for request in gateway.office.asked}) == len(gateway.office.asked)
        free, reserved, _ = gateway.held()
        assert (free, reserved) == (sum(reply_amounts(gateway)) - 20 * 17, 0)


async def test_a_lost_reply_is_asked_for_again_under_the_same_name(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.office.lose_replies = 1
        assert error(await gateway.ask()) == (503, "lease_unavailable")
        assert (await gateway.ask()).status_code == 200
        first, second, *_ = gateway.office.asked
        assert first == second
        assert gateway.held()[0] == sum(reply_amounts(gateway)) - 17


async def test_slices_follow_the_pace_from_the_first_on(tmp_path: Path) -> None:
    """Where nothing is known of an account, its first request is taken to be one of many."""
    async with bench(tmp_path) as gateway:
        for _ in range(10):
            await gateway.ask()
        (asked,) = gateway.office.asked
        assert (asked.need, asked.pace) == (Need(80, 20), Need(16 * 80, 16 * 20))
        for _ in range(100):
            await gateway.ask()
        assert all(later.early for later in gateway.office.asked[1:])
        assert gateway.office.asked[-1].pace.input_max > 16 * 80


async def test_lapsed_slices_are_not_spent_from_and_go_back(tmp_path: Path) -> None:
    async with bench(tmp_path, lease_use_ms=1) as gateway:
        await gateway.ask()
        for each in gateway.gateway.leases.holding(ACCOUNT).purse.slices:
            each.use_until_ns = 0
        async with asyncio.timeout(5):
            while gateway.held()[2]:
                gateway.tick()
                await gateway.gateway_turn()
        assert (await gateway.ask()).status_code == 200
        assert len(gateway.office.asked) == 2


async def test_the_models_are_listed(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway, gateway.client as client:
        listed = (await client.get("/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == ["m", "lonely"]
        assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("m", "lonely", False)
        assert (await client.get("/v1/models/m")).json() == {
            "id": "m",
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "tests",
            "type": "model",
            "display_name": "m",
            "created_at": "2023-11-14T22:13:20Z",
            "tokenworks": {"apis": ["chat"]},
        }
        assert error(await client.get("/v1/models/x%2Fy")) == (404, "model_not_found")


async def test_other_routes(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway, gateway.client as client:
        assert error(await client.get("/v1/nothing")) == (404, "route_not_found")
        wrong = await client.get(PATH)
        assert (*error(wrong), wrong.headers["allow"]) == (405, "method_not_allowed", "POST")
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        assert (await client.head("/healthz")).content == b""
        no_key = httpx2.AsyncClient(base_url=gateway.url)
        assert error(await no_key.get("/v1/models")) == (401, "key_missing")
        await no_key.aclose()


async def test_a_full_disk_refuses_new_requests(tmp_path: Path) -> None:
    async with bench(tmp_path, journal_segment_bytes=1 << 16, attempts_max=10) as gateway:
        gateway.use(catalog(endpoint(gateway.supplier.url, "e" * 4_000)))
        assert error(await gateway.ask()) == (503, "journal_full")
        assert gateway.held()[1] == 0


async def test_a_failing_disk_refuses_and_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        await gateway.ask()
        gateway.writer.close()
        assert error(await gateway.ask()) == (503, "journal_full")
        assert gateway.faults
