"""The customers of a chaos run: `python -m tokenworks.chaos.customers`, a plan as JSON on standard input.

They ask in an open loop. What each of them saw of each request goes to a file, one entry each.
"""

import struct
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import IO

import httptools
import msgspec
import uvloop

from tokenworks.base import clock
from tokenworks.bench.endpoint import PATH
from tokenworks.bench.load import counted
from tokenworks.bench.open_loop import Asking, OpenLoop, Pace
from tokenworks.chaos import answers
from tokenworks.chaos.answers import Answer
from tokenworks.chaos.questions import Question, drawn

_DRAWS = 1 << 14
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
    return await counted("tokenworks.chaos.customers", plan, Count)


def seen(output: Path) -> Iterator[Answer]:
    """The entries of a file of answers."""
    decode = msgspec.msgpack.Decoder(Answer).decode
    with output.open("rb") as file:
        while size := file.read(_SIZE.size):
            yield decode(file.read(_SIZE.unpack(size)[0]))


_Asked = tuple[Question, bytes]


class _Loop(OpenLoop[_Asked]):
    """The questions to come, and the file of answers."""

    def __init__(self, plan: Plan, output: IO[bytes]) -> None:
        questions = drawn(plan.seed, _DRAWS, len(plan.keys), plan.steady)
        pace = Pace(rate=plan.rate, duration_ms=plan.duration_ms, connections=plan.connections)
        prepared = cycle([_prepared(plan, each) for each in questions])
        super().__init__(plan.port, pace, prepared, lambda: Connection(self))
        self._output = output
        self._encode = msgspec.msgpack.Encoder().encode

    def saw(self, answer: Answer) -> None:
        """A request is over for its customer."""
        self.is_over()
        entry = self._encode(answer)
        self._output.write(_SIZE.pack(len(entry)) + entry)


class Connection(Asking[_Asked]):
    """One connection, for one request after the other."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._question: Question | None = None
        self._reset()

    def ask(self, asked: _Asked, due_ns: int) -> None:
        """Send a request."""
        del due_ns
        self._question, message = asked
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
            self._loop.is_idle(self)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker is gone, or has had enough of this connection."""
        del exc
        self._loop.is_lost(self)
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
        requests=loop.begun,
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
