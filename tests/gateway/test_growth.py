"""Streams whose reservation grows: admitted with less, extended step by step, ended cleanly when nothing is left."""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway_bench import COUNTED_INPUT, INPUT_MAX, Bench, bench, summary
from stand_in_office import catalog, endpoint
from supplier import STREAM_HEAD, Act, chunk, event, raw, stream, stuck_stream, usage
from tokenworks.core.bounds import Need
from tokenworks.core.journal import Extension, LeaseReturn, Opening
from tokenworks.core.usage import Tokens
from tokenworks.core.wire import Recall
from tokenworks.gateway.holding import Pace

# What a balance of 110 pays for beyond the input bound of the bench's request: 30 tokens of output.
BALANCE, PAID = INPUT_MAX + 30, 30


def words(number: int) -> list[str]:
    return [f"w{place}" for place in range(number)]


def low(folder: Path, balance: int = BALANCE, **more: Any) -> AbstractAsyncContextManager[Bench]:
    """A gateway whose account cannot pay for the whole answer that its customer allows for."""
    steps = {"lease_likely_tokens": 8, "lease_step_tokens": 4, "lease_wait_ms": 5_000}
    return bench(folder, balance=balance, **(steps | more))


def texts(seen: list[Any]) -> list[str]:
    found = [choice["delta"].get("content") for each in seen if each != "[DONE]" for choice in each["choices"]]
    return [text for text in found if text]


async def test_an_answer_that_can_be_paid_is_given_whole(tmp_path: Path) -> None:
    async with low(tmp_path) as gateway:
        gateway.supplier.script(stream(words(25), usage(12, 25)))
        answer, seen = await gateway.ask_stream(max_tokens=100)
        assert texts(seen) == words(25)
        assert "x-tokenworks-output-limit" not in answer.headers
        assert gateway.supplier.calls[0].body["max_tokens"] == 100
        assert summary(await gateway.closing()) == ("finished", "reported", Tokens(12, output=25), 37, ())
        (opening,) = [entry for entry in gateway.entries() if isinstance(entry, Opening)]
        grown = [entry for entry in gateway.entries() if isinstance(entry, Extension)]
        assert (opening.output_max, [each.output_max for each in grown][:5]) == (8, [12, 16, 20, 24, 28])
        assert {sum(part.amount for part in each.reserved) - each.output_max for each in grown} == {INPUT_MAX}
        assert gateway.held()[1] == 0


