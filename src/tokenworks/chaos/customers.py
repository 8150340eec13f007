"""The customers of a chaos run: `python -m tokenworks.chaos.customers`, a plan as JSON on standard input.

An open loop: so many requests a second are begun whatever becomes of the earlier ones, each on a connection that is
idle or, where none is, on a new one. What each customer saw of each request goes to a file, one entry each.
"""

import asyncio
import struct
import sys
from collections import OrderedDict
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import IO, cast

import httptools
import msgspec
import uvloop

from tokenworks.base import clock, processes
from tokenworks.bench.endpoint import PATH
from tokenworks.bench.load import LoadFault
from tokenworks.bench.python import module
from tokenworks.chaos import answers
from tokenworks.chaos.answers import Answer
from tokenworks.chaos.questions import Question, drawn

_TICK_S = 0.005
_DRAWS = 1 << 14
_PATIENCE_S = 30
_SIZE = struct.Struct("<I")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` requests a second for `duration_ms`, at most `connections` under way at once; answers go to `output`.

    The first `steady` keys are of customers with large packages.
    """

    port: int
    keys: list[str]
    steady: int
    seed: int
    rate: int
    duration_ms: int
    connections: int
    output: str


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent. `held_back` requests were not, because every connection waited for an answer; `under_way_most`
    were at once.
    """

    requests: int
    held_back: int
    under_way_most: int
    elapsed_ns: int


async def ask(plan: Plan) -> Count:
    """Carry a plan out in a process of its own."""
    code, said = await processes.run(module("tokenworks.chaos.customers"), msgspec.json.encode(plan))
    if code != 0:
        raise LoadFault(f"The customers ended with {processes.how_it_ended(code)}: {said.strip()[-2000:]}")
    return msgspec.json.decode(said, type=Count)


def seen(output: Path) -> Iterator[Answer]:
    """The entries of a file of answers."""
    decode = msgspec.msgpack.Decoder(Answer).decode
    with output.open("rb") as file:
        while size := file.read(_SIZE.size):
            yield decode(file.read(_SIZE.unpack(size)[0]))


class _Loop:
    """The questions to come, the connections that are idle, and the file of answers."""

    def __init__(self, plan: Plan, output: IO[bytes]) -> None:
        self.plan = plan
        self.idle: OrderedDict[Connection, None] = OrderedDict()
        self.open = 0
        self.requests = 0
        self.held_back = 0
        self.under_way_most = 0
        self._running = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._is_quiet = asyncio.Event()
        self._output = output
        self._encode = msgspec.msgpack.Encoder().encode
        questions = drawn(plan.seed, _DRAWS, len(plan.keys), plan.steady)
        self._questions = cycle([_prepared(plan, each) for each in questions])

    async def run(self) -> None:
        """Begin requests at the rate until time is up, then wait for those under way."""
        began_ns = clock.boot_ns()
        while (elapsed_ns := clock.boot_ns() - began_ns) < self.plan.duration_ms * clock.MS:
            due = self.plan.rate * elapsed_ns // clock.SECOND - self.requests - self.held_back
            for _ in range(due):
                self._begin()
            await asyncio.sleep(_TICK_S)
        async with asyncio.timeout(_PATIENCE_S):
            while self._running:
                self._is_quiet.clear()
                await self._is_quiet.wait()

    def saw(self, answer: Answer) -> None:
        """A request is over for its customer."""
        self._running -= 1
        if self._running == 0:
            self._is_quiet.set()
        entry = self._encode(answer)
        self._output.write(_SIZE.pack(len(entry)) + entry)

    def _begin(self) -> None:
        if not self.idle and self.open >= self.plan.connections:
            self.held_back += 1
            return
        self.requests += 1
        self._running += 1
        self.under_way_most = max(self.under_way_most, self._running)
        question, message = next(self._questions)
        if self.idle:
            self.idle.popitem(last=False)[0].ask(question, message)
            return
        self.open += 1
        task = asyncio.create_task(self._on_a_new_one(question, message))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _on_a_new_one(self, question: Question, message: bytes) -> None:
        """The gateway's listening socket outlives its workers; what keeps a connection from being made passes."""
        while True:
            try:
                made = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self), "127.0.0.1", self.plan.port
                )
            except OSError:
                await asyncio.sleep(_TICK_S)
                continue
            made[1].ask(question, message)
            return


class Connection(asyncio.Protocol):
    """One connection, for one request after the other."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._question: Question | None = None
        self._reset()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, question: Question, message: bytes) -> None:
        """Send a request."""
        self._question = question
        if self._transport.is_closing():
            self._end(is_whole=False)
        else:
            self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser has seen a header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The parser has seen the head."""
        self._status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """The parser has seen a part of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """The parser has seen a whole answer."""
        is_kept = self._headers.get(b"connection") != b"close"
        self._end(is_whole=True)
        if is_kept:
            self._loop.idle[self] = None
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker is gone, or has had enough of this connection."""
        del exc
        self._loop.open -= 1
        self._loop.idle.pop(self, None)
        self._end(is_whole=False)

    def _end(self, *, is_whole: bool) -> None:
        question, self._question = self._question, None
        if question is not None:
            body = b"".join(self._body)
            heard = self._status > 0
            self._loop.saw(
                answers.read(question, self._status, self._headers, body, is_whole=is_whole)
                if heard
                else Answer(question, "unheard")
            )
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._status = 0


def _prepared(plan: Plan, question: Question) -> tuple[Question, bytes]:
    body = question.body()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {plan.keys[question.account]}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return question, head.encode() + body


async def _carry_out(plan: Plan, output: IO[bytes]) -> Count:
    loop = _Loop(plan, output)
    began_ns = clock.boot_ns()
    await loop.run()
    return Count(
        requests=loop.requests,
        held_back=loop.held_back,
        under_way_most=loop.under_way_most,
        elapsed_ns=clock.boot_ns() - began_ns,
    )


def main() -> int:
    """Carry out the plan on standard input."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    with Path(plan.output).open("wb") as output:
        count = uvloop.run(_carry_out(plan, output))
    sys.stdout.write(msgspec.json.encode(count).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
