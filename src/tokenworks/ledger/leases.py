"""The lease desk: moves slices of buckets to workers and takes them back from workers that stay silent.

The decision is `core.leasing.decide`; here it is carried out for a list of requests in one transaction. A request is
named by (worker, epoch, sequence): asked again it gets the same leases, with another content it is refused. Of those
that wait for the same balance nobody overtakes another; streams that run already are to be listed first.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec

from tokenworks.base.clock import MS
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.core import postings
from tokenworks.core.caps import parse_caps
from tokenworks.core.leasing import RESERVED, Held, Lease, LeaseReply, LeaseRequest, Rooms, SliceGrant, decide
from tokenworks.core.postings import Posting
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.tariff import Tariff
from tokenworks.ledger import epoch, lease_rows
from tokenworks.ledger.lease_rows import Name, NewLease
from tokenworks.ledger.seal import Connection
from tokenworks.ledger.store import post_all, transaction
from tokenworks.ledger.tables import GRANTED
from tokenworks.ledger.worker_sums import WorkerSums

STREAM = "lease"
RECLAIMS_AT_ONCE = 500


class LeaseDesk:
    """Grants and reclaims leases under the named limits of the settings."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._use_ns = settings.lease_use_ms * MS
        self._share_percent = settings.lease_share_percent
        self._standby_required = settings.standby_required
        self._account_caps = parse_caps(settings.lease_cap_account)
        self._workers = WorkerSums(parse_caps(settings.lease_cap_worker))
        self._reclaim_after_ns = (settings.request_longest_ms + settings.lease_grace_ms) * MS

    async def grant(
        self, requests: Sequence[LeaseRequest], tariffs: dict[str, Tariff], now_ns: int
    ) -> list[LeaseReply]:
        """Answer the requests in their order, all in one transaction."""
        async with transaction(self._pool, STREAM, now_ns, GRANTED) as conn:
            if (no := await epoch.refusal(conn, standby_required=self._standby_required)) is not None:
                return [LeaseReply(refusal=no)] * len(requests)
            before = await lease_rows.granted_before(conn, {_name(request) for request in requests}, now_ns)
            held = await lease_rows.lock_held(conn, {request.billing_account_id for request in requests}, now_ns)
            await self._workers.prepare(conn, {request.worker for request in requests}, now_ns)
            terms = _Terms(self._use_ns, self._share_percent, self._account_caps, now_ns)
            sheet = _Sheet(before, held, terms, self._workers)
            answers = [sheet.answer(request, tariffs) for request in requests]
            leases = await self._carry_out(conn, sheet.new, now_ns)
        return [_reply(answer, leases) for answer in answers]

    async def reclaim_due(
        self,
        now_ns: int,
        silent_since_ns: int | None = None,
        shipping: Collection[str] = (),
        final: Collection[str] = (),
    ) -> int:
        """Take back leases whose worker was silent past the longest request and the journal's grace; how many.

        `silent_since_ns` is when their use must have ended, for those who know that silence had other reasons
        meanwhile; without it the wall clock decides. Of workers whose journals (the leases' epochs) are `shipping`
        nothing is taken, of those whose journals are `final` everything at once.
        """
        since_ns = now_ns - self._reclaim_after_ns if silent_since_ns is None else silent_since_ns
        async with transaction(self._pool, STREAM, now_ns) as conn:
            due = await lease_rows.lock_due(conn, since_ns, shipping, final, RECLAIMS_AT_ONCE)
            moves = [
                postings.lease_reclaimed(
                    lease.lease_id, lease.bucket_id, lease.legal_entity_id, now_ns, lease.unit, lease.left
                )
                for lease in due
            ]
            moving = [posting for posting in moves if posting.transfers]
            posted = await post_all(conn, moving, now_ns)
            ids = {posting.event_id: done.id for posting, done in zip(moving, posted, strict=True)}
            ends = [
                lease_rows.End(lease.lease_id, "reclaimed", lease.left, None, ids.get(posting.event_id))
                for lease, posting in zip(due, moves, strict=True)
            ]
            await lease_rows.end_leases(conn, ends, now_ns)
        return len(due)

    async def _carry_out(self, conn: Connection, new: list[NewLease], now_ns: int) -> dict[tuple[Name, int], Lease]:
        ids = await lease_rows.insert_leases(conn, new, now_ns)
        await post_all(conn, [_posting(lease, ids[lease.key], now_ns) for lease in new], now_ns)
        return {
            lease.key: Lease(
                ids[lease.key], lease.grant.bucket, lease.grant.amount, lease.use_until_ns - now_ns, lease.grant.linger
            )
            for lease in new
        }


