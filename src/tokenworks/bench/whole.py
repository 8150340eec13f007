"""The measurement of the whole system: charged requests at a rate, everything on this machine, until the books hold.

Gateway workers, office, NATS, PostgreSQL, the endpoints and the customers share the machine. Latencies run from when a
request was due. Afterwards every customer's own count is compared with the books.
"""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import msgspec

from tokenworks.app import claim, verification
from tokenworks.app.client import OfficeClient, address
from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.processes import StartFault
from tokenworks.bench import books, conditions, endpoint, machine, paced_load
from tokenworks.bench.books import Buyer, Used
from tokenworks.bench.conditions import Machine
from tokenworks.bench.load import LoadFault
from tokenworks.bench.open_loop import Pace
from tokenworks.bench.paced_load import Count
from tokenworks.bench.report import Told
from tokenworks.bench.subject import a_system, opened

FAULTS = (StartFault, LoadFault)
"""What can keep a measurement from its end, each with one sentence."""

POSTED_WITHIN_MS = 10_000
"""How soon after the last answer everything is to be posted."""

_ENDPOINTS = 4
# Of the rate, while every key is asked with for the first time and needs the office twice: whose is it, and a lease.
_WARM_UP_SHARE = 8
# A rate counts as reached within one percent: the last answers come after the time is up.
_REACHED_PER_MILLE = 990


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` requests a second for so long, of so many accounts drawn by Zipf's law, through so many workers."""

    rate: int
    seconds: int
    accounts: int
    workers: int
    connections: int


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the figures depend on."""

    seconds: int
    accounts: int
    workers: int
    connections: int
    skew: str
    endpoints: int
    durability: str
    machine: Machine


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The whole measurement.

    `answers_per_s` of requests that were served and charged; `others` of the load by status and code, and `held_back`
    requests that were due and never sent. `tokens_counted` is what the customers added up of all answers since the
    start; `differing` counts the customers whose own count is not what the books have. `cpu_us_per_request`
    is the CPU time of each process during the load, by answers. `missed` are the figures that were asked for and not
    reached.
    """

    rate: int
    answers_per_s: float
    p50_ms: float
    p99_ms: float
    under_way_most: int
    held_back: int
    others: dict[str, int]
    posted_after_ms: int
    answers: int
    records: int
    tokens_counted: int
    tokens_posted: int
    tokens_charged: int
    differing: int
    cpu_us_per_request: dict[str, float]
    missed: tuple[str, ...]
    conditions: Conditions
    verified: bool
    failed_checks: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Every answer is in the books once, with what its customer counted, and the books hold. Speed is not asked."""
        equal = self.answers == self.records and self.tokens_counted == self.tokens_posted == self.tokens_charged
        return self.verified and equal and self.differing == 0


def measure(given: Settings, plan: Plan, told: Told) -> Result:
    """Measure in a throw-away folder. Call it from the main thread, as `spawned` must be."""
    told("Starting a system")
    with a_system(given, plan.workers) as settings:
        return asyncio.run(_measure(settings, plan, told))


async def _measure(settings: Settings, plan: Plan, told: Told) -> Result:
    async with AsyncExitStack() as stack:
        running, pool = await stack.enter_async_context(opened(settings))
        ports = await stack.enter_async_context(endpoint.running(_ENDPOINTS))
        with OfficeClient(address(settings)) as office:
            books.catalog(office, ports)
        told(f"Making {plan.accounts:,} customers, each with a package and a key")
        buyers = [buyer async for batch in books.customers(pool, plan.accounts) for buyer in batch]
        bench = _Bench(plan, pool, running, buyers)
        told("Warming up: every key once")
        await bench.warm_up()
        told(f"Asking {plan.rate:,} times a second for {plan.seconds} s")
        count, cpu_us_per_request = await bench.load()
        told("Waiting until everything is posted")
        posted_after_ms = await bench.posted_after_ms(count)
        told("Comparing the books with what the customers counted")
        used = await books.used(pool)
        told("Verifying the books")
        report = await verification.of_database(running.addresses["database"])
        return Result(
            rate=plan.rate,
            answers_per_s=_per_s(count),
            p50_ms=round(count.p50_ns / clock.MS, 3),
            p99_ms=round(count.p99_ns / clock.MS, 3),
            under_way_most=count.under_way_most,
            held_back=count.held_back,
            others=count.others,
            posted_after_ms=posted_after_ms,
            answers=bench.answers.total(),
            records=sum(each.records for each in used.values()),
            tokens_counted=bench.tokens.total(),
            tokens_posted=sum(each.tokens for each in used.values()),
            tokens_charged=sum(each.charged for each in used.values()),
            differing=bench.differing(used),
            cpu_us_per_request=cpu_us_per_request,
            missed=missed(plan, count, posted_after_ms),
            conditions=await _conditions(settings, plan, pool),
            verified=report.ok,
            failed_checks=report.failed,
        )


class _Bench:
    """The system under test, its customers, and what each of them has counted so far, by billing account."""

    def __init__(self, plan: Plan, pool: Pool, running: claim.Running, buyers: list[Buyer]) -> None:
        self.answers: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self._plan = plan
        self._pool = pool
        self._pids = running.pids
        self._port = int(running.addresses["gateway"].rpartition(":")[2])
        self._keys = [buyer.secret for buyer in buyers]
        self._accounts = [buyer.customer.billing_account_id for buyer in buyers]

    async def warm_up(self) -> None:
        """Every key once, slowly, until all of it is posted: what is measured begins with nothing waiting."""
        rate = max(1, self._plan.rate // _WARM_UP_SHARE)
        await self._ask(rate, -(-len(self._keys) * 1_000 // rate), each_once=True)
        await books.posted(self._pool, self.answers.total())

    async def load(self) -> tuple[Count, dict[str, float]]:
        """The load that is measured, and the CPU time that an answer took, by process."""
        before = self._cpu_ns()
        count = await self._ask(self._plan.rate, self._plan.seconds * 1_000, each_once=False)
        spent = {name: spent_ns - before[name] for name, spent_ns in self._cpu_ns().items()}
        spent["customers"] = count.cpu_ns
        answers = max(1, sum(count.answers))
        return count, {name: round(spent_ns / answers / 1_000, 2) for name, spent_ns in spent.items()}

    async def posted_after_ms(self, count: Count) -> int:
        """How long after the last answer everything was posted."""
        await books.posted(self._pool, self.answers.total())
        return (clock.boot_ns() - count.ended_ns) // clock.MS

    def differing(self, used: dict[str, Used]) -> int:
        """Customers whose answers or tokens are not what the books have."""
        counted = {account: (self.answers[account], self.tokens[account]) for account in self._accounts}
        booked = {account: (each.records, each.tokens) for account, each in used.items() if each.tokens == each.charged}
        return sum(1 for account, both in counted.items() if booked.get(account, (0, 0)) != both)

    async def _ask(self, rate: int, duration_ms: int, *, each_once: bool) -> Count:
        pace = Pace(rate=rate, duration_ms=duration_ms, connections=self._plan.connections)
        plan = paced_load.Plan(port=self._port, keys=self._keys, pace=pace, each_once=each_once)
        count = await paced_load.send(plan)
        self.answers.update(dict(zip(self._accounts, count.answers, strict=True)))
        self.tokens.update(dict(zip(self._accounts, count.tokens, strict=True)))
        return count

    def _cpu_ns(self) -> dict[str, int]:
        """CPU time so far, by process; workers together."""
        spent: Counter[str] = Counter()
        for name, pid in self._pids.items():
            if name == "postgres":
                spent["database"] += machine.family_cpu_ns(pid)
            elif name.startswith("worker-"):
                spent["workers"] += machine.cpu_ns(pid)
            elif name in {"office", "nats"}:
                spent[name] += machine.cpu_ns(pid)
        return dict(spent)


def missed(plan: Plan, count: Count, posted_after_ms: int) -> tuple[str, ...]:
    """What was asked for and not reached, a sentence each."""
    found: list[str] = []
    if _per_s(count) * 1_000 < plan.rate * _REACHED_PER_MILLE:
        found.append(f"{_per_s(count):,.0f} charged requests/s instead of {plan.rate:,}")
    if posted_after_ms > POSTED_WITHIN_MS:
        found.append(f"everything was posted after {posted_after_ms:,} ms instead of {POSTED_WITHIN_MS:,}")
    if count.others:
        found.append(f"{sum(count.others.values()):,} requests were not served")
    return tuple(found)


def _per_s(count: Count) -> float:
    return round(sum(count.answers) * clock.SECOND / count.elapsed_ns, 1)


async def _conditions(settings: Settings, plan: Plan, pool: Pool) -> Conditions:
    return Conditions(
        seconds=plan.seconds,
        accounts=plan.accounts,
        workers=plan.workers,
        connections=plan.connections,
        skew="Zipf, exponent 1",
        endpoints=_ENDPOINTS,
        durability=settings.durability,
        machine=await conditions.of_machine(settings.data, pool),
    )
