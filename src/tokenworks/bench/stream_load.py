"""The load of streams: `python -m tokenworks.bench.stream_load`, a plan as JSON on standard input, counts on output.

Each connection asks for one stream after the other. It looks for the first event and the end of a stream only, because
every microsecond here is one less for what is measured.
"""

import asyncio
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from typing import cast

import msgspec

from tokenworks.base import clock
from tokenworks.bench import load, machine
from tokenworks.bench.endpoint import MODEL

_DRAWS = 1 << 14
_PATIENCE_S = 120
_END = b"0\r\n\r\n"
_DONE = b"[DONE]"
_TAIL_BYTES = 64


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """So many streams at once, the first ones started evenly over `spread_ms`, new ones until `duration_ms` are over.

    With a duration of 0 each connection asks for one stream, and then it is over.
    """

    ports: list[int]
    keys: list[str]
    streams: int
    chunks: int
    spread_ms: int
    duration_ms: int
    model: str = MODEL


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. `streams` are whole ones, `others` answers of another status and streams that broke.

    `open_max`: how many streams had begun and not ended at once.
    """

    streams: int
    others: dict[str, int]
    elapsed_ns: int
    cpu_ns: int
    open_max: int
    ttft_p50_ns: int
    ttft_p99_ns: int


async def send(plan: Plan) -> Count:
    """Carry a plan out in a process of its own."""
    return await load.counted("tokenworks.bench.stream_load", plan, Count)


def main() -> int:
    """Carry out the plan on standard input."""
    machine.allow_descriptors()
    return load.carried_out(Plan, _carry_out)


class Tally:
    """What all connections share: the requests to come, and what came back."""

    def __init__(self, requests: Iterator[bytes], end_ns: int) -> None:
        self._requests = requests
        self._end_ns = end_ns
        self._open = 0
        self.open_max = 0
        self.streams = 0
        self.ttft_ns = array("q")
        self.others: Counter[str] = Counter()

    def first(self) -> bytes:
        """The request that a connection begins with."""
        return next(self._requests)

    def next(self, now_ns: int) -> bytes | None:
        """The request to send now; None if it is time to end."""
        return next(self._requests) if now_ns < self._end_ns else None

    def begun(self, ttft_ns: int) -> None:
        """A stream's first event is here."""
        self.ttft_ns.append(ttft_ns)
        self._open += 1
        self.open_max = max(self.open_max, self._open)

    def ended(self, broken: str) -> None:
        """A stream is over; `broken` says why it is not whole."""
        self._open -= 1
        if broken:
            self.others[broken] += 1
        else:
            self.streams += 1


class Connection(asyncio.Protocol):
    """One connection, asking for streams until the tally has no more requests."""

    def __init__(self, tally: Tally) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tally = tally
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._sent_ns = 0
        self._head: bytes | None = b""
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)

    def begin(self) -> None:
        """Ask for the first stream."""
        self._ask(self._tally.first(), clock.boot_ns())

    def data_received(self, data: bytes) -> None:
        """A part of a stream."""
        if self._head is not None:
            self._head += data
            if not self._begun(self._head):
                return
            self._head = None
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        if self._tail.endswith(_END):
            self._tally.ended("" if _DONE in self._tail else "cut")
            now_ns = clock.boot_ns()
            self._ask(self._tally.next(now_ns), now_ns)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expected once all is done, a broken stream before."""
        del exc
        if not self.done.done():
            if self._head is None:
                self._tally.ended("broken")
            else:
                self._tally.others["broken"] += 1
            self.done.set_result(None)

    def _begun(self, data: bytes) -> bool:
        """Whether the first event is here; another answer than a stream ends the connection."""
        if not data.startswith(b"HTTP/1.1 200 "[: len(data)]):
            self._tally.others[data[9:12].decode("latin-1")] += 1
            self.done.set_result(None)
            self._transport.abort()
            return False
        if data.find(b"data:", data.find(b"\r\n\r\n")) < 0 or b"\r\n\r\n" not in data:
            return False
        self._tally.begun(clock.boot_ns() - self._sent_ns)
        return True

    def _ask(self, message: bytes | None, now_ns: int) -> None:
        if message is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._head, self._tail, self._sent_ns = b"", b"", now_ns
        self._transport.write(message)


async def _carry_out(plan: Plan) -> Count:
    loop = asyncio.get_running_loop()
    drawn = load.by_zipf(len(plan.keys), _DRAWS)
    each = [load.request(key, model=plan.model, stream=True, max_tokens=plan.chunks) for key in plan.keys]
    end_ns = clock.boot_ns() + plan.duration_ms * clock.MS if plan.duration_ms else 0
    tally = Tally(cycle([each[place] for place in drawn]), end_ns)
    connections: list[Connection] = []
    for number in range(plan.streams):
        port = plan.ports[number % len(plan.ports)]
        _, connection = await loop.create_connection(lambda: Connection(tally), "127.0.0.1", port)
        connections.append(connection)
    began_ns, cpu_ns = clock.boot_ns(), time.process_time_ns()
    for number, connection in enumerate(connections):
        loop.call_later(number * plan.spread_ms / 1_000 / len(connections), connection.begin)
    async with asyncio.timeout((plan.spread_ms + plan.duration_ms) / 1_000 + _PATIENCE_S):
        await asyncio.gather(*(connection.done for connection in connections))
    elapsed_ns, cpu_ns = clock.boot_ns() - began_ns, time.process_time_ns() - cpu_ns
    ttft_p50_ns, ttft_p99_ns = load.middle_and_tail(tally.ttft_ns)
    return Count(
        streams=tally.streams,
        others=dict(tally.others),
        elapsed_ns=elapsed_ns,
        cpu_ns=cpu_ns,
        open_max=tally.open_max,
        ttft_p50_ns=ttft_p50_ns,
        ttft_p99_ns=ttft_p99_ns,
    )


if __name__ == "__main__":
    sys.exit(main())
