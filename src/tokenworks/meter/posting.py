"""Posting shipments: whole journal frames become records and one net posting, in one transaction, exactly once.

`posted_through` of a journal's row decides what is new: bytes below it are skipped, a gap is refused. Shipments of
several journals go into one transaction; one that is refused does not keep the others out. What an entry means for
the books is decided in `core.metering`.
"""

from collections.abc import Collection, Sequence

import msgspec

from tokenworks.base.database import Pool
from tokenworks.core.journal import Opening
from tokenworks.core.metering import Batch, Deciding, LeaseEnd, Outcome
from tokenworks.core.named import EntryFault
from tokenworks.core.postings import Posting
from tokenworks.core.standing import Registered
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.ledger import accounts, epoch, lease_rows
from tokenworks.ledger.lease_rows import End, Lost
from tokenworks.ledger.seal import Connection
from tokenworks.ledger.store import enter, ids_to_come, transaction
from tokenworks.ledger.tables import SEALED as LEDGER_SEALED
from tokenworks.meter import journals, known, partitions, rows, shipments
from tokenworks.meter.journals import Advance, Cursor
from tokenworks.meter.rows import Undecided
from tokenworks.meter.shipments import Shipment, ShipmentFault
from tokenworks.meter.tables import SEALED, STREAM


class Posted(msgspec.Struct, frozen=True):
    """The answer to a shipment, and what was posted of it if anything was. `is_gap`: bytes before it are missing.

    `posting_ids` are those of its postings of usage, by legal entity; where nothing moved there is none under the id.
    `accounts` are billing accounts of which leases were used or given back, of the whole transaction, and `at_ns` is
    its time.
    """

    reply: ShipReply
    outcome: Outcome | None = None
    posting_ids: dict[str, int] = {}
    is_gap: bool = False
    accounts: frozenset[str] = frozenset()
    at_ns: int = 0


class _New(msgspec.Struct, frozen=True):
    """What of a shipment is new, and where its journal stands."""

    shipment: Shipment
    cursor: Cursor

    def batch(self, now_ns: int) -> Batch:
        ship, done = self.shipment.request, self.cursor.posted_through
        through = max(done, self.shipment.through)
        return Batch(ship.journal_id, done, through, now_ns, tuple(self.shipment.entries))

    def is_whole(self, outcome: Outcome) -> bool:
        """Whether all of it was decided."""
        return outcome.through == max(self.cursor.posted_through, self.shipment.through)


