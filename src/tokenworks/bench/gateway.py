"""The measurement of the gateway: from an empty folder over runs in turn to books that are verified.

What is measured is a system as `tokenworks up` starts it, with one worker. Nothing here is timed but through the load
generator's counts and the kernel's; the README of this room says what the figures mean.
"""

import asyncio
import os
import platform
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

import tokenworks
from tokenworks.app import claim, verification
from tokenworks.app.client import OfficeClient, address
from tokenworks.base import clock, database
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.processes import StartFault
from tokenworks.bench import books, conditions, endpoint, field, leasing, load, machine, peers
from tokenworks.bench.field import Field, Where
from tokenworks.bench.figures import Conditions, Contender, LoadGenerator, Result, Run, together
from tokenworks.bench.load import Count, LoadFault
from tokenworks.bench.proxy import Proxy
from tokenworks.bench.subject import MEGABYTE, Subject, customers, one_worker

ENDPOINTS = 4
FAULTS = (StartFault, LoadFault)
"""What can keep a measurement from its end, each with one sentence."""

CACHE = Path("cache", "bench")
"""Where in the data folder the packages of peers are kept between measurements."""

_WARM_UP_MS = 1_000

Told = Callable[[str], None]
"""Called with what is done now."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long, with how many accounts and connections, and how often; beside all peers or nginx alone."""

    seconds: int
    accounts: int
    connections: int
    runs: int
    peers: bool = False


def measure(given: Settings, plan: Plan, told: Told) -> Result:
    """Measure in a throw-away folder. Call it from the main thread, as `spawned` must be."""
    told("Starting a system of one worker")
    with one_worker(given) as settings:
        return asyncio.run(_measure(settings, plan, given.data / CACHE, told))


async def _measure(settings: Settings, plan: Plan, cache: Path, told: Told) -> Result:
    running = claim.running_on(settings.data)
    if running is None:
        raise StartFault("The system ended right after its start.")
    pool = await database.open_pool(running.addresses["database"])
    try:
        async with AsyncExitStack() as stack:
            ports = await stack.enter_async_context(endpoint.running(ENDPOINTS))
            where = Where(endpoints=ports, folder=settings.data / "peers", cache=cache)
            chosen = peers.ALL if plan.peers else (peers.NGINX,)
            others = await stack.enter_async_context(field.running(chosen, where, told))
            told("Asking the endpoints directly")
            direct = await load.send(_load(plan, ports, ["no-key"]))
            with OfficeClient(address(settings)) as office:
                books.catalog(office, ports)
            told(f"Making {plan.accounts:,} customers, each with a package and a key")
            bench = _Bench(plan, pool, Subject(running), await customers(pool, plan.accounts), told)
            contenders = await bench.contenders(others)
            told("Asking for leases")
            leases = await leasing.figures(settings, pool, running.addresses["nats"], bench.warm_ns)
            told("Verifying the books")
            report = await verification.of_database(running.addresses["database"])
            return Result(
                contenders=contenders,
                peers={name: about for name, about in others.about.items() if name in contenders},
                left_out=others.left_out,
                leases_per_1000_requests=leases.leases_per_1000_requests,
                slice_percent_max=leases.slice_percent_max,
                lease_rtt_p50_ms=leases.lease_rtt_p50_ms,
                nats_rtt_p50_ms=leases.nats_rtt_p50_ms,
                load_generator=_generator(direct),
                conditions=await _conditions(settings, plan, pool, others),
                answers=bench.answers,
                records=await books.records(pool),
                other_answers=dict(bench.others),
                verified=report.ok,
                failed_checks=report.failed,
            )
    finally:
        await pool.close()


