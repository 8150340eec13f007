"""The office of the simulation: lease requests, shipments, key lookups and reports, carried out on the store.

Requests for leases wait in the product's own line. One transaction at a time for leases and one for metering, each with
its own time, as the seal streams of the real ledger have it. A crash of the process loses what has not been committed;
the store outlives it, as the database does.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.core import wire
from tokenworks.core.leasing import LeaseReply, LeaseRequest
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Key
from tokenworks.core.tariff import Tariff
from tokenworks.core.uptime import Uptime
from tokenworks.ledger.waiting import WaitingLine
from tokenworks.sim.bus import Hub
from tokenworks.sim.chance import Chance
from tokenworks.sim.commands import Begin, Command, Done, Expire, Grant, Reclaim, Reply, Settle, Ship, SiteShipped
from tokenworks.sim.loop import VirtualLoop
from tokenworks.sim.machines import Process
from tokenworks.sim.state import State, StoreFault
from tokenworks.sim.store import Store

_pack = msgspec.msgpack.encode
_CHORES_MS = 700
_ROUNDS_MISSED_MAX = 4
_UNAVAILABLE = LeaseReply(refusal=Refusal(Code.LEASE_UNAVAILABLE, "The ledger cannot be reached now."))


class Database:
    """The store, and whether it can be used. `on_done` is told of every command committed, `on_fault` of a broken one.

    `is_other`: it went back since an epoch was begun on it, and nothing is granted or posted until the next begins.
    """

    def __init__(
        self, store: Store, loop: VirtualLoop, on_done: Callable[[Done], None], on_fault: Callable[[StoreFault], None]
    ) -> None:
        self.store = store
        self.is_away = False
        self.is_other = False
        self.committed_ns: list[int] = []
        self._loop = loop
        self._on_done = on_done
        self._on_fault = on_fault

    def do(self, command: Command) -> Reply | None:
        """Commit a command; None if that cannot be done, or would break the books."""
        if self.is_away or (self.is_other and not isinstance(command, Begin)):
            return None
        self.is_other = False
        try:
            reply = self.store.do(command)
        except StoreFault as fault:
            self.is_away = True
            self._on_fault(fault)
            return None
        self.committed_ns.append(self._loop.now_ns)
        self._on_done(self.store.history[-1])
        return reply

    def go_back(self, to_ns: int) -> list[Done]:
        """Lose what was committed after a time."""
        length = sum(1 for at_ns in self.committed_ns if at_ns <= to_ns)
        lost = self.store.rewind(length)
        del self.committed_ns[length:]
        self.is_other = True
        return lost


class Office:
    """One life of the office process."""

    def __init__(
        self,
        hub: Hub,
        process: Process,
        database: Database,
        settings: Settings,
        keys: dict[bytes, Key],
        tariffs: Callable[[], dict[str, Tariff]],
        chance: Chance,
    ) -> None:
        self._loop = hub.loop
        self._hub = hub
        self._process = process
        self._database = database
        self._settings = settings
        self._keys = keys
        self._tariffs = tariffs
        self._chance = chance
        self._line = WaitingLine(self._grant, self._recall, settings.lease_recall_ms)
        self._metering = asyncio.Lock()
        self._heard_ns: dict[str, int] = {}
        self._uptime = Uptime(_ROUNDS_MISSED_MAX * _CHORES_MS * clock.MS)

    def start(self) -> None:
        """Answer from now on, and do the chores."""
        self._hub.serve(self._process, wire.LEASE_REQUEST, self._lease)
        self._hub.serve(self._process, wire.SHIP, self._ship)
        self._hub.serve(self._process, wire.SITE, self._site)
        self._hub.serve(self._process, wire.KEY_LOOKUP, self._key)
        self._loop.create_task(self._keep_house())

    @property
    def _state(self) -> State:
        return self._database.store.state

    # --- answers

    async def _key(self, payload: bytes) -> bytes | None:
        digest = msgspec.msgpack.decode(payload, type=wire.KeyLookup).digest
        await self._takes(1_000)
        return None if self._database.is_away else _pack(wire.KeyAnswer(self._keys.get(digest)))

    async def _lease(self, payload: bytes) -> bytes:
        return _pack(await self._line.ask(msgspec.msgpack.decode(payload, type=LeaseRequest)))

    async def _grant(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        command = Grant(clock.wall_ns(), tuple(requests), self._tariffs())
        await self._takes(3_000)
        granted = self._database.do(command)
        await self._takes(1_000)
        return list(granted) if isinstance(granted, tuple) else [_UNAVAILABLE] * len(requests)

    async def _recall(self, recall: wire.Recall) -> None:
        self._hub.publish(wire.LEASE_RECALL, _pack(recall))

    async def _ship(self, payload: bytes) -> bytes:
        request = msgspec.msgpack.decode(payload, type=wire.ShipRequest)
        now_ns = clock.wall_ns()
        async with self._metering:
            await self._takes(4_000)
            reply = self._database.do(Ship(now_ns, request))
        if not isinstance(reply, wire.ShipReply):
            reply = wire.ShipReply(request.from_position, "the ledger cannot post now")
        if not reply.fault and (request.frames or request.from_position == reply.posted_through):
            self._heard_ns[request.journal_id] = clock.boot_ns()
        self._tell_line(request)
        await self._takes(1_000)
        return _pack(reply)

    def _tell_line(self, request: wire.ShipRequest) -> None:
        """Usage was posted: whoever waits for its accounts' balance is looked at again."""
        accounts = {
            row.grant.bucket.billing_account_id
            for row in self._state.leases.values()
            if row.name[1] == request.journal_id
        }
        if request.frames and accounts:
            self._line.came_back(sorted(accounts))

    async def _site(self, payload: bytes) -> bytes | None:
        report = msgspec.msgpack.decode(payload, type=wire.SiteReport)
        await self._takes(1_000)
        epoch = self._state.epoch
        if self._database.is_away or self._database.is_other or epoch is None:
            return None
        done = report.site_id in epoch.sites
        if report.ledger_epoch == epoch.number and not report.waiting and not done:
            self._database.do(SiteShipped(clock.wall_ns(), epoch.number, report.site_id))
        return _pack(wire.SiteAnswer(epoch.number))

    # --- chores

    async def _keep_house(self) -> None:
        while True:
            self._uptime.look(clock.boot_ns(), is_up=not self._database.is_away)
            for chore in (self._begin, self._settle, self._expire, self._reclaim):
                command = chore()
                await self._takes(2_000)
                if command is not None:
                    self._database.do(command)
            await asyncio.sleep(_CHORES_MS / 1_000)

    def _begin(self) -> Command | None:
        return Begin(clock.wall_ns(), "failover") if self._database.is_other else None

    def _settle(self) -> Command | None:
        epoch = self._state.epoch
        if epoch is None or epoch.is_settled:
            return None
        settings = self._settings
        latest_ns = (settings.lease_use_ms + settings.request_longest_ms + settings.lease_grace_ms) * clock.MS
        age_ns = self._uptime.age_ns(clock.boot_ns(), latest_ns)
        is_late = age_ns is not None and clock.wall_ns() - epoch.started_at_ns >= age_ns
        return Settle(clock.wall_ns(), is_late)

    def _expire(self) -> Command | None:
        return Expire(clock.wall_ns()) if self._is_settled() else None

    def _reclaim(self) -> Command | None:
        if not self._is_settled():
            return None
        grace_ns = self._settings.lease_grace_ms * clock.MS
        age_ns = self._uptime.age_ns(clock.boot_ns(), grace_ns)
        longest_ns = self._settings.request_longest_ms * clock.MS
        since_ns = 0 if age_ns is None else max(0, clock.wall_ns() - age_ns - longest_ns)
        heard_since_ns = clock.boot_ns() - grace_ns
        shipping = [name for name, heard_ns in self._heard_ns.items() if heard_ns >= heard_since_ns]
        state = self._state
        epochs = {state.leases[lease_id].name[1] for lease_id in state.open}
        final = [epoch for epoch in sorted(epochs) if epoch in state.journals and state.journals[epoch].final]
        return Reclaim(clock.wall_ns(), since_ns, tuple(shipping), tuple(final))

    def _is_settled(self) -> bool:
        epoch = self._state.epoch
        return epoch is None or epoch.is_settled

    async def _takes(self, most_us: int) -> None:
        """The time of a transaction, or of its reply."""
        await asyncio.sleep(self._chance.between(100, most_us) / 1_000_000)
