"""The measurement of the gateway: from an empty folder over runs in turn to books that are verified.

What is measured is a system as `tokenworks up` starts it, with one worker. Nothing here is timed but through the load
generator's counts and the kernel's; the README of this room says what the figures mean.
"""

import asyncio
import os
import platform
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from itertools import chain
from pathlib import Path

import msgspec

import tokenworks
from tokenworks.app import claim, verification
from tokenworks.app.client import OfficeClient, address
from tokenworks.base import clock
from tokenworks.base.bus import BusFault
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.processes import StartFault
from tokenworks.bench import books, conditions, endpoint, field, leasing, load, machine, peers
from tokenworks.bench.field import Field, Where
from tokenworks.bench.figures import Conditions, Contender, LoadGenerator, Result, Run, together
from tokenworks.bench.load import Count, LoadFault
from tokenworks.bench.proxy import Proxy
from tokenworks.bench.report import Told
from tokenworks.bench.subject import MEGABYTE, Subject, customers, one_worker, opened

ENDPOINTS = 4
FAULTS = (StartFault, LoadFault, BusFault)
"""What can keep a measurement from its end, each with one sentence."""

OURS, OURS_EVERY = "tokenworks", "tokenworks-every"
"""Contenders of ours: at the durability of the settings, or at `interval` beside the one at `every`."""

CACHE = Path("cache", "bench")
"""Where in the data folder the packages of peers are kept between measurements."""

