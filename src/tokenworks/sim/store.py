"""The ledger in memory: the pure decisions of `core`, carried out on `sim.state` as the real one does on PostgreSQL.

Every command is kept with its reply, so that a history can be carried out again elsewhere and compared. A failover or
a restore throws the newest part away. Nothing is decided here; shipments are `sim.posting`'s.
"""

from collections import Counter
from collections.abc import Mapping

import msgspec

from tokenworks.core import postings
from tokenworks.core.leasing import (
    RESERVED,
    Held,
    Lease,
    LeaseReply,
    LeaseRequest,
    Rooms,
    SliceGrant,
    decide,
    first_lease_id,
)
from tokenworks.core.postings import Posting
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.sales import recognised
from tokenworks.sim.commands import Begin, Command, Done, Expire, Grant, Reclaim, Reply, Sell, Settle, Ship, SiteShipped
from tokenworks.sim.posting import ship
from tokenworks.sim.state import EndRow, EpochRow, LeaseRow, SoldRow, State

_SNAPSHOT_EVERY = 64
_MS_NS = 1_000_000
_UNSETTLED = Refusal(Code.LEASE_UNAVAILABLE, "The ledger waits for what its gateways have in their journals.")


class Terms(msgspec.Struct, frozen=True):
    """The named limits of leases and epochs."""

    use_ns: int
    share_percent: int
    account_caps: Mapping[str, int]
    settle_earliest_ns: int