class _Answer(msgspec.Struct, frozen=True):
    """A reply whose new leases have no ids yet."""

    reply: LeaseReply
    new: tuple[NewLease, ...] = ()


class _Terms(msgspec.Struct, frozen=True):
    """What is the same for all requests of one transaction."""

    use_ns: int
    share_percent: int
    account_caps: Mapping[str, int]
    now_ns: int


class _Sheet:
    """The balances as they change while the requests of one transaction are decided."""

    def __init__(
        self, before: dict[Name, lease_rows.Before], held: dict[str, list[Held]], terms: _Terms, workers: WorkerSums
    ) -> None:
        self.new: list[NewLease] = []
        self._before = before
        self._held = held
        self._terms = terms
        self._workers = workers
        self._answered: dict[Name, tuple[str, _Answer]] = {}
        self._waiting: set[tuple[str, str]] = set()

    def answer(self, request: LeaseRequest, tariffs: dict[str, Tariff]) -> _Answer:
        """Decide one request; a repeated one gets its first answer."""
        name, digest = _name(request), request_digest(request)
        stored = self._before.get(name)
        if stored is not None:
            return _Answer(LeaseReply(stored.leases)) if stored.digest == digest else _conflict(request)
        first = self._answered.get(name)
        if first is not None:
            return first[1] if first[0] == digest else _conflict(request)
        answer = self._decide(request, digest, tariffs)
        self._answered[name] = (digest, answer)
        return answer

    def _decide(self, request: LeaseRequest, digest: str, tariffs: dict[str, Tariff]) -> _Answer:
        line = (request.billing_account_id, request.model)
        if line in self._waiting and not request.extends:
            return _Answer(LeaseReply() if request.early else LeaseReply(refusal=RESERVED, elsewhere=True))
        held = self._held.get(request.billing_account_id, [])
        terms = self._terms
        decision = decide(request, held, tariffs, terms.share_percent, terms.now_ns, self._rooms(request, held))
        if decision.refusal is not None and decision.refusal.code is Code.BALANCE_RESERVED and not request.extends:
            self._waiting.add(line)
        new = tuple(self._lease(request, digest, place, grant) for place, grant in enumerate(decision.grants))
        self._take(request, decision.grants)
        self.new.extend(new)
        return _Answer(LeaseReply(refusal=decision.refusal, elsewhere=decision.elsewhere), new)

    def _rooms(self, request: LeaseRequest, held: list[Held]) -> Rooms:
        out = Counter[str]()
        for state in held:
            out[state.bucket.unit] += state.leased
        account = {unit: max(0, cap - out[unit]) for unit, cap in self._terms.account_caps.items()}
        return Rooms(account, self._workers.rooms(request.worker))

    def _lease(self, request: LeaseRequest, digest: str, ordinal: int, grant: SliceGrant) -> NewLease:
        use_until_ns = min(self._terms.now_ns + self._terms.use_ns, grant.bucket.valid_to_ns)
        return NewLease(_name(request), ordinal, digest, grant, use_until_ns)

    def _take(self, request: LeaseRequest, grants: Sequence[SliceGrant]) -> None:
        taken = {grant.bucket.id: grant.amount for grant in grants}
        for grant in grants:
            self._workers.add(request.worker, grant.bucket.unit, grant.amount)
        self._held[request.billing_account_id] = [
            Held(state.bucket, state.available - amount, state.leased + amount)
            for state in self._held.get(request.billing_account_id, [])
            for amount in (taken.get(state.bucket.id, 0),)
        ]


def request_digest(request: LeaseRequest) -> str:
    """What makes two requests with the same name the same; how long the answer may wait is not part of it."""
    return hashlib.sha256(msgspec.msgpack.encode(msgspec.structs.replace(request, wait_ms=0))).hexdigest()


def _name(request: LeaseRequest) -> Name:
    return (request.worker, request.epoch, request.sequence)


def _conflict(request: LeaseRequest) -> _Answer:
    text = f"Lease request {request.sequence} of {request.worker} ({request.epoch}) was made before with another body."
    return _Answer(LeaseReply(refusal=Refusal(Code.LEASE_CONFLICT, text)))


def _reply(answer: _Answer, leases: dict[tuple[Name, int], Lease]) -> LeaseReply:
    if not answer.new:
        return answer.reply
    return msgspec.structs.replace(answer.reply, leases=tuple(leases[lease.key] for lease in answer.new))


def _posting(lease: NewLease, lease_id: int, now_ns: int) -> Posting:
    bucket = lease.grant.bucket
    return postings.leased(lease_id, bucket.id, bucket.legal_entity_id, now_ns, bucket.unit, lease.grant.amount)