_WARM_UP_MS = 1_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long, with how many accounts and connections, and how often; beside all peers or nginx alone.

    `every`: a second system of ours, at durability `every`, beside the first at `interval`.
    """

    seconds: int
    accounts: int
    connections: int
    runs: int
    peers: bool = False
    every: bool = False


def measure(given: Settings, plan: Plan, told: Told) -> Result:
    """Measure in a throw-away folder. Call it from the main thread, as `spawned` must be."""
    with ExitStack() as stack:
        first = msgspec.structs.replace(given, durability="interval") if plan.every else given
        told("Starting a system of one worker")
        systems = {OURS: stack.enter_context(one_worker(first))}
        if plan.every:
            told("Starting another at durability every")
            second = msgspec.structs.replace(given, durability="every")
            systems[OURS_EVERY] = stack.enter_context(one_worker(second))
        return asyncio.run(_measure(systems, plan, given.data / CACHE, told))


async def _measure(systems: dict[str, Settings], plan: Plan, cache: Path, told: Told) -> Result:
    settings = systems[OURS]
    async with AsyncExitStack() as stack:
        ports = await stack.enter_async_context(endpoint.running(ENDPOINTS))
        where = Where(endpoints=ports, folder=settings.data / "peers", cache=cache)
        chosen = peers.ALL if plan.peers else (peers.NGINX,)
        others = await stack.enter_async_context(field.running(chosen, where, told))
        told("Asking the endpoints directly")
        direct = await load.send(_load(plan, ports, ["no-key"]))
        ours = {name: await stack.enter_async_context(_System.running(each)) for name, each in systems.items()}
        for each in ours.values():
            told(f"Making {plan.accounts:,} customers, each with a package and a key")
            await each.open(ports, plan.accounts)
        contenders = await _contenders(plan, ours, others, told)
        told("Asking for leases")
        leases = await ours[OURS].leases()
        told("Verifying the books")
        failed = [await each.failed_checks() for each in ours.values()]
        return Result(
            contenders=contenders,
            peers={name: about for name, about in others.about.items() if name in contenders},
            left_out=others.left_out,
            leases_per_1000_requests=leases.leases_per_1000_requests,
            slice_percent_max=leases.slice_percent_max,
            lease_rtt_p50_ms=leases.lease_rtt_p50_ms,
            nats_rtt_p50_ms=leases.nats_rtt_p50_ms,
            load_generator=_generator(direct),
            conditions=await _conditions(settings, plan, ours[OURS].pool, others),
            answers=sum(each.answers for each in ours.values()),
            records=sum([await books.records(each.pool) for each in ours.values()]),
            other_answers=dict(sum((each.others for each in ours.values()), Counter[str]())),
            verified=not any(failed),
            failed_checks=tuple(chain.from_iterable(failed)),
        )


async def _contenders(plan: Plan, ours: dict[str, "_System"], others: Field, told: Told) -> dict[str, Contender]:
    """Warm up, then let the contenders run in turn."""
    told("Warming up")
    for system in ours.values():
        await system.warm_up(plan)
    keys = ours[OURS].keys
    for proxy in list(others.proxies.values()):
        await _of_proxy(plan, proxy, others, keys, _WARM_UP_MS)
    runs: dict[str, list[Run]] = {}
    for number in range(1, plan.runs + 1):
        for name, proxy in list(others.proxies.items()):
            told(f"Run {number} of {plan.runs}: {name}")
            runs.setdefault(name, []).append(await _of_proxy(plan, proxy, others, keys, plan.seconds * 1_000))
        for name, system in ours.items():
            told(f"Run {number} of {plan.runs}: {name}")
            runs.setdefault(name, []).append(await system.run(plan))
    ran = {*ours, *others.proxies}
    return {name: together(mine, metering=name in ours) for name, mine in runs.items() if name in ran}


async def _of_proxy(plan: Plan, proxy: Proxy, others: Field, keys: list[str], duration_ms: int) -> Run:
    """A run of a peer. One that does not answer everything is struck off the field."""
    cpu_ns = proxy.cpu_ns()
    asked = _load(plan, [proxy.port], proxy.keys(keys))
    count = await load.send(msgspec.structs.replace(asked, duration_ms=duration_ms))
    if count.others or not count.answers:
        wrong = ", ".join(f"{number:,} × {status}" for status, number in count.others.items()) or "nothing"
        others.leave_out(proxy.name, f"it answered {wrong} beside {count.answers:,} × 200")
    return _run(count, proxy.cpu_ns() - cpu_ns, proxy.rss_bytes())


class _System:
    """A system of ours with everybody who uses it, and what it has answered so far."""

    def __init__(self, settings: Settings, running: claim.Running, pool: Pool) -> None:
        self.answers = 0
        self.others: Counter[str] = Counter()
        self.keys: list[str] = []
        self.pool = pool
        self._settings = settings
        self._addresses = running.addresses
        self._subject = Subject(running)
        self._warm_ns = 0

    @classmethod
    @asynccontextmanager
    async def running(cls, settings: Settings) -> AsyncGenerator["_System"]:
        """The one that these settings have started."""
        async with opened(settings) as (running, pool):
            yield cls(settings, running, pool)

    async def open(self, ports: list[int], accounts: int) -> None:
        """Make the business and its customers."""
        with OfficeClient(address(self._settings)) as office:
            books.catalog(office, ports)
        self.keys = await customers(self.pool, accounts)

    async def warm_up(self, plan: Plan) -> None:
        """Every key once, then load that is not measured."""
        ramp = _load(plan, [self._subject.port], self.keys)
        await self._ask(msgspec.structs.replace(ramp, duration_ms=0))
        await self._ask(ramp)
        self._warm_ns = clock.wall_ns()

    async def run(self, plan: Plan) -> Run:
        """One run, to its end: when all usage is posted."""
        before = self._subject.cpu_ns()
        count = await self._ask(_load(plan, [self._subject.port], self.keys))
        worker, office, base = (after - earlier for after, earlier in zip(self._subject.cpu_ns(), before, strict=True))
        return _run(count, worker, self._subject.rss_bytes(), office, base)

    async def leases(self) -> leasing.Figures:
        """Those of warm accounts."""
        return await leasing.figures(self._settings, self.pool, self._addresses["nats"], self._warm_ns)

    async def failed_checks(self) -> tuple[str, ...]:
        """What does not hold in its books."""
        return (await verification.of_database(self._addresses["database"])).failed

    async def _ask(self, plan: load.Plan) -> Count:
        count = await load.send(plan)
        self.answers += count.answers
        self.others.update(count.others)
        await books.posted(self.pool, self.answers)
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
