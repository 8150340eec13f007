"""Upstream: the transport connections to endpoints, and the pools that keep them alive between requests.

Speaks HTTP/1.1 through llhttp. It reports how an attempt went as values; which endpoint to try, what an answer means
and what it costs is decided elsewhere.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.core.snapshot import Endpoint
from tokenworks.gateway.flow import Errands, Interrupt, Wait
from tokenworks.gateway.server import TICK_MS

_KEPT = frozenset({b"content-type", b"retry-after", b"content-length", b"transfer-encoding"})
# After the last event of a stream, the end of the HTTP message is a few bytes away.
_TAIL_TICKS = 4


class UpstreamBroken(Exception):
    """The endpoint closed the connection within its answer, or did not speak HTTP."""


class UpstreamSilent(Exception):
    """The endpoint sent nothing for too long."""


class Unreachable(msgspec.Struct, frozen=True):
    """No answer was begun: the connection failed or broke before the first byte, or (`silent`) nothing ever came."""

    text: str
    silent: bool = False


class Sending(msgspec.Struct, eq=False):
    """A request on its way to an endpoint. `sent_ns` is set when its bytes go out, 0 before."""

    body: bytes
    request_id: str
    sent_ns: int = 0


class Upstream(asyncio.Protocol):
    """One connection. A request is sent with `begin`; then `head`, `chunk` until empty, and `let_go`."""

    def __init__(self, pool: "Pool") -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.touched = False
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._wait: Wait[None] | None = None
        self._chunks: list[bytes] = []
        self._head_done = False
        self._complete = False
        self._fault: Exception | None = None
        self._busy = False
        self._paused = False
        self._ticks = 0
        self._tailing = False
        self._is_reusable = False

    @property
    def is_framed(self) -> bool:
        """Whether the end of the answer can be told from a lost connection."""
        return b"content-length" in self.headers or b"transfer-encoding" in self.headers

    # --- what a request does

    def begin(self, message: bytes) -> None:
        """Send a request."""
        self.status = 0
        self.headers = {}
        self.touched = False
        self._chunks = []
        self._head_done = self._complete = self._is_reusable = False
        self._busy = True
        self._ticks = 0
        self._transport.write(message)

    async def head(self) -> None:
        """Return when status and headers are here."""
        while not self._head_done:
            await self._more()

    async def chunk(self) -> bytes:
        """What has come of the body since the last call; empty at the end."""
        while not self._chunks:
            if self._complete:
                return b""
            await self._more()
        chunks = self._chunks
        self._chunks = []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def let_go(self, *, tail: bool = False) -> None:
        """Done with the answer. Complete, the connection is kept; else closed, or with `tail` given a moment to end."""
        self._wait = None
        self.resume()
        if self._complete:
            self._release()
        elif tail and self._fault is None:
            self._tailing = True
            self._ticks = 0
        else:
            self.close()

    def pause(self) -> None:
        """Stop reading: the customer is slower than the endpoint."""
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            self._ticks = 0
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def close(self) -> None:
        """Break off; the endpoint sees that nobody listens."""
        self._busy = False
        self._transport.abort()

    # --- time

    def tick(self, silence_ticks: int, idle_ticks: int) -> None:
        """Every `TICK_MS`: silence is counted in ticks, so that no clock is read for the bytes that come."""
        if self._paused:
            return
        self._ticks += 1
        if self._tailing or not self._busy:
            if self._ticks > (_TAIL_TICKS if self._tailing else idle_ticks):
                self.close()
        elif self._ticks > silence_ticks:
            self._fail(UpstreamSilent(f"no byte for {silence_ticks * TICK_MS} ms"))

    # --- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._pool.open[self] = None

    def data_received(self, data: bytes) -> None:
        """Bytes from the endpoint."""
        self._ticks = 0
        if not self._busy:
            self.close()
            return
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
        else:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone. For an answer without length or chunks this is how it ends."""
        self._pool.forget(self)
        if not self._busy:
            return
        if self._head_done and not self.is_framed:
            self._complete = True
        if not self._complete:
            self._fault = self._fault or UpstreamBroken(f"connection lost: {exc or 'closed by the endpoint'}")
        self._wake()

    # --- the parser's calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer."""
        name = name.lower()
        if name in _KEPT:
            self.headers[name] = value

    def on_headers_complete(self) -> None:
        """The head is here; 1xx heads are only announcements."""
        self.status = self._parser.get_status_code()
        self._head_done = self.status >= 200

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._head_done:
            self._complete = True
            # To be asked here: the parser forgets the message when it is whole.
            self._is_reusable = self._parser.should_keep_alive()
        else:
            self.headers = {}

    # --- inside

    async def _more(self) -> None:
        if self._fault is not None:
            raise self._fault
        wait: Wait[None] = Wait()
        self._wait = wait
        await wait

    def _wake(self) -> None:
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.resolve(None)

    def _fail(self, fault: Exception) -> None:
        self._fault = fault
        self._transport.abort()
        self._wake()

    def _release(self) -> None:
        self._tailing = self._busy = False
        if self._fault is None and self._is_reusable and not self._transport.is_closing():
            self._pool.keep(self)
        else:
            self._transport.abort()


