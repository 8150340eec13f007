"""The scripted endpoints of a chaos run: `python -m tokenworks.chaos.endpoint --listen-fd N …`, one process.

Each answers as the question's script says, streamed or whole, with exact usage, and knows nothing between two requests:
killed at any moment, the next process on the same socket goes on.
"""

import argparse
import asyncio
import signal
import socket
from typing import cast

import httptools
import msgspec
import uvloop

from tokenworks.base import processes
from tokenworks.base.processes import Program
from tokenworks.bench.endpoint import BACKLOG, MODEL
from tokenworks.bench.python import module
from tokenworks.chaos.questions import INPUT_TOKENS, Script, script_of

_HEAD = b'"id":"chatcmpl-chaos","created":1,"model":"%b"' % MODEL.encode()
_CHUNK = b'data: {"object":"chat.completion.chunk",%b,"choices":[%b]%b}\n\n'
_WORD = _CHUNK % (_HEAD, b'{"index":0,"delta":{"content":"w "},"finish_reason":null}', b"")
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


class Scripted:
    """The process of one endpoint, as a service that can be watched and started again."""

    stop_signal = signal.SIGKILL

    def __init__(self, name: str, listener: socket.socket) -> None:
        self.name = name
        self._listener = listener

    async def spawn(self) -> asyncio.subprocess.Process:
        """Start it on its listening socket."""
        number = self._listener.fileno()
        return await processes.spawn(self._program(number))

    async def ready(self, process: asyncio.subprocess.Process) -> None:
        """Connections wait in the socket's queue, so it counts as ready at once."""
        del process

    def _program(self, number: int) -> Program:
        return module("tokenworks.chaos.endpoint", "--listen-fd", str(number), descriptors=(number,))


class _Body(msgspec.Struct):
    max_tokens: int
    stream: bool = False


_decode = msgspec.json.Decoder(_Body).decode


class Endpoint(asyncio.Protocol):
    """One connection: one answer after the other."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._body = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """The parser has seen a part of a body."""
        self._body += data

    def on_message_complete(self) -> None:
        """The parser has seen a whole request."""
        body, self._body = self._body, b""
        script = script_of(body)
        if script is None:
            self._transport.write(_REFUSAL)
            return
        asked = _decode(body)
        tokens = min(script.tokens, asked.max_tokens)
        reason = b"stop" if tokens == script.tokens else b"length"
        if asked.stream:
            self._transport.write(_STREAM_HEAD)
            self._stream(script, tokens, tokens, reason)
        else:
            asyncio.get_running_loop().call_later(script.pause_ms / 1000, self._write, _whole(tokens, reason))

    def _stream(self, script: Script, tokens: int, left: int, reason: bytes) -> None:
        if self._transport.is_closing():
            return
        piece = min(script.piece, left)
        self._transport.write(_chunked(_WORD * piece))
        if left > piece:
            pause_s = script.pause_ms / 1000
            asyncio.get_running_loop().call_later(pause_s, self._stream, script, tokens, left - piece, reason)
        else:
            self._transport.write(_chunked(_end(tokens, reason)) + b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def answer_of(body: bytes) -> bytes:
    """What the endpoint answers to this body, all at once and without its framing."""
    script, asked = script_of(body), _decode(body)
    if script is None:
        return b""
    tokens = min(script.tokens, asked.max_tokens)
    reason = b"stop" if tokens == script.tokens else b"length"
    return _WORD * tokens + _end(tokens, reason) if asked.stream else _whole(tokens, reason).partition(b"\r\n\r\n")[2]


def _whole(tokens: int, reason: bytes) -> bytes:
    message = b'{"role":"assistant","content":"%b"}' % (b"w " * tokens)
    choice = b'{"index":0,"message":%b,"finish_reason":"%b"}' % (message, reason)
    body = b'{"object":"chat.completion",%b,"choices":[%b],"usage":%b}' % (_HEAD, choice, _usage(tokens))
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _end(tokens: int, reason: bytes) -> bytes:
    last = _CHUNK % (_HEAD, b'{"index":0,"delta":{},"finish_reason":"%b"}' % reason, b"")
    return last + _CHUNK % (_HEAD, b"", b',"usage":%b' % _usage(tokens)) + b"data: [DONE]\n\n"


def _usage(tokens: int) -> bytes:
    total = INPUT_TOKENS + tokens
    return b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (INPUT_TOKENS, tokens, total)


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="tokenworks.chaos.endpoint", description="A scripted endpoint.")
    parser.add_argument("--listen-fd", type=int, required=True, help="listening socket")
    given = parser.parse_args()
    uvloop.run(_serve(socket.socket(fileno=given.listen_fd)))


async def _serve(listener: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(Endpoint, sock=listener, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    main()
