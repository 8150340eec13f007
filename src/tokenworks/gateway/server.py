"""The customers' side: HTTP/1.1 connections, each serving its requests one after the other.

How bytes become requests is `intake`'s; here are the order of pipelined requests, idle and slow clients, back-pressure
and draining. What a request means is the handler's affair.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from tokenworks.base import clock, ids
from tokenworks.base.config import Settings
from tokenworks.core.refusals import Code, Refusal
from tokenworks.dialects import answers
from tokenworks.gateway.exchange import ClientGone, Drained, Exchange, Source, TooLong
from tokenworks.gateway.flow import Flow, Wait
from tokenworks.gateway.intake import Intake

Handler = Callable[[Exchange], Coroutine[Wait[Any], None, None]]

TICK_MS = 250
_LINGER_TICKS = 8
_TOO_MANY = Refusal(
    Code.TOO_MANY_CONNECTIONS, "This gateway worker has too many connections. Retry shortly.", retry_after_ms=1_000
)


class Server:
    """What all connections of a process share, and the only writer of the set of them."""

    def __init__(self, settings: Settings, handle: Handler, worker: str = "") -> None:
        self.settings = settings
        self.handle = handle
        # In the order in which they came, so that the same happenings give the same run.
        self.connections: dict[Connection, None] = {}
        self.draining = self.handing_over = False
        self.idle_ticks_max = -(-settings.client_idle_ms // TICK_MS)
        self.quiet_ticks_max = self.idle_ticks_max
        self.longest_ns = settings.request_longest_ms * clock.MS
        self.longest_ticks = -(-settings.request_longest_ms // TICK_MS)
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

    async def hand_over(self, handover_ms: int, accepting_ms: int = 0) -> None:
        """Another worker accepts now: serve out what is connected here, or will be in a moment, so that none fails.

        A connection that is closed while its client writes fails that request. So each is told with its next answer,
        and only one that stays quiet for longer than clients keep unused connections is closed.
        """
        self._begin_draining()
        self.handing_over = True
        self.quiet_ticks_max = min(self.idle_ticks_max, -(-self.settings.handover_idle_ms // TICK_MS))
        await asyncio.sleep(accepting_ms / 1000)
        await self._emptied(handover_ms)

    async def drain(self, drain_ms: int) -> None:
        """Close idle connections, let requests finish for a while, then end them. Accepting has stopped before."""
        self._begin_draining()
        self.handing_over = False
        self.quiet_ticks_max = _LINGER_TICKS
        for connection in list(self.connections):
            connection.close_if_idle()
        if not await self._emptied(drain_ms):
            for connection in list(self.connections):
                connection.interrupt_for_drain()
            if not await self._emptied(TICK_MS * 4):
                for connection in list(self.connections):
                    connection.cut()

    def _begin_draining(self) -> None:
        if not self.draining:
            self.draining = True
            self._empty = asyncio.Event()
            for connection in self.connections:
                connection.say_last()

    async def _emptied(self, wait_ms: int) -> bool:
        try:
            async with asyncio.timeout(wait_ms / 1000):
                # Who comes when all others have gone is waited for as well.
                while self.connections and self._empty is not None:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            return False
        return True


class Connection(asyncio.Protocol):
    """One client connection: bytes in, exchanges in order, bytes out."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._intake = Intake(server.settings, self, server.request_id, self._continue_if_first)
        self._ready = self._intake.ready
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._current: Exchange | None = None
        self._flow: Flow | None = None
        self._source: Source | None = None
        self._serving = False
        self._writing_paused = False
        self._reading_paused = False
        self._lingering = False
        self._stalled_ticks = 0
        self._unread_bytes = 0

    # --- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast("asyncio.Transport", transport)
        server = self._server
        self._transport.set_write_buffer_limits(high=server.settings.write_buffer_bytes)
        server.connections[self] = None
        if len(server.connections) > server.settings.connections_max:
            self._intake.turn_away(_TOO_MANY)
            self._serve_ready()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; they may hold a part of a request or several requests."""
        intake = self._intake
        if intake.refused is not None:
            return
        intake.feed(data)
        # One is the request that is about to be served.
        if len(self._ready) > 1 and intake.is_far_ahead:
            self._pause_reading()
        self._serve_ready()

    def eof_received(self) -> bool:
        """A client that will send no more is gone: whether it still reads cannot be seen before it has cost tokens."""
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
        self._stalled_ticks = 0
        if self._source is not None:
            self._source.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writing_paused = False
        if self._source is not None:
            self._source.resume()
        self._serve_ready()

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
            elif self._writing_paused:
                self._stalled_ticks += 1
                if self._stalled_ticks > self._server.idle_ticks_max:
                    self._transport.abort()
            return
        intake = self._intake
        intake.idle_ticks += 1
        intake.reading_ticks += 1
        if self._lingering and intake.idle_ticks > _LINGER_TICKS:
            self._transport.abort()
        elif intake.reading_ticks > self._server.longest_ticks:
            self._end_idle()
        elif intake.idle_ticks > self._server.quiet_ticks_max:
            # Who reads a long answer slowly is not idle.
            before, self._unread_bytes = self._unread_bytes, self._transport.get_write_buffer_size()
            if 0 < self._unread_bytes < before:
                intake.idle_ticks = 0
            else:
                self._end_idle()

    def say_last(self) -> None:
        """The worker drains: the answer that is under way says that it is the last, if its head is still to be sent."""
        if self._current is not None and not self._current.streaming and not self._ready:
            self._current.keep_alive = False

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

    def _serve_ready(self) -> None:
        """Serve what waits, as far as it can be served without waiting. A loop: recursion would know no limit."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._ready and self._current is None and not self._writing_paused:
                exchange = self._current = self._ready.popleft()
                # Of requests that were sent ahead, all that have come are answered.
                if self._server.draining and not self._ready:
                    exchange.keep_alive = False
                if exchange.refusal is not None:
                    exchange.refuse(exchange.refusal)
                    self._linger()
                    return
                flow = self._flow = Flow(self._server.handle(exchange), self._ended)
                flow.start()
        finally:
            self._serving = False
        if self._current is None:
            if self._intake.owes_continue:
                self._continue_if_first()
            if self._reading_paused:
                self._resume_reading()

    def _ended(self) -> None:
        """The flow of the current exchange came to its end."""
        exchange = self._current
        self._current = self._flow = self._source = None
        self._intake.idle_ticks = 0
        if exchange is None or exchange.gone:
            self._server.forget(self)
            return
        self._unread_bytes = self._transport.get_write_buffer_size()
        if not exchange.complete:
            self._transport.abort()
        elif not exchange.keep_alive or (self._server.draining and self._is_closed_after_this):
            self._ready.clear()
            self._transport.close()
        elif self._ready or self._intake.owes_continue or self._reading_paused:
            self._serve_ready()

    @property
    def _is_closed_after_this(self) -> bool:
        return not self._server.handing_over and not self._ready

    def _linger(self) -> None:
        """After a refusal in the middle of a request: wait for the client to read it.

        Closing at once with bytes unread would reset the connection, and the client might lose the answer.
        """
        self._current = None
        self._lingering = True
        self._intake.idle_ticks = 0
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
        if self._intake.owes_continue and self._current is None and not self._ready:
            self._intake.owes_continue = False
            self.write(answers.CONTINUE)

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()
