"""Endpoints that fail are left at once, and hung ones within seconds; before the first byte only."""

import asyncio
from pathlib import Path

from gateway_bench import WORDS, Bench, bench
from supplier import hang_up, silent, status, stream, stuck_stream
from tokenworks.base import clock

# Ticks until an endpoint is taken to be hung.
HUNG = 3


async def test_an_endpoint_that_fails_is_left_by_all_that_come(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2, endpoint_rest_ms=60_000) as gateway:
        gateway.suppliers[0].script(hang_up())
        assert (await gateway.ask()).status_code == 200
        assert gateway.gateway.board.state("ep_1").failures == 1
        gateway.gateway.board.failed("ep_1", clock.boot_ns(), 60 * clock.SECOND)
        answers = [await gateway.ask() for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 8
        assert [len(each.calls) for each in gateway.suppliers] == [1, 9]


async def test_an_endpoint_that_asks_for_time_gets_it(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2) as gateway:
        gateway.suppliers[0].script(status(503, None, "retry-after: 4"))
        began_ns = clock.boot_ns()
        assert (await gateway.ask()).status_code == 200
        rested_ns = gateway.gateway.board.state("ep_1").rest_until_ns - 4 * clock.SECOND
        assert began_ns < rested_ns < clock.boot_ns()


async def hung(gateway: Bench, *, is_streamed: bool = True) -> "asyncio.Task[object]":
    """A request that waits at the first endpoint, which says nothing."""
    gateway.suppliers[0].script(silent())
    asking = gateway.ask_stream() if is_streamed else gateway.ask()
    asked: asyncio.Task[object] = asyncio.ensure_future(asking)
    await gateway.suppliers[0].call(0)
    return asked


async def test_a_stream_leaves_a_hung_endpoint_for_another(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2, endpoint_hung_ms=HUNG * 250) as gateway:
        asked = await hung(gateway)
        gateway.suppliers[1].script(stream(WORDS))
        gateway.tick(HUNG + 1)
        answer, events = await asked  # type: ignore[misc]
        assert answer.status_code == 200
        assert events[-1] == "[DONE]"
        (closing,) = gateway.closings()
        assert [attempt.outcome for attempt in closing.attempts] == ["endpoint_timeout", "finished"]
        assert sum(charge.amount for charge in closing.charges) > 0
        assert [gateway.gateway.board.state(name).failures for name in ("ep_1", "ep_2")] == [1, 0]
        assert gateway.held()[1] == 0


async def test_without_another_endpoint_it_waits_on(tmp_path: Path) -> None:
    async with bench(tmp_path, endpoint_hung_ms=HUNG * 250) as gateway:
        asked = await hung(gateway)
        gateway.tick(HUNG + 5)
        await gateway.gateway_turn()
        assert not asked.done()
        asked.cancel()


async def test_an_unstreamed_answer_takes_the_time_it_takes(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2, endpoint_hung_ms=HUNG * 250) as gateway:
        asked = await hung(gateway, is_streamed=False)
        gateway.tick(HUNG + 5)
        await gateway.gateway_turn()
        assert not asked.done()
        assert gateway.suppliers[1].calls == []
        asked.cancel()


async def test_an_endpoint_that_talks_to_somebody_is_not_hung(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2, endpoint_hung_ms=HUNG * 250) as gateway:
        asked = await hung(gateway)
        for _ in range(9):
            gateway.gateway.board.begin("ep_2")
        for _ in range(3):
            gateway.tick(HUNG - 1)
            assert (await gateway.ask()).status_code == 200
        gateway.tick(1)
        assert [len(each.calls) for each in gateway.suppliers] == [4, 0]
        assert not asked.done()
        asked.cancel()


async def test_after_the_first_byte_nothing_is_tried_again(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2, endpoint_hung_ms=HUNG * 250, endpoint_silence_ms=1_000) as gateway:
        gateway.suppliers[0].script(stuck_stream(["one"]))
        asked = asyncio.ensure_future(gateway.ask_stream())
        await gateway.suppliers[0].call(0)
        async with asyncio.timeout(5):
            while not gateway.gateway.board.state("ep_1").running or not _delivered(gateway):
                await gateway.gateway_turn()
        gateway.tick(HUNG + 5)
        _, events = await asked
        assert events[-1]["error"]["code"] == "endpoint_timeout"
        assert gateway.suppliers[1].calls == []


def _delivered(gateway: Bench) -> bool:
    pools = gateway.gateway.upstreams._pools.values()
    return any(upstream.touched for pool in pools for upstream in pool.open)
