"""The world of a run: machines, workers, office, suppliers and customers, put together and run to quiescence.

`run` is the way in: a plan goes in, what was found comes out. Faults are in `faults`, checks in `auditor`.
"""

import contextlib
import gc
import hashlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec

from tokenworks.base import clock, ids
from tokenworks.base.journal import finished_journals, list_journals, read_mark
from tokenworks.core import wire
from tokenworks.core.caps import parse_caps
from tokenworks.sim import faults
from tokenworks.sim.auditor import Auditor
from tokenworks.sim.bus import Hub
from tokenworks.sim.chance import Chance
from tokenworks.sim.commands import Begin, Done, Expire, Sell, SiteShipped
from tokenworks.sim.customer import Customers
from tokenworks.sim.disk import SimDisk
from tokenworks.sim.facts import Facts, Violation
from tokenworks.sim.loop import Stuck, VirtualLoop
from tokenworks.sim.machines import Machine, Process
from tokenworks.sim.office import Database, Office
from tokenworks.sim.plan import MS_NS, ORDERLY, SECOND_NS, Plan, Strike
from tokenworks.sim.scene import Scene, scene
from tokenworks.sim.sockets import Listener, Network
from tokenworks.sim.state import State, StoreFault
from tokenworks.sim.store import Store, Terms
from tokenworks.sim.story import tell
from tokenworks.sim.supplier import Suppliers
from tokenworks.sim.witness import Witnesses
from tokenworks.sim.workers import Site, Slot

_LIMIT_NS = 7_200 * SECOND_NS
_MEMORY = Path("/dev/shm")  # noqa: S108 - journals of a simulation are not kept


class Result(msgspec.Struct, frozen=True):
    """What a run came to. `digest` is of its whole trace: the same plan gives the same."""

    seed: int
    requests: int
    faults: dict[str, int]
    violations: tuple[Violation, ...]
    digest: str
    virtual_ms: int
    trace: tuple[str, ...] = ()
    history: tuple[Done, ...] = ()
    state: State | None = None


