"""The endpoints of a measurement: `python -m tokenworks.bench.endpoint --listen-fd N …`, one process for all of them.

Each request gets the same chat completion with its usage, at once. It must cost little, so it looks at nothing in the
request but its end.
"""

import argparse
import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import httptools
import uvloop

from tokenworks.app import ports
from tokenworks.base import processes
from tokenworks.bench.python import module

PATH = "/v1/chat/completions"
MODEL = "bench"
BODY_BYTES = 600
BACKLOG = 4096
_USAGE = {"prompt_tokens": 48, "completion_tokens": 64, "total_tokens": 112}
_STOP_PATIENCE_MS = 2_000


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="tokenworks.bench.endpoint", description="Endpoints of a measurement.")
    parser.add_argument("--listen-fd", type=int, action="append", required=True, help="listening socket; repeat")
    given = parser.parse_args()
    whole = answer()
    uvloop.run(serve([socket.socket(fileno=number) for number in given.listen_fd], lambda: Endpoint(whole)))


@asynccontextmanager
async def running(count: int, name: str = __name__, options: tuple[str, ...] = ()) -> AsyncGenerator[list[int]]:
    """So many endpoints in a process of their own, of this module or the one with this name; gives their ports."""
    async with AsyncExitStack() as stack:
        listeners = [stack.enter_context(await ports.listen("127.0.0.1", 0, "")) for _ in range(count)]
        numbers = tuple(listener.fileno() for listener in listeners)
        arguments = [part for number in numbers for part in ("--listen-fd", str(number))]
        program = module(name, *arguments, *options, descriptors=numbers)
        process = await processes.spawn(program)
        stack.push_async_callback(processes.stop, process, program.stop_signal, _STOP_PATIENCE_MS)
        yield [ports.port_of(listener) for listener in listeners]


class Endpoint(asyncio.Protocol):
    """One connection."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            # A peer tries whether we speak another protocol.
            self._transport.abort()

    def on_message_complete(self) -> None:
        """The parser has seen a whole request."""
        self._transport.write(self._answer)


def answer() -> bytes:
    """The whole answer; its body has exactly `BODY_BYTES`."""
    body = _body("")
    body = _body("w" * (BODY_BYTES - len(body)))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _body(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    completion = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
    return json.dumps(completion, separators=(",", ":")).encode()


async def serve(listeners: list[socket.socket], connected: Callable[[], asyncio.Protocol]) -> None:
    """Accept connections until the process is ended."""
    loop = asyncio.get_running_loop()
    for listener in listeners:
        await loop.create_server(connected, sock=listener, backlog=BACKLOG)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
