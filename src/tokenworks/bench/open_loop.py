"""An open loop of requests: so many are begun a second, whatever becomes of the earlier ones.

Each goes out on a connection that is idle or, where none is, on a new one; where there may be no more connections it is
held back for good. What is asked and what is made of an answer is the connections' affair.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

import msgspec

from tokenworks.base import clock

_TICK_S = 0.001
_PATIENCE_S = 30

Asked = TypeVar("Asked")


class Asking(asyncio.Protocol, ABC, Generic[Asked]):
    """One connection of the loop, for one request after the other.

    It says `is_over` for each request it was given, and `is_idle` or `is_lost` of itself.
    """

    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)

    def close(self) -> None:
        """Nothing more will be asked."""
        self._transport.close()

    @abstractmethod
    def ask(self, asked: Asked, due_ns: int) -> None:
        """Send a request that was due then."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` requests a second for `duration_ms`, with at most so many connections."""

    rate: int
    duration_ms: int
    connections: int


class OpenLoop(Generic[Asked]):
    """The requests to come, and the connections that are idle."""

    def __init__(
        self, port: int, pace: Pace, requests: Iterator[Asked], connected: Callable[[], Asking[Asked]]
    ) -> None:
        self.begun = 0
        self.held_back = 0
        self.under_way_most = 0
        self._port = port
        self._pace = pace
        self._requests = requests
        self._connected = connected
        self._idle: OrderedDict[Asking[Asked], None] = OrderedDict()
        self._open = 0
        self._under_way = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._is_changed = asyncio.Event()

    async def run(self) -> None:
        """Begin requests at the rate, as many as belong to the time, then wait for those under way."""
        rate, began_ns = self._pace.rate, clock.boot_ns()
        whole = rate * self._pace.duration_ms // 1_000
        while (first := self.begun + self.held_back) < whole:
            due = rate * (clock.boot_ns() - began_ns) // clock.SECOND + 1
            for number in range(first, min(whole, due)):
                self._begin(began_ns + number * clock.SECOND // rate)
            await asyncio.sleep(_TICK_S)
        async with asyncio.timeout(_PATIENCE_S):
            while self._under_way:
                await self._changed()
            for connection in self._idle:
                connection.close()
            while self._open:
                await self._changed()

    def is_over(self) -> None:
        """A request has its answer, or will have none."""
        self._under_way -= 1
        self._is_changed.set()

    def is_idle(self, connection: Asking[Asked]) -> None:
        """A connection can be used again."""
        self._idle[connection] = None

    def is_lost(self, connection: Asking[Asked]) -> None:
        """A connection is closed."""
        self._open -= 1
        self._is_changed.set()
        self._idle.pop(connection, None)

    async def _changed(self) -> None:
        self._is_changed.clear()
        await self._is_changed.wait()

    def _begin(self, due_ns: int) -> None:
        if not self._idle and self._open >= self._pace.connections:
            self.held_back += 1
            return
        self.begun += 1
        self._under_way += 1
        self.under_way_most = max(self.under_way_most, self._under_way)
        asked = next(self._requests)
        if self._idle:
            self._idle.popitem(last=False)[0].ask(asked, due_ns)
            return
        self._open += 1
        task = asyncio.create_task(self._on_a_new_one(asked, due_ns))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _on_a_new_one(self, asked: Asked, due_ns: int) -> None:
        """The gateway's listening socket outlives its workers; what keeps a connection from being made passes."""
        while True:
            try:
                made = await asyncio.get_running_loop().create_connection(self._connected, "127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(_TICK_S)
                continue
            made[1].ask(asked, due_ns)
            return
