"""Rubbish on both sides of the gateway: nothing escapes, every opening is closed once, nobody pays more than reserved.

The same examples each time, few of them, and those of the corpus; with `FUZZ_EXAMPLES=20000` so many new ones for each
test, of which the corpus keeps what comes out in a new way. What fails is kept in `.hypothesis` and tried first the
next time.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.fuzz_corpus import MANY, Corpus
from gateway.test_server import Line, answers, post, status
from gateway_bench import PATH, Bench, bench
from supplier import DONE, STREAM_HEAD, Call, chunk, completion, event, usage
from supplier import answer as http_answer
from tokenworks.base.config import Settings
from tokenworks.base.journal import read_frames, split
from tokenworks.core import journal
from tokenworks.core.journal import Closing, Extension, Opening

fuzz = settings(
    max_examples=MANY or 80,
    derandomize=not MANY,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# Parts that make sense somewhere, in any order: what two readers may disagree on is made of these.
REQUEST_PARTS = [
    *(
        b"POST /x HTTP/1.1\r\n",
        b"GET / HTTP/1.0\r\n",
        b"PUT /y?z HTTP/1.1\r\n",
        b"HTTP/1.1",
        b"CONNECT x:1 HTTP/1.1\r\n",
    ),
    *(
        b"host: x\r\n",
        b"Host: y\r\n",
        b"content-length: 2\r\n",
        b"content-length: 99999\r\n",
        b"Content-Length : 5\r\n",
    ),
    *(
        b"transfer-encoding: chunked\r\n",
        b"transfer-encoding: gzip\r\n",
        b"expect: 100-continue\r\n",
        b"x: y\r\n z\r\n",
    ),
    *(b"connection: close\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n", b"connection: keep-alive\r\n"),
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"hi",
        b"2\r\nhi\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"ffffffff\r\n",
        b";a=b\r\n",
        b" ",
        b":",
        b"\x00",
    ),
    *(post(), post(b"you"), post(b"", "connection: upgrade", "upgrade: h2c"), b"x" * 600),
]
pieces_of_requests = st.lists(st.sampled_from(REQUEST_PARTS) | st.binary(max_size=6), max_size=14)


@fuzz
@given(pieces_of_requests, st.lists(st.integers(0, 800), max_size=8), st.booleans())
def test_requests_of_any_bytes(parts: list[bytes], cuts: list[int], is_good_first: bool) -> None:
    REQUESTS.note(read_alike(parts, cuts, is_good_first=is_good_first), (parts, cuts, is_good_first))


def test_requests_of_the_corpus() -> None:
    for parts, cuts, is_good_first in REQUESTS.examples():
        read_alike(parts, cuts, is_good_first=is_good_first)


def read_alike(parts: list[bytes], cuts: list[int], *, is_good_first: bool) -> object:
    """A request at once and in pieces: the same, or refused. How it came out."""
    data = post(b"good") * is_good_first + b"".join(parts)
    places = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    whole, cut = Line(settings=SMALL), Line(settings=SMALL)
    whole.feed(data)
    for start, end in pairwise(places):
        if not cut.transport.closed:
            cut.feed(data[start:end])
    for line in (whole, cut):
        codes = [status(each) for each in answers(line.transport.written)]
        finals = [code for code in codes if code != 100]
        refused = [code for code in finals if code != 200]
        assert set(finals) <= {200, 400, 413, 431}
        assert len(refused) <= 1
        assert finals[len(finals) - len(refused) :] == refused
        assert len(line.exchanges) == finals.count(200)
        assert not refused or line.transport.ended or line.transport.closed
    # Of offers that come at once only the first is read over; of those that come apart each is.
    if not whole.transport.closed and b"Other protocols" not in whole.transport.written:
        assert [served(each) for each in whole.exchanges] == [served(each) for each in cut.exchanges]
    said = [(status(each), refusal(each)) for each in answers(whole.transport.written)]
    return said, len(whole.exchanges), len(cut.exchanges), whole.transport.paused, whole.transport.ended


def refusal(answer: bytes) -> str:
    return json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"] if status(answer) >= 400 else ""


# Said by the answers below: in one piece, in two, within reasoning.
WORDS = ("forbidden", "ééé")
REQUESTS = Corpus("requests")
ANSWERS = Corpus("answers")
SCREENED = Corpus("screened")
SMALL = Settings(header_bytes_max=500, body_bytes_max=1_000, pipelined_max=4)


def served(exchange: Any) -> tuple[Any, ...]:
    return exchange.method, exchange.path, exchange.headers, exchange.body, exchange.keep_alive


ANSWER_PARTS = [
    *(event({"content": "one"}), event({"content": "é" * 9}), event({}, "stop"), event(None, usage=usage(12, 3))),
    *(
        event({"content": "x"}, usage=usage(12, 7)),
        event(None, usage=usage(0, 0)),
        event(None, usage=usage(12, 1 << 70)),
    ),
    *(event(None, usage=usage(-1, -2)), event(None, usage={"prompt_tokens": 5}), event(None, usage=usage(79, 20))),
    *(event({"content": "for"}), event({"content": "bidden"}), event({"reasoning_content": "forbidden fruit"})),
    *(b'data: {"error":{"message":"x"}}\n\n', b'data: {"object":"error","message":"x"}\n\n', b": c\n\n", b"data:\n\n"),
    *(b'data: {"choices":[{"index":9,"delta":{"tool_calls":[1]}}]}\n\n', b"data: [1]\n\n", b"data: {", b"event: x\r\n"),
    *(
        b"\n",
        b"\r\n",
        b"\r",
        b'data: {"choices":null,"usage":1e3}\n\n',
        b'"\xc3',
        b"id: 1\n",
        b"data: [DONE] \n\n",
        DONE,
    ),
]
HEADS = [
    *(STREAM_HEAD, STREAM_HEAD.replace(b"1.1", b"1.0"), b"HTTP/1.1 100 Continue\r\n\r\n" + STREAM_HEAD),
    *(
        STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 ",
    ),
    *(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", http_answer(500, b"{}"), http_answer(400, b"{}")),
    *(http_answer(200, completion("x", usage(12, 5))), http_answer(200, b"{}"), b""),
]
streams = st.tuples(
    st.sampled_from(HEADS),
    st.lists(st.sampled_from(ANSWER_PARTS) | st.binary(max_size=8), max_size=12),
    st.sampled_from(["chunked", "bare", "torn"]),
    st.integers(1, 400),
)


class Rig:
    """A bench that lives through all examples, in a loop of its own, and what its journal said since the last one."""

    def __init__(self, runner: asyncio.Runner, gateway: Bench) -> None:
        self.runner = runner
        self.gateway = gateway
        self.faults: list[dict[str, Any]] = []
        self.position = 0
        runner.get_loop().set_exception_handler(lambda _loop, context: self.faults.append(context))

    def check(self) -> list[Closing]:
        """Exactly the openings are closed, once each, within what was reserved; nothing was raised into the loop."""
        assert self.faults == []
        gateway = self.gateway
        gateway.writer.flush()
        batch = read_frames(gateway.writer.folder, self.position, 4 << 20)
        entries = [(self.position + place, journal.decode(payload)) for place, payload in split(batch.data)]
        self.position = batch.to_position
        reserved: dict[int, int] = {}
        for place, entry in entries:
            if isinstance(entry, Opening):
                reserved[place] = sum(each.amount for each in entry.reserved)
            elif isinstance(entry, Extension):
                reserved[entry.opening] = sum(each.amount for each in entry.reserved)
        closings = [entry for _, entry in entries if isinstance(entry, Closing)]
        assert sorted(closing.opening for closing in closings) == sorted(reserved)
        for closing in closings:
            assert sum(each.amount for each in closing.charges) <= reserved[closing.opening]
        assert gateway.held()[1] == 0
        return closings


@contextlib.contextmanager
def rigged(folder: Path, **changes: Any) -> Generator[Rig]:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        made = bench(folder, balance=1 << 50, endpoint_rest_ms=1, **changes)
        yield Rig(runner, runner.run(stack.enter_async_context(made)))
        runner.run(stack.aclose())


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Generator[Rig]:
    """The rig of this file."""
    with rigged(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


@pytest.fixture(scope="module")
def screened_rig(tmp_path_factory: pytest.TempPathFactory) -> Generator[Rig]:
    """One that lets no answer say these words."""
    folder = tmp_path_factory.mktemp("screened")
    (folder / "words").write_text("\n".join(WORDS), encoding="utf-8")
    with rigged(folder, safety_keywords_file=str(folder / "words")) as made:
        yield made


async def answered(
    gateway: Bench, data: bytes, size: int, *, is_stream: bool, path: str, leaves_after: int, **fields: Any
) -> bytes:
    """One request that is answered with this data in pieces; the customer leaves after so many bytes, 0 for never.

    What it got.
    """
    got = b""

    async def act(call: Call) -> bool:
        for place in range(0, len(data), size):
            await call.send(data[place : place + size])
            await asyncio.sleep(0)
        return False

    gateway.supplier.acts.clear()
    gateway.supplier.default = act
    reader, writer = await asyncio.open_connection(*gateway.address)
    request = gateway.request(stream=is_stream, **fields).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
    writer.write(request.replace(PATH.encode(), path.encode(), 1))
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        got = await (reader.readexactly(leaves_after) if leaves_after else reader.read())
    writer.transport.abort()
    async with asyncio.timeout(10):
        while gateway.server.connections:
            await gateway.gateway_turn()
    gateway.supplier.calls.clear()
    return got


customers = (streams, st.booleans(), st.sampled_from([PATH, "/v1/messages"]), st.sampled_from([0, 0, 1, 200, 400]))
Stream = tuple[bytes, list[bytes], str, int]


@fuzz
@given(*customers)
def test_answers_of_any_bytes(rig: Rig, stream: Stream, is_stream: bool, path: str, leaves: int) -> None:
    ANSWERS.note(delivered(rig, stream, path, leaves, is_stream=is_stream)[0], (stream, is_stream, path, leaves))


@fuzz
@given(*customers)
def test_screened_answers_of_any_bytes(
    screened_rig: Rig, stream: Stream, is_stream: bool, path: str, leaves: int
) -> None:
    SCREENED.note(screened(screened_rig, stream, path, leaves, is_stream=is_stream), (stream, is_stream, path, leaves))


def test_answers_of_the_corpus(rig: Rig, screened_rig: Rig) -> None:
    for stream, is_stream, path, leaves in ANSWERS.examples():
        delivered(rig, stream, path, leaves, is_stream=is_stream)
    for stream, is_stream, path, leaves in SCREENED.examples():
        screened(screened_rig, stream, path, leaves, is_stream=is_stream)


def delivered(rig: Rig, stream: Stream, path: str, leaves: int, *, is_stream: bool) -> tuple[object, bytes]:
    """One answer, with what must hold after it: how it came out, and what the customer got."""
    head, parts, framing, size = stream
    body = b"".join(map(chunk, filter(None, parts))) if framing != "bare" else b"".join(parts)
    data = head + body + (b"0\r\n\r\n" if framing == "chunked" else b"")
    data = data[: -len(data) // 3] if framing == "torn" else data
    got = rig.runner.run(answered(rig.gateway, data, size, is_stream=is_stream, path=path, leaves_after=leaves))
    closings = [(each.ending, each.basis, each.flags, len(each.attempts)) for each in rig.check()]
    ends = sorted(set(re.findall(rb'"(?:finish_reason|stop_reason|code)": ?"(\w+)"', got)))
    return (is_stream, path, leaves > 0, got[9:12], closings, ends), got


def screened(rig: Rig, stream: Stream, path: str, leaves: int, *, is_stream: bool) -> object:
    """The same, and what the customer got says no listed word, in whatever piece of it one might be."""
    outcome, got = delivered(rig, stream, path, leaves, is_stream=is_stream)
    assert not any(word.encode() in got for word in WORDS)
    return outcome


@fuzz
@given(pieces_of_requests, st.booleans())
def test_requests_of_any_bytes_leave_nothing_open(rig: Rig, parts: list[bytes], is_good_first: bool) -> None:
    async def send() -> None:
        reader, writer = await asyncio.open_connection(*rig.gateway.address)
        writer.write(rig.gateway.request() * is_good_first + b"".join(parts))
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.transport.abort()
        async with asyncio.timeout(10):
            while rig.gateway.server.connections:
                await rig.gateway.gateway_turn()

    rig.runner.run(send())
    rig.check()
