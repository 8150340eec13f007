"""The customers' side: HTTP/1.1 connections, each serving its requests one after the other.

Parsing is llhttp's; here are the limits, the order of pipelined requests, idle times, back-pressure and draining. What
a request means is the handler's affair.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

import httptools

from tokenworks.base import clock, ids
from tokenworks.base.config import Settings
from tokenworks.core.refusals import Code, Refusal
from tokenworks.gateway import answers
from tokenworks.gateway.exchange import ClientGone, Drained, Exchange, Source, TooLong
from tokenworks.gateway.flow import Flow, Wait

Handler = Callable[[Exchange], Coroutine[Wait[Any], None, None]]

TICK_MS = 250
_LINGER_TICKS = 8
_WANTED = frozenset({b"authorization", b"x-api-key", b"content-length", b"transfer-encoding", b"expect"})
_BOTH_FRAMINGS = Refusal(
    Code.MALFORMED_REQUEST, "Content-Length and Transfer-Encoding were both given. Send one of them."
)
_OTHER_CODING = Refusal(Code.MALFORMED_REQUEST, "Only the transfer encoding chunked is understood.")


class Server:
    """What all connections of a process share, and the only writer of the set of them."""

    def __init__(self, settings: Settings, handle: Handler, worker: str = "") -> None:
        self.settings = settings
        self.handle = handle
        # In the order in which they came, so that the same happenings give the same run.
        self.connections: dict[Connection, None] = {}
        self.draining = False
        self.idle_ticks_max = -(-settings.client_idle_ms // TICK_MS)
        self.longest_ns = settings.request_longest_ms * clock.MS
        self._worker = worker
        self.stamp = answers.stamp(clock.wall_ns(), worker)
        self._name = ids.new("req")
        self._requests = 0
        self._empty: asyncio.Event | None = None

    def connection(self) -> "Connection":
        """A protocol for an accepted connection."""
        return Connection(self)

    def request_id(self) -> str:
        """Unique for ever: this process's own name and a count. A random id for each would cost 3 µs."""
        self._requests += 1
        return f"{self._name}-{self._requests:x}"

    def tick(self) -> None:
        """Every `TICK_MS`: end what has been idle or has lived for too long."""
        self.stamp = answers.stamp(clock.wall_ns(), self._worker)
        now_ns = clock.boot_ns()
        for connection in list(self.connections):
            connection.tick(now_ns)

    def forget(self, connection: "Connection") -> None:
        """The connection is lost."""
        self.connections.pop(connection, None)
        if self._empty is not None and not self.connections:
            self._empty.set()

    async def drain(self, drain_ms: int) -> None:
        """Close idle connections, let requests finish for a while, then end them. Accepting has stopped before."""
        self.draining = True
        self._empty = asyncio.Event()
        for connection in list(self.connections):
            connection.close_if_idle()
        if not await self._emptied(drain_ms):
            for connection in list(self.connections):
                connection.interrupt_for_drain()
            if not await self._emptied(TICK_MS * 4):
                for connection in list(self.connections):
                    connection.cut()

    async def _emptied(self, wait_ms: int) -> bool:
        if self.connections and self._empty is not None:
            try:
                async with asyncio.timeout(wait_ms / 1000):
                    await self._empty.wait()
            except TimeoutError:
                return False
        return True


class _Refused(Exception):
    """Stops the parser; the refusal is kept by the connection."""


