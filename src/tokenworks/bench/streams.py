"""The measurement of streams: what a relayed chunk costs, and how much later the first event comes.

As in `gateway`, a whole system with one worker is measured, peers take turns with it, and the books are verified.
"""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from tokenworks.app import verification
from tokenworks.app.client import OfficeClient, address
from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.bench import books, conditions, field, held, load, peers, stream_endpoint, stream_load
from tokenworks.bench.field import Field, Where
from tokenworks.bench.gateway import CACHE, ENDPOINTS
from tokenworks.bench.load import LoadFault
from tokenworks.bench.proxy import Proxy
from tokenworks.bench.report import Told
from tokenworks.bench.stream_endpoint import Pace
from tokenworks.bench.stream_figures import Conditions, Contender, LoadGenerator, Result, Run, Times, together
from tokenworks.bench.stream_load import Count
from tokenworks.bench.subject import MEGABYTE, Subject, customers, one_worker, opened

_WARM_UP_MS = 1_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long, with how many streams at once of which pace, for how many accounts, how often; beside which peers."""

    seconds: int
    accounts: int
    streams: int
    chunks: int
    interval_ms: int
    runs: int
    peers: bool = False

    @property
    def pace(self) -> Pace:
        """How the measured streams go."""
        return Pace(chunks=self.chunks, interval_ms=self.interval_ms)


def measure(given: Settings, plan: Plan, told: Told) -> Result:
    """Measure in a throw-away folder. Call it from the main thread, as `spawned` must be."""
    # Peers inherit what this process may have.
    allowed = held.allowed_here()
    if plan.streams > allowed:
        raise LoadFault(f"A process here may have so few files open that {allowed:,} streams are the most (ulimit -Hn)")
    told("Starting a system of one worker")
    with one_worker(given) as settings:
        return asyncio.run(_measure(settings, plan, given.data / CACHE, told))


async def _measure(settings: Settings, plan: Plan, cache: Path, told: Told) -> Result:
    async with AsyncExitStack() as stack:
        running, pool = await stack.enter_async_context(opened(settings))
        ports = await stack.enter_async_context(stream_endpoint.running(ENDPOINTS, plan.pace))
        where = Where(endpoints=ports, folder=settings.data / "peers", cache=cache, unbuffered=True)
        chosen = peers.ALL if plan.peers else (peers.NGINX,)
        others = await stack.enter_async_context(field.running(chosen, where, told))
        with OfficeClient(address(settings)) as office:
            books.catalog(office, ports)
        told(f"Making {plan.accounts:,} customers, each with a package and a key")
        keys = await customers(pool, plan.accounts)
        bench = _Bench(plan, pool, Subject(running), ports, keys, told)
        contenders = await bench.contenders(others)
        told("Verifying the books")
        report = await verification.of_database(running.addresses["database"])
        return Result(
            contenders=contenders,
            peers={name: about for name, about in others.about.items() if name in contenders},
            left_out=others.left_out,
            load_generator=bench.generator,
            conditions=await _conditions(settings, plan, pool),
            answers=bench.answers,
            records=await books.records(pool),
            other_answers=dict(bench.others),
            verified=report.ok,
            failed_checks=report.failed,
        )


class _Bench:
    """The system under test with everybody who uses it, and what it has answered so far."""

    def __init__(
        self, plan: Plan, pool: Pool, subject: Subject, endpoints: list[int], keys: list[str], told: Told
    ) -> None:
        self.answers = 0
        self.others: Counter[str] = Counter()
        self._plan = plan
        self._pool = pool
        self._subject = subject
        self._endpoints = endpoints
        self._keys = keys
        self._told = told
        self.generator = LoadGenerator(cpu_us_per_chunk=0, chunks_per_s=0, ttft_ms=Times(p50=0, p99=0))

    async def contenders(self, others: Field) -> dict[str, Contender]:
        """Warm up, then let the contenders run in turn, each round with a look at the endpoints alone before it."""
        await self._warm_up(others)
        runs: dict[str, list[Run]] = {}
        for number in range(1, self._plan.runs + 1):
            self._told(f"Run {number} of {self._plan.runs}: the endpoints alone")
            alone = await stream_load.send(self._half(self._endpoints, ["no-key"]))
            for name, proxy in list(others.proxies.items()):
                self._told(f"Run {number} of {self._plan.runs}: {name}")
                runs.setdefault(name, []).append(await self._of_proxy(proxy, others, alone))
            self._told(f"Run {number} of {self._plan.runs}: tokenworks")
            runs.setdefault("tokenworks", []).append(await self._of_gateway(alone))
        ran = {"tokenworks", *others.proxies}
        return {name: together(mine, metering=name == "tokenworks") for name, mine in runs.items() if name in ran}

    async def _warm_up(self, others: Field) -> None:
        self._told("Asking the endpoints directly")
        direct = await stream_load.send(self._load(self._endpoints, ["no-key"]))
        chunks = max(1, direct.streams * self._plan.chunks)
        self.generator = LoadGenerator(
            cpu_us_per_chunk=round(direct.cpu_ns / chunks / 1_000, 2),
            chunks_per_s=round(chunks * clock.SECOND / direct.elapsed_ns),
            ttft_ms=_ttft(direct),
        )
        self._told("Warming up: every key once, then all contenders")
        once = load.Plan(ports=[self._subject.port], keys=self._keys, connections=32, duration_ms=0)
        count = await load.send(once)
        self.answers += count.answers
        self.others.update(count.others)
        await self._ask(self._load([self._subject.port], self._keys))
        for proxy in list(others.proxies.values()):
            asked = self._half([proxy.port], proxy.keys(self._keys))
            await self._asked(proxy, others, msgspec.structs.replace(asked, duration_ms=_WARM_UP_MS))

    async def _of_gateway(self, alone: Count) -> Run:
        before = self._subject.cpu_ns()
        full = await self._ask(self._load([self._subject.port], self._keys))
        worker, office, base = (after - earlier for after, earlier in zip(self._subject.cpu_ns(), before, strict=True))
        rss_bytes = self._subject.rss_bytes()
        half = await self._ask(self._half([self._subject.port], self._keys))
        run = self._run(full, half, alone, worker, rss_bytes)
        return msgspec.structs.replace(
            run,
            office_cpu_us_per_chunk=self._each_us(full, office),
            database_cpu_us_per_chunk=self._each_us(full, base),
        )

    async def _of_proxy(self, proxy: Proxy, others: Field, alone: Count) -> Run:
        keys = proxy.keys(self._keys)
        cpu_ns = proxy.cpu_ns()
        full = await self._asked(proxy, others, self._load([proxy.port], keys))
        cpu_ns, rss_bytes = proxy.cpu_ns() - cpu_ns, proxy.rss_bytes()
        half = await self._asked(proxy, others, self._half([proxy.port], keys))
        return self._run(full, half, alone, cpu_ns, rss_bytes)

    async def _ask(self, plan: stream_load.Plan) -> Count:
        """Load on the gateway, to its end: when all usage is posted."""
        count = await stream_load.send(plan)
        self.answers += count.streams
        self.others.update(count.others)
        await books.posted(self._pool, self.answers)
        return count

    async def _asked(self, proxy: Proxy, others: Field, plan: stream_load.Plan) -> Count:
        """Load on a peer. One that breaks a stream is struck off the field."""
        count = await stream_load.send(plan)
        if count.others or not count.streams:
            wrong = ", ".join(f"{number:,} × {status}" for status, number in count.others.items()) or "nothing"
            others.leave_out(proxy.name, f"it answered {wrong} beside {count.streams:,} whole streams")
        return count

    def _load(self, ports: list[int], keys: list[str]) -> stream_load.Plan:
        given = self._plan
        return stream_load.Plan(
            ports=ports,
            keys=keys,
            streams=given.streams,
            chunks=given.chunks,
            spread_ms=given.chunks * given.interval_ms,
            duration_ms=given.seconds * 1_000,
        )

    def _half(self, ports: list[int], keys: list[str]) -> stream_load.Plan:
        return msgspec.structs.replace(self._load(ports, keys), streams=max(1, self._plan.streams // 2))

    def _run(self, full: Count, half: Count, alone: Count, cpu_ns: int, rss_bytes: int) -> Run:
        ours, theirs = _ttft(half), _ttft(alone)
        return Run(
            streams=full.streams,
            cpu_us_per_chunk=self._each_us(full, cpu_ns),
            chunks_per_s=round(full.streams * self._plan.chunks * clock.SECOND / full.elapsed_ns, 1),
            ttft_ms=ours,
            ttft_added_ms=Times(p50=round(ours.p50 - theirs.p50, 3), p99=round(ours.p99 - theirs.p99, 3)),
            rss_mb=round(rss_bytes / MEGABYTE, 1),
            other_answers=sum(full.others.values()) + sum(half.others.values()),
        )

    def _each_us(self, count: Count, spent_ns: int) -> float:
        return round(spent_ns / max(1, count.streams * self._plan.chunks) / 1_000, 2)


def _ttft(count: Count) -> Times:
    return Times(p50=round(count.ttft_p50_ns / clock.MS, 3), p99=round(count.ttft_p99_ns / clock.MS, 3))


async def _conditions(settings: Settings, plan: Plan, pool: Pool) -> Conditions:
    return Conditions(
        seconds=plan.seconds,
        runs=plan.runs,
        accounts=plan.accounts,
        streams=plan.streams,
        chunks=plan.chunks,
        interval_ms=plan.interval_ms,
        skew="Zipf, exponent 1",
        endpoints=ENDPOINTS,
        workers=settings.workers,
        durability=settings.durability,
        machine=await conditions.of_machine(settings.data, pool),
    )
