"""A stand-in for the office: keys, leases and posted journals in memory, with the ledger's own decision in `core`.

It answers a gateway directly or, with `serve_on`, over the real bus.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tokenworks.base.bus import Bus, BusFault
from tokenworks.base.journal import split
from tokenworks.core import journal, wire
from tokenworks.core.bucket import Bucket
from tokenworks.core.journal import Closing, Entry, LeaseClose, LeaseReturn
from tokenworks.core.leasing import Held, Lease, LeaseReply, LeaseRequest, decide
from tokenworks.core.limits import Counted, Limits
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Catalog, Endpoint, Key, Model
from tokenworks.core.tariff import Rate, Tariff, flat
from tokenworks.ledger.waiting import WaitingLine

SECRET = "sk-tw-test"
ACCOUNT = "ba_1"
FAR_NS = 1 << 62
LIFE_NS = 60_000_000_000

_pack = msgspec.msgpack.encode


def bucket(bucket_id: str = "bkt_1", account: str = ACCOUNT, models: tuple[str, ...] = ("m",)) -> Bucket:
    """A bucket in tokens."""
    return Bucket(bucket_id, account, "le_1", "token", "personal", 0, FAR_NS, models=models)


def endpoint(url: str, endpoint_id: str = "ep_1", **more: str) -> Endpoint:
    """An endpoint for the model `m`."""
    fields: dict[str, Any] = {"upstream_model": "up", "api_key": "up-key"} | more
    return Endpoint(
        id=endpoint_id,
        supplier_id="sup_1",
        model="m",
        base_url=url,
        tariff="purchase@1",
        currency="CNY",
        rate=Rate(300_000_000, 300_000_000, 300_000_000, 600_000_000, 600_000_000),
        **fields,
    )


def catalog(*endpoints: Endpoint, version: int = 1, **about: Any) -> Catalog:
    """The model `m` with a small window, so that balances in tests can be small; `lonely` has no endpoint.

    `about` is more of what is known of `m`.
    """
    models = {name: Model(name, 4_096, 100, "tests", 1_700_000_000) for name in ("m", "lonely")}
    models["m"] = msgspec.structs.replace(models["m"], **about)
    tariff = Tariff("personal", 1, "token", {"*/*": flat(1_000_000)})
    return Catalog(version, 0, models, endpoints, {"personal": tariff})


@dataclass
class StandInOffice:
    """The state is open to tests. `is_down` makes every question fail as if nobody answered, `is_deaf` shipments.

    Of lease requests, `release` holds all back, `lose_replies` loses the answers to so many, `doubt_replies` refuses so
    many as a ledger does that cannot tell whether it granted; `life_ns` is how long what is granted may be used. With
    a `line` requests wait for what comes back, as at the real desk; without, they are told to come again. `recalled`
    is called for each recall.
    """

    buckets: dict[str, tuple[Bucket, int]] = field(default_factory=dict)
    keys: dict[bytes, Key] = field(default_factory=dict)
    tariffs: dict[str, Tariff] = field(default_factory=lambda: catalog().tariffs)
    share_percent: int = 2
    is_down: bool = False
    is_deaf: bool = False
    leased: dict[int, tuple[str, int]] = field(default_factory=dict)
    asked: list[LeaseRequest] = field(default_factory=list)
    lookups: int = 0
    lose_replies: int = 0
    doubt_replies: int = 0
    release: asyncio.Event | None = None
    life_ns: int = LIFE_NS
    answered: dict[tuple[str, str, int], LeaseReply] = field(default_factory=dict)
    line: WaitingLine | None = None
    recalled: list[Callable[[wire.Recall], None]] = field(default_factory=list)
    told: dict[tuple[str, int, str], Counted] = field(default_factory=dict)
    counted: list[Callable[[wire.LimitCounts], None]] = field(default_factory=list)
    posted: dict[str, bytes] = field(default_factory=dict)
    final: set[str] = field(default_factory=set)
    ledger_epoch: int = 0
    reports: list[wire.SiteReport] = field(default_factory=list)

    def give(self, balance: int, terms: Bucket | None = None) -> None:
        """Put a balance into a bucket and make the key of the tests known."""
        terms = terms or bucket()
        self.buckets[terms.id] = (terms, balance)
        self.add_key(SECRET, terms.billing_account_id)

    def add_key(
        self,
        secret: str,
        account: str = ACCOUNT,
        refused: str = "",
        limits: Limits | None = None,
        key_id: str = "key_1",
    ) -> bytes:
        """Make a key known; its digest."""
        digest = hashlib.sha256(secret.encode()).digest()
        self.keys[digest] = Key(key_id, "le_1", "cus_1", account, refused, limits)
        return digest

    def balance(self, bucket_id: str = "bkt_1") -> int:
        """Available plus leased."""
        return self.buckets[bucket_id][1] + sum(left for held, left in self.leased.values() if held == bucket_id)

    async def find_key(self, digest: bytes) -> Key | None:
        """Answer a key lookup."""
        self._answer()
        self.lookups += 1
        key = self.keys.get(digest)
        if key is None or key.limits is None or not self.told:
            return key
        return msgspec.structs.replace(
            key, limits=msgspec.structs.replace(key.limits, counts=tuple(self.told.values()))
        )

    async def lease(self, request: LeaseRequest) -> LeaseReply:
        """Answer a lease request, the same one always in the same way."""
        self._answer()
        self.asked.append(request)
        if self.release is not None:
            await self.release.wait()
        reply = await self.line.ask(request) if self.line else self._granted(request)
        if self.lose_replies:
            self.lose_replies -= 1
            raise BusFault("the reply was lost")
        if self.doubt_replies:
            self.doubt_replies -= 1
            return LeaseReply(refusal=Refusal(Code.LEASE_UNAVAILABLE, "The ledger cannot be reached now."))
        return reply

    def let_wait(self) -> None:
        """From now on requests wait in line, and workers are asked to give back what others need."""

        async def grant(requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
            return [self._granted(request) for request in requests]

        async def recall(recall: wire.Recall) -> None:
            for tell in self.recalled:
                tell(recall)

        self.line = WaitingLine(grant, recall, 2_000)

    async def ship(self, request: wire.ShipRequest) -> wire.ShipReply:
        """Take journal bytes."""
        self._answer()
        if self.is_deaf:
            raise BusFault("metering is away")
        have = self.posted.get(request.journal_id, b"")
        if request.from_position > len(have):
            return wire.ShipReply(len(have), "gap", self.ledger_epoch)
        new = request.frames[len(have) - request.from_position :]
        for _, payload in split(new):
            self._post(journal.decode(payload))
        if new:
            self.posted[request.journal_id] = have + new
            if self.line:
                self.line.came_back(terms.billing_account_id for terms, _ in self.buckets.values())
        if request.final:
            self.final.add(request.journal_id)
        return wire.ShipReply(len(have) + len(new), ledger_epoch=self.ledger_epoch)

    async def report(self, report: wire.SiteReport) -> wire.SiteAnswer:
        """Take what a disk says about its journals."""
        self._answer()
        self.reports.append(report)
        return wire.SiteAnswer(self.ledger_epoch)

    async def say_hello(self, epoch: str) -> None:
        """Nobody listens."""

    async def tell_state(self, state: wire.WorkerState) -> None:
        """Nobody listens."""

    async def tell_counts(self, counts: wire.LimitCounts) -> None:
        """Pass on to the workers what one of them counted."""
        self._answer()
        self.told |= {(each.limit_id, each.cell_ns, each.epoch): each for each in counts.counts}
        for hear in self.counted:
            hear(counts)

    def entries(self, journal_id: str) -> list[Entry]:
        """What a journal says, as far as it was posted."""
        return [journal.decode(payload) for _, payload in split(self.posted[journal_id])]

    async def serve_on(self, bus: Bus) -> None:
        """Answer over the bus."""

        async def lease(_subject: str, payload: bytes) -> bytes:
            return _pack(await self.lease(msgspec.msgpack.decode(payload, type=LeaseRequest)))

        async def key(_subject: str, payload: bytes) -> bytes:
            lookup = msgspec.msgpack.decode(payload, type=wire.KeyLookup)
            return _pack(wire.KeyAnswer(await self.find_key(lookup.digest)))

        async def ship(_subject: str, payload: bytes) -> bytes:
            return _pack(await self.ship(msgspec.msgpack.decode(payload, type=wire.ShipRequest)))

        async def site(_subject: str, payload: bytes) -> bytes:
            return _pack(await self.report(msgspec.msgpack.decode(payload, type=wire.SiteReport)))

        await bus.subscribe(wire.LEASE_REQUEST, lease)
        await bus.subscribe(wire.KEY_LOOKUP, key)
        await bus.subscribe(wire.SHIP, ship)
        await bus.subscribe(wire.SITE, site)

    def _answer(self) -> None:
        if self.is_down:
            raise BusFault("the office is away")

    def _granted(self, request: LeaseRequest) -> LeaseReply:
        """What was granted before is granted again; a refusal is thought over."""
        name = (request.worker, request.epoch, request.sequence)
        if name not in self.answered or self.answered[name].refusal:
            self.answered[name] = self._grant(request)
        return self.answered[name]

    def _grant(self, request: LeaseRequest) -> LeaseReply:
        held = [
            Held(terms, available, sum(left for name, left in self.leased.values() if name == terms.id))
            for terms, available in self.buckets.values()
            if terms.billing_account_id == request.billing_account_id
        ]
        decision = decide(request, held, self.tariffs, self.share_percent, 1)
        leases: list[Lease] = []
        for grant in decision.grants:
            terms, available = self.buckets[grant.bucket.id]
            self.buckets[terms.id] = (terms, available - grant.amount)
            lease_id = len(self.leased) + 1
            self.leased[lease_id] = (terms.id, grant.amount)
            leases.append(Lease(lease_id, terms, grant.amount, self.life_ns, grant.linger))
        return LeaseReply(tuple(leases), decision.refusal, decision.elsewhere)

    def _post(self, entry: Entry) -> None:
        if isinstance(entry, Closing):
            for charge in entry.charges:
                name, left = self.leased[charge.lease_id]
                assert charge.amount <= left, "more charged than leased"
                self.leased[charge.lease_id] = (name, left - charge.amount)
        elif isinstance(entry, LeaseClose):
            left = self.leased[entry.lease_id][1]
            assert left == entry.remainder, "the remainder is not what was not charged"
            self._return(entry.lease_id, left)
        elif isinstance(entry, LeaseReturn):
            assert 0 < entry.amount <= self.leased[entry.lease_id][1], "more returned than leased"
            self._return(entry.lease_id, entry.amount)

    def _return(self, lease_id: int, amount: int) -> None:
        name, left = self.leased[lease_id]
        terms, available = self.buckets[name]
        self.buckets[name] = (terms, available + amount)
        self.leased[lease_id] = (name, left - amount)
