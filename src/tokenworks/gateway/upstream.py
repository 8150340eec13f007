"""Upstream: a connection to an endpoint, and the answers that come on it.

Speaks HTTP/1.1 through llhttp. Where connections come from, and whether one is kept, is `pools`' affair; what an answer
means and what it costs is decided elsewhere.
"""

import asyncio
from collections.abc import Callable, Generator
from typing import Protocol, cast

import httptools
import msgspec

from tokenworks.gateway.flow import Flow
from tokenworks.gateway.server import TICK_MS

_KEPT = frozenset({b"content-type", b"retry-after", b"content-length", b"transfer-encoding", b"content-encoding"})
# What may come in a row that is no body: a head, announcements before it, trailers, extensions of chunks.
_BARE_BYTES_MAX = 256 << 10
# After the last event of a stream, the end of the HTTP message is a few bytes away.
_TAIL_TICKS = 4


class UpstreamBroken(Exception):
    """The endpoint closed the connection within its answer, or did not speak HTTP."""


class UpstreamSilent(Exception):
    """The endpoint sent nothing for too long."""


class UpstreamHung(UpstreamSilent):
    """The endpoint sends nothing to anybody, and another one could serve."""


Taker = Callable[[list[bytes]], int]
"""Takes pieces of a body from the first on, and says how many it took."""


class Unreachable(msgspec.Struct, frozen=True):
    """No answer was begun: the connection failed or broke before the first byte, or (`silent`) nothing ever came."""

    text: str
    silent: bool = False
    hung: bool = False


class Sending(msgspec.Struct, eq=False):
    """A request on its way to an endpoint. `sent_ns` is set when its bytes go out, 0 before. `path` is set where it is
    not a chat completion, `method` where nothing is made.
    """

    body: bytes
    request_id: str
    sent_ns: int = 0
    path: str = ""
    stream: bool = False
    method: str = "POST"


class Keeper(Protocol):
    """Who keeps connections between requests."""

    def opened(self, upstream: "Upstream") -> None:
        """A connection was made."""
        ...

    def keep(self, upstream: "Upstream") -> None:
        """It may serve another request."""
        ...

    def forget(self, upstream: "Upstream") -> None:
        """It is gone."""
        ...