class Store:
    """The ledger. `state` is what its tables would hold."""

    def __init__(self, terms: Terms) -> None:
        self.state = State()
        self.history: list[Done] = []
        self._terms = terms
        self._snapshots: list[tuple[int, State]] = [(0, State())]

    def do(self, command: Command) -> Reply:
        """Carry out a command in one transaction."""
        reply = self._do(command)
        self.history.append(Done(command, reply))
        if len(self.history) - self._snapshots[-1][0] >= _SNAPSHOT_EVERY:
            self._snapshots.append((len(self.history), self.state.copy()))
        return reply

    def rewind(self, length: int) -> list[Done]:
        """Lose the newest commands, all but `length`; gives those that are lost."""
        lost = self.history[length:]
        while self._snapshots[-1][0] > length:
            self._snapshots.pop()
        start, state = self._snapshots[-1]
        self.state = state.copy()
        again = self.history[start:length]
        del self.history[start:]
        for done in again:
            self.do(done.command)
        return lost

    def _do(self, command: Command) -> Reply:  # noqa: PLR0911 - one line for each command
        match command:
            case Sell():
                return self._sell(command)
            case Grant():
                return self._grant(command)
            case Ship():
                return ship(self.state, command)
            case Reclaim():
                return self._reclaim(command)
            case Expire():
                return self._expire(command)
            case Begin():
                return self._begin(command)
            case SiteShipped():
                return self._site_shipped(command)
            case Settle():
                return self._settle(command)

    # --- sales

    def _sell(self, sale: Sell) -> int:
        terms = sale.bucket
        if not self.state.post(_credit(sale) if sale.on_credit else _sale(sale)):
            return 0
        self.state.buckets[terms.id] = SoldRow(
            terms, sale.granted, sale.net, sale.tax, sale.currency, _payer(sale), sale.on_credit
        )
        owned = self.state.owned.get(terms.billing_account_id, ())
        self.state.owned[terms.billing_account_id] = (*owned, terms.id)
        return 1

    # --- leases

    def _grant(self, grant: Grant) -> tuple[LeaseReply, ...]:
        epoch = self.state.epoch
        if epoch is not None and not epoch.is_settled:
            return (LeaseReply(refusal=_UNSETTLED),) * len(grant.requests)
        lines: set[tuple[str, str]] = set()
        return tuple([self._answer(request, grant, lines) for request in grant.requests])

    def _answer(self, request: LeaseRequest, grant: Grant, lines: set[tuple[str, str]]) -> LeaseReply:
        name = (request.worker, request.epoch, request.sequence)
        digest = msgspec.msgpack.encode(msgspec.structs.replace(request, wait_ms=0))
        before = self.state.granted.get(name)
        if before is not None:
            leases = [self.state.leases[lease_id] for lease_id in before]
            if leases[0].digest != digest:
                text = f"Lease request {request.sequence} of {request.worker} ({request.epoch}) was made before with"
                return LeaseReply(refusal=Refusal(Code.LEASE_CONFLICT, f"{text} another body."))
            return LeaseReply(tuple(_lease(row, grant.at_ns) for row in leases))
        line = (request.billing_account_id, request.model)
        if line in lines and not request.extends:
            return LeaseReply() if request.early else LeaseReply(refusal=RESERVED, elsewhere=True)
        held = self._held(request, grant.at_ns)
        rooms = Rooms(self._account_room(held), {})
        decision = decide(request, held, grant.tariffs, self._terms.share_percent, grant.at_ns, rooms)
        if decision.refusal is not None and decision.refusal.code is Code.BALANCE_RESERVED and not request.extends:
            lines.add(line)
        rows = [self._add(name, ordinal, digest, each, grant.at_ns) for ordinal, each in enumerate(decision.grants)]
        if rows:
            self.state.granted[name] = tuple(row.lease_id for row in rows)
        return LeaseReply(tuple(_lease(row, grant.at_ns) for row in rows), decision.refusal, decision.elsewhere)

    def _held(self, request: LeaseRequest, now_ns: int) -> list[Held]:
        state = self.state
        found: list[Held] = []
        for bucket_id in state.owned.get(request.billing_account_id, ()):
            terms = state.buckets[bucket_id].terms
            if terms.valid_from_ns <= now_ns < terms.valid_to_ns:
                found.append(Held(terms, state.available(bucket_id), state.leased.get(bucket_id, 0)))
        return found

    def _account_room(self, held: list[Held]) -> Mapping[str, int]:
        out = Counter[str]()
        for each in held:
            out[each.bucket.unit] += each.leased
        return {unit: max(0, cap - out[unit]) for unit, cap in self._terms.account_caps.items()}

    def _add(self, name: tuple[str, str, int], ordinal: int, digest: bytes, grant: SliceGrant, now_ns: int) -> LeaseRow:
        state, bucket = self.state, grant.bucket
        state.last_lease_id += 1
        use_until_ns = min(now_ns + self._terms.use_ns, bucket.valid_to_ns)
        row = LeaseRow(state.last_lease_id, name, ordinal, digest, grant, use_until_ns)
        state.leases[row.lease_id] = row
        state.open[row.lease_id] = None
        state.post(postings.leased(row.lease_id, bucket.id, bucket.legal_entity_id, now_ns, bucket.unit, grant.amount))
        return row

    def _reclaim(self, reclaim: Reclaim) -> int:
        state = self.state
        rows = [state.leases[lease_id] for lease_id in state.open]
        due = [row for row in rows if _is_due(row, reclaim)]
        for row in sorted(due, key=lambda row: (row.use_until_ns, row.lease_id)):
            bucket, left = row.grant.bucket, state.left(row.lease_id)
            posting = postings.lease_reclaimed(
                row.lease_id, bucket.id, bucket.legal_entity_id, reclaim.at_ns, bucket.unit, left
            )
            if posting.transfers:
                state.post(posting)
            state.end(row.lease_id, EndRow("reclaimed", left, None))
        return len(due)

    # --- expiry

    def _expire(self, expire: Expire) -> int:
        state = self.state
        due = sorted(
            bucket_id
            for bucket_id, row in state.buckets.items()
            if row.terms.valid_to_ns <= expire.at_ns and self._unused(bucket_id) > 0
        )
        for bucket_id in due:
            sold, left = state.sold(bucket_id), self._unused(bucket_id)
            before = recognised(sold.net, sold.consumed, sold.granted)
            serials = [event for event in state.events if event.startswith(f"expiry/{bucket_id}/")]
            state.post(
                postings.bucket_expired(
                    bucket_id,
                    sold.legal_entity_id,
                    expire.at_ns,
                    unit=sold.unit,
                    amount=left,
                    currency=sold.currency,
                    earned=0 if sold.payer else recognised(sold.net, sold.consumed + left, sold.granted) - before,
                    serial=len(serials),
                )
            )
        return len(due)

    def _unused(self, bucket_id: str) -> int:
        return self.state.available(bucket_id)

    # --- epochs

    def _begin(self, begin: Begin) -> int:
        state = self.state
        number = max(begin.at_ns // _MS_NS, max(state.epochs, default=0) + 1)
        is_first = begin.why == "created"
        state.epochs[number] = EpochRow(number, begin.at_ns, is_settled=is_first)
        if not is_first:
            state.last_lease_id = max(state.last_lease_id + 1, first_lease_id(number))
        return number

    def _site_shipped(self, shipped: SiteShipped) -> int:
        row = self.state.epochs.get(shipped.epoch)
        if row is None or shipped.site_id in row.sites:
            return 0
        self.state.epochs[shipped.epoch] = msgspec.structs.replace(row, sites=(*row.sites, shipped.site_id))
        self.state.sites[shipped.site_id] = None
        return 1

    def _settle(self, settle: Settle) -> int:
        row = self.state.epoch
        if row is None or row.is_settled:
            return 0
        have_shipped = bool(self.state.sites) and all(site in row.sites for site in self.state.sites)
        is_due = have_shipped and settle.at_ns - row.started_at_ns >= self._terms.settle_earliest_ns
        if not (is_due or settle.is_late):
            return 0
        self._hold_open(row.number, settle.at_ns)
        self.state.epochs[row.number] = msgspec.structs.replace(row, is_settled=True)
        return 1

    def _hold_open(self, epoch: int, now_ns: int) -> None:
        """What registered leases may still charge is moved to them, as far as it is there."""
        state = self.state
        for lease_id in sorted(state.open):
            row = state.leases[lease_id]
            bucket = row.grant.bucket
            gone = state.fed.get(lease_id, 0) + state.not_returned.get(lease_id, 0)
            amount = min(row.grant.amount - gone, state.available(bucket.id))
            if not row.digest and amount > 0:
                entity, unit = bucket.legal_entity_id, bucket.unit
                state.post(postings.lease_registered(lease_id, bucket.id, entity, now_ns, unit, amount, epoch))


def _payer(sale: Sell) -> str:
    return postings.credit_payer(sale.order_id) if sale.on_credit else sale.payer


def _sale(sale: Sell) -> Posting:
    terms = sale.bucket
    return postings.package_sold(
        sale.order_id,
        terms.legal_entity_id,
        sale.at_ns,
        bucket_id=terms.id,
        unit=terms.unit,
        granted=sale.granted,
        payer=sale.payer,
        currency=sale.currency,
        net=sale.net,
        tax=sale.tax,
    )


def _credit(sale: Sell) -> Posting:
    terms = sale.bucket
    return postings.credit_granted(
        terms.id, terms.legal_entity_id, sale.at_ns, agreement_id=sale.order_id, unit=terms.unit, granted=sale.granted
    )


def _is_due(row: LeaseRow, reclaim: Reclaim) -> bool:
    epoch = row.name[1]
    is_silent = row.use_until_ns <= reclaim.silent_since_ns and epoch not in reclaim.shipping
    return is_silent or epoch in reclaim.final


def _lease(row: LeaseRow, now_ns: int) -> Lease:
    return Lease(row.lease_id, row.grant.bucket, row.grant.amount, max(0, row.use_until_ns - now_ns), row.grant.linger)
