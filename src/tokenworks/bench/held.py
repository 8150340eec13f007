"""The measurement of open streams: how many one worker holds at once, and what memory each of them takes.

The streams go slowly, so that what is seen is what an open one costs, not what its chunks do. They all end whole and
are charged.
"""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, suppress

import msgspec

from tokenworks.app import verification
from tokenworks.app.client import OfficeClient, address
from tokenworks.base.config import Settings
from tokenworks.base.processes import StartFault
from tokenworks.bench import books, conditions, load, machine, stream_endpoint, stream_load
from tokenworks.bench.conditions import Machine
from tokenworks.bench.load import LoadFault
from tokenworks.bench.report import Booked, Told
from tokenworks.bench.stream_endpoint import Pace
from tokenworks.bench.subject import MEGABYTE, Subject, customers, one_worker, opened

FAULTS = (StartFault, LoadFault)
"""What can keep a measurement from its end, each with one sentence."""

SLOW = Pace(chunks=3, interval_ms=10_000)
"""How slowly streams go that are only to be open. They begin evenly over an interval: no endpoint seems hung."""

MOST_MB = 400
"""The memory that a worker is to stay within."""

_ENDPOINTS = 4
_CONNECTIONS = 32
_LOOK_EVERY_S = 0.1
# What a worker has open beside its two connections for each stream: journal, bus, listening sockets.
_OTHER_DESCRIPTORS = 200


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How many streams at once, of how many accounts, and how slowly they go."""

    streams: int
    accounts: int
    pace: Pace = SLOW


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the figures depend on."""

    accounts: int
    pace: Pace
    endpoints: int
    durability: str
    machine: Machine


class Result(Booked, frozen=True, kw_only=True):
    """The whole measurement.

    `allowed` streams are the most for which this machine lets a process have files open (`ulimit -Hn`); no more were
    tried. `open_max` had begun and not ended at once; `before_mb` and `rss_mb` are the worker's memory before them and
    at the top. `missed` says what was asked for and not reached.
    """

    asked: int
    allowed: int
    open_max: int
    before_mb: float
    rss_mb: float
    bytes_per_stream: int
    missed: tuple[str, ...]
    conditions: Conditions


def allowed_here() -> int:
    """The most streams that a worker has files for on this machine. Processes started from now on may have as many."""
    return (machine.allow_descriptors() - _OTHER_DESCRIPTORS) // 2


def measure(given: Settings, plan: Plan, told: Told) -> Result:
    """Measure in a throw-away folder. Call it from the main thread, as `spawned` must be."""
    allowed = allowed_here()
    told("Starting a system of one worker")
    with one_worker(given) as settings:
        return asyncio.run(_measure(settings, plan, allowed, told))


async def _measure(settings: Settings, plan: Plan, allowed: int, told: Told) -> Result:
    async with AsyncExitStack() as stack:
        running, pool = await stack.enter_async_context(opened(settings))
        ports = await stack.enter_async_context(stream_endpoint.running(_ENDPOINTS, plan.pace))
        with OfficeClient(address(settings)) as office:
            books.catalog(office, ports)
        told(f"Making {plan.accounts:,} customers, each with a package and a key")
        keys = await customers(pool, plan.accounts)
        subject = Subject(running)
        told("Warming up: every key once")
        once = load.Plan(ports=[subject.port], keys=keys, connections=_CONNECTIONS, duration_ms=0)
        warm = await load.send(once)
        await books.posted(pool, warm.answers)
        before, streams = subject.rss_bytes(), min(plan.streams, allowed)
        told(f"Holding {streams:,} streams open")
        count, top = await _held(subject, plan, streams, keys)
        answers = warm.answers + count.streams
        await books.posted(pool, answers)
        told("Verifying the books")
        report = await verification.of_database(running.addresses["database"])
        return Result(
            asked=plan.streams,
            allowed=allowed,
            open_max=count.open_max,
            before_mb=round(before / MEGABYTE, 1),
            rss_mb=round(top / MEGABYTE, 1),
            bytes_per_stream=(top - before) // max(1, count.open_max),
            missed=missed(plan.streams, count.open_max, top),
            conditions=Conditions(
                accounts=plan.accounts,
                pace=plan.pace,
                endpoints=_ENDPOINTS,
                durability=settings.durability,
                machine=await conditions.of_machine(settings.data, pool),
            ),
            answers=answers,
            records=await books.records(pool),
            other_answers=dict(Counter(warm.others) + Counter(count.others)),
            verified=report.ok,
            failed_checks=report.failed,
        )


async def _held(subject: Subject, plan: Plan, streams: int, keys: list[str]) -> tuple[stream_load.Count, int]:
    """The streams, to their end, and the most memory that the worker had meanwhile."""
    asked = stream_load.Plan(
        ports=[subject.port],
        keys=keys,
        streams=streams,
        chunks=plan.pace.chunks,
        spread_ms=plan.pace.interval_ms,
        duration_ms=0,
    )
    top, holding = 0, asyncio.ensure_future(stream_load.send(asked))
    while not holding.done():
        top = max(top, subject.rss_bytes())
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(holding), _LOOK_EVERY_S)
    return await holding, top


def missed(asked: int, open_max: int, top_bytes: int) -> tuple[str, ...]:
    """What was asked for and not reached, a sentence each."""
    found: list[str] = []
    if open_max < asked:
        found.append(f"{open_max:,} streams were open at once instead of {asked:,}")
    if top_bytes > MOST_MB * MEGABYTE:
        found.append(f"the worker took {top_bytes / MEGABYTE:,.0f} MB instead of {MOST_MB}")
    return tuple(found)