class _Bench:
    """The system under test with everybody who uses it, and what it has answered so far."""

    def __init__(self, plan: Plan, pool: Pool, subject: Subject, keys: list[str], told: Told) -> None:
        self.answers = 0
        self.warm_ns = 0
        self.others: Counter[str] = Counter()
        self._plan = plan
        self._pool = pool
        self._keys = keys
        self._told = told
        self._subject = subject

    async def contenders(self, others: Field) -> dict[str, Contender]:
        """Warm up, then let the contenders run in turn."""
        self._told("Warming up")
        ramp = _load(self._plan, [self._subject.port], self._keys)
        await self._ask(msgspec.structs.replace(ramp, duration_ms=0))
        await self._ask(ramp)
        self.warm_ns = clock.wall_ns()
        for proxy in list(others.proxies.values()):
            await self._of_proxy(proxy, others, _WARM_UP_MS)
        runs: dict[str, list[Run]] = {}
        for number in range(1, self._plan.runs + 1):
            for name, proxy in list(others.proxies.items()):
                self._told(f"Run {number} of {self._plan.runs}: {name}")
                runs.setdefault(name, []).append(await self._of_proxy(proxy, others, self._plan.seconds * 1_000))
            self._told(f"Run {number} of {self._plan.runs}: tokenworks")
            runs.setdefault("tokenworks", []).append(await self._of_gateway())
        ran = {"tokenworks", *others.proxies}
        return {name: together(mine, metering=name == "tokenworks") for name, mine in runs.items() if name in ran}

    async def _of_gateway(self) -> Run:
        before = self._subject.cpu_ns()
        count = await self._ask(_load(self._plan, [self._subject.port], self._keys))
        worker, office, base = (after - earlier for after, earlier in zip(self._subject.cpu_ns(), before, strict=True))
        return _run(count, worker, self._subject.rss_bytes(), office, base)

    async def _of_proxy(self, proxy: Proxy, others: Field, duration_ms: int) -> Run:
        """A run of a peer. One that does not answer everything is struck off the field."""
        cpu_ns = proxy.cpu_ns()
        asked = _load(self._plan, [proxy.port], proxy.keys(self._keys))
        count = await load.send(msgspec.structs.replace(asked, duration_ms=duration_ms))
        if count.others or not count.answers:
            wrong = ", ".join(f"{number:,} × {status}" for status, number in count.others.items()) or "nothing"
            others.leave_out(proxy.name, f"it answered {wrong} beside {count.answers:,} × 200")
        return _run(count, proxy.cpu_ns() - cpu_ns, proxy.rss_bytes())

    async def _ask(self, plan: load.Plan) -> Count:
        """Load on the gateway, to its end: when all usage is posted."""
        count = await load.send(plan)
        self.answers += count.answers
        self.others.update(count.others)
        await books.posted(self._pool, self.answers)
        return count


def _load(plan: Plan, ports: list[int], keys: list[str]) -> load.Plan:
    return load.Plan(ports=ports, keys=keys, connections=plan.connections, duration_ms=plan.seconds * 1_000)


def _run(
    count: Count, cpu_ns: int, rss_bytes: int, office_ns: int | None = None, database_ns: int | None = None
) -> Run:
    asked = max(1, count.answers)

    def each_us(spent_ns: int) -> float:
        return round(spent_ns / asked / 1_000, 2)

    return Run(
        answers=count.answers,
        cpu_us_per_request=each_us(cpu_ns),
        office_cpu_us_per_request=None if office_ns is None else each_us(office_ns),
        database_cpu_us_per_request=None if database_ns is None else each_us(database_ns),
        other_answers=sum(count.others.values()),
        rps=round(count.answers * clock.SECOND / count.elapsed_ns, 1),
        p50_ms=round(count.p50_ns / clock.MS, 3),
        p99_ms=round(count.p99_ns / clock.MS, 3),
        rss_mb=round(rss_bytes / MEGABYTE, 1),
    )


def _generator(direct: Count) -> LoadGenerator:
    run = _run(direct, direct.cpu_ns, 0)
    return LoadGenerator(cpu_us_per_request=run.cpu_us_per_request, rps=run.rps, p50_ms=run.p50_ms, p99_ms=run.p99_ms)


async def _conditions(settings: Settings, plan: Plan, pool: Pool, others: Field) -> Conditions:
    return Conditions(
        seconds=plan.seconds,
        runs=plan.runs,
        accounts=plan.accounts,
        connections=plan.connections,
        skew="Zipf, exponent 1",
        endpoints=ENDPOINTS,
        request_bytes=len(load.request("k" * 49)),
        answer_bytes=endpoint.BODY_BYTES,
        workers=settings.workers,
        durability=settings.durability,
        journal_fsync_ms=settings.journal_fsync_ms,
        lease_use_ms=settings.lease_use_ms,
        database=await conditions.of_database(pool),
        fdatasync_us=machine.fdatasync_us(settings.data),
        cores=os.cpu_count() or 1,
        processor=machine.processor(),
        python=platform.python_version(),
        tokenworks=tokenworks.__version__,
        nginx=others.about["nginx"].version if "nginx" in others.about else "",
    )
