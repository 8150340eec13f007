"""Clients and endpoints that leave, stop, hurry or stay at odd moments, over real connections: money stays right."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from gateway_bench import BODY, COUNTED_INPUT, PATH, WORDS, Bench, bench, summary
from stand_in_office import SECRET, catalog, endpoint
from supplier import (
    DONE,
    STREAM_HEAD,
    Act,
    Call,
    chunk,
    completion,
    event,
    events,
    hang_up,
    raw,
    silent,
    stream,
    stuck_stream,
    usage,
    whole,
)
from supplier import answer as http_answer
from tokenworks.core.journal import Closing, Extension, Opening
from tokenworks.core.usage import Tokens

HEAD = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\n".encode()


def books_are_right(gateway: Bench, openings: int) -> None:
    """So many requests were opened, each is closed once, within what was reserved, and nothing is reserved still."""
    entries = gateway.entries()
    opened = [sum(part.amount for part in entry.reserved) for entry in entries if isinstance(entry, Opening)]
    charged = [sum(each.amount for each in entry.charges) for entry in entries if isinstance(entry, Closing)]
    assert len(opened) == len(gateway.closings()) == openings
    assert not any(isinstance(entry, Extension) for entry in entries)
    assert all(amount <= max(opened, default=0) for amount in charged)
    assert gateway.held()[1] == 0


async def test_pipelined_requests_streamed_and_not(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(whole("a"), stream(WORDS, usage(12, 3)), whole("b"))
        reader, writer = await gateway.connect()
        writer.write(gateway.request() + gateway.request(stream=True) + gateway.request())
        data = await reader.readuntil(b'"b"')
        assert [data.index(mark) for mark in (b'"a"', b'"three"', b"[DONE]", b'"b"')] == sorted(
            data.index(mark) for mark in (b'"a"', b'"three"', b"[DONE]", b'"b"')
        )
        assert [closing.tokens.output for closing in gateway.closings()] == [5, 3, 5]
        books_are_right(gateway, 3)


async def test_a_chunked_body_that_waits_to_be_asked_for(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        reader, writer = await gateway.connect()
        writer.write(HEAD + b"expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        body = json.dumps(BODY).encode()
        for piece in (body[:1], body[1:30], body[30:]):
            writer.write(chunk(piece))
            await writer.drain()
        writer.write(b"0\r\nx: y\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert gateway.supplier.calls[0].body["messages"] == BODY["messages"]
        books_are_right(gateway, 1)


async def test_a_client_that_closes_its_side_is_gone(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(stuck_stream(WORDS))
        reader, writer = await gateway.connect()
        writer.write(gateway.request(stream=True))
        await reader.readuntil(b"three")
        writer.write_eof()
        assert b"error" not in await reader.read()
        await asyncio.wait_for(gateway.supplier.calls[0].gone.wait(), 5)
        closing = await gateway.closing()
        assert (closing.ending, closing.tokens) == ("client_gone", Tokens(COUNTED_INPUT, output=3))
        books_are_right(gateway, 1)


async def test_an_answer_on_its_way_reaches_a_client_that_closes_its_side(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        reader, writer = await gateway.connect()
        writer.write(gateway.request())
        await gateway.closing()
        writer.write_eof()
        assert b"Hello there." in await reader.read()
        books_are_right(gateway, 1)


def at_the_head() -> Act:
    async def act(call: Call) -> bool:
        await call.send(STREAM_HEAD)
        await call.until_gone()
        return False

    return act


def before_its_end(*, done: bool) -> Act:
    async def act(call: Call) -> bool:
        listed = [*events(WORDS, usage(12, 3)), *([DONE] if done else [])]
        await call.send(STREAM_HEAD + b"".join(map(chunk, listed)))
        await call.until_gone()
        return False

    return act


ONE = STREAM_HEAD + chunk(event({"content": "one"}))
# Where the customer leaves: what the endpoint does, whether a stream is asked for, what is read before, what it costs.
LEAVES: dict[str, tuple[Act, bool, bytes, int]] = {
    "before the head": (silent(), True, b"", COUNTED_INPUT),
    "before the head of a whole answer": (silent(), False, b"", COUNTED_INPUT),
    "after the head": (at_the_head(), True, b"", COUNTED_INPUT),
    "after the first word": (stuck_stream(WORDS[:1]), True, b"one", COUNTED_INPUT + 1),
    "within a word": (raw(ONE + b"5\r\nda", keep=True), True, b"one", COUNTED_INPUT + 1),
    "after the last word": (before_its_end(done=False), True, b'"stop"', 15),
    "after the end": (before_its_end(done=True), True, b"[DONE]", 15),
}


@pytest.mark.parametrize("is_abrupt", [False, True])
@pytest.mark.parametrize("name", LEAVES)
async def test_a_customer_may_leave_at_every_point(tmp_path: Path, name: str, *, is_abrupt: bool) -> None:
    act, is_stream, until, cost = LEAVES[name]
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(act)
        reader, writer = await gateway.connect()
        writer.write(gateway.request(stream=is_stream))
        await gateway.supplier.call(0)
        if until:
            await reader.readuntil(until)
        if is_abrupt:
            writer.transport.abort()
        else:
            writer.close()
        closing = await gateway.closing()
        assert sum(each.amount for each in closing.charges) == cost
        assert (await gateway.ask()).status_code == 200
        books_are_right(gateway, 2)


async def test_a_customer_may_leave_while_balance_is_asked_for(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.office.release = asyncio.Event()
        _, writer = await gateway.connect()
        writer.write(gateway.request())
        async with asyncio.timeout(5):
            while not gateway.office.asked:
                await gateway.gateway_turn()
        writer.transport.abort()
        async with asyncio.timeout(5):
            while gateway.server.connections:
                await gateway.gateway_turn()
        gateway.office.release.set()
        assert (await gateway.ask()).status_code == 200
        books_are_right(gateway, 1)


@pytest.mark.parametrize("part", range(0, 200, 37))
async def test_a_customer_may_leave_within_a_request(tmp_path: Path, part: int) -> None:
    async with bench(tmp_path) as gateway:
        _, writer = await gateway.connect()
        writer.write(gateway.request()[:part])
        await writer.drain()
        writer.transport.abort()
        assert (await gateway.ask()).status_code == 200
        assert len(gateway.supplier.calls) == 1
        books_are_right(gateway, 1)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_connections_that_were_closed_while_idle_cost_nobody_anything(tmp_path: Path, is_stream: bool) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(whole("x"), hang_up(), stream(WORDS, usage(12, 3)) if is_stream else whole("y"))
        assert (await gateway.ask()).status_code == 200
        assert (await gateway.ask(stream=is_stream)).status_code == 200
        assert [closing.ending for closing in gateway.closings()] == ["finished"] * 2
        assert [summary(closing)[3] for closing in gateway.closings()] == [17, 15 if is_stream else 17]
        assert [len(closing.attempts) for closing in gateway.closings()] == [1] * 2
        assert (len(gateway.supplier.calls), gateway.supplier.connections) == (3, 2)
        books_are_right(gateway, 2)


class Hasty:
    """An endpoint that answers as soon as it has read the head of a request, and never reads a body."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.connections = 0
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()
            writer.write(self.data)
            await self.gone.wait()
        writer.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[str]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1_024)
        host, port = server.sockets[0].getsockname()
        try:
            yield f"http://{host}:{port}/v1"
        finally:
            self.gone.set()
            server.close()
            await server.wait_closed()


