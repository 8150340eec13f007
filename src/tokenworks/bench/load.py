"""The load generator: `python -m tokenworks.bench.load`, a plan as JSON on standard input, counts on standard output.

Raw sockets and a closed loop: each connection sends its next request when the last answer is whole. It reads no more
of an answer than its status and length, because every microsecond here is one less for what is measured.
"""

import asyncio
import hashlib
import sys
import time
from array import array
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import accumulate, cycle
from typing import Any, TypeVar, cast

import msgspec
import uvloop

from tokenworks.base import clock, processes
from tokenworks.bench.endpoint import MODEL, PATH
from tokenworks.bench.python import module

_DRAWS = 1 << 17
_PATIENCE_S = 60
_PROMPT = "Write two sentences about a town where words come out of the tap like water, and end with a question."
_ASKED = {"model": MODEL, "messages": [{"role": "user", "content": _PROMPT}], "max_tokens": 128}


Planned = TypeVar("Planned", bound=msgspec.Struct)
Counted = TypeVar("Counted", bound=msgspec.Struct)


class LoadFault(Exception):
    """The load generator could not do its work; the text is one sentence."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send: for `duration_ms` keys drawn by Zipf's law, or with 0 one request with each key, then the end.

    Connections are spread evenly over the ports on loopback.
    """

    ports: list[int]
    keys: list[str]
    connections: int
    duration_ms: int


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. `others`: answers by status that is not 200, and `broken` connections."""

    answers: int
    others: dict[str, int]
    elapsed_ns: int
    cpu_ns: int
    p50_ns: int
    p99_ns: int


async def send(plan: Plan) -> Count:
    """Carry a plan out in a process of its own."""
    return await counted("tokenworks.bench.load", plan, Count)


async def counted(program: str, plan: msgspec.Struct, kind: type[Counted]) -> Counted:
    """What a load generator has counted, a module that carries out a plan in a process of its own."""
    code, said = await processes.run(module(program), msgspec.json.encode(plan))
    if code != 0:
        raise LoadFault(f"The load generator ended with {processes.how_it_ended(code)}: {said.strip()[-2_000:]}")
    return msgspec.json.decode(said, type=kind)


def main() -> int:
    """Carry out the plan on standard input."""
    return carried_out(Plan, _carry_out)


def carried_out(kind: type[Planned], carry_out: Callable[[Planned], Coroutine[Any, Any, msgspec.Struct]]) -> int:
    """Carry out the plan on standard input and write what was counted; the exit code."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=kind)
    try:
        count = uvloop.run(carry_out(plan))
    except (OSError, TimeoutError) as fault:
        sys.stdout.write(f"{type(fault).__name__}: {fault}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(count).decode())
    return 0


def request(key: str, **changes: object) -> bytes:
    """The bytes of the one request that a key sends."""
    body = msgspec.json.encode(_ASKED | changes)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def by_zipf(count: int, draws: int) -> list[int]:
    """So many draws of 0 … count - 1, each `n` with a weight of 1 / (n + 1); the same ones every time."""
    weights = list(accumulate(1 / place for place in range(1, count + 1)))
    bits = hashlib.shake_128(b"tokenworks bench").digest(4 * draws)
    spots = (int.from_bytes(bits[at : at + 4], "big") / (1 << 32) for at in range(0, len(bits), 4))
    return [bisect(weights, spot * weights[-1]) for spot in spots]


class _Tally:
    """What all connections share: the requests to come, and what came back."""

    def __init__(self, requests: Iterator[bytes], end_ns: int) -> None:
        self._requests = requests
        self._end_ns = end_ns
        self.latencies_ns = array("q")
        self.others: Counter[str] = Counter()

    def next(self, now_ns: int) -> bytes | None:
        """The request to send now; None if it is time to end."""
        return next(self._requests, None) if now_ns < self._end_ns else None

    def answered(self, data: bytes, latency_ns: int) -> None:
        """A whole answer is here."""
        if data.startswith(b"HTTP/1.1 200 "):
            self.latencies_ns.append(latency_ns)
        else:
            self.others[data[9:12].decode("latin-1")] += 1


class Connection(asyncio.Protocol):
    """One connection, asking until the tally has no more requests."""

    def __init__(self, tally: _Tally) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tally = tally
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._part = b""
        self._sent_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask(clock.boot_ns())

    def data_received(self, data: bytes) -> None:
        """A part of an answer, usually the whole."""
        if self._part:
            data = self._part + data
        if not is_whole(data):
            self._part = data
            return
        self._part = b""
        now_ns = clock.boot_ns()
        self._tally.answered(data, now_ns - self._sent_ns)
        self._ask(now_ns)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expected once all is done, a broken answer before."""
        del exc
        if not self.done.done():
            self._tally.others["broken"] += 1
            self.done.set_result(None)

    def _ask(self, now_ns: int) -> None:
        message = self._tally.next(now_ns)
        if message is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._sent_ns = now_ns
        self._transport.write(message)


def is_whole(data: bytes) -> bool:
    """Whether an answer with a length is complete; one without a length never is."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return False
    line_end = head.find(b"\r\n", at + 2)
    length = int(head[at + 17 : line_end if line_end >= 0 else end])
    return len(data) >= end + 4 + length


async def _carry_out(plan: Plan) -> Count:
    loop = asyncio.get_running_loop()
    requests = _requests(plan)
    began_ns, cpu_ns = clock.boot_ns(), time.process_time_ns()
    lasts_ns = plan.duration_ms * clock.MS or _PATIENCE_S * clock.SECOND
    tally = _Tally(requests, began_ns + lasts_ns)
    connections: list[Connection] = []
    for number in range(plan.connections):
        port = plan.ports[number % len(plan.ports)]
        _, connection = await loop.create_connection(lambda: Connection(tally), "127.0.0.1", port)
        connections.append(connection)
    async with asyncio.timeout(plan.duration_ms / 1000 + 2 * _PATIENCE_S):
        await asyncio.gather(*(connection.done for connection in connections))
    elapsed_ns, cpu_ns = clock.boot_ns() - began_ns, time.process_time_ns() - cpu_ns
    return _count(tally, elapsed_ns, cpu_ns)


def _requests(plan: Plan) -> Iterator[bytes]:
    each = [request(key) for key in plan.keys]
    if plan.duration_ms == 0:
        return iter(each)
    return cycle([each[place] for place in by_zipf(len(each), _DRAWS)])


def _count(tally: _Tally, elapsed_ns: int, cpu_ns: int) -> Count:
    p50_ns, p99_ns = middle_and_tail(tally.latencies_ns)
    return Count(
        answers=len(tally.latencies_ns),
        others=dict(tally.others),
        elapsed_ns=elapsed_ns,
        cpu_ns=cpu_ns,
        p50_ns=p50_ns,
        p99_ns=p99_ns,
    )


def middle_and_tail(times_ns: Iterable[int]) -> tuple[int, int]:
    """What half of them stay below, and all but one in a hundred; zero where there are none."""
    ordered = sorted(times_ns)
    return (ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]) if ordered else (0, 0)


if __name__ == "__main__":
    sys.exit(main())
