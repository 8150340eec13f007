"""The measurement of the ledger: charges in batches against one row-locked transaction for each, on the same database.

Every charge is a transfer of its own, sealed and double-entry, between two of the accounts drawn by Zipf's law; a batch
is one posting, as metering makes them. Runs alternate with those of the baseline.
"""

import asyncio
import os
from pathlib import Path

import msgspec

from tokenworks.app import claim, verification
from tokenworks.base import clock, database
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.processes import StartFault
from tokenworks.bench import baseline, conditions, counter, machine
from tokenworks.bench.conditions import Machine
from tokenworks.bench.counter import Counters
from tokenworks.bench.figures import Figure, figure
from tokenworks.bench.load import LoadFault, by_zipf
from tokenworks.bench.report import Told
from tokenworks.bench.subject import one_worker
from tokenworks.core.postings import Posting, Transfer
from tokenworks.ledger.store import post_all, transaction

FAULTS = (StartFault, LoadFault)
"""What can keep a measurement from its end, each with one sentence."""

_ENTITY = "bench"
_UNIT = "token"
_STREAM = "bench"
_OPENED_AT_ONCE = 2_500
_ON_EACH = 10**15
_TRIAL_S = 2
_AMOUNTS = 1_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long, with how many accounts and charges in a batch, and how often; what the baseline tries."""

    seconds: int
    accounts: int
    batch: int
    runs: int
    connections: tuple[int, ...] = (1, 2, 4, 8, 16, 32)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run: the ledger's charges, the CPU each took in this process and in PostgreSQL, and the yardsticks' rates."""

    charges: int
    charges_per_s: int
    cpu_us: float
    database_cpu_us: float
    baseline_per_s: int
    counter_per_s: int | None


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the figures depend on."""

    seconds: int
    runs: int
    accounts: int
    batch: int
    skew: str
    baseline_connections: int
    baseline_tried: dict[str, int]
    counter: str
    machine: Machine


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The whole measurement. `ratio`: the ledger's charges to the baseline's, run by run."""

    ledger_per_s: Figure
    baseline_per_s: Figure
    counter_per_s: Figure | None
    ratio: Figure
    cpu_us: Figure
    database_cpu_us: Figure
    runs: tuple[Run, ...]
    conditions: Conditions
    transfers: int
    verified: bool
    failed_checks: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Every charge is a transfer, and the books hold."""
        return self.verified and self.transfers == sum(run.charges for run in self.runs)


def measure(given: Settings, plan: Plan, told: Told) -> Result:
    """Measure in a throw-away folder. Call it from the main thread, as `spawned` must be."""
    told("Starting a system")
    with one_worker(given) as settings:
        return asyncio.run(_measure(settings, plan, told))


async def _measure(settings: Settings, plan: Plan, told: Told) -> Result:
    running = claim.started_on(settings.data)
    url = running.addresses["database"]
    pool = await database.open_pool(url)
    try:
        async with counter.running(settings.data / "counter") as counters:
            bench = _Bench(plan, settings.data, url, pool, running.pids["postgres"], counters)
            told(f"Opening {plan.accounts:,} accounts for each side")
            await bench.open_accounts()
            told("Looking for the baseline's best number of connections")
            trial_s = min(_TRIAL_S, plan.seconds)
            tried = {number: await bench.baseline(number, trial_s) for number in plan.connections}
            best = max(tried, key=tried.__getitem__)
            runs: list[Run] = []
            for number in range(1, plan.runs + 1):
                told(f"Run {number} of {plan.runs}")
                runs.append(await bench.run(number, best))
            told("Verifying the books")
            return await _result(settings, plan, bench, pool, runs, tried)
    finally:
        await pool.close()


class _Bench:
    """The ledger and its yardsticks on one database."""

    def __init__(
        self, plan: Plan, folder: Path, url: str, pool: Pool, database_pid: int, counters: Counters | None
    ) -> None:
        self.counters = counters
        self._plan = plan
        self._folder = folder
        self.url = url
        self._pool = pool
        self._database_pid = database_pid
        self._charges = [
            Transfer(f"prepaid/bench/{rank}", f"used/bench/{rank}", _UNIT, 1 + place % _AMOUNTS)
            for place, rank in enumerate(by_zipf(plan.accounts, max(1 << 17, plan.batch)))
        ]
        self._at = 0

    async def open_accounts(self) -> None:
        """So many accounts with enough on each, and the baseline's."""
        await baseline.prepare(self._pool, self._plan.accounts)
        for first in range(0, self._plan.accounts, _OPENED_AT_ONCE):
            ranks = range(first, min(self._plan.accounts, first + _OPENED_AT_ONCE))
            transfers = [Transfer("issued/bench", f"prepaid/bench/{rank}", _UNIT, _ON_EACH) for rank in ranks]
            await self._post(f"bench/opened/{first}", transfers)

    async def run(self, number: int, connections: int) -> Run:
        """The ledger for a while, then the baseline, then the counters."""
        before = self._cpu_ns()
        began_ns = clock.boot_ns()
        batches = 0
        while (elapsed_ns := clock.boot_ns() - began_ns) < self._plan.seconds * clock.SECOND:
            batches += 1
            await self._post(f"bench/{number}/{batches}", self._next())
        spent = [after - earlier for after, earlier in zip(self._cpu_ns(), before, strict=True)]
        charges = batches * self._plan.batch
        per_s = round(charges * clock.SECOND / elapsed_ns)
        return Run(
            charges=charges,
            charges_per_s=per_s,
            cpu_us=round(spent[0] / charges / 1_000, 2),
            database_cpu_us=round(spent[1] / charges / 1_000, 2),
            baseline_per_s=await self.baseline(connections, self._plan.seconds),
            counter_per_s=await self._counter(),
        )

    async def baseline(self, connections: int, seconds: int) -> int:
        """Charges of the baseline in a second."""
        return await baseline.charges_per_s(self.url, self._folder, self._plan.accounts, connections, seconds)

    async def _counter(self) -> int | None:
        if self.counters is None:
            return None
        return await counter.charges_per_s(self.counters, self._plan.accounts, 10_000 * self._plan.seconds)

    def _next(self) -> list[Transfer]:
        """The charges of the next batch; the list of draws begins again at its end."""
        first, self._at = self._at, self._at + self._plan.batch
        found = self._charges[first : self._at]
        if len(found) < self._plan.batch:
            self._at = self._plan.batch - len(found)
            found += self._charges[: self._at]
        return found

    async def _post(self, event_id: str, transfers: list[Transfer]) -> None:
        now_ns = clock.wall_ns()
        posting = Posting("bench_charges", event_id, _ENTITY, now_ns, tuple(transfers))
        async with transaction(self._pool, _STREAM, now_ns) as conn:
            await post_all(conn, [posting], now_ns)

    def _cpu_ns(self) -> tuple[int, int]:
        return machine.cpu_ns(os.getpid()), machine.family_cpu_ns(self._database_pid)


