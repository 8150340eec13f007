"""The load at a rate: `python -m tokenworks.bench.paced_load`, a plan as JSON on standard input, counts on output.

Every customer adds up the tokens of its own answers, so that the books can be compared with what each of them counted.
Latencies run from the moment at which a request was due, whenever it could be sent.
"""

import re
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import chain, cycle

import msgspec

from tokenworks.base import clock
from tokenworks.bench import load
from tokenworks.bench.open_loop import Asking, OpenLoop, Pace

_DRAWS = 1 << 17
_TOKENS = re.compile(rb'"total_tokens":(\d+)')
_CODE = re.compile(rb'"code":"(\w+)"')

_Asked = tuple[int, bytes]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One request with each key for a start, if `each_once`, then keys drawn by Zipf's law."""

    port: int
    keys: list[str]
    pace: Pace
    each_once: bool = False


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. `tokens` and `answers` are by place of the key; `others` are counted by status and code.

    `held_back` requests were never sent, because every connection waited for an answer. `ended_ns` is when the last
    answer was here, by the clock that runs since the machine started.
    """

    begun: int
    held_back: int
    under_way_most: int
    answers: list[int]
    tokens: list[int]
    others: dict[str, int]
    elapsed_ns: int
    ended_ns: int
    cpu_ns: int
    p50_ns: int
    p99_ns: int


async def send(plan: Plan) -> Count:
    """Carry a plan out in a process of its own."""
    return await load.counted("tokenworks.bench.paced_load", plan, Count)


def main() -> int:
    """Carry out the plan on standard input."""
    return load.carried_out(Plan, _carry_out)


class Tally:
    """What the customers have counted."""

    def __init__(self, keys: int) -> None:
        self.answers = [0] * keys
        self.tokens = [0] * keys
        self.latencies_ns = array("q")
        self.others: Counter[str] = Counter()

    def answered(self, place: int, data: bytes, latency_ns: int) -> None:
        """A whole answer is here."""
        found = _TOKENS.search(data)
        if data.startswith(b"HTTP/1.1 200 ") and found:
            self.answers[place] += 1
            self.tokens[place] += int(found[1])
            self.latencies_ns.append(latency_ns)
            return
        code = _CODE.search(data)
        self.others[f"{data[9:12].decode('latin-1')} {code[1].decode() if code else ''}".strip()] += 1


class Connection(Asking[_Asked]):
    """One connection, for one request after the other."""

    def __init__(self, loop: OpenLoop[_Asked], tally: Tally) -> None:
        self._loop = loop
        self._tally = tally
        self._part = b""
        self._place: int | None = None
        self._due_ns = 0

    def ask(self, asked: _Asked, due_ns: int) -> None:
        """Send a request that was due then."""
        (self._place, message), self._due_ns = asked, due_ns
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        """A part of an answer, usually the whole."""
        if self._part:
            data = self._part + data
        if not load.is_whole(data):
            self._part = data
            return
        self._part = b""
        if self._place is not None:
            self._tally.answered(self._place, data, clock.boot_ns() - self._due_ns)
            self._place = None
            self._loop.is_over()
        self._loop.is_idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The gateway has closed it; with a request under way nobody knows what became of that."""
        del exc
        self._loop.is_lost(self)
        if self._place is not None:
            self._place = None
            self._tally.others["broken"] += 1
            self._loop.is_over()


def requests(plan: Plan) -> Iterator[_Asked]:
    """What is asked, in its order."""
    each = [(place, load.request(key)) for place, key in enumerate(plan.keys)]
    drawn = cycle([each[place] for place in load.by_zipf(len(each), _DRAWS)])
    return chain(each, drawn) if plan.each_once else drawn


async def _carry_out(plan: Plan) -> Count:
    tally = Tally(len(plan.keys))
    loop: OpenLoop[_Asked] = OpenLoop(plan.port, plan.pace, requests(plan), lambda: Connection(loop, tally))
    began_ns, cpu_ns = clock.boot_ns(), time.process_time_ns()
    await loop.run()
    ended_ns, cpu_ns = clock.boot_ns(), time.process_time_ns() - cpu_ns
    p50_ns, p99_ns = load.middle_and_tail(tally.latencies_ns)
    return Count(
        begun=loop.begun,
        held_back=loop.held_back,
        under_way_most=loop.under_way_most,
        answers=tally.answers,
        tokens=tally.tokens,
        others=dict(tally.others),
        elapsed_ns=ended_ns - began_ns,
        ended_ns=ended_ns,
        cpu_ns=cpu_ns,
        p50_ns=p50_ns,
        p99_ns=p99_ns,
    )


if __name__ == "__main__":
    sys.exit(main())
