"""A chaos run, from an empty folder over load and kills to books that are compared with what the customers counted.

What is killed is a system as `tokenworks up` starts it, on real files with fsync; it is stopped in good order at the
end, and the books are read from its data folder. Nothing is timed here.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from tokenworks.app import claim, ports, verification
from tokenworks.app.children import Child
from tokenworks.app.client import OfficeClient, address
from tokenworks.app.services import services
from tokenworks.app.spawned import spawned, throwaway
from tokenworks.base import database, log
from tokenworks.base.config import Settings
from tokenworks.base.processes import StartFault
from tokenworks.bench import machine
from tokenworks.bench.books import Buyer
from tokenworks.bench.load import LoadFault
from tokenworks.chaos import customers, figures, parts, posted, stock
from tokenworks.chaos.compare import Limits, compare
from tokenworks.chaos.customers import Count
from tokenworks.chaos.endpoint import Scripted
from tokenworks.chaos.figures import Conditions, Result
from tokenworks.chaos.kills import Kill, Killer
from tokenworks.chaos.stock import TopUps

FAULTS = (StartFault, LoadFault)
"""What can keep a run from its end, each with one sentence."""

ENDPOINTS = 2
SETTLED_WITHIN_MS = 60_000

Told = Callable[[str, int], None]
"""Called with what is done now, and how many parts were killed so far."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How many kills under how much load. The same seed asks the same questions."""

    kills: int
    seconds: int
    rate: int
    workers: int = 4
    accounts: int = 300
    connections: int = 4_000
    seed: int = 1


class _Load(msgspec.Struct, frozen=True):
    """What was done while the system ran."""

    kills: list[Kill]
    count: Count
    accounts: list[str]
    top_ups: int
    is_settled: bool


def run(given: Settings, plan: Plan, told: Told) -> Result:
    """Carry the plan out in a throw-away folder. Call it from the main thread, as `spawned` must be."""
    # That parts end and are started again is what is wanted here; only what is not is said.
    log.set_up(msgspec.structs.replace(given, log_level="error"), "chaos")
    with tempfile.TemporaryDirectory(prefix="tokenworks-chaos-") as folder:
        settings = msgspec.structs.replace(
            throwaway(Path(folder), given), workers=plan.workers, embedded_engine=False, demo_operator=False
        )
        told("Starting the system", 0)
        with spawned(settings):
            load = asyncio.run(_under_load(settings, plan, told))
        told("Comparing the books with what the customers counted", plan.kills)
        return asyncio.run(_compared(settings, plan, load))


async def _under_load(settings: Settings, plan: Plan, told: Told) -> _Load:
    running = claim.started_on(settings.data)
    url = running.addresses["database"]
    pool = await database.open_pool(url)
    try:
        async with _endpoints(settings) as scripted:
            with OfficeClient(address(settings)) as office:
                stock.catalog(office, [port for port, _ in scripted])
            told("Making the customers", 0)
            buyers = await stock.customers(pool, plan.accounts)
            in_turn = parts.of_system(settings.data, plan.workers, settings.clerks, [child for _, child in scripted])
            killer = Killer(in_turn, url, lambda part, number: told(f"Killed {part}", number))
            top_ups = TopUps(pool, buyers)
            count = await _together(settings, plan, killer, top_ups, buyers, running)
            told("Waiting until everything is posted", plan.kills)
            is_settled = await posted.settled(url, settings.journal_dir, SETTLED_WITHIN_MS)
    finally:
        await pool.close()
    accounts = [buyer.customer.billing_account_id for buyer in buyers]
    return _Load(killer.kills, count, accounts, top_ups.sold, is_settled)


async def _together(
    settings: Settings,
    plan: Plan,
    killer: Killer,
    top_ups: TopUps,
    buyers: list[Buyer],
    running: claim.Running,
) -> Count:
    """Load, kills and top-ups side by side, until load and kills are over."""
    asked = customers.Plan(
        port=int(running.addresses["gateway"].rpartition(":")[2]),
        keys=[buyer.secret for buyer in buyers],
        steady=stock.steady(plan.accounts),
        seed=plan.seed,
        rate=plan.rate,
        duration_ms=plan.seconds * 1_000,
        connections=plan.connections,
        output=str(_answers(settings)),
    )
    topping_up = asyncio.create_task(top_ups.run())
    try:
        count, _ = await asyncio.gather(customers.ask(asked), killer.run(plan.kills, plan.seconds * 1_000))
    finally:
        topping_up.cancel()
        await asyncio.wait({topping_up})
    return count


@asynccontextmanager
async def _endpoints(settings: Settings) -> AsyncGenerator[list[tuple[int, Child]]]:
    """The scripted endpoints with their ports, each kept alive; its socket stays open while it is away."""
    async with AsyncExitStack() as stack:
        scripted: list[tuple[int, Child]] = []
        for number in range(ENDPOINTS):
            listener = stack.enter_context(await ports.listen("127.0.0.1", 0, ""))
            child = Child(Scripted(f"endpoint-{number}", listener), settings)
            stack.push_async_callback(child.stop)
            await child.start()
            scripted.append((ports.port_of(listener), child))
        yield scripted


async def _compared(settings: Settings, plan: Plan, load: _Load) -> Result:
    async with services(settings, bus=False) as ready:
        records = await posted.records(ready.database_url)
        sums = await posted.sums(ready.database_url)
        report = await verification.of_database(ready.database_url)
    limits = Limits(accounts=load.accounts, checkpoint=settings.checkpoint_tokens)
    return figures.result(
        kills=load.kills,
        count=load.count,
        is_settled=load.is_settled,
        top_ups=load.top_ups,
        found=compare(customers.seen(_answers(settings)), records, limits),
        sums=sums,
        checks=report.checks,
        conditions=_conditions(plan),
    )


def _answers(settings: Settings) -> Path:
    return settings.data / "answers"


def _conditions(plan: Plan) -> Conditions:
    return Conditions(
        seconds=plan.seconds,
        rate=plan.rate,
        workers=plan.workers,
        accounts=plan.accounts,
        granted_small=stock.GRANTED_SMALL,
        connections=plan.connections,
        seed=plan.seed,
        cores=os.cpu_count() or 1,
        processor=machine.processor(),
    )