@pytest.mark.parametrize("wants_usage", [False, True])
async def test_a_stream_ends_cleanly_when_nothing_more_can_be_had(tmp_path: Path, wants_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    async with low(tmp_path) as gateway:
        gateway.supplier.script(stuck_stream(words(40)))
        answer, seen = await gateway.ask_stream(max_tokens=100, **options)
        assert (answer.status_code, texts(seen), seen[-1]) == (200, words(PAID), "[DONE]")
        end = seen[-3] if wants_usage else seen[-2]
        assert end["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
        assert end["tokenworks"] == {"code": "balance_used_up"}
        told = [each["usage"] for each in seen[:-1] if each.get("usage")]
        total = COUNTED_INPUT + PAID
        assert (
            told == [{"prompt_tokens": COUNTED_INPUT, "completion_tokens": PAID, "total_tokens": total}][:wants_usage]
        )
        call = await gateway.supplier.call(0)
        await asyncio.wait_for(call.gone.wait(), 5)
        closing = await gateway.closing()
        flags = ("balance_short", "usage_missing")
        assert summary(closing) == ("finished", "counted", Tokens(COUNTED_INPUT, output=PAID), total, flags)
        # The customer pays for what was passed on; what was generated beyond it is our cost.
        assert closing.attempts[0].tokens.output == 40
        assert gateway.held()[1] == 0


async def test_a_stream_waits_for_what_others_give_back_and_goes_before_new_ones(tmp_path: Path) -> None:
    async with low(tmp_path) as gateway:
        office = gateway.office
        office.let_wait()
        office.leased[99] = ("bkt_1", 50)
        gateway.supplier.script(stream(words(40), usage(12, 40)))
        running = asyncio.create_task(gateway.ask_stream(max_tokens=100))
        async with asyncio.timeout(5):
            while not any(request.extends and request.need.output_max == 4 for request in office.asked[-1:]):
                await gateway.gateway_turn()
            while office.line is None or not _stands(gateway):
                await gateway.gateway_turn()
            late = asyncio.create_task(gateway.ask(max_tokens=1))
            while office.asked[-1].extends:
                await gateway.gateway_turn()
            terms, available = office.buckets["bkt_1"]
            office.leased[99], office.buckets["bkt_1"] = ("bkt_1", 39), (terms, available + 11)
            assert office.line is not None
            office.line.came_back(["ba_1"])
            answer, seen = await running
        assert (answer.status_code, texts(seen)) == (200, words(40))
        office.leased[99] = ("bkt_1", 0)
        await gateway.ship()
        assert (await late).status_code in {200, 402}


def _stands(gateway: Bench) -> bool:
    """Whether the running stream has used up what it has."""
    extensions = [entry for entry in gateway.entries() if isinstance(entry, Extension)]
    return bool(extensions) and extensions[-1].output_max == PAID


async def test_a_customer_who_leaves_while_the_stream_waits(tmp_path: Path) -> None:
    async with low(tmp_path) as gateway:
        gateway.office.let_wait()
        gateway.office.leased[99] = ("bkt_1", 50)
        gateway.supplier.script(stuck_stream(words(40)))
        _, writer = await gateway.connect()
        writer.write(gateway.request(stream=True, max_tokens=100))
        async with asyncio.timeout(5):
            while not _stands(gateway):
                await gateway.gateway_turn()
            writer.transport.abort()
            closing = await gateway.closing()
        assert summary(closing)[:4] == ("client_gone", "counted", Tokens(COUNTED_INPUT, output=PAID), 40)
        await gateway.ship()
        assert gateway.held()[1] == 0


async def test_hidden_reasoning_is_reserved_in_full(tmp_path: Path) -> None:
    async with low(tmp_path) as gateway:
        used = catalog(endpoint(gateway.supplier.url), version=2)
        used.models["m"] = msgspec.structs.replace(used.models["m"], hidden_reasoning=True)
        gateway.use(used)
        gateway.supplier.script(stream(words(5), usage(12, 25, reasoning=20)))
        answer, seen = await gateway.ask_stream(max_tokens=100)
        assert (answer.headers["x-tokenworks-output-limit"], texts(seen)) == ("30", words(5))
        assert gateway.supplier.calls[0].body["max_tokens"] == PAID
        assert summary(await gateway.closing())[2] == Tokens(12, output=5, reasoning=20)


async def test_an_endpoint_that_puts_several_tokens_into_a_delta_is_paid_as_it_reports(tmp_path: Path) -> None:
    async with low(tmp_path) as gateway:
        gateway.supplier.script(stream(["several words"] * 5, usage(12, 26)))
        await gateway.ask_stream(max_tokens=100)
        assert summary(await gateway.closing()) == ("finished", "reported", Tokens(12, output=26), 38, ())
        await gateway.ship()
        gateway.office.give(BALANCE)
        gateway.supplier.script(stream(["several words"] * 5, usage(12, 31)))
        await gateway.ask_stream(max_tokens=100)
        assert summary(await gateway.closing(1))[1:3] == ("counted", Tokens(COUNTED_INPUT, output=5))


def told_as_it_goes(each: int) -> Act:
    """A stream of two deltas for each token, with the usage so far in every event."""
    sent = [event({"content": f"w{place}"}, usage=usage(12, place // 2 + 1)) for place in range(2 * each)]
    sent += [event({}, "stop", usage=usage(12, each)), b"data: [DONE]\n\n"]
    return raw(STREAM_HEAD + b"".join(chunk(one) for one in sent) + b"0\r\n\r\n", keep=True)


async def test_an_endpoint_that_splits_tokens_and_says_so_is_not_cut_short(tmp_path: Path) -> None:
    async with low(tmp_path, balance=1_000) as gateway:
        gateway.supplier.script(told_as_it_goes(20))
        _, seen = await gateway.ask_stream(max_tokens=20)
        assert texts(seen) == words(40)
        assert summary(await gateway.closing()) == ("finished", "reported", Tokens(12, output=20), 32, ())


async def test_parts_that_others_need_go_back_while_the_stream_runs(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=10_000) as gateway:
        gateway.supplier.default = stuck_stream(words(3))
        for _ in range(3):
            _, writer = await gateway.connect()
            writer.write(gateway.request(stream=True, max_tokens=100))
        async with asyncio.timeout(5):
            while gateway.held()[1] < 3 * 180:
                await gateway.gateway_turn()
        await gateway.supplier.call(2)
        free = gateway.held()[0]
        for tell in gateway.office.recalled:
            tell(Recall("ba_1", "gw-1"))
        gateway.writer.flush()
        returned = [entry.amount for entry in gateway.entries() if isinstance(entry, LeaseReturn)]
        assert (sum(returned), gateway.held()[:2]) == (free, (0, 3 * 180))
        await gateway.ship()


@pytest.mark.parametrize(
    ("answers", "likely"),
    [((), 50), ((0,), 16), ((100,), 141), ((100, 20), 128), ((20, 100), 141), ((100,) * 9 + (0,) * 60, 16)],
)
def test_what_is_likely_follows_the_longest_answers_of_late(answers: tuple[int, ...], likely: int) -> None:
    pace = Pace(0)
    for written in answers:
        pace.learn(written)
    assert pace.likely(50) == likely


@pytest.mark.parametrize(
    ("reserved_at", "now", "pace"),
    [((), 0, 0), ((0,), 0, 160), ((0, 0), 5, 320), ((0, 40), 80, 40), ((0, 100), 200, 16), ((0, 170), 190, 80)],
    ids=["none", "just begun", "still", "as it has begun", "after a life", "two lives"],
)
def test_what_comes_is_as_it_has_begun(reserved_at: tuple[int, ...], now: int, pace: int) -> None:
    life_ns = 160
    counted = Pace(0)
    for at in reserved_at:
        counted.add(Need(10, 10), at, life_ns)
    assert counted.need(now, life_ns) == Need(pace, pace)
