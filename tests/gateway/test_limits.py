"""Limits in a worker: exact in one, shared within what is stated, told in headers, and nothing left behind."""

import asyncio
from pathlib import Path

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from gateway_bench import BODY, PATH, WORDS, Bench, bench
from stand_in_office import ACCOUNT, SECRET, StandInOffice
from supplier import held, status, stream, usage, whole
from tokenworks.core.limits import Counted, Limit, Limits
from tokenworks.core.wire import KeyChanged, LimitCounts

# The request of the bench reserves 80 tokens of input and 20 of output, and uses 17.
WHOLE, USED = 100, 17


def limits(*each: Limit, counts: tuple[Counted, ...] = ()) -> Limits:
    return Limits(each, counts)


def rolling(metric: str, amount: int, unit: str = "") -> Limit:
    return Limit(f"key_1.{metric}", metric, amount, "minute", True, unit)  # type: ignore[arg-type]


def set_limits(gateway: Bench, *each: Limit, counts: tuple[Counted, ...] = ()) -> None:
    digest = gateway.office.add_key(SECRET, limits=limits(*each, counts=counts))
    gateway.gateway.keys.forget(KeyChanged(digest=digest))


def error(answer: httpx2.Response) -> tuple[int, str, str]:
    found = answer.json()["error"]
    return answer.status_code, found["code"], found["type"]


def told(answer: httpx2.Response, metric: str) -> tuple[str, str, str]:
    name = "x-ratelimit-{}-" + metric
    return tuple(answer.headers.get(name.format(what), "") for what in ("limit", "remaining", "reset"))  # type: ignore[return-value]


async def test_requests_are_counted_exactly_and_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        plain = await gateway.ask()
        assert not [name for name in plain.headers if "ratelimit" in name]
        set_limits(gateway, rolling("requests", 3))
        left = [told(await gateway.ask(), "requests")[:2] for _ in range(3)]
        assert left == [("3", "2"), ("3", "1"), ("3", "0")]
        refused = await gateway.ask()
        assert error(refused) == (429, "rate_limit_exceeded", "requests")
        assert told(refused, "requests")[:2] == ("3", "0")
        assert 59 <= int(refused.headers["retry-after"]) <= 61
        assert len(gateway.supplier.calls) == 4
        assert len(gateway.closings()) == 4