class _Begun(msgspec.Struct, frozen=True):
    """A batch that is about to be decided; `openings` are those of earlier batches that it closes or extends."""

    new: _New
    batch: Batch
    deciding: Deciding
    openings: tuple[Opening, ...]

    @property
    def days(self) -> frozenset[int]:
        """On which days its requests were opened."""
        return self.new.shipment.days | {opening.opened_at_ns // partitions.DAY_NS for opening in self.openings}

    @property
    def entities(self) -> frozenset[str]:
        """The legal entities whose requests it closes."""
        return self.new.shipment.entities | {opening.legal_entity_id for opening in self.openings}


class _Decided(msgspec.Struct, frozen=True):
    """A batch as it was decided, with the ids kept for its postings of usage, by legal entity."""

    new: _New
    batch: Batch
    outcome: Outcome
    posting_ids: dict[str, int]

    @property
    def waits_at_once(self) -> bool:
        """Whether nothing of it could be decided."""
        return self.outcome.through == self.batch.from_position < self.batch.through_position

    def id_of(self, posting: Posting) -> int | None:
        """Leases that were registered again have postings of their own, with ids as they come."""
        return self.posting_ids[posting.legal_entity_id] if posting.kind == "usage_posted" else None

    def advance(self) -> Advance:
        """How far its journal is posted after it."""
        ship, outcome = self.new.shipment.request, self.outcome
        batch = msgspec.structs.replace(self.batch, through_position=outcome.through)
        after = self.new.cursor.after(outcome.through, outcome, ship.final and self.new.is_whole(outcome))
        return Advance(ship.worker, batch, outcome, after)


async def post_batch(pool: Pool, ship: ShipRequest, now_ns: int) -> Posted:
    """Post what is new in one shipment."""
    if not ship.frames and not ship.final:
        return Posted(await told(pool, ship))
    try:
        shipment = await shipments.read(ship)
    except ShipmentFault as fault:
        return Posted(await refused(pool, ship, str(fault)))
    (posted,) = await post_shipments(pool, [shipment], now_ns)
    return posted


async def refused(pool: Pool, ship: ShipRequest, fault: str) -> ShipReply:
    """The answer to a shipment whose bytes are no entries."""
    async with pool.connection() as conn:
        number = await epoch.number(conn)
        return ShipReply(await journals.posted_through(conn, ship.journal_id), fault, number)


async def told(pool: Pool, ship: ShipRequest) -> ShipReply:
    """How far the ledger has the journal, for a shipper that asks without having anything to post."""
    async with pool.connection() as conn:
        number = await epoch.number(conn)
        done = await journals.posted_through(conn, ship.journal_id)
    return ShipReply(done, _gap(ship, done) if ship.from_position > done else "", number)


def _gap(ship: ShipRequest, done: int) -> str:
    return f"{ship.journal_id}: bytes from {done} to {ship.from_position} are missing"


async def post_shipments(pool: Pool, ships: Sequence[Shipment], now_ns: int) -> list[Posted]:
    """Post what is new in these shipments, at most one of each journal, in one transaction; answers in their order."""
    async with transaction(pool, STREAM, now_ns, LEDGER_SEALED + SEALED) as conn:
        # What a failover loses of metering is shipped again, so no standby is waited for.
        await conn.execute("SET LOCAL synchronous_commit = local")
        now = await epoch.current(conn)
        cursors = await journals.lock(conn, [ship.request.journal_id for ship in ships])
        answers: dict[str, Posted] = {}
        fresh: dict[str, _New] = {}
        for ship in ships:
            found = _what_is_new(ship, cursors[ship.request.journal_id])
            (fresh if isinstance(found, _New) else answers)[ship.request.journal_id] = found  # pyright: ignore[reportArgumentType]
        if fresh:
            is_settling = now is not None and not now.is_settled
            batches = [fresh[journal_id] for journal_id in sorted(fresh)]
            answers |= await _post(conn, batches, now_ns, is_settling=is_settling)
    return [_at(answers[ship.request.journal_id], now.epoch if now else 0, now_ns) for ship in ships]


def _at(posted: Posted, number: int, now_ns: int) -> Posted:
    reply = msgspec.structs.replace(posted.reply, ledger_epoch=number)
    return msgspec.structs.replace(posted, reply=reply, at_ns=now_ns)


def _what_is_new(ship: Shipment, cursor: Cursor) -> "_New | Posted":
    journal_id, done = ship.request.journal_id, cursor.posted_through
    if ship.request.from_position > done:
        return Posted(ShipReply(done, _gap(ship.request, done)), is_gap=True)
    new = ship.since(done)
    if ship.through > done and (not new.entries or new.entries[0][0] != done):
        return Posted(ShipReply(done, f"{journal_id}: no entry begins at {done}"))
    if not new.entries and (cursor.final or not ship.request.final or not cursor.shipments):
        return Posted(ShipReply(done))
    return _New(new, cursor)


async def _post(conn: Connection, fresh: list[_New], now_ns: int, *, is_settling: bool) -> dict[str, Posted]:
    """Decide and write batches, in the order of their journals' ids."""
    answers: dict[str, Posted] = {}
    begun: list[_Begun] = []
    taken = {lease_id: bucket_id for one in fresh for lease_id, bucket_id in one.shipment.named.taken.items()}
    shared = await known.look_up(conn, {lease for one in fresh for lease in one.shipment.named.leases}, taken)
    standing = shared.standing(is_settling=is_settling)
    for one in fresh:
        batch = one.batch(now_ns)
        state = await known.known_of(conn, batch.journal_id, one.shipment.named, shared)
        try:
            state.confirm(one.shipment.named)
        except EntryFault as fault:
            text = f"{batch.journal_id}: {fault}"
            answers[batch.journal_id] = Posted(ShipReply(one.cursor.posted_through, text))
            continue
        begun.append(_Begun(one, batch, Deciding(batch, state, standing), tuple(state.openings.values())))
    decided = await _decided(conn, begun, {bucket.legal_entity_id for bucket in shared.buckets.values()})
    for one in decided:
        if one.waits_at_once:
            text = _waits(one.batch.journal_id, one.outcome.through)
            answers[one.batch.journal_id] = Posted(ShipReply(one.outcome.through, text))
    accounts = frozenset([bucket.billing_account_id for bucket in shared.buckets.values()])
    written = await _write(conn, [one for one in decided if not one.waits_at_once], now_ns)
    return answers | {
        journal_id: msgspec.structs.replace(posted, accounts=accounts) for journal_id, posted in written.items()
    }


async def _decided(conn: Connection, begun: list[_Begun], lenders: Collection[str]) -> list[_Decided]:
    """Decide batches, with their records on their way to the database meanwhile.

    `lenders` are the legal entities whose leases they name; what of their ids is not used is lost.
    """
    entities = [sorted(each.entities.union(lenders)) for each in begun]
    ids = iter(await ids_to_come(conn, sum(map(len, entities))))
    posting_ids = [{entity: next(ids) for entity in mine} for mine in entities]
    batches = [
        Undecided(each.batch.journal_id, each.deciding, mine, each.new.shipment.drafts)
        for each, mine in zip(begun, posting_ids, strict=True)
    ]
    await rows.add_records(conn, batches, {day for each in begun for day in each.days})
    return [
        _Decided(each.new, each.batch, each.deciding.outcome(), mine)
        for each, mine in zip(begun, posting_ids, strict=True)
    ]


async def _write(conn: Connection, decided: list[_Decided], now_ns: int) -> dict[str, Posted]:
    """All but the records: those are there."""
    numbered = [(posting, one.id_of(posting)) for one in decided for posting in one.outcome.postings]
    _, changes = await enter(conn, [posting for posting, _ in numbered], now_ns, [number for _, number in numbered])
    lost = [_lost(one.new, each) for one in decided for each in one.outcome.registered]
    await lease_rows.register(conn, lost, now_ns)
    await rows.add_openings(conn, [(one.batch.journal_id, one.outcome) for one in decided])
    parts = [
        lease_rows.Part(
            part.lease_id, part.amount, part.claimed, one.posting_ids[part.legal_entity_id] if part.amount else None
        )
        for one in decided
        for part in one.outcome.lease_parts
    ]
    await lease_rows.return_parts(conn, parts, now_ns)
    ends = [_end(end, one.posting_ids) for one in decided for end in one.outcome.lease_ends]
    await lease_rows.end_leases(conn, ends, now_ns)
    advances = [one.advance() for one in decided]
    await journals.advance(conn, advances)
    # Last of all: a lease that waits for what goes back to a bucket waits for the commit only.
    await accounts.change(conn, changes)
    return {
        advance.batch.journal_id: Posted(await _reply(conn, one.new, advance), advance.outcome, one.posting_ids)
        for one, advance in zip(decided, advances, strict=True)
    }


def _lost(one: _New, lost: Registered) -> Lost:
    taken, ship = lost.taken, one.shipment.request
    name = (ship.worker, ship.journal_id, taken.sequence)
    return Lost(taken.lease_id, name, taken.ordinal, taken.bucket_id, taken.amount, taken.use_until_ns)


async def _reply(conn: Connection, one: _New, advance: Advance) -> ShipReply:
    after, journal_id = advance.after, advance.batch.journal_id
    if not one.is_whole(advance.outcome):
        return ShipReply(after.posted_through, _waits(journal_id, after.posted_through))
    if not one.shipment.request.final or after.final:
        return ShipReply(after.posted_through)
    fault = f"{journal_id}: {after.openings - after.closings} requests are still open"
    return ShipReply(after.posted_through, fault, waiting=await journals.waiting(conn, journal_id))


def _waits(journal_id: str, position: int) -> str:
    return f"{journal_id}: the closing at {position} waits for balance that other journals give back"


def _end(end: LeaseEnd, ids: dict[str, int]) -> End:
    posting_id = ids[end.legal_entity_id] if end.remainder else None
    return End(end.lease_id, "closed", end.remainder, end.claimed, posting_id)