class World:
    """Everything there is in a run."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.scene: Scene = scene(plan.seed)
        kinds = {each.kind for each in plan.strikes}
        self.facts = Facts(is_calm=not kinds, is_orderly=kinds <= ORDERLY)
        self.witnesses = Witnesses()
        self.violations: list[Violation] = []
        self.loop = VirtualLoop(self._on_fault)
        self.outside = Process("outside", Machine("outside", 0))
        self.chance = Chance(plan.seed, "world")
        self.network = Network(self.loop, self.outside, plan.seed)
        self.loop.network = self.network
        self.hub = Hub(self.loop, plan.seed, self.scene.settings.bus_timeout_ms)
        self.auditor = Auditor(self.scene, self.facts, self.witnesses)
        settings = self.scene.settings
        terms = Terms(
            settings.lease_use_ms * MS_NS,
            settings.lease_share_percent,
            parse_caps(settings.lease_cap_account),
            settings.bus_timeout_ms * MS_NS,
        )
        self.database = Database(Store(terms), self.loop, self._on_done, self._on_store_fault)
        self.version = 1
        self.keys = {account.digest: account.key() for account in self.scene.accounts}
        self.office_machine = Machine("office", 7)
        self.office_process: Process | None = None
        self.site = Site(self.loop, self.network, self.hub, self.facts, self.outside, self._on_end_by_fault, self.note)
        self.machines = [Machine(f"m{number}", number * 1_000_003) for number in range(self.scene.machines)]
        locks: dict[int, Process] = {}
        self.disks = [SimDisk(folder / f"m{number}", self.loop, locks) for number in range(self.scene.machines)]
        self.slots = [
            self._slot(number, place) for number in range(self.scene.machines) for place in range(self.scene.workers)
        ]
        for disk in self.disks:
            disk.folder.mkdir(parents=True)
        for slot in self.slots:
            self.facts.machine_of[slot.name] = slot.machine.name
            self.facts.clocks[slot.machine.name] = [(0, slot.machine.wall_start_ns)]
        self.customers = Customers(self.loop, self.network, self.scene.accounts, self.witnesses, plan.seed)
        self.customers.doors = self._doors
        self.loop.disk_takes(self._sync_ns)

    # --- putting together

    def start(self) -> None:
        """Sell, publish, start every process and plan every request and fault."""
        suppliers = Suppliers(self.loop, {ask.number: ask for ask in self.plan.asks}, self.witnesses)
        for endpoint in self.scene.endpoints:
            self.network.listen(f"{endpoint.id}:80", suppliers.endpoint(endpoint.id), self.outside)
        self.database.do(Begin(1, "created"))
        for each in self.scene.sales:
            self.database.do(each)
        self.publish_catalog()
        self.start_office()
        for slot in self.slots:
            slot.start()
        for ask in self.plan.asks:
            self.loop.call_at_ns(SECOND_NS + ask.at_ms * MS_NS, self.customers.begin, ask)
        for strike in self.plan.strikes:
            self.loop.call_at_ns(SECOND_NS + strike.at_ms * MS_NS, self._strike, strike)

    def start_office(self) -> None:
        """A new life of the office, if none is there."""
        if self.office_process is None or not self.office_process.is_alive:
            process = self.office_process = self.outside.context.copy().run(Process, "office", self.office_machine)
            office = Office(
                self.hub,
                process,
                self.database,
                self.scene.settings,
                self.keys,
                lambda: self.scene.catalog(self.version).tariffs,
                Chance(self.plan.seed, "office", self.loop.now_ns),
            )
            process.kept.append(office)
            self.loop.call_soon(office.start, context=process.context)

    def publish_catalog(self) -> None:
        """The catalog at its present version."""
        catalog = self.scene.catalog(self.version)
        self.hub.put(f"{wire.CATALOG_BUCKET}/{wire.CATALOG_KEY}", msgspec.msgpack.encode(catalog))

    def sell(self, sale: Sell) -> None:
        """A customer buys a package now."""
        self.database.do(sale)

    def go_back(self, back_ms: int) -> bool:
        """The database loses what was committed last, but never a disk that it has heard of.

        One that reported for the first time after the copy was made is not waited for by the epoch that follows.
        """
        if len(self.database.store.state.sites) < self.scene.machines:
            return False
        lost = self.database.go_back(max(self.facts.sites_known_ns, self.loop.now_ns - back_ms * MS_NS))
        self.facts.went_back = True
        self.facts.lost_sales |= {done.command.bucket.id for done in lost if isinstance(done.command, Sell)}
        return True

    def note(self, text: str) -> None:
        """A line of the trace."""
        self.witnesses.note(self.loop.now_ns, text)

    # --- running

    def run(self) -> None:
        """To the end: all requests over, everything healed, every journal shipped, every lease over."""
        last_ns = SECOND_NS + max([0, *[each.at_ms for each in (*self.plan.asks, *self.plan.strikes)]]) * MS_NS
        self._until("requests do not end", lambda: self.loop.now_ns >= last_ns and not self.customers.running)
        faults.heal(self)
        for _ in range(2):  # the second life settles what the first one left
            self._until("workers do not start", lambda: all(slot.is_alive for slot in self.slots))
            self._wait(SECOND_NS)
            self._settle()
            for slot in self.slots:
                slot.stop()
            self._wait(50 * MS_NS)
        for slot in self.slots:
            slot.is_wanted = False
            slot.stop()
        self._until("workers do not stop", lambda: not any(slot.is_alive for slot in self.slots))
        self._until("leases do not end", lambda: not self.database.store.state.open)
        self.database.do(Expire(self.loop.now_ns + self.office_machine.wall_start_ns))
        self._check_journals()
        for text in self.loop.unseen_faults():
            self.violations.append(Violation("fault", text, self.loop.now_ns))
        self.auditor.at_the_end(self.database.store.state, self.loop.now_ns)

    def _until(self, what: str, is_done: Callable[[], bool]) -> None:
        if self.auditor.violations or self.violations:
            return
        stop_ns = self.loop.now_ns + _LIMIT_NS

        def done() -> bool:
            return bool(self.auditor.violations) or bool(self.violations) or is_done()

        try:
            if self.outside.context.copy().run(self.loop.run, done, stop_ns):
                return
        except Stuck:
            pass
        self.violations.append(Violation("stuck", what, self.loop.now_ns))

    def _wait(self, for_ns: int) -> None:
        until_ns = self.loop.now_ns + for_ns
        self.loop.call_at_ns(until_ns, _nothing, context=self.outside.context)
        self._until("time stands still", lambda: self.loop.now_ns >= until_ns)

    def _settle(self) -> None:
        """Workers look for journals of the dead every few seconds."""
        for _ in range(200):
            if self._only_own_journals():
                return
            self._wait(SECOND_NS // 2)
        if not (self.auditor.violations or self.violations):
            self.violations.append(Violation("stuck", "journals are not settled", self.loop.now_ns))

    def _only_own_journals(self) -> bool:
        """Whether the dead ones' journals are settled, and the ledger's epoch has everything that is finished."""
        epoch = self.database.store.state.epoch
        if epoch is None or not epoch.is_settled or self.database.is_other:
            return False
        for disk in self.disks:
            journal_dir = disk.folder / "journal"
            marks = [read_mark(folder) for folder in finished_journals(journal_dir)]
            if len(list_journals(journal_dir)) > self.scene.workers:
                return False
            if any(mark is None or mark.ledger_epoch != epoch.number for mark in marks):
                return False
        return True

    def _check_journals(self) -> None:
        for disk in self.disks:
            for folder in list_journals(disk.folder / "journal"):
                self.auditor.say("journal left", f"{folder.parent.name}/{folder.name} was not settled")

    # --- what is told

    def _on_done(self, done: Done) -> None:
        if not self.facts.damaged and self.loop.now_ns:
            self._look_for_damage()
        all_known = len(self.database.store.state.sites) == self.scene.machines
        if isinstance(done.command, SiteShipped) and all_known and not self.facts.sites_known_ns:
            self.facts.sites_known_ns = self.loop.now_ns
        if isinstance(done.command, Expire):
            self._count_expiries(done.command.at_ns)
        self.auditor.after(done, self.database.store.state, self.loop.now_ns)

    def _count_expiries(self, at_ns: int) -> None:
        """Buckets whose validity ended while a worker held a part of them."""
        state = self.database.store.state
        for bucket_id, row in state.buckets.items():
            if row.terms.valid_to_ns <= at_ns and state.leased.get(bucket_id):
                self.facts.expired_leased.add(bucket_id)

    def _look_for_damage(self) -> None:
        if self.facts.losses:
            for disk in self.disks:
                self.facts.damaged |= {path.stem for path in (disk.folder / "journal").glob("*/*.damaged")}

    def _on_fault(self, process: Process, text: str, fault: BaseException | None) -> None:
        self.violations.append(Violation("fault", f"{process.name} {text}: {fault!r}", self.loop.now_ns))

    def _on_store_fault(self, fault: StoreFault) -> None:
        self.violations.append(Violation("ledger fault", str(fault), self.loop.now_ns))

    def _on_end_by_fault(self, text: str, fault: BaseException) -> None:
        self.violations.append(Violation("fault", f"{text}: {fault!r}", self.loop.now_ns))

    # --- parts

    def _slot(self, machine: int, place: int) -> Slot:
        disk = self.disks[machine]
        return Slot(self.site, f"gw-{machine}-{place}", self.machines[machine], disk, self.scene.settings)

    def _doors(self) -> list[Listener]:
        return [
            listener
            for slot in self.slots
            if slot.process is not None and slot.is_alive and not slot.process.is_suspended
            for listener in self.network.listeners(slot.process.name)
        ]

    def _sync_ns(self, process: Process) -> int:
        for slot in self.slots:
            if slot.machine is process.machine:
                return slot.disk.sync_ms * MS_NS
        return 0

    def _strike(self, strike: Strike) -> None:
        if faults.strike(self, strike):
            self.facts.faults[strike.kind] += 1


def run(plan: Plan, *, with_trace: bool = False, with_history: bool = False) -> Result:
    """Run a plan in a folder of its own, which goes afterwards."""
    with _quiet(), tempfile.TemporaryDirectory(prefix="tw-sim-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        return _run(plan, Path(folder), with_trace=with_trace, with_history=with_history)


def _run(plan: Plan, folder: Path, *, with_trace: bool, with_history: bool) -> Result:
    world = World(plan, folder)
    bits = Chance(plan.seed, "ids")
    with clock.replaced(world.loop.wall_ns, world.loop.boot_ns), ids.seeded(bits.bits):
        world.outside.context.copy().run(world.start)
        world.run()
    result = _result(world, with_trace=with_trace, with_history=with_history)
    world.loop.forget()
    return result


def _result(world: World, *, with_trace: bool, with_history: bool) -> Result:
    violations = (*world.violations, *world.auditor.violations)
    facts, history = world.facts, world.database.store.history
    counts = facts.faults + world.hub.faults + faults.seen(world)
    trace = hashlib.sha256()
    for done in history:
        trace.update(msgspec.msgpack.encode(done))
    for heard in world.witnesses.heard:
        trace.update(msgspec.msgpack.encode(heard))
    return Result(
        seed=world.plan.seed,
        requests=len(world.plan.asks),
        faults=dict(sorted(counts.items())),
        violations=tuple(violations),
        digest=trace.hexdigest(),
        virtual_ms=world.loop.now_ns // MS_NS,
        trace=_story(world) if with_trace else (),
        history=tuple(history) if with_history else (),
        state=world.database.store.state if with_history else None,
    )


def _story(world: World) -> tuple[str, ...]:
    witnesses, database = world.witnesses, world.database
    commands = list(zip(database.committed_ns, database.store.history, strict=True))
    return tell(world.plan.asks, witnesses.heard, witnesses.served, commands, witnesses.lines)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """No log lines, no garbage collection at moments of its own, and no word of what dead workers would still do."""
    logging.disable(logging.CRITICAL)
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of coroutines that a dead worker never began
            yield
            gc.collect()
    finally:
        gc.unfreeze()
        sys.unraisablehook = hook
        if was_enabled:
            gc.enable()
        logging.disable(logging.NOTSET)


def _nothing() -> None:
    """A time that somebody waits for."""