class Upstream(asyncio.Protocol):
    """One connection. A request is sent with `begin`; then it is waited for until `has_head`, read with `chunk` until
    empty or at once with `whole`, and `let_go`.
    """

    def __init__(self, pool: Keeper) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.touched = False
        self.is_streamed = False
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.has_head = False
        self._flow: Flow | None = None
        self._chunks: list[bytes] = []
        self._taker: Taker | None = None
        self._complete = False
        self._fault: Exception | None = None
        self._busy = False
        self._paused = self._held = self._stopped = False
        self._ticks = 0
        self._tailing = False
        self._is_reusable = False
        self._is_sent = True
        self._bare_bytes = 0

    @property
    def is_framed(self) -> bool:
        """Whether the end of the answer can be told from a lost connection."""
        return b"content-length" in self.headers or b"transfer-encoding" in self.headers

    # --- what a request does

    def begin(self, message: bytes, *, stream: bool) -> None:
        """Send a request."""
        self.headers = {}
        self.is_streamed = stream
        self._chunks = []
        self.touched = self.has_head = self._complete = self._is_reusable = False
        self._busy = True
        self.status = self._ticks = self._bare_bytes = 0
        self._transport.write(message)

    def attach(self, flow: Flow) -> None:
        """Called by the flow that waits for more."""
        self._flow = flow

    def __await__(self) -> Generator["Upstream", None, None]:
        """Return when something has come."""
        if self._fault is not None:
            raise self._fault
        yield self

    async def chunk(self) -> bytes:
        """What has come of the body since the last call; empty at the end."""
        while not self._chunks:
            if self._complete:
                return b""
            await self
        return self._taken()

    def offer_to(self, taker: Taker) -> None:
        """From now on offer what comes of the body to `taker` first while the flow waits for more; for what it leaves
        the flow is resumed.
        """
        self._taker = taker

    def whole(self) -> bytes | None:
        """The body, if all of it is here; None while more is to come."""
        return self._taken() if self._complete else None

    def let_go(self, *, tail: bool = False) -> None:
        """Done with the answer. Complete, the connection is kept; else closed, or with `tail` given a moment to end."""
        self._flow = self._taker = None
        self._paused = self._held = False
        self._regulate()
        if self._complete:
            self._release()
        elif tail and self._fault is None:
            self._tailing = True
            self._ticks = 0
        else:
            self.close()

    def pause(self) -> None:
        """Stop reading: the customer is slower than the endpoint."""
        self._paused = True
        self._regulate()

    def resume(self) -> None:
        """The customer has caught up."""
        self._paused = False
        self._regulate()

    def hold(self) -> None:
        """Stop reading: what came must first be paid for, or judged. That the customer reads does not end it."""
        self._held = True
        self._regulate()

    def release(self) -> None:
        """It was."""
        self._held = False
        self._regulate()

    def close(self) -> None:
        """Break off; the endpoint sees that nobody listens."""
        self._busy = False
        self._transport.abort()

    # --- time

    def tick(self, silence_ticks: int, idle_ticks: int) -> None:
        """Every `TICK_MS`: silence is counted in ticks, so that no clock is read for the bytes that come."""
        if self._stopped:
            return
        self._ticks += 1
        if self._tailing or not self._busy:
            if self._ticks > (_TAIL_TICKS if self._tailing else idle_ticks):
                self.close()
        elif self._ticks > silence_ticks:
            self._fail(UpstreamSilent(f"no byte for {silence_ticks * TICK_MS} ms"))

    def is_alive(self, ticks: int) -> bool:
        """Whether anything came within so many ticks."""
        return self.touched and self._ticks <= ticks

    def is_hung(self, ticks: int) -> bool:
        """Whether a streamed request has waited longer for the first byte of its answer."""
        return self.is_streamed and self._busy and not self._tailing and not self.touched and self._ticks > ticks

    def leave(self) -> None:
        """Wait no longer: another endpoint may serve the request."""
        self._fail(UpstreamHung("nothing came on any connection"))

    # --- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the endpoint."""
        if not self._busy:
            self.close()
            return
        if not self._tailing:
            self._ticks = 0
        self.touched = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as fault:
            self._fail(UpstreamBroken(f"not an HTTP/1.1 answer: {fault}"))
            return
        if self._tailing:
            self._chunks.clear()
            if self._complete:
                self._release()
            return
        chunks = self._chunks
        if chunks and self._taker is not None and self._flow is not None:
            del chunks[: self._taker(chunks)]
            if not chunks and not self._complete:
                self._bare_bytes = 0
                return
        elif not chunks:
            self._bare_bytes += len(data)
            if self._bare_bytes > _BARE_BYTES_MAX and not self._complete:
                self._fail(UpstreamBroken(f"{_BARE_BYTES_MAX} bytes that are no body"))
                return
        self._wake()

    def pause_writing(self) -> None:
        """The endpoint does not read the request as fast as it is sent."""
        self._is_sent = False

    def resume_writing(self) -> None:
        """The request is as good as sent."""
        self._is_sent = True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone. For an answer without length or chunks this is how it ends, if it was closed."""
        self._pool.forget(self)
        if not self._busy:
            return
        if self.has_head and not self.is_framed and exc is None:
            self._complete = True
        if not self._complete:
            self._fault = self._fault or UpstreamBroken(f"connection lost: {exc or 'closed by the endpoint'}")
        self._wake()

    # --- the parser's calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer."""
        name = name.lower()
        # After the head come trailers; they say nothing about how the body was to be read.
        if name in _KEPT and not self.has_head:
            self.headers[name] = value

    def on_headers_complete(self) -> None:
        """The head is here; 1xx heads are only announcements."""
        if self._complete:
            raise UpstreamBroken("an answer nobody asked for")
        self.status = self._parser.get_status_code()
        self.has_head = self.status >= 200

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self.has_head:
            self._complete = True
            # To be asked here: the parser forgets the message when it is whole.
            self._is_reusable = self._parser.should_keep_alive()
        else:
            self.headers = {}

    # --- inside

    def _regulate(self) -> None:
        is_to_stop = self._paused or self._held
        if is_to_stop == self._stopped or (is_to_stop and self._transport.is_closing()):
            return
        self._stopped = is_to_stop
        if is_to_stop:
            self._transport.pause_reading()
        else:
            self._ticks = 0
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _taken(self) -> bytes:
        chunks = self._chunks
        self._chunks = []
        self._bare_bytes = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _wake(self) -> None:
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.resume(self)

    def _fail(self, fault: Exception) -> None:
        self._fault = fault
        self._transport.abort()
        self._wake()

    def _release(self) -> None:
        self._tailing = self._busy = False
        # An endpoint that answered before it had read the request may never read the rest of it.
        if self._fault is None and self._is_reusable and self._is_sent and not self._transport.is_closing():
            self._pool.keep(self)
        else:
            self._transport.abort()
