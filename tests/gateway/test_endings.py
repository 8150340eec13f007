"""Customers who leave, workers that drain, endpoints that are replaced, and the odd ways a stream may end."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway_bench import COUNTED_INPUT, WORDS, bench, summary
from stand_in_office import catalog, endpoint
from supplier import (
    CLOSING_STREAM_HEAD,
    DONE,
    STREAM_HEAD,
    Act,
    chunk,
    completion,
    event,
    events,
    hang_up,
    raw,
    silent,
    status,
    stuck_stream,
    usage,
)
from supplier import answer as http_answer
from tokenworks.core.journal import Attempt, Checkpoint
from tokenworks.core.usage import Tokens

CLIENT_GONE: dict[str, tuple[bool, Act, Tokens, str, tuple[str, ...]]] = {
    "stream": (True, stuck_stream(WORDS), Tokens(COUNTED_INPUT, output=3), "counted", ("usage_missing",)),
    "whole": (False, silent(), Tokens(COUNTED_INPUT), "counted", ("output_unseen", "usage_missing")),
}


@pytest.mark.parametrize("name", CLIENT_GONE)
async def test_a_customer_who_leaves_stops_the_endpoint_and_pays_for_what_was_generated(
    tmp_path: Path, name: str
) -> None:
    is_stream, act, tokens, basis, flags = CLIENT_GONE[name]
    async with bench(tmp_path, checkpoint_tokens=1) as gateway:
        gateway.supplier.script(act)
        reader, writer = await gateway.connect()
        writer.write(gateway.request(stream=is_stream))
        call = await gateway.supplier.call(0)
        if is_stream:
            await reader.readuntil(b"three")
        writer.close()
        closing = await gateway.closing()
        await asyncio.wait_for(call.gone.wait(), 5)
        assert summary(closing) == ("client_gone", basis, tokens, tokens.total, flags)
        assert closing.attempts[0].tokens == tokens


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_endpoint_that_is_drained_is_read_to_its_end(tmp_path: Path, is_stream: bool) -> None:
    release = asyncio.Event()
    async with bench(tmp_path) as gateway:
        gateway.use(catalog(endpoint(gateway.supplier.url, disconnect="drain")))

        async def slow(call: Any) -> bool:
            first, *others = events(WORDS, usage(12, 3))
            if is_stream:
                await call.send(STREAM_HEAD + chunk(first))
            await release.wait()
            if is_stream:
                await call.send(b"".join(chunk(each) for each in [*others, DONE]) + b"0\r\n\r\n")
            else:
                await call.send(http_answer(200, completion("x", usage(12, 3))))
            return True

        gateway.supplier.script(slow)
        _, writer = await gateway.connect()
        writer.write(gateway.request(stream=is_stream))
        await gateway.supplier.call(0)
        writer.close()
        await writer.wait_closed()
        release.set()
        closing = await gateway.closing()
        assert summary(closing) == ("client_gone", "reported", Tokens(12, output=3), 15, ())


async def test_a_customer_who_leaves_before_dispatch_pays_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.office.is_down = True
        _, writer = await gateway.connect()
        writer.write(gateway.request())
        writer.close()
        await writer.wait_closed()
        assert (await gateway.ask()).status_code == 503
        assert gateway.closings() == []


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_worker_that_drains_ends_what_runs_too_long(tmp_path: Path, is_stream: bool) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(stuck_stream(WORDS) if is_stream else silent())
        reader, writer = await gateway.connect()
        writer.write(gateway.request(stream=is_stream))
        await gateway.supplier.call(0)
        if is_stream:
            await reader.readuntil(b"three")
        await gateway.server.drain(1)
        assert b'"code":"draining"' in await reader.read()
        closing = await gateway.closing()
        expected = ("counted", Tokens(COUNTED_INPUT, output=3), 13) if is_stream else ("none", Tokens(), 0)
        assert summary(closing)[:4] == ("drained", *expected)
        await gateway.gateway.leases.close_all()
        assert gateway.held() == (0, 0, 0)
        writer.close()


async def test_a_request_that_lives_too_long_is_ended(tmp_path: Path) -> None:
    async with bench(tmp_path, request_longest_ms=1) as gateway:
        gateway.supplier.script(silent())
        asked = asyncio.create_task(gateway.ask())
        await gateway.supplier.call(0)
        async with asyncio.timeout(5):
            while not asked.done():
                gateway.tick()
                await gateway.gateway_turn()
        assert (await asked).status_code == 504
        assert summary(await gateway.closing())[:2] == ("endpoint_timeout", "none")


STREAM_ENDS: dict[str, tuple[bytes, bool]] = {
    "no [DONE]": (STREAM_HEAD + b"".join(map(chunk, events(WORDS, usage(12, 3)))) + b"0\r\n\r\n", True),
    "no [DONE] and no length": (CLOSING_STREAM_HEAD + b"".join(events(WORDS, usage(12, 3))), True),
    "no blank line at the end": (CLOSING_STREAM_HEAD + b"".join(events(WORDS, usage(12, 3))) + b"data: [DONE]\n", True),
    "more after [DONE]": (
        STREAM_HEAD
        + b"".join(map(chunk, [*events(WORDS, usage(12, 3)), DONE, event({"content": "x"})]))
        + b"0\r\n\r\n",
        True,
    ),
    "no finish, no length": (CLOSING_STREAM_HEAD + b"".join(event({"content": word}) for word in WORDS), False),
}


@pytest.mark.parametrize("name", STREAM_ENDS)
async def test_how_a_stream_may_end(tmp_path: Path, name: str) -> None:
    data, is_good = STREAM_ENDS[name]
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(raw(data))
        _, seen = await gateway.ask_stream()
        assert (seen[-1] == "[DONE]") == is_good
        assert seen.count("[DONE]") == is_good
        assert (await gateway.closing()).ending == ("finished" if is_good else "endpoint_broken")


async def test_checkpoints_say_how_far_a_stream_has_come(tmp_path: Path) -> None:
    async with bench(tmp_path, checkpoint_tokens=2) as gateway:
        gateway.supplier.script(stuck_stream(["a", "b", "c", "d", "e"]))
        reader, writer = await gateway.connect()
        writer.write(gateway.request(stream=True))
        await reader.readuntil(b'"e"')
        gateway.writer.flush()
        last = [entry for entry in gateway.entries() if isinstance(entry, Checkpoint)][-1]
        assert last.counted.output >= 4
        assert sum(charge.amount for charge in last.charges) == last.counted.total
        assert [attempt.outcome for attempt in last.attempts] == ["orphaned"]
        writer.close()
        assert (await gateway.closing()).counted.output == 5


@pytest.mark.parametrize("failure", [status(503), hang_up(), status(429), status(403)])
async def test_another_endpoint_is_tried_before_the_first_byte(tmp_path: Path, failure: Act) -> None:
    async with bench(tmp_path, suppliers=2) as gateway:
        gateway.suppliers[0].default = failure
        for _ in range(3):
            assert (await gateway.ask()).status_code == 200
        tried = [[attempt.endpoint_id for attempt in closing.attempts] for closing in gateway.closings()]
        assert tried == [["ep_1", "ep_2"], ["ep_2"], ["ep_2"]]
        first = gateway.closings()[0].attempts[0]
        assert (first.cost, first.outcome in {"refused", "endpoint_broken"}) == (0, True)


async def test_an_endpoint_that_cannot_be_reached_is_left(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.use(catalog(endpoint("http://127.0.0.1:1/v1", "dead"), endpoint(gateway.supplier.url, "ep_1")))
        assert (await gateway.ask()).status_code == 200
        attempts: tuple[Attempt, ...] = gateway.closings()[0].attempts
        assert [(each.endpoint_id, each.outcome) for each in attempts] == [
            ("dead", "endpoint_broken"),
            ("ep_1", "finished"),
        ]


async def test_a_kept_connection_that_the_endpoint_closed_is_replaced_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        body = completion("x", usage(12, 5))
        gateway.supplier.script(raw(http_answer(200, body), keep=True), hang_up())
        assert (await gateway.ask()).status_code == 200
        assert (await gateway.ask()).status_code == 200
        assert gateway.supplier.connections == 2
        assert [len(closing.attempts) for closing in gateway.closings()] == [1, 1]


async def test_a_slow_reader_holds_the_endpoint_back(tmp_path: Path) -> None:
    async with bench(tmp_path, write_buffer_bytes=1024) as gateway:
        sent = 0

        async def flood(call: Any) -> bool:
            nonlocal sent
            await call.send(STREAM_HEAD)
            piece = chunk(event({"uncounted": "x" * 60_000}))
            for _ in range(1_000):
                await call.send(piece)
                sent += 1
            return False

        gateway.supplier.script(flood)
        reader, writer = await gateway.connect()
        writer.write(gateway.request(stream=True))
        await reader.readuntil(b"x")
        before = -1
        async with asyncio.timeout(5):
            while sent != before:
                before = sent
                for _ in range(200):
                    await gateway.gateway_turn()
        assert sent < 1_000
        writer.transport.abort()
        assert (await gateway.closing()).ending == "client_gone"


async def test_durability_every_waits_for_the_disk(tmp_path: Path) -> None:
    async with bench(tmp_path, durability="every") as gateway:
        sync = asyncio.create_task(gateway.gateway.records._sync.run())
        assert (await gateway.ask()).status_code == 200
        assert gateway.writer.synced > (await gateway.closing()).opening
        sync.cancel()
        await asyncio.gather(sync, return_exceptions=True)


async def test_an_answer_in_one_byte_pieces(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        data = STREAM_HEAD + b"".join(map(chunk, [*events(WORDS, usage(12, 3)), DONE])) + b"0\r\n\r\n"

        async def trickle(call: Any) -> bool:
            for place in range(len(data)):
                await call.send(data[place : place + 1])
            return True

        gateway.supplier.script(trickle)
        _, seen = await gateway.ask_stream()
        assert [each["choices"][0]["delta"]["content"] for each in seen[1:4]] == WORDS
        assert seen[-1] == "[DONE]"
        assert summary(await gateway.closing()) == ("finished", "reported", Tokens(12, output=3), 15, ())