class Pool:
    """The connections to one endpoint, and the head of every request to it."""

    def __init__(self, endpoint: Endpoint, idle_max: int) -> None:
        self.endpoint = endpoint
        self.open: dict[Upstream, None] = {}
        self.idle: list[Upstream] = []
        self._idle_max = idle_max
        url = urlsplit(endpoint.base_url)
        self.host = url.hostname or ""
        self.is_tls = url.scheme == "https"
        self.port = url.port or (443 if self.is_tls else 80)
        self._head = (
            f"POST {url.path.rstrip('/')}/chat/completions HTTP/1.1\r\n"
            f"host: {url.netloc.rpartition('@')[2]}\r\n"
            "user-agent: tokenworks\r\n"
            "accept-encoding: identity\r\n"
            "content-type: application/json\r\n"
            + (f"authorization: Bearer {endpoint.api_key}\r\n" if endpoint.api_key else "")
        ).encode()

    def message(self, body: bytes, request_id: str) -> bytes:
        """A whole request."""
        return b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            self._head,
            request_id.encode(),
            len(body),
            body,
        )

    def keep(self, upstream: Upstream) -> None:
        """Keep a connection for the next request."""
        if len(self.idle) < self._idle_max:
            self.idle.append(upstream)
        else:
            upstream.close()

    def forget(self, upstream: Upstream) -> None:
        """A connection is gone."""
        self.open.pop(upstream, None)
        if upstream in self.idle:
            self.idle.remove(upstream)

    def close(self) -> None:
        """Close what is idle; what is in use ends with its request."""
        self._idle_max = 0
        for upstream in list(self.idle):
            upstream.close()


class Upstreams:
    """All pools of a worker, by endpoint."""

    def __init__(self, settings: Settings, errands: Errands) -> None:
        self._settings = settings
        self._errands = errands
        self._pools: dict[str, Pool] = {}
        self._retired: list[Pool] = []
        self._tls: ssl.SSLContext | None = None
        self._silence_ticks = -(-settings.endpoint_silence_ms // TICK_MS)
        self._idle_ticks = -(-settings.endpoint_idle_ms // TICK_MS)

    async def send(self, endpoint: Endpoint, sending: Sending) -> Upstream | Unreachable:
        """Send a request and wait for the head of the answer.

        A kept connection that breaks before the first byte was closed by the endpoint while it was idle: the request
        goes out once more, on a new connection.
        """
        pool = self._pool(endpoint)
        if pool.idle:
            upstream = pool.idle.pop()
            answer = await _exchange(upstream, pool, sending)
            if isinstance(answer, Upstream) or answer.silent or upstream.touched:
                return answer
        connected = await self._connect(pool)
        if isinstance(connected, Unreachable):
            return connected
        return await _exchange(connected, pool, sending)

    def keep(self, endpoint_ids: set[str]) -> None:
        """The catalog changed: close what leads to endpoints that left it."""
        for endpoint_id in [known for known in self._pools if known not in endpoint_ids]:
            self._retire(self._pools.pop(endpoint_id))

    def tick(self) -> None:
        """Every `TICK_MS`."""
        for pool in (*self._pools.values(), *self._retired):
            for upstream in list(pool.open):
                upstream.tick(self._silence_ticks, self._idle_ticks)
        self._retired = [pool for pool in self._retired if pool.open]

    def close(self) -> None:
        """Close all connections."""
        for pool in (*self._pools.values(), *self._retired):
            for upstream in list(pool.open):
                upstream.close()

    def _pool(self, endpoint: Endpoint) -> Pool:
        pool = self._pools.get(endpoint.id)
        if pool is not None and pool.endpoint is endpoint:
            return pool
        if pool is not None and _is_same_place(pool.endpoint, endpoint):
            pool.endpoint = endpoint
            return pool
        if pool is not None:
            self._retire(pool)
        pool = self._pools[endpoint.id] = Pool(endpoint, self._settings.endpoint_idle_connections)
        return pool

    def _retire(self, pool: Pool) -> None:
        pool.close()
        self._retired.append(pool)

    async def _connect(self, pool: Pool) -> Upstream | Unreachable:
        wait: Wait[Upstream | Unreachable] = Wait()
        self._errands.start(self._open(pool, wait.resolve))
        return await wait

    async def _open(self, pool: Pool, hand_over: Callable[[Upstream | Unreachable], bool]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_ms / 1000):
                _, upstream = await loop.create_connection(
                    lambda: Upstream(pool), pool.host, pool.port, ssl=self._tls_context() if pool.is_tls else None
                )
        except TimeoutError:
            hand_over(Unreachable(f"no connection within {self._settings.connect_timeout_ms} ms"))
        except (OSError, UnicodeError) as fault:
            hand_over(Unreachable(f"no connection: {fault}"))
        else:
            # The request may have ended meanwhile; then the connection serves the next.
            if not hand_over(upstream):
                pool.keep(upstream)

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


async def _exchange(upstream: Upstream, pool: Pool, sending: Sending) -> Upstream | Unreachable:
    sending.sent_ns = clock.boot_ns()
    upstream.begin(pool.message(sending.body, sending.request_id))
    try:
        await upstream.head()
    except UpstreamBroken as fault:
        upstream.let_go()
        return Unreachable(str(fault))
    except UpstreamSilent as fault:
        upstream.let_go()
        return Unreachable(str(fault), silent=True)
    except Interrupt:
        upstream.let_go()
        raise
    return upstream


def _is_same_place(one: Endpoint, other: Endpoint) -> bool:
    return (one.base_url, one.api_key) == (other.base_url, other.api_key)
