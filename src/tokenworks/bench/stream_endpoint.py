"""Endpoints that stream: `python -m tokenworks.bench.stream_endpoint --listen-fd N --chunks 64 --interval-ms 20`.

Each stream is so many chunks of text at even distances, the first at once, the last with the usage. Whoever asks for no
stream gets the answer of `endpoint`.
"""

import argparse
import asyncio
import json
import re
import socket
from contextlib import AbstractAsyncContextManager

import msgspec
import uvloop

from tokenworks.bench import endpoint, machine
from tokenworks.bench.endpoint import MODEL, Endpoint

NAME = "tokenworks.bench.stream_endpoint"
_STREAMED = re.compile(rb'"stream":\s*true')
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LAST = b"0\r\n\r\n"


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream goes: so many chunks, so far apart."""

    chunks: int
    interval_ms: int


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog=NAME, description="Endpoints of a measurement that stream.")
    parser.add_argument("--listen-fd", type=int, action="append", required=True, help="listening socket; repeat")
    parser.add_argument("--chunks", type=int, required=True, help="chunks of a stream")
    parser.add_argument("--interval-ms", type=int, required=True, help="time between two chunks")
    given = parser.parse_args()
    machine.allow_descriptors()
    whole, parts = endpoint.answer(), stream(given.chunks)
    listeners = [socket.socket(fileno=number) for number in given.listen_fd]
    uvloop.run(endpoint.serve(listeners, lambda: StreamEndpoint(whole, parts, given.interval_ms / 1_000)))


def running(count: int, pace: Pace) -> AbstractAsyncContextManager[list[int]]:
    """So many endpoints of this pace in a process of their own; gives their ports on loopback."""
    options = ("--chunks", str(pace.chunks), "--interval-ms", str(pace.interval_ms))
    return endpoint.running(count, NAME, options)


class StreamEndpoint(Endpoint):
    """One connection."""

    def __init__(self, answer: bytes, parts: list[bytes], interval_s: float) -> None:
        super().__init__(answer)
        self._parts = parts
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._body = b""

    def on_body(self, body: bytes) -> None:
        """A part of the request's body."""
        self._body += body

    def on_message_complete(self) -> None:
        """The parser has seen a whole request."""
        streamed, self._body = _STREAMED.search(self._body), b""
        if streamed is None:
            super().on_message_complete()
        else:
            self._send(0, self._loop.time())

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever listened is gone."""
        del exc
        if self._timer is not None:
            self._timer.cancel()

    def _send(self, number: int, due_s: float) -> None:
        self._transport.write(self._parts[number])
        number += 1
        if number < len(self._parts):
            due_s += self._interval_s
            self._timer = self._loop.call_at(due_s, self._send, number, due_s)


def stream(chunks: int) -> list[bytes]:
    """The parts of a whole stream as they are sent: the first with the head, the last with all that ends it."""
    parts = [_framed(_event(number, chunks)) for number in range(chunks)]
    parts[0] = _HEAD + parts[0]
    parts[-1] += _framed(b"data: [DONE]\n\n") + _LAST
    return parts


def _event(number: int, chunks: int) -> bytes:
    last = number == chunks - 1
    delta = {"content": "word "} if number else {"role": "assistant", "content": "word "}
    usage = {"prompt_tokens": 48, "completion_tokens": chunks, "total_tokens": 48 + chunks}
    chunk = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": "stop" if last else None}],
    }
    return b"data: " + json.dumps(chunk | ({"usage": usage} if last else {}), separators=(",", ":")).encode() + b"\n\n"


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


if __name__ == "__main__":
    main()
