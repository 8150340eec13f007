"""The measurement of keys: a worker beside very many of them, none of which it loads before somebody asks with it.

The keys are made first; then the system is started again, so that the worker's memory is that of one that begins with
all of them there. Who asks the office for which key is heard on the bus.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from tokenworks.access import keys
from tokenworks.app import claim, verification
from tokenworks.app.client import OfficeClient, address
from tokenworks.app.spawned import spawned
from tokenworks.base import bus as buses
from tokenworks.base import clock
from tokenworks.base.bus import Bus, BusFault
from tokenworks.base.config import Settings
from tokenworks.base.processes import StartFault
from tokenworks.bench import books, conditions, endpoint, leasing, load, paced_load
from tokenworks.bench.conditions import Machine
from tokenworks.bench.load import LoadFault
from tokenworks.bench.open_loop import Pace
from tokenworks.bench.paced_load import Count
from tokenworks.bench.report import Booked, Told
from tokenworks.bench.subject import MEGABYTE, Subject, of_its_own, opened
from tokenworks.core import wire

FAULTS = (StartFault, LoadFault, BusFault)
"""What can keep a measurement from its end, each with one sentence."""

RATE = 20
"""Requests a second: so few that the office has posted one before the next comes, and does nothing else meanwhile."""

_ENDPOINTS = 4
_LOOK_EVERY_S = 0.05
_PATIENCE_NS = 30 * clock.SECOND


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How many keys there are, of how many accounts, and with how many of them somebody asks."""

    keys: int
    accounts: int
    asked: int


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of requests, and how often the office was asked for a key meanwhile."""

    requests: int
    p50_ms: float
    p99_ms: float
    lookups: int
    lookups_most: int


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the figures depend on."""

    accounts: int
    requests_per_s: int
    key_cache_entries: int
    durability: str
    machine: Machine


class Result(Booked, frozen=True, kw_only=True):
    """The whole measurement.

    `cold` are first requests with keys whose account the worker knows, so that only the key is new to it; `warm` are
    second ones with the same keys. `lookups_most` is how often the office was asked for any one key. `bare_mb` is the
    memory of a fresh worker beside no keys, `fresh_mb` beside all of them; `snapshot_bytes` is what it is told of the
    business when it starts. `lookup_p50_ms` is what the office takes for a key, asked at rest over the bus.
    """

    keys: int
    made_per_s: int
    bare_mb: float
    fresh_mb: float
    used_mb: float
    snapshot_bytes: int
    cold: Times
    warm: Times
    lookup_p50_ms: float
    nats_rtt_p50_ms: float
    conditions: Conditions

    @property
    def is_sound(self) -> bool:
        """The office was asked once for each cold key and for no warm one, and every answer is in the books once."""
        once = self.cold.lookups == self.cold.requests and self.cold.lookups_most <= 1 and self.warm.lookups == 0
        return once and super().is_sound


class _Made(msgspec.Struct, frozen=True):
    """One key of each account to make the accounts known with, the keys to ask with, and how it went."""

    known: list[str]
    asked: list[str]
    made_per_s: int
    bare_bytes: int


def measure(given: Settings, plan: Plan, told: Told) -> Result:
    """Measure in a throw-away folder. Call it from the main thread, as `spawned` must be."""
    with tempfile.TemporaryDirectory(prefix="tokenworks-bench-") as folder:
        settings = of_its_own(Path(folder), given, 1)
        told("Starting a system of one worker")
        with spawned(settings):
            made = asyncio.run(_make(settings, plan, told))
        told("Starting the system again")
        with spawned(settings):
            return asyncio.run(_measure(settings, plan, made, told))


async def _make(settings: Settings, plan: Plan, told: Told) -> _Made:
    async with opened(settings) as (running, pool):
        bare = Subject(running).rss_bytes()
        with OfficeClient(address(settings)) as office:
            books.catalog(office, [])
        told(f"Making {plan.accounts:,} customers, each with a package and a key")
        buyers = [buyer async for batch in books.customers(pool, plan.accounts) for buyer in batch]
        told(f"Making {plan.keys:,} keys of theirs")
        began_ns, asked = clock.boot_ns(), list[str]()
        async for secrets in books.keys_of(pool, [buyer.customer for buyer in buyers], plan.keys):
            asked += secrets[: plan.asked - len(asked)]
        made_per_s = plan.keys * clock.SECOND // (clock.boot_ns() - began_ns)
        return _Made([buyer.secret for buyer in buyers], asked, made_per_s, bare)


