"""The measurement of metering: journals on disk become records and postings, through every part that does it in life.

The journals are written first. What is timed is the way from there: the gateway's shipper in a process of its own,
NATS, the office, PostgreSQL; a run ends when the ledger has said that everything is posted.
"""

import asyncio

import msgspec

from tokenworks.app import claim, verification
from tokenworks.app.client import OfficeClient, address
from tokenworks.base import clock, config, database, ids
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.processes import StartFault
from tokenworks.bench import books, conditions, journals, machine, shipping
from tokenworks.bench.conditions import Machine
from tokenworks.bench.figures import Figure, figure
from tokenworks.bench.journals import Customer
from tokenworks.bench.load import LoadFault
from tokenworks.bench.report import Told
from tokenworks.bench.subject import one_worker
from tokenworks.shop import tariffs

FAULTS = (StartFault, LoadFault)
"""What can keep a measurement from its end, each with one sentence."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How many records in a run, of how many accounts, from how many journals at once, and how often."""

    records: int
    accounts: int
    journals: int
    runs: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run. CPU µs for each record, by process; the database's are those of all its processes."""

    records: int
    records_per_s: int
    office_us: float
    database_us: float
    shipper_us: float
    bus_us: float


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the figures depend on."""

    records: int
    runs: int
    accounts: int
    journals: int
    skew: str
    bytes_per_record: int
    ship_batch_bytes: int
    machine: Machine


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The whole measurement. `written` are requests in the journals, `stored` usage records in the database."""

    records_per_s: Figure
    office_us: Figure
    database_us: Figure
    shipper_us: Figure
    bus_us: Figure
    runs: tuple[Run, ...]
    conditions: Conditions
    written: int
    stored: int
    verified: bool
    failed_checks: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Every request that was written is stored, and the books hold."""
        return self.verified and self.written == self.stored


def measure(given: Settings, plan: Plan, told: Told) -> Result:
    """Measure in a throw-away folder. Call it from the main thread, as `spawned` must be."""
    told("Starting a system")
    with one_worker(given) as settings:
        return asyncio.run(_measure(settings, plan, told))


async def _measure(settings: Settings, plan: Plan, told: Told) -> Result:
    running = claim.started_on(settings.data)
    with OfficeClient(address(settings)) as office:
        books.catalog(office, [])
    pool = await database.open_pool(running.addresses["database"])
    try:
        told(f"Making {plan.accounts:,} customers, each with a package, a key and a lease")
        async for _ in books.customers(pool, plan.accounts):
            pass
        async with pool.connection() as connection:
            customers = await journals.lease_all(pool, settings, await tariffs.currents(connection))
        bench = _Bench(plan, settings, running, customers)
        runs: list[Run] = []
        for number in range(1, plan.runs + 1):
            told(f"Run {number} of {plan.runs}: writing {plan.records:,} requests")
            written = bench.written()
            told(f"Run {number} of {plan.runs}: posting them")
            runs.append(await bench.run(written))
        told("Verifying the books")
        return await _result(settings, plan, bench, pool, runs)
    finally:
        await pool.close()


class _Bench:
    """The system under test, and the customers whose journals it gets."""

    def __init__(self, plan: Plan, settings: Settings, running: claim.Running, customers: list[Customer]) -> None:
        self.bytes = 0
        self._plan = plan
        self._settings = settings
        self._customers = customers
        self._pids = running.pids
        self._bus = msgspec.structs.replace(
            settings,
            nats_url=running.addresses["nats"],
            nats_token=claim.secret(settings.data, "nats-token"),
        )
        self._runs = 0

    def written(self) -> dict[str, int]:
        """New journals with the requests of one run: their folders and ends."""
        self._runs += 1
        draws = journals.draws_of(len(self._customers), self._plan.records, self._plan.journals)
        ends: dict[str, int] = {}
        for number, mine in enumerate(draws):
            folder = self._settings.data / "bench" / f"bench-{number}" / ids.new("jrn")
            ends[str(folder)] = journals.write(folder, self._settings, self._customers, mine)
        self.bytes += sum(ends.values())
        return ends

    async def run(self, ends: dict[str, int]) -> Run:
        """Ship them until everything is posted."""
        before = self._cpu_ns()
        shipped = await shipping.ship(shipping.Plan(journals=ends, settings=config.environment(self._bus)))
        office, base, bus = [after - earlier for after, earlier in zip(self._cpu_ns(), before, strict=True)]
        records = self._plan.records
        each = [round(spent / records / 1_000, 2) for spent in (office, base, shipped.cpu_ns, bus)]
        return Run(
            records=records,
            records_per_s=round(records * clock.SECOND / shipped.elapsed_ns),
            office_us=each[0],
            database_us=each[1],
            shipper_us=each[2],
            bus_us=each[3],
        )

    def _cpu_ns(self) -> tuple[int, int, int]:
        office, base, bus = (self._pids[name] for name in ("office", "postgres", "nats"))
        return machine.family_cpu_ns(office), machine.family_cpu_ns(base), machine.cpu_ns(bus)


async def _result(settings: Settings, plan: Plan, bench: _Bench, pool: Pool, runs: list[Run]) -> Result:
    running = claim.running_on(settings.data)
    report = await verification.of_database(running.addresses["database"] if running else "")
    return Result(
        records_per_s=figure(run.records_per_s for run in runs),
        office_us=figure(run.office_us for run in runs),
        database_us=figure(run.database_us for run in runs),
        shipper_us=figure(run.shipper_us for run in runs),
        bus_us=figure(run.bus_us for run in runs),
        runs=tuple(runs),
        conditions=Conditions(
            records=plan.records,
            runs=plan.runs,
            accounts=plan.accounts,
            journals=plan.journals,
            skew="Zipf, exponent 1",
            bytes_per_record=bench.bytes // (plan.records * plan.runs),
            ship_batch_bytes=settings.ship_batch_bytes,
            machine=await conditions.of_machine(settings.data, pool),
        ),
        written=plan.records * plan.runs,
        stored=await books.records(pool),
        verified=report.ok,
        failed_checks=report.failed,
    )
