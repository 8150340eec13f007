"""Pools: the connections to endpoints, kept alive between requests, and the head of every request.

Reports how an attempt went as values; which endpoint to try is decided elsewhere.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from tokenworks.base import clock, tls
from tokenworks.base.config import Settings
from tokenworks.base.hosts import LOOPBACK
from tokenworks.base.tls import TlsFault
from tokenworks.core.networks import parse_networks, why_refused
from tokenworks.core.snapshot import Endpoint
from tokenworks.gateway.flow import Errands, Interrupt, Wait
from tokenworks.gateway.server import TICK_MS
from tokenworks.gateway.upstream import Sending, Unreachable, Upstream, UpstreamBroken, UpstreamHung, UpstreamSilent

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, in the order in which they should be tried."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """As the system's resolver has it now."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


_ANTHROPIC_VERSION = "2023-06-01"


class _Refused(Exception):
    """An endpoint's name leads where endpoints may not be."""


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
        self._path = url.path.rstrip("/")
        self._fields = (
            f"host: {url.netloc.rpartition('@')[2]}\r\n"
            "user-agent: tokenworks\r\n"
            "accept-encoding: identity\r\n"
            "content-type: application/json\r\n" + _key_fields(endpoint)
        )
        self._head = self._head_of("/messages" if endpoint.dialect == "anthropic" else "/chat/completions")

    def message(self, sending: Sending) -> bytes:
        """A whole request."""
        return b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            self._head_of(sending.path, sending.method) if sending.path else self._head,
            sending.request_id.encode(),
            len(sending.body),
            sending.body,
        )

    def opened(self, upstream: Upstream) -> None:
        """A connection was made."""
        self.open[upstream] = None

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

    def _head_of(self, path: str, method: str = "POST") -> bytes:
        return f"{method} {self._path}{path} HTTP/1.1\r\n{self._fields}".encode()


class Upstreams:
    """All pools of a worker, by endpoint."""

    def __init__(self, settings: Settings, errands: Errands, resolve: Resolve = resolve) -> None:
        self._settings = settings
        self._resolve = resolve
        self._errands = errands
        self._pools: dict[str, Pool] = {}
        self._retired: list[Pool] = []
        self._tls: ssl.SSLContext | None = None
        self._silence_ticks = -(-settings.endpoint_silence_ms // TICK_MS)
        self._hung_ticks = -(-settings.endpoint_hung_ms // TICK_MS)
        self._idle_ticks = -(-settings.endpoint_idle_ms // TICK_MS)
        self._networks = parse_networks(settings.endpoint_networks)
        self._engine = (LOOPBACK, settings.engine_port) if settings.embedded_engine else None

    async def send(self, endpoint: Endpoint, sending: Sending) -> Upstream | Unreachable:
        """Send a request and wait for the head of the answer.

        A kept connection that breaks before the first byte was closed by the endpoint while it was idle: the request
        goes out once more, on a new connection.
        """
        pool = self._pool(endpoint)
        is_kept = bool(pool.idle)
        while True:
            upstream = pool.idle.pop() if is_kept else await self._connect(pool)
            if isinstance(upstream, Unreachable):
                return upstream
            sending.sent_ns = clock.boot_ns()
            upstream.begin(pool.message(sending), stream=sending.stream)
            try:
                while not upstream.has_head:
                    await upstream
            except UpstreamBroken as fault:
                upstream.let_go()
                if not is_kept or upstream.touched:
                    return Unreachable(str(fault))
            except UpstreamSilent as fault:
                upstream.let_go()
                return Unreachable(str(fault), silent=True, hung=isinstance(fault, UpstreamHung))
            except Interrupt:
                upstream.let_go()
                raise
            else:
                return upstream
            is_kept = False

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

    def leave_hung(self, has_other: Callable[[Endpoint], bool]) -> None:
        """Every `TICK_MS`: streams leave an endpoint that says nothing to anybody for another one that could serve."""
        for pool in list(self._pools.values()):
            hung = [upstream for upstream in pool.open if upstream.is_hung(self._hung_ticks)]
            if hung and not any(upstream.is_alive(self._hung_ticks) for upstream in pool.open):
                for upstream in hung:
                    if has_other(pool.endpoint):
                        upstream.leave()

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
                upstream = await self._connected(pool, loop)
        except _Refused as refused:
            hand_over(Unreachable(f"{refused}; TOKENWORKS_ENDPOINT_NETWORKS allows networks"))
        except TimeoutError:
            hand_over(Unreachable(f"no connection within {self._settings.connect_timeout_ms} ms"))
        except (OSError, UnicodeError, TlsFault) as fault:
            hand_over(Unreachable(f"no connection: {fault}"))
        else:
            # The request may have ended meanwhile; then the connection serves the next.
            if not hand_over(upstream):
                pool.keep(upstream)

    async def _connected(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> Upstream:
        """Connect to an address that was judged, not to a name: it might lead elsewhere when it is asked again."""
        judged = {each: self._why_refused(each, pool.port) for each in await self._resolve(pool.host, pool.port)}
        allowed = [address for address, reason in judged.items() if not reason]
        secure: dict[str, Any] = {"ssl": self._tls_context(), "server_hostname": pool.host} if pool.is_tls else {}
        for number, address in enumerate(allowed, 1):
            try:
                async with asyncio.timeout(self._settings.connect_timeout_ms / 1000 / len(allowed)):
                    _, upstream = await loop.create_connection(lambda: Upstream(pool), address, pool.port, **secure)
            except (OSError, TimeoutError):
                if number == len(allowed):
                    raise
            else:
                return upstream
        raise _Refused("; ".join(judged.values()))

    def _why_refused(self, host: str, port: int) -> str:
        return "" if (host, port) == self._engine else why_refused(host, self._networks)

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = tls.to_endpoints(self._settings)
        return self._tls


def _key_fields(endpoint: Endpoint) -> str:
    """Header lines by which the endpoint knows us."""
    if endpoint.dialect == "anthropic":
        key = f"x-api-key: {endpoint.api_key}\r\n" if endpoint.api_key else ""
        return f"anthropic-version: {_ANTHROPIC_VERSION}\r\n{key}"
    return f"authorization: Bearer {endpoint.api_key}\r\n" if endpoint.api_key else ""


def _is_same_place(one: Endpoint, other: Endpoint) -> bool:
    return (one.base_url, one.api_key, one.dialect) == (other.base_url, other.api_key, other.dialect)
