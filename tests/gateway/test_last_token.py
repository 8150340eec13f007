"""The last token: a balance for 50 answers, 500 requests at once that allow for 8 times as much, four gateway workers.

Time is virtual, the rest is real: the workers' own code, the waiting line of the ledger, and its decisions. Clients
retry as the official one does.
"""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import virtual_time
from gateway_bench import BODY, INPUT_MAX, PATH, Bench, bench
from stand_in_office import SECRET, StandInOffice, catalog, endpoint
from supplier import DONE, STREAM_HEAD, Act, Call, answer, chunk, completion, events, usage
from tokenworks.base import clock
from tokenworks.core.snapshot import Model
from tokenworks.gateway.exchange import Exchange, Source
from tokenworks.gateway.flow import Flow
from tokenworks.gateway.routes import Routes

ANSWERS, REQUESTS, WORKERS = 50, 500, 4
INPUT, OUTPUT, OUTPUT_MAX = 20, 100, 800
BALANCE = ANSWERS * (INPUT + OUTPUT)
TICK_MS, SHIP_MS = 250, 20
RETRIES = 2


@dataclass
class Client:
    """A customer's request, from the first try to the last; it is the wire, too."""

    gateway: Bench
    is_stream: bool
    number: int
    data: bytes = b""
    statuses: list[int] = field(default_factory=list)

    stamp = b"date: now\r\n"

    def write(self, data: bytes) -> None:
        self.data += data

    def attach(self, source: Source | None) -> None:
        pass

    def cut(self) -> None:
        raise AssertionError("no answer is broken off here")

    async def ask(self) -> None:
        """OpenAI's client: two retries after 429 and 5xx, when told to, or after half a second and a second."""
        for attempt in range(1 + RETRIES):
            await self.try_once()
            status = int(self.data.split(b" ", 2)[1])
            self.statuses.append(status)
            if status < 429:
                return
            after = self.data.partition(b"retry-after: ")[2].partition(b"\r\n")[0]
            await virtual_time.passes(int(after) * 1000 if after else 500 << attempt)

    async def try_once(self) -> None:
        self.data = b""
        body = BODY | {"max_tokens": OUTPUT_MAX, "stream": self.is_stream}
        headers = {b"authorization": f"Bearer {SECRET}".encode()}
        text = json.dumps(body).encode()
        name = f"req-{self.number}-{len(self.statuses)}"
        exchange = Exchange(self, name, b"POST", PATH, headers, text, True, True, clock.boot_ns())
        done = asyncio.Event()
        Flow(Routes(self.gateway.gateway, lambda: True).handle(exchange), done.set).start()
        await done.wait()

    @property
    def outcome(self) -> str:
        """What became of it in the end."""
        if self.statuses[-1] != 200:
            return "refused"
        written = self.data.count(b'"word"') if self.is_stream else self.data.count(b"x" * 4)
        return "complete" if written == OUTPUT else "truncated"


def whole_after(ms: int) -> Act:
    """An unstreamed answer that takes its time, cut where its limit is."""

    async def act(call: Call) -> bool:
        await virtual_time.passes(ms)
        written = min(OUTPUT, call.body["max_tokens"])
        await call.send(answer(200, completion("x" * 4 * written, usage(INPUT, written))))
        return True

    return act


def stream_over(ms: int) -> Act:
    """A stream that takes its time."""

    async def act(call: Call) -> bool:
        written = min(OUTPUT, call.body["max_tokens"])
        listed = [*events(["word"] * written, usage(INPUT, written)), DONE]
        await call.send(STREAM_HEAD)
        for start in range(0, len(listed), 10):
            await virtual_time.passes(ms // 10)
            await call.send(b"".join(chunk(each) for each in listed[start : start + 10]))
        await call.send(b"0\r\n\r\n")
        return True

    return act


async def shipping(gateway: Bench) -> None:
    """What the worker's own tasks do."""
    waited_ms = 0
    while True:
        await virtual_time.passes(SHIP_MS)
        await gateway.ship()
        waited_ms += SHIP_MS
        if waited_ms >= TICK_MS:
            waited_ms = 0
            gateway.tick()


async def _run(folder: Path, *, is_stream: bool, answer_ms: int) -> None:
    office = StandInOffice()
    office.give(BALANCE)
    office.let_wait()
    async with AsyncExitStack() as stack:
        gateways: list[Bench] = []
        for number in range(WORKERS):
            # Settings as they are sold, but for the window of the test's model.
            made = await stack.enter_async_context(
                bench(folder, office=office, worker=f"gw-{number}", lease_wait_ms=5_000)
            )
            made.supplier.default = stream_over(answer_ms) if is_stream else whole_after(answer_ms)
            used = catalog(endpoint(made.supplier.url), version=2)
            used.models["m"] = Model("m", 4_096, OUTPUT_MAX, "tests", 1)
            made.use(used)
            gateways.append(made)
        tasks = [asyncio.create_task(shipping(each)) for each in gateways]
        clients = [Client(gateways[number % WORKERS], is_stream, number) for number in range(REQUESTS)]
        await asyncio.gather(*(client.ask() for client in clients))
        await virtual_time.passes(1_000)
        for task in tasks:
            task.cancel()
        outcomes = [client.outcome for client in clients]
        spent = sum(sum(line.amount for line in each.charges) for made in gateways for each in made.closings())
        assert outcomes.count("complete") >= ANSWERS - 1
        assert outcomes.count("truncated") <= 1
        # Nothing below zero, nothing stranded: all that was not spent can be had, and it is too little for a request.
        assert office.buckets["bkt_1"][1] == BALANCE - spent >= 0
        assert all(left == 0 for _, left in office.leased.values())
        assert office.balance() < INPUT_MAX + 1


@pytest.mark.parametrize("answer_ms", [10, 400])
@pytest.mark.parametrize("is_stream", [False, True], ids=["unstreamed", "streamed"])
def test_the_last_token(tmp_path: Path, is_stream: bool, answer_ms: int) -> None:
    virtual_time.run(_run(tmp_path, is_stream=is_stream, answer_ms=answer_ms))