@pytest.mark.parametrize("status", [200, 413])
async def test_an_answer_before_the_request_was_read(tmp_path: Path, status: int) -> None:
    body = completion("x", usage(12, 5)) if status == 200 else b'{"error":{"message":"too large","code":"too_large"}}'
    hasty = Hasty(http_answer(status, body))
    messages = [{"role": "user", "content": "x" * (8 << 20)}]
    async with bench(tmp_path, body_bytes_max=16 << 20, balance=1 << 30) as gateway, hasty.running() as url:
        gateway.use(catalog(endpoint(url, "ep_hasty"), version=2))
        for number in (1, 2):
            answer = await gateway.ask(messages=messages)
            assert answer.status_code == status
            # What is left of the first request would stand before the second.
            assert hasty.connections == number
        tokens = Tokens(12, output=5) if status == 200 else Tokens()
        assert [closing.tokens for closing in gateway.closings()] == [tokens] * 2


async def test_bytes_without_end_after_the_end_do_not_keep_a_connection(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        is_cut = asyncio.Event()

        async def act(call: Call) -> bool:
            await call.send(STREAM_HEAD + b"".join(map(chunk, [*events(WORDS, usage(12, 3)), DONE])))
            try:
                while True:
                    await call.send(chunk(b": more\n\n" * 100))
                    await asyncio.sleep(0)
            except ConnectionError:
                is_cut.set()
            return False

        gateway.supplier.script(act)
        assert (await gateway.ask_stream())[1][-1] == "[DONE]"
        async with asyncio.timeout(5):
            while not is_cut.is_set():
                gateway.tick()
                for _ in range(20):
                    await gateway.gateway_turn()
        assert summary(await gateway.closing())[:3] == ("finished", "reported", Tokens(12, output=3))