class Connection(asyncio.Protocol):
    """One client connection: bytes in, exchanges in order, bytes out."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._header_bytes_max = server.settings.header_bytes_max
        self._body_bytes_max = server.settings.body_bytes_max
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._ready: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._flow: Flow | None = None
        self._source: Source | None = None
        self._serving = False
        self._writing_paused = False
        self._reading_paused = False
        self._refused: Refusal | None = None
        self._owes_continue = False
        self._lingering = False
        self._idle_ticks = 0
        self._counts_head = False
        self._begin()

    # --- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._server.settings.write_buffer_bytes)
        self._server.connections[self] = None

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; they may hold a part of a request or several requests."""
        if self._refused is not None:
            return
        self._fed += len(data)
        # A head cannot be larger than all that came: mostly nothing needs to be counted.
        self._counts_head = self._fed > self._header_bytes_max
        try:
            self._parser.feed_data(data)
            if self._in_head and self._fed > self._header_bytes_max:
                self._refused = _too_large_headers(self._header_bytes_max)
        except httptools.HttpParserUpgrade:
            self._refused = Refusal(Code.MALFORMED_REQUEST, "Protocol upgrades are not offered. Use plain HTTP/1.1.")
        except httptools.HttpParserError as fault:
            if self._refused is None:
                self._refused = Refusal(Code.MALFORMED_REQUEST, f"This is not a valid HTTP/1.1 request: {fault}.")
        if self._refused is not None:
            self._ready.append(self._exchange(refusal=self._refused))
        elif len(self._ready) >= self._server.settings.pipelined_max:
            self._pause_reading()
        self._serve_ready()

    def eof_received(self) -> bool:
        """A client that will send no more does not wait for answers either: the transport closes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; a request whose endpoint is to be drained runs on silently."""
        del exc
        self._ready.clear()
        exchange, flow = self._current, self._flow
        if exchange is None or flow is None:
            self._server.forget(self)
            return
        exchange.gone = True
        if not exchange.drains:
            flow.interrupt(ClientGone())
        elif self._source is not None:
            self._source.resume()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._writing_paused = True
        if self._source is not None:
            self._source.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writing_paused = False
        if self._source is not None:
            self._source.resume()
        self._serve_ready()

    # --- the parser's calls

    def on_message_begin(self) -> None:
        """A request begins."""
        self._idle_ticks = 0
        self._begin()

    def on_url(self, url: bytes) -> None:
        """The target of the request, perhaps in parts."""
        if self._counts_head:
            self._count(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; only those that are read are kept."""
        if self._counts_head:
            self._count(len(name) + len(value) + 4)
        name = name.lower()
        # After the head come trailers; a key in a trailer would be one that a proxy before us never saw.
        if name not in _WANTED or not self._in_head:
            return
        if name in self._headers and name in {b"content-length", b"transfer-encoding"}:
            self._refuse(Refusal(Code.MALFORMED_REQUEST, f"The header {name.decode()} was given twice."))
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        """Decide from the headers whether the body is wanted."""
        self._in_head = False
        headers = self._headers
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if coding is not None:
            if length is not None:
                self._refuse(_BOTH_FRAMINGS)
            if coding.strip().lower() != b"chunked":
                self._refuse(_OTHER_CODING)
        if length is not None and int(length) > self._body_bytes_max:
            self._refuse(_too_large_body(self._body_bytes_max))
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue":
            self._owes_continue = True
            self._continue_if_first()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._idle_ticks = 0
        self._body_bytes += len(body)
        if self._body_bytes > self._body_bytes_max:
            self._refuse(_too_large_body(self._body_bytes_max))
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._owes_continue = False
        self._fed = 0
        self._ready.append(self._exchange())

    # --- what exchanges call

    @property
    def stamp(self) -> bytes:
        """Header lines that are the same for all answers of this moment: the date, and who answers."""
        return self._server.stamp

    def write(self, data: bytes) -> None:
        """Send to the client."""
        self._transport.write(data)

    def attach(self, source: Source | None) -> None:
        """The source to hold back while the client does not read."""
        self._source = source
        if source is not None and self._writing_paused:
            source.pause()

    def cut(self) -> None:
        """Break off."""
        self._transport.abort()

    # --- time

    def tick(self, now_ns: int) -> None:
        """Every `TICK_MS`."""
        exchange, flow = self._current, self._flow
        if exchange is not None and flow is not None:
            if now_ns - exchange.began_ns > self._server.longest_ns:
                flow.interrupt(TooLong())
            return
        self._idle_ticks += 1
        if self._lingering and self._idle_ticks > _LINGER_TICKS:
            self._transport.abort()
        elif self._idle_ticks > self._server.idle_ticks_max:
            self._end_idle()

    def close_if_idle(self) -> None:
        """The worker drains: an idle connection is closed now, another after its present request."""
        if self._current is None and not self._ready:
            self._transport.close()

    def interrupt_for_drain(self) -> None:
        """The time to finish is over. The flow still writes its closing record and says why it ends."""
        if self._current is not None and self._flow is not None:
            self._ready.clear()
            self._current.keep_alive = False
            self._flow.interrupt(Drained())
        else:
            self._transport.close()

    # --- inside

    def _begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._fed = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._header_bytes_max:
            self._refuse(_too_large_headers(self._header_bytes_max))

    def _refuse(self, refusal: Refusal) -> None:
        self._refused = refusal
        raise _Refused

    def _exchange(self, refusal: Refusal | None = None) -> Exchange:
        body = self._body
        return Exchange(
            wire=self,
            request_id=self._server.request_id(),
            method=b"" if refusal else self._parser.get_method(),
            path=self._url.partition(b"?")[0].decode("latin-1"),
            headers=self._headers,
            body=body[0] if len(body) == 1 else b"".join(body),
            is_http_11=refusal is not None or self._parser.get_http_version() != "1.0",
            keep_alive=refusal is None and self._parser.should_keep_alive(),
            began_ns=clock.boot_ns(),
            refusal=refusal,
        )

    def _serve_ready(self) -> None:
        """Serve what waits, as far as it can be served without waiting. A loop: recursion would know no limit."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._ready and self._current is None and not self._writing_paused:
                exchange = self._current = self._ready.popleft()
                exchange.keep_alive = exchange.keep_alive and not self._server.draining
                if exchange.refusal is not None:
                    exchange.refuse(exchange.refusal)
                    self._linger()
                    return
                self._flow = Flow(self._server.handle(exchange), self._ended)
                self._flow.start()
        finally:
            self._serving = False
        if self._current is None:
            self._continue_if_first()
            self._resume_reading()

    def _ended(self) -> None:
        """The flow of the current exchange came to its end."""
        exchange = self._current
        self._current = self._flow = self._source = None
        self._idle_ticks = 0
        if exchange is None or exchange.gone:
            self._server.forget(self)
            return
        if not exchange.complete:
            self._transport.abort()
        elif not exchange.keep_alive or (self._server.draining and not self._ready):
            self._ready.clear()
            self._transport.close()
        else:
            self._serve_ready()

    def _linger(self) -> None:
        """After a refusal in the middle of a request: wait for the client to read it.

        Closing at once with bytes unread would reset the connection, and the client might lose the answer.
        """
        self._current = None
        self._lingering = True
        self._idle_ticks = 0
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _end_idle(self) -> None:
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    def _continue_if_first(self) -> None:
        if self._owes_continue and self._current is None and not self._ready:
            self._owes_continue = False
            self.write(answers.CONTINUE)

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()


def _too_large_headers(limit: int) -> Refusal:
    return Refusal(Code.HEADERS_TOO_LARGE, f"Request line and headers are larger than {limit} bytes. Send less.")


def _too_large_body(limit: int) -> Refusal:
    return Refusal(Code.BODY_TOO_LARGE, f"The body is larger than {limit} bytes. Send less.")
