"""The server side of HTTP/1.1, with bytes and without sockets: limits, order, keep-alive, back-pressure."""

import asyncio
import re
from collections.abc import Callable

import pytest

from tokenworks.base.config import Settings
from tokenworks.gateway.exchange import ClientGone, Exchange
from tokenworks.gateway.flow import Wait
from tokenworks.gateway.server import TICK_MS, Connection, Server

SETTINGS = Settings(body_bytes_max=1_000, header_bytes_max=500, pipelined_max=2, client_idle_ms=1_000)


class Transport(asyncio.Transport):
    """Keeps what is written, and what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.pending = 0
        self.closed = self.aborted = self.ended = self.paused = False
        self.on_close: Callable[[], None] = lambda: None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low

    def get_write_buffer_size(self) -> int:
        return self.pending

    def close(self) -> None:
        self.closed = True
        self.on_close()

    def abort(self) -> None:
        self.aborted = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Line:
    """A connection whose handler answers with what it was sent, at once or when the test says so."""

    def __init__(self, *, at_once: bool = True, settings: Settings = SETTINGS) -> None:
        self.exchanges: list[Exchange] = []
        self.waits: list[Wait[None]] = []
        self.at_once = at_once
        self.server = Server(settings, self.handle)
        self.transport = Transport()
        self.connection: Connection = self.server.connection()
        self.connection.connection_made(self.transport)

    async def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if not self.at_once:
            wait = Wait[None]()
            self.waits.append(wait)
            try:
                await wait
            except ClientGone:
                return
        exchange.answer(200, b"[" + exchange.body + b"]")

    def feed(self, *pieces: bytes) -> bytes:
        """What is written while these pieces come in."""
        before = len(self.transport.written)
        for piece in pieces:
            self.connection.data_received(piece)
        return self.transport.written[before:]


def post(body: bytes = b"hi", *fields: str, version: str = "1.1", path: str = "/x") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "host: x", f"content-length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def bodies(written: bytes) -> list[bytes]:
    return [answer.partition(b"\r\n\r\n")[2] for answer in answers(written)]


def answers(written: bytes) -> list[bytes]:
    return re.split(rb"(?=HTTP/1.1 \d\d\d )", written)[1:]


def status(written: bytes) -> int:
    return int(written.split(b" ", 2)[1])


def test_one_request() -> None:
    line = Line()
    written = line.feed(post(path="/x?y=1"))
    assert (status(written), bodies(written)) == (200, [b"[hi]"])
    (exchange,) = line.exchanges
    assert (exchange.method, exchange.path, exchange.keep_alive) == (b"POST", "/x", True)
    assert b"x-request-id: req_" in written
    assert b"\r\ndate: " in written
    assert not line.transport.closed


def test_byte_by_byte() -> None:
    line = Line()
    data = post(b"hello", "authorization: Bearer k", "X-Other: 1")
    assert bodies(line.feed(*(data[place : place + 1] for place in range(len(data))))) == [b"[hello]"]
    assert line.exchanges[0].headers == {b"host": b"x", b"content-length": b"5", b"authorization": b"Bearer k"}


def test_chunked_body() -> None:
    head = b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    line = Line()
    assert bodies(line.feed(head + b"2\r\nhi\r\n3;x=1\r\nyou\r\n0\r\nx-api-key: late\r\n\r\n")) == [b"[hiyou]"]
    assert b"x-api-key" not in line.exchanges[0].headers


def test_pipelined_requests_are_served_in_order_one_at_a_time() -> None:
    line = Line(at_once=False)
    line.feed(post(b"1") + post(b"2") + post(b"3"))
    assert len(line.exchanges) == 1
    assert line.transport.paused
    for _ in range(3):
        line.waits.pop().resolve(None)
    assert bodies(line.transport.written) == [b"[1]", b"[2]", b"[3]"]
    assert not line.transport.paused


def test_very_many_pipelined_requests_need_no_deep_stack() -> None:
    line = Line()
    assert len(bodies(line.feed(post() * 5_000))) == 5_000


@pytest.mark.parametrize(
    ("version", "field", "keeps"),
    [
        ("1.1", "", True),
        ("1.1", "connection: close", False),
        ("1.0", "", False),
        ("1.0", "connection: keep-alive", True),
    ],
)
def test_keep_alive(version: str, field: str, keeps: bool) -> None:
    line = Line()
    written = line.feed(post(b"hi", *[field] * bool(field), version=version))
    assert line.transport.closed is not keeps
    assert (b"connection: close" in written) is not keeps
    assert (b"connection: keep-alive" in written) == (keeps and version == "1.0")


REFUSED: dict[str, tuple[bytes, int]] = {
    "not HTTP": (b"\x16\x03\x01\x02\x00", 400),
    "two lengths": (post(b"hi", "content-length: 2"), 400),
    "length and chunks": (post(b"hi", "transfer-encoding: chunked"), 400),
    "another coding": (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "bad length": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
    "space before colon": (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400),
    "large headers": (b"GET / HTTP/1.1\r\nx: " + b"y" * 600 + b"\r\n\r\n", 431),
    "large target": (b"GET /" + b"y" * 600 + b" HTTP/1.1\r\n\r\n", 431),
    "large length": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n", 413),
    "large chunks": (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001, 413),
    "upgrade": (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_closed(name: str) -> None:
    data, code = REFUSED[name]
    line = Line()
    written = line.feed(data)
    last = answers(written)[-1]
    assert status(last) == code
    assert b"connection: close" in last
    assert b'"error":{"message":' in last
    assert line.transport.ended or line.transport.closed
    assert line.feed(post()) == b""


def test_headers_that_never_end() -> None:
    line = Line()
    written = line.feed(b"GET / HTTP/1.1\r\nx: ", *[b"y" * 100] * 10)
    assert status(written) == 431


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    line = Line(at_once=False)
    assert line.feed(post(b"1") + b"nonsense\r\n\r\n") == b""
    line.waits.pop().resolve(None)
    assert [status(answer) for answer in answers(line.transport.written)] == [200, 400]


def test_expect_continue() -> None:
    data = post(b"hi", "expect: 100-continue")
    line = Line()
    assert line.feed(data[:-2]) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert bodies(line.feed(data[-2:])) == [b"[hi]"]


def test_expect_continue_waits_for_its_turn() -> None:
    line = Line(at_once=False)
    assert line.feed(post(b"1") + post(b"hi", "expect: 100-continue")[:-2]) == b""
    line.waits.pop().resolve(None)
    assert line.transport.written.endswith(b"[1]HTTP/1.1 100 Continue\r\n\r\n")


def test_no_continue_for_a_body_that_is_not_wanted() -> None:
    line = Line()
    data = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5000\r\n\r\n"
    assert status(line.feed(data)) == 413


def test_a_client_that_leaves_ends_the_flow() -> None:
    line = Line(at_once=False)
    line.feed(post())
    line.connection.connection_lost(None)
    assert line.exchanges[0].gone
    assert not line.waits[0].resolve(None)
    assert line.transport.written == b""
    assert not line.server.connections


def test_an_idle_connection_is_closed_and_a_slow_one_too() -> None:
    for data in (b"", post(), post()[:-1]):
        line = Line()
        line.feed(data)
        for _ in range(1_000 // TICK_MS + 1):
            line.server.tick()
        assert line.transport.closed


def test_a_client_that_never_reads_is_cut() -> None:
    line = Line()
    line.feed(post())
    line.transport.pending = 1
    for _ in range(1_000 // TICK_MS + 1):
        line.server.tick()
    assert line.transport.aborted


def test_a_client_that_does_not_read_gets_no_further_answers() -> None:
    line = Line()
    line.connection.pause_writing()
    assert line.feed(post(b"1")) == b""
    line.connection.resume_writing()
    assert bodies(line.transport.written) == [b"[1]"]


class Source:
    """Remembers whether it is held back."""

    paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


def test_the_source_of_a_stream_is_held_back_while_the_client_does_not_read() -> None:
    line, source = Line(at_once=False), Source()
    line.feed(post())
    line.connection.attach(source)
    line.connection.pause_writing()
    assert source.paused
    line.connection.resume_writing()
    assert not source.paused


async def test_draining_closes_what_is_idle_and_lets_the_rest_finish() -> None:
    idle, busy = Line(), Line(at_once=False)
    busy.feed(post(b"1"))
    idle.transport.on_close = lambda: idle.connection.connection_lost(None)
    await idle.server.drain(0)
    assert idle.transport.closed
    busy.server.draining = True
    busy.connection.close_if_idle()
    assert not busy.transport.closed
    busy.waits.pop().resolve(None)
    assert bodies(busy.transport.written) == [b"[1]"]
    assert busy.transport.closed


def test_streams_with_and_without_chunks() -> None:
    for version, expected in (("1.1", b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"), ("1.0", b"abcd")):
        line = Line(at_once=False)
        line.feed(post(version=version))
        (exchange,) = line.exchanges
        exchange.start_stream()
        exchange.send(b"abc")
        exchange.send(b"")
        exchange.end_stream(b"d")
        assert bodies(line.transport.written) == [expected]
        assert exchange.keep_alive == (version == "1.1")


def test_a_connection_too_many_is_told_so_and_ended() -> None:
    line = Line(settings=Settings(connections_max=1))
    transport = Transport()
    extra = line.server.connection()
    extra.connection_made(transport)
    assert status(transport.written) == 503
    assert b'"code":"too_many_connections"' in transport.written
    assert b"retry-after: 1\r\n" in transport.written
    assert transport.ended
    extra.data_received(post())
    assert len(answers(transport.written)) == 1
    assert bodies(line.feed(post())) == [b"[hi]"]
    extra.connection_lost(None)
    line.server.connection().connection_made(again := Transport())
    assert status(again.written) == 503
    line.connection.connection_lost(None)
    for connection in list(line.server.connections):
        connection.connection_lost(None)
    line.server.connection().connection_made(last := Transport())
    assert last.written == b""
