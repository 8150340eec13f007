"""A connection to an endpoint as a flow sees it: what is offered to a taker, and what the flow is resumed for."""

import asyncio
from typing import cast

from tokenworks.gateway.flow import Flow
from tokenworks.gateway.upstream import Upstream

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Line:
    """A transport that says nothing, and a pool that keeps nothing."""

    def write(self, data: bytes) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool:
        return False

    def opened(self, upstream: Upstream) -> None: ...
    def keep(self, upstream: Upstream) -> None: ...
    def forget(self, upstream: Upstream) -> None: ...


class Reader:
    """A request under way; `offered` is what the taker saw, `read` what reached the flow. Pieces of small letters are
    taken.
    """

    def __init__(self) -> None:
        self.offered: list[list[bytes]] = []
        self.read: list[bytes] = []
        line = Line()
        self.upstream = Upstream(line)
        self.upstream.connection_made(cast("asyncio.Transport", line))
        self.upstream.begin(b"", stream=True)
        self.start()
        self.upstream.data_received(HEAD)

    def start(self) -> None:
        """Wait for an answer."""
        Flow(self._go(), lambda: None).start()

    async def _go(self) -> None:
        while data := await self.upstream.chunk():
            self.read.append(data)
        self.read.append(b"")

    def take(self, pieces: list[bytes]) -> int:
        self.offered.append(list(pieces))
        return next((place for place, piece in enumerate(pieces) if not piece.islower()), len(pieces))


def test_what_is_taken_does_not_reach_the_flow() -> None:
    reader = Reader()
    reader.upstream.offer_to(reader.take)
    reader.upstream.data_received(chunk(b"a"))
    reader.upstream.data_received(chunk(b"b") + chunk(b"c"))
    assert (reader.offered, reader.read) == ([[b"a"], [b"b", b"c"]], [])


def test_from_the_first_that_is_left_on_all_reaches_the_flow() -> None:
    reader = Reader()
    reader.upstream.offer_to(reader.take)
    reader.upstream.data_received(chunk(b"a") + chunk(b"B") + chunk(b"c"))
    assert reader.read == [b"Bc"]
    reader.upstream.data_received(chunk(b"d") + END)
    assert reader.read == [b"Bc", b""]
    assert reader.offered == [[b"a", b"B", b"c"], [b"d"]]


def test_half_a_piece_is_offered_as_it_comes() -> None:
    reader = Reader()
    reader.upstream.offer_to(reader.take)
    whole = chunk(b"abcdef")
    reader.upstream.data_received(whole[:4])
    reader.upstream.data_received(whole[4:])
    assert b"".join(piece for pieces in reader.offered for piece in pieces) == b"abcdef"
    assert reader.read == []


def test_what_came_before_anybody_asked_for_it_reached_the_flow() -> None:
    reader = Reader()
    reader.upstream.data_received(chunk(b"a"))
    reader.upstream.offer_to(reader.take)
    reader.upstream.data_received(chunk(b"b") + END)
    assert (reader.offered, reader.read) == ([[b"b"]], [b"a", b""])


def test_the_next_answer_of_the_connection_is_offered_to_nobody() -> None:
    reader = Reader()
    reader.upstream.offer_to(reader.take)
    reader.upstream.data_received(chunk(b"a") + END)
    reader.upstream.let_go()
    reader.upstream.begin(b"", stream=True)
    reader.start()
    reader.upstream.data_received(HEAD + chunk(b"b") + END)
    assert (reader.offered, reader.read) == ([[b"a"]], [b"", b"b", b""])


def test_nothing_is_offered_while_the_flow_waits_for_something_else() -> None:
    reader = Reader()
    reader.upstream.offer_to(reader.take)
    reader.upstream.let_go(tail=True)
    reader.upstream.data_received(chunk(b"a"))
    assert (reader.offered, reader.read) == ([], [])
