"""Requests that a proxy before us could read in another way, and slow clients: with bytes and without sockets."""

import pytest

from gateway.test_server import SETTINGS, Line, answers, bodies, post, status
from tokenworks.base.config import Settings
from tokenworks.gateway.server import TICK_MS

CHUNKS = b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


def headers(*lines: bytes, version: bytes = b"1.1", rest: bytes = b"hi") -> bytes:
    return b"\r\n".join([b"POST /x HTTP/" + version, *lines, b"", b""]) + rest


AMBIGUOUS: dict[str, bytes] = {
    "length and coding": headers(b"host: x", b"content-length: 2", b"transfer-encoding: chunked", rest=b"0\r\n\r\n"),
    "coding and length": headers(b"host: x", b"transfer-encoding: chunked", b"content-length: 2", rest=b"0\r\n\r\n"),
    "length and empty coding": headers(b"host: x", b"transfer-encoding:", b"content-length: 2"),
    "length twice": headers(b"host: x", b"content-length: 2", b"content-length: 2"),
    "two lengths": headers(b"host: x", b"content-length: 2", b"Content-Length: 0"),
    "a list of lengths": headers(b"host: x", b"content-length: 2, 2"),
    "a signed length": headers(b"host: x", b"content-length: +2"),
    "a negative length": headers(b"host: x", b"content-length: -2"),
    "a hexadecimal length": headers(b"host: x", b"content-length: 0x2"),
    "a length with an underscore": headers(b"host: x", b"content-length: 0_2"),
    "an empty length": headers(b"host: x", b"content-length:"),
    "a length past 64 bits": headers(b"host: x", b"content-length: 18446744073709551618"),
    "a length of very many digits": headers(b"host: x", b"content-length: " + b"0" * 5_000 + b"2"),
    "coding twice": headers(
        b"host: x", b"transfer-encoding: chunked", b"transfer-encoding: chunked", rest=b"0\r\n\r\n"
    ),
    "another coding": headers(b"host: x", b"transfer-encoding: gzip, chunked", rest=b"0\r\n\r\n"),
    "a coding after chunked": headers(b"host: x", b"transfer-encoding: chunked, identity", rest=b"0\r\n\r\n"),
    "a coding like chunked": headers(b"host: x", b"transfer-encoding: xchunked", rest=b"0\r\n\r\n"),
    "a quoted coding": headers(b"host: x", b'transfer-encoding: "chunked"', rest=b"0\r\n\r\n"),
    "a coding behind a vertical tab": headers(b"host: x", b"transfer-encoding: \x0bchunked", rest=b"0\r\n\r\n"),
    "a coding in HTTP/1.0": headers(b"host: x", b"transfer-encoding: chunked", version=b"1.0", rest=b"0\r\n\r\n"),
    "space before the colon": headers(b"host: x", b"content-length : 2"),
    "tab before the colon": headers(b"host: x", b"transfer-encoding\t: chunked", rest=b"0\r\n\r\n"),
    "a folded header": headers(b"host: x", b"x: y", b" z", b"content-length: 2"),
    "a header folded by a tab": headers(b"host: x", b"x: y", b"\tz", b"content-length: 2"),
    "a folded coding": headers(b"host: x", b"transfer-encoding:", b" chunked", rest=b"0\r\n\r\n"),
    "space before the first header": headers(b" host: x", b"content-length: 2"),
    "no colon": headers(b"host: x", b"content-length", b"content-length: 2"),
    "no name": headers(b"host: x", b": 2", b"content-length: 2"),
    "NUL in a name": headers(b"host: x", b"content\x00-length: 2"),
    "NUL in a value": headers(b"host: x\x00y", b"content-length: 2"),
    "bare LF everywhere": headers(b"host: x", b"content-length: 2").replace(b"\r\n", b"\n"),
    "bare LF after the request line": headers(b"host: x", b"content-length: 2").replace(b"\r\n", b"\n", 1),
    "bare LF after a header": headers(b"host: x\ncontent-length: 2"),
    "bare LF at the end of the head": b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\nhi",
    "bare CR after a header": headers(b"host: x\rcontent-length: 2"),
    "no host": headers(b"content-length: 2"),
    "two hosts": headers(b"host: x", b"Host: y", b"content-length: 2"),
    "two keys": headers(b"host: x", b"authorization: Bearer a", b"authorization: Bearer b", b"content-length: 2"),
    "HTTP/0.9": b"GET /x\r\n\r\n",
    "HTTP/2.0": headers(b"host: x", b"content-length: 2", version=b"2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a space in the target": b"GET /x y HTTP/1.1\r\nhost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    "bare LF after a chunk's size": CHUNKS + b"2\nhi\r\n0\r\n\r\n",
    "bare LF after a chunk": CHUNKS + b"2\r\nhi\n0\r\n\r\n",
    "bare LF in an extension": CHUNKS + b"2;a\nb\r\nhi\r\n0\r\n\r\n",
    "bare LF after the trailers": CHUNKS + b"2\r\nhi\r\n0\r\n\n",
    "space after a chunk's size": CHUNKS + b"2 \r\nhi\r\n0\r\n\r\n",
    "a chunk's size with 0x": CHUNKS + b"0x2\r\nhi\r\n0\r\n\r\n",
    "a negative chunk": CHUNKS + b"-2\r\nhi\r\n0\r\n\r\n",
    "a chunk without size": CHUNKS + b"\r\nhi\r\n0\r\n\r\n",
    "a chunk past 64 bits": CHUNKS + b"10000000000000002\r\nhi\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKS + b"2\r\nhiho0\r\n\r\n",
    "a length in the trailers": CHUNKS + b"2\r\nhi\r\n0\r\ncontent-length: 5\r\n\r\n",
}


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_and_ends_the_connection(name: str, size: int) -> None:
    line = Line(settings=Settings())
    data = post(b"first") + AMBIGUOUS[name] + SMUGGLED
    written = line.feed(*(data[place : place + size] for place in range(0, len(data), size)))
    first, refused = answers(written)
    assert (bodies(first), status(refused)) == ([b"[first]"], 400)
    assert b"connection: close" in refused
    assert b'"code":"malformed_request"' in refused
    assert [exchange.path for exchange in line.exchanges] == ["/x"]
    assert line.transport.ended or line.transport.closed
    assert line.feed(SMUGGLED) == b""


GOOD: dict[str, tuple[bytes, list[bytes]]] = {
    "empty lines before a request": (b"\r\n\r\n" + post(b"1") + b"\r\n" + post(b"2"), [b"[1]", b"[2]"]),
    "spaces around values": (headers(b"host:x", b"content-length: \t2 \t"), [b"[hi]"]),
    "HTTP/1.0 without host": (headers(b"content-length: 2", version=b"1.0"), [b"[hi]"]),
    "an expectation of HTTP/1.0": (headers(b"content-length: 2", b"expect: 100-continue", version=b"1.0"), [b"[hi]"]),
    "a header with an underscore": (
        headers(b"host: x", b"transfer_encoding: chunked", b"content-length: 2"),
        [b"[hi]"],
    ),
    "a key in the trailers": (
        CHUNKS + b"2\r\nhi\r\n0\r\nauthorization: Bearer k\r\n\r\n" + post(b"2"),
        [b"[hi]", b"[2]"],
    ),
    "chunks with zeros and extensions": (CHUNKS + b'0002;a="b";c\r\nhi\r\n000\r\n\r\n' + post(b"2"), [b"[hi]", b"[2]"]),
    "an offer of HTTP/2": (
        post(b"hi", "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABk") + post(b"2"),
        [b"[hi]", b"[2]"],
    ),
    "an offer of HTTP/2 with chunks": (
        CHUNKS[:-2] + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + post(b"2"),
        [b"[hi]", b"[2]"],
    ),
    "an offer of another protocol": (
        b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" + post(b"2"),
        [b"[]", b"[2]"],
    ),
}


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("name", GOOD)
def test_what_is_odd_and_clear_is_served(name: str, size: int) -> None:
    data, expected = GOOD[name]
    line = Line()
    assert bodies(line.feed(*(data[place : place + size] for place in range(0, len(data), size)))) == expected
    assert all(b"authorization" not in exchange.headers for exchange in line.exchanges)


def test_very_many_offers_at_once_are_not_read_again_and_again() -> None:
    line = Line(settings=Settings())
    written = line.feed(post(b"hi", "connection: upgrade", "upgrade: h2c") * 5_000)
    assert [status(each) for each in answers(written)] == [200, 400]


def test_a_body_in_very_many_parts() -> None:
    line = Line(settings=Settings())
    assert bodies(line.feed(CHUNKS + b"2\r\nhi\r\n" * 5_000 + b"0\r\n\r\n")) == [b"[" + b"hi" * 5_000 + b"]"]


def test_reading_stops_when_much_waits_to_be_served() -> None:
    line = Line(at_once=False)
    for number in range(3):
        line.feed(post(b"x" * 900, path=f"/{number}"))
        assert line.transport.paused == (number == 2)
    for _ in range(3):
        line.waits.pop().resolve(None)
    assert not line.transport.paused


def test_trailers_without_end_are_refused() -> None:
    line = Line()
    assert status(line.feed(CHUNKS + b"2\r\nhi\r\n0\r\n", *[b"x: y\r\n"] * 200)) == 431


@pytest.mark.parametrize("data", [post()[:-1], CHUNKS + b"1\r\nh\r\n", b"POST /x HTTP/1.1\r\nhost"])
def test_a_request_that_comes_drop_by_drop_does_not_last_longer_than_any_may(data: bytes) -> None:
    line = Line(settings=Settings(client_idle_ms=1_000, request_longest_ms=5_000))
    line.feed(data)
    drop = b"1\r\nx\r\n" if b"chunked" in data else b""
    ticks = 0
    while not line.transport.closed:
        if drop:
            line.feed(drop)
        line.server.tick()
        ticks += 1
    assert ticks == (5_000 if drop else 1_000) // TICK_MS + 1


def test_a_client_that_stops_reading_a_stream_is_cut() -> None:
    line = Line(at_once=False)
    line.feed(post())
    line.connection.pause_writing()
    line.connection.resume_writing()
    for paused in (False, True):
        if paused:
            line.connection.pause_writing()
        for _ in range(SETTINGS.client_idle_ms // TICK_MS + 1):
            line.server.tick()
        assert line.transport.aborted is paused