async def test_at_once_no_more_than_the_limit_get_in(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        set_limits(gateway, rolling("requests", 5))
        answers = await asyncio.gather(*(gateway.ask() for _ in range(12)))
        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 7


async def test_tokens_are_reserved_and_corrected_to_what_was_used(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with bench(tmp_path) as gateway:
        set_limits(gateway, rolling("tokens", WHOLE + USED))
        gateway.supplier.script(held(release, whole("Hi.")))
        first = asyncio.create_task(gateway.ask())
        await gateway.supplier.call(0)
        during = await gateway.ask()
        assert error(during) == (429, "rate_limit_exceeded", "tokens")
        assert told(during, "tokens")[:2] == ("117", "17")
        release.set()
        assert (await first).status_code == 200
        second = await gateway.ask()
        assert (second.status_code, told(second, "tokens")[1]) == (200, "0")
        third = await gateway.ask()
        assert (third.status_code, told(third, "tokens")[1]) == (429, str(WHOLE + USED - 2 * USED))


async def test_without_a_limit_of_its_own_an_answer_is_clipped_to_what_is_left(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        set_limits(gateway, rolling("tokens", 160))
        answer = await gateway.ask(max_tokens=None)
        assert answer.headers["x-tokenworks-output-limit"] == "80"
        assert gateway.supplier.calls[0].body["max_tokens"] == 80


async def test_what_can_never_fit_is_said_without_a_time(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        set_limits(gateway, rolling("tokens", 60))
        refused = await gateway.ask()
        assert error(refused)[1] == "rate_limit_exceeded"
        assert "retry-after" not in refused.headers


async def test_so_many_run_at_once(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with bench(tmp_path) as gateway:
        set_limits(gateway, Limit("key_1.concurrency", "concurrency", 2))
        gateway.supplier.script(*(held(release, whole("Hi.")) for _ in range(2)))
        running = [asyncio.create_task(gateway.ask()) for _ in range(2)]
        await gateway.supplier.call(1)
        refused = await gateway.ask()
        assert error(refused)[:2] == (429, "concurrency_limit_exceeded")
        assert refused.headers["retry-after"] == "1"
        release.set()
        assert [answer.status_code for answer in await asyncio.gather(*running)] == [200, 200]
        assert (await gateway.ask()).status_code == 200


async def test_a_customer_who_leaves_frees_the_seat(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        set_limits(gateway, Limit("key_1.concurrency", "concurrency", 1), rolling("tokens", 1_000))
        gateway.supplier.script(held(asyncio.Event(), whole("Hi.")))
        _, writer = await gateway.connect()
        writer.write(gateway.request())
        await gateway.supplier.call(0)
        writer.transport.abort()
        await gateway.closing()
        answer = await gateway.ask()
        assert answer.status_code == 200
        # The one who left pays for the input that was counted, 10 tokens.
        assert told(answer, "tokens")[1] == str(1_000 - 10 - WHOLE)


SPEND = [(WHOLE, 200, 20), (WHOLE + 50, 200, 20), (95, 200, 14), (82, 200, 1), (81, 429, 0)]


@pytest.mark.parametrize(("cap", "code", "limit"), SPEND)
async def test_no_more_is_reserved_than_may_be_spent(tmp_path: Path, cap: int, code: int, limit: int) -> None:
    async with bench(tmp_path) as gateway:
        set_limits(gateway, rolling("spend", cap, "token"), rolling("requests", 1))
        answer = await gateway.ask()
        assert answer.status_code == code
        assert gateway.held()[1] == 0
        if code == 200:
            assert gateway.supplier.calls[0].body["max_tokens"] == limit
            assert gateway.closings()[0].charges[0].amount <= cap
        else:
            assert error(answer) == (429, "spend_limit_exceeded", "insufficient_quota")
            assert gateway.closings() == []
            # It was not counted as a request either.
            set_limits(gateway, rolling("requests", 1))
            assert (await gateway.ask()).status_code == 200


async def test_spending_is_corrected_to_what_was_charged(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        set_limits(gateway, rolling("spend", WHOLE + 2 * USED, "token"))
        codes = [(await gateway.ask()).status_code for _ in range(9)]
        charged = sum(charge.amount for closing in gateway.closings() for charge in closing.charges)
        assert codes.count(200) >= 4
        assert codes == sorted(codes)
        assert charged <= WHOLE + 2 * USED


async def test_a_stream_under_a_spend_limit_reserves_in_full(tmp_path: Path) -> None:
    async with bench(tmp_path, lease_likely_tokens=1, lease_step_tokens=1) as gateway:
        set_limits(gateway, rolling("spend", 90, "token"))
        gateway.supplier.script(stream([*WORDS] * 9, usage(10, 27)))
        _, events = await gateway.ask_stream()
        assert events[-2]["choices"][0]["finish_reason"] == "length"
        assert sum(charge.amount for charge in gateway.closings()[0].charges) <= 90


async def test_what_was_refused_elsewhere_leaves_nothing_behind(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=50) as gateway:
        set_limits(gateway, rolling("requests", 5), rolling("tokens", 1_000))
        refused = await gateway.ask()
        assert refused.status_code == 402
        gateway.office.give(1_000)
        answer = await gateway.ask()
        assert told(answer, "requests")[1] == "4"
        assert told(answer, "tokens")[1] == "900"


async def test_an_endpoint_that_fails_costs_a_request_and_no_tokens(tmp_path: Path) -> None:
    async with bench(tmp_path, attempts_max=1) as gateway:
        set_limits(gateway, rolling("requests", 5), rolling("tokens", 1_000))
        gateway.supplier.script(status(500))
        assert (await gateway.ask()).status_code == 503
        answer = await gateway.ask()
        assert told(answer, "requests")[1] == "3"
        assert told(answer, "tokens")[1] == "900"


async def test_another_amount_holds_at_once_and_goes_on_with_the_count(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        set_limits(gateway, rolling("requests", 1))
        assert [(await gateway.ask()).status_code for _ in range(2)] == [200, 429]
        set_limits(gateway, rolling("requests", 3))
        assert [(await gateway.ask()).status_code for _ in range(3)] == [200, 200, 429]
        digest = gateway.office.add_key(SECRET)
        gateway.gateway.keys.forget(KeyChanged(digest=digest))
        assert (await gateway.ask()).status_code == 200


async def test_a_worker_that_starts_knows_what_others_counted(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        set_limits(gateway, rolling("requests", 3))
        answer = await gateway.ask()
        assert told(answer, "requests")[1] == "2"
        gauge = next(iter(gateway.gateway.limits._gauges.values()))
        cell_ns = gauge.own()[0][0]
        async with bench(tmp_path / "b", office=gateway.office, worker="gw-1") as other:
            set_limits(other, rolling("requests", 3), counts=(Counted("key_1.requests", "jrn_test", cell_ns, 1),))
            assert told(await other.ask(), "requests")[1] == "1"


async def test_two_workers_share_a_cap_and_are_exact_where_they_hear_in_time(tmp_path: Path) -> None:
    office = StandInOffice()
    office.give(1_000_000)
    async with (
        bench(tmp_path / "a", office=office, limit_share_ms=1) as one,
        bench(tmp_path / "b", office=office, worker="gw-1", limit_share_ms=1) as two,
    ):
        office.add_key(SECRET, limits=limits(rolling("requests", 7), Limit("key_1.concurrency", "concurrency", 3)))
        codes: list[int] = []
        for turn in range(10):
            codes.append((await (one, two)[turn % 2].ask()).status_code)
            await asyncio.gather(_heard(one), _heard(two))
        assert codes == [200] * 7 + [429] * 3


async def _heard(gateway: Bench) -> None:
    """What is to be told has been told."""
    async with asyncio.timeout(5):
        while gateway.gateway.limits.is_telling:
            await gateway.gateway_turn()


async def test_a_cap_is_passed_by_no_more_than_others_let_in_unheard(tmp_path: Path) -> None:
    """The stated error: what the other workers admit in one pause. Here the pause never ends."""
    office = StandInOffice()
    office.give(1_000_000)
    async with (
        bench(tmp_path / "a", office=office, limit_share_ms=600_000) as one,
        bench(tmp_path / "b", office=office, worker="gw-1", limit_share_ms=600_000) as two,
    ):
        office.add_key(SECRET, limits=limits(rolling("requests", 4)))
        answers = [(await gateway.ask()).status_code for gateway in (one, two) for _ in range(6)]
        assert answers.count(200) <= 8
        one.gateway.limits.hear(LimitCounts("jrn_gw-1", two_counts(two)))
        assert (await one.ask()).status_code == 429


def two_counts(gateway: Bench) -> tuple[Counted, ...]:
    gauges = gateway.gateway.limits._gauges.values()
    return tuple(gauge.told("jrn_gw-1", cell_ns) for gauge in gauges for cell_ns, _ in gauge.own())


async def test_official_clients_see_what_they_should(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        set_limits(gateway, rolling("requests", 1), rolling("tokens", 1_000))
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=SECRET, max_retries=0) as client:
            create = client.chat.completions.create
            await create(model="m", messages=[{"role": "user", "content": "Hi"}], max_tokens=20)
            with pytest.raises(openai.RateLimitError) as refused:
                await create(model="m", messages=[{"role": "user", "content": "Hi"}], max_tokens=20)
        assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")
        assert refused.value.response.headers["x-ratelimit-limit-tokens"] == "1000"


async def test_messages_are_told_in_anthropic_s_words(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        set_limits(gateway, rolling("requests", 1))
        async with gateway.client as client:
            answers = [await client.post("/v1/messages", json=BODY) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert answers[1].json()["error"]["type"] == "rate_limit_error"
        assert answers[1].json()["error"]["code"] == "rate_limit_exceeded"
        assert answers[0].headers["anthropic-ratelimit-requests-limit"] == "1"
        assert answers[1].headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert answers[1].headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        assert "retry-after" in answers[1].headers


async def test_keys_of_one_customer_share_its_limit_and_not_each_other_s(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        shared = Limit("cus_1.requests", "requests", 3, "minute", True)
        for name in "ab":
            own = Limit(f"{name}.requests", "requests", 2, "minute", True)
            gateway.office.add_key(name, ACCOUNT, limits=limits(own, shared), key_id=name)
        async with httpx2.AsyncClient(base_url=gateway.url) as client:
            codes = [(await client.post(PATH, json=BODY, headers={"x-api-key": name})).status_code for name in "aaabbb"]
        assert codes == [200, 200, 429, 200, 429, 429]