async def _result(
    settings: Settings, plan: Plan, bench: _Bench, pool: Pool, runs: list[Run], tried: dict[int, int]
) -> Result:
    report = await verification.of_database(bench.url)
    counted = [run.counter_per_s for run in runs if run.counter_per_s is not None]
    return Result(
        ledger_per_s=figure(run.charges_per_s for run in runs),
        baseline_per_s=figure(run.baseline_per_s for run in runs),
        counter_per_s=figure(counted) if counted else None,
        ratio=figure(round(run.charges_per_s / max(1, run.baseline_per_s), 1) for run in runs),
        cpu_us=figure(run.cpu_us for run in runs),
        database_cpu_us=figure(run.database_cpu_us for run in runs),
        runs=tuple(runs),
        conditions=Conditions(
            seconds=plan.seconds,
            runs=plan.runs,
            accounts=plan.accounts,
            batch=plan.batch,
            skew="Zipf, exponent 1",
            baseline_connections=max(tried, key=tried.__getitem__),
            baseline_tried={str(number): rate for number, rate in tried.items()},
            counter=bench.counters.version if bench.counters else "",
            machine=await conditions.of_machine(settings.data, pool),
        ),
        transfers=await _charged(pool),
        verified=report.ok,
        failed_checks=report.failed,
    )


async def _charged(pool: Pool) -> int:
    """How many transfers the charges have become."""
    async with pool.connection() as conn:
        cursor = await conn.execute(
            """SELECT count(*) FROM transfer t JOIN posting p ON p.id = t.posting_id
               WHERE p.kind = 'bench_charges' AND p.event_id NOT LIKE 'bench/opened/%%'"""
        )
        row = await cursor.fetchone()
    return int(row[0]) if row else 0
