"""A scripted supplier: an OpenAI-compatible HTTP server that does exactly what a test tells it, also what none should.

Each request takes the next act of the script, or the default act. An act writes what it likes and says whether the
connection may be used again.
"""

import asyncio
import contextlib
import json
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Usage = dict[str, Any]


@dataclass
class Call:
    """One request as it arrived. `gone` is set when the gateway closes the connection while the act waits for it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    method: str = "POST"
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, data: bytes) -> None:
        """Write these bytes now."""
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        """Return when the other side has closed."""
        with contextlib.suppress(ConnectionError):
            await self.reader.read(1)
        self.gone.set()


Act = Callable[[Call], Awaitable[bool]]


class Supplier:
    """The running server. `calls` keeps what it was asked, `connections` how many came."""

    def __init__(self) -> None:
        self.acts: deque[Act] = deque()
        self.default: Act = whole("Hello there.")
        self.calls: list[Call] = []
        self.connections = 0
        self.called = asyncio.Condition()
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    def script(self, *acts: Act) -> None:
        """What the next requests get."""
        self.acts.extend(acts)

    async def call(self, number: int) -> Call:
        """The call with this number, counted from 0, when it has come."""
        async with asyncio.timeout(5), self.called:
            await self.called.wait_for(lambda: len(self.calls) > number)
        return self.calls[number]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the connection or the supplier ends
        finally:
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        """End all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = first.split(" ")
        call = Call(path, headers, json.loads(body or b"{}"), reader, writer, method)
        async with self.called:
            self.calls.append(call)
            self.called.notify_all()
        act = self.acts.popleft() if self.acts else self.default
        return await act(call)


@contextlib.asynccontextmanager
async def supplier(secure: ssl.SSLContext | None = None) -> AsyncGenerator[Supplier]:
    """A supplier on a free port, behind TLS if it is given a context."""
    running = Supplier()
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0, ssl=secure)
    host, port = server.sockets[0].getsockname()
    running.url = f"{'https' if secure else 'http'}://{host}:{port}/v1"
    try:
        yield running
    finally:
        server.close()
        await running.stop()


def usage(prompt: int, completion: int, **details: int) -> Usage:
    """OpenAI's usage object; `cached` and `reasoning` are reported inside."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": details.get("cached", 0)},
        "completion_tokens_details": {"reasoning_tokens": details.get("reasoning", 0)},
    }


def answer(status: int, body: bytes, *fields: str, content_type: str = "application/json") -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status} X", f"content-type: {content_type}", f"content-length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def completion(text: str, reported: Usage | None) -> bytes:
    """The body of an unstreamed answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "up", "choices": [choice]}
    return json.dumps(body | ({"usage": reported} if reported else {})).encode()


def event(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a stream; no delta gives an event without choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": choices}
    return b"data: " + json.dumps(chunk | more).encode() + b"\n\n"


def events(texts: Sequence[str], reported: Usage | None) -> list[bytes]:
    """The events of a well-behaved stream, without `[DONE]`."""
    listed = [event({"role": "assistant", "content": ""}), *[event({"content": text}) for text in texts]]
    listed.append(event({}, "stop"))
    return [*listed, event(None, usage=reported)] if reported else listed


DONE = b"data: [DONE]\n\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CLOSING_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


DEFAULT_USAGE = usage(12, 5)


def whole(text: str, reported: Usage | None = DEFAULT_USAGE) -> Act:
    """A good unstreamed answer, or, if a stream is asked for, the same words streamed."""

    async def act(call: Call) -> bool:
        if call.body.get("stream"):
            return await stream(text.split(), reported)(call)
        await call.send(answer(200, completion(text, reported)))
        return True

    return act


def stream(texts: Sequence[str], reported: Usage | None = DEFAULT_USAGE, *, done: bool = True) -> Act:
    """A good stream, one HTTP chunk for each event."""

    async def act(call: Call) -> bool:
        listed = [*events(texts, reported), *([DONE] if done else [])]
        await call.send(STREAM_HEAD)
        for each in listed:
            await call.send(chunk(each))
        await call.send(b"0\r\n\r\n")
        return True

    return act


def broken_stream(texts: Sequence[str]) -> Act:
    """A stream that breaks off after these words."""

    async def act(call: Call) -> bool:
        await call.send(STREAM_HEAD + b"".join(chunk(event({"content": text})) for text in texts))
        return False

    return act


def stuck_stream(texts: Sequence[str]) -> Act:
    """A stream that falls silent after these words and waits until the gateway gives up."""

    async def act(call: Call) -> bool:
        await call.send(STREAM_HEAD + b"".join(chunk(event({"content": text})) for text in texts))
        await call.until_gone()
        return False

    return act


def raw(data: bytes, *, keep: bool = False) -> Act:
    """Exactly these bytes."""

    async def act(call: Call) -> bool:
        await call.send(data)
        return keep

    return act


def status(code: int, body: dict[str, Any] | None = None, *fields: str) -> Act:
    """An error answer."""
    return raw(answer(code, json.dumps(body or {}).encode(), *fields), keep=True)


def ok(body: dict[str, Any]) -> Act:
    """An unstreamed answer with this body."""
    return status(200, body)


def hang_up() -> Act:
    """Close without a byte."""
    return raw(b"")


def silent() -> Act:
    """Never answer."""

    async def act(call: Call) -> bool:
        await call.until_gone()
        return False

    return act


def held(release: asyncio.Event, then: Act) -> Act:
    """Wait for the test, then act."""

    async def act(call: Call) -> bool:
        await release.wait()
        return await then(call)

    return act


def calling(*arguments: str, mixed: bool = False) -> Act:
    """Says something and calls the tool `weather` once for each of the arguments: whole, or in two pieces each.

    The pieces come one call after another, or `mixed`: first the first pieces of all.
    """

    def call(place: int, piece: str, **more: Any) -> dict[str, Any]:
        function = {"arguments": piece} | ({"name": "weather"} if more else {})
        return {"index": place, "type": "function", "function": function} | more

    async def act(asked: Call) -> bool:
        if not asked.body.get("stream"):
            calls = [call(place, given, id=f"t{place}") for place, given in enumerate(arguments)]
            choice = {"message": {"content": "Let me see.", "tool_calls": calls}, "finish_reason": "tool_calls"}
            await asked.send(answer(200, json.dumps({"choices": [choice], "usage": usage(12, 9)}).encode()))
            return True
        firsts = [event({"tool_calls": [call(n, given[:4], id=f"t{n}")]}) for n, given in enumerate(arguments)]
        rests = [event({"tool_calls": [call(n, given[4:])]}) for n, given in enumerate(arguments)]
        pieces = firsts + rests if mixed else [each for both in zip(firsts, rests, strict=True) for each in both]
        sent = [event({"role": "assistant", "content": "Let me see."}), *pieces]
        sent += [event({}, "tool_calls"), event(None, usage=usage(12, 9)), b"data: [DONE]\n\n"]
        await asked.send(STREAM_HEAD + b"".join(chunk(each) for each in sent) + b"0\r\n\r\n")
        return True

    return act