async def _measure(settings: Settings, plan: Plan, made: _Made, told: Told) -> Result:
    async with AsyncExitStack() as stack:
        running, pool = await stack.enter_async_context(opened(settings))
        subject = Subject(running)
        fresh = subject.rss_bytes()
        ports = await stack.enter_async_context(endpoint.running(_ENDPOINTS))
        with OfficeClient(address(settings)) as office:
            books.endpoints(office, ports)
        ears = await stack.enter_async_context(_listening(settings, running))
        bench = _Bench(subject.port, ears)
        told("Making the accounts known to the worker")
        await bench.until_served(made.known[0])
        await bench.ask(made.known)
        told(f"Asking with {len(made.asked):,} cold keys")
        cold = await bench.times(made.asked)
        told("Asking with the same keys again")
        warm = await bench.times(made.asked)
        used = subject.rss_bytes()
        told("Asking the office for keys")
        bare_ms, lookup_ms = await _at_rest(settings, running, made.asked)
        await books.posted(pool, bench.answers)
        told("Verifying the books")
        report = await verification.of_database(running.addresses["database"])
        return Result(
            keys=plan.keys,
            made_per_s=made.made_per_s,
            bare_mb=round(made.bare_bytes / MEGABYTE, 1),
            fresh_mb=round(fresh / MEGABYTE, 1),
            used_mb=round(used / MEGABYTE, 1),
            snapshot_bytes=await ears.snapshot_bytes(),
            cold=cold,
            warm=warm,
            lookup_p50_ms=lookup_ms,
            nats_rtt_p50_ms=bare_ms,
            conditions=Conditions(
                accounts=plan.accounts,
                requests_per_s=RATE,
                key_cache_entries=settings.key_cache_entries,
                durability=settings.durability,
                machine=await conditions.of_machine(settings.data, pool),
            ),
            answers=bench.answers,
            records=await books.records(pool),
            other_answers=dict(bench.others),
            verified=report.ok,
            failed_checks=report.failed,
        )


class _Ears:
    """Hears on the bus who asks the office for a key; the office hears the same."""

    def __init__(self, bus: Bus) -> None:
        self.lookups: Counter[bytes] = Counter()
        self._bus = bus

    async def on_lookup(self, _subject: str, payload: bytes) -> None:
        """A worker asks."""
        self.lookups[msgspec.msgpack.decode(payload, type=wire.KeyLookup).digest] += 1

    async def snapshot_bytes(self) -> int:
        """The size of what a worker is told of the business."""
        held = await self._bus.get(wire.CATALOG_BUCKET, wire.CATALOG_KEY)
        return len(held.value) if held else 0

    async def heard(self, secrets: list[str], at_least: int) -> Counter[bytes]:
        """How often each of these keys was asked for: these ears may hear it a little later than the office."""
        digests = {keys.digest(secret) for secret in secrets}
        give_up_ns = clock.boot_ns() + clock.SECOND
        while True:
            found = Counter({digest: count for digest, count in self.lookups.items() if digest in digests})
            if found.total() >= at_least or clock.boot_ns() > give_up_ns:
                return found
            await asyncio.sleep(_LOOK_EVERY_S)


class _Bench:
    """Who asks the worker, and what it has answered so far."""

    def __init__(self, port: int, ears: _Ears) -> None:
        self.answers = 0
        self.others: Counter[str] = Counter()
        self._port = port
        self._ears = ears

    async def until_served(self, key: str) -> None:
        """Until the worker knows of the endpoints."""
        give_up_ns = clock.boot_ns() + _PATIENCE_NS
        once = load.Plan(ports=[self._port], keys=[key], connections=1, duration_ms=0)
        while (count := await load.send(once)).answers == 0:
            if clock.boot_ns() > give_up_ns:
                raise LoadFault(f"The worker serves nobody: {count.others}")
        self.answers += count.answers

    async def ask(self, secrets: list[str]) -> Count:
        """One request with each key, slowly."""
        pace = Pace(rate=RATE, duration_ms=len(secrets) * 1_000 // RATE, connections=len(secrets))
        count = await paced_load.send(paced_load.Plan(port=self._port, keys=secrets, pace=pace, each_once=True))
        self.answers += sum(count.answers)
        self.others.update(count.others)
        return count

    async def times(self, secrets: list[str]) -> Times:
        """The same, with what was heard of it."""
        self._ears.lookups.clear()
        count = await self.ask(secrets)
        heard = await self._ears.heard(secrets, sum(count.answers))
        return Times(
            requests=sum(count.answers),
            p50_ms=round(count.p50_ns / clock.MS, 3),
            p99_ms=round(count.p99_ns / clock.MS, 3),
            lookups=heard.total(),
            lookups_most=max(heard.values(), default=0),
        )


@asynccontextmanager
async def _listening(settings: Settings, running: claim.Running) -> AsyncGenerator[_Ears]:
    bus = await buses.connect(running.addresses["nats"], claim.secret(settings.data, "nats-token"), "bench-ears")
    try:
        ears = _Ears(bus)
        await bus.subscribe(wire.KEY_LOOKUP, ears.on_lookup)
        yield ears
    finally:
        await bus.close()


async def _at_rest(settings: Settings, running: claim.Running, secrets: list[str]) -> tuple[float, float]:
    """What a bare request over the bus takes, and what the office takes for a key."""
    digests = [keys.digest(secret) for secret in secrets]
    token = claim.secret(settings.data, "nats-token")
    async with leasing.connected(running.addresses["nats"], token) as (asking, answering):

        async def look_up(number: int) -> None:
            lookup = wire.KeyLookup(digests[number % len(digests)])
            await asking.request(wire.KEY_LOOKUP, msgspec.msgpack.encode(lookup))

        return await leasing.medians_ms(await leasing.bare(asking, answering), look_up)
