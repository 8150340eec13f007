"""Posting a shipment: whole journal frames become records and one net posting, in one transaction, exactly once.

`posted_through` of the journal's row decides what is new: bytes below it are skipped, a gap is refused. What an entry
means for the books is decided in `core.metering`.
"""

import msgspec

from tokenworks.base.database import Pool
from tokenworks.base.journal import FrameFault, split
from tokenworks.core import journal
from tokenworks.core.journal import Entry, Head
from tokenworks.core.metering import Batch, EntryFault, LeaseEnd, Outcome, decide, named
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.ledger import lease_rows
from tokenworks.ledger.lease_rows import End
from tokenworks.ledger.seal import Connection
from tokenworks.ledger.store import post_all, transaction
from tokenworks.ledger.tables import SEALED as LEDGER_SEALED
from tokenworks.meter import rows
from tokenworks.meter.feed import Feed, events
from tokenworks.meter.known import look_up
from tokenworks.meter.metrics import Metrics
from tokenworks.meter.tables import SEALED

STREAM = "meter"


class Cursor(msgspec.Struct, frozen=True):
    """How far a journal is posted, and the requests opened and closed in it."""

    posted_through: int = 0
    shipments: int = 0
    openings: int = 0
    closings: int = 0
    final: bool = False

    def after(self, through: int, outcome: Outcome, asked_final: bool) -> "Cursor":
        """The cursor once the batch is posted. A journal is final only when every request in it is closed."""
        openings = self.openings + len(outcome.opened)
        closings = self.closings + len(outcome.records)
        final = self.final or (asked_final and openings == closings)
        return Cursor(through, self.shipments + 1, openings, closings, final)


class _Posted(msgspec.Struct, frozen=True):
    reply: ShipReply
    outcome: Outcome | None = None
    posting_ids: dict[str, int] = {}


async def post_batch(
    pool: Pool, ship: ShipRequest, now_ns: int, feed: Feed, metrics: Metrics | None = None
) -> ShipReply:
    """Post what is new in the shipment; feed and metrics learn of it after the commit."""
    try:
        entries = _decode(ship)
        async with transaction(pool, STREAM, now_ns, LEDGER_SEALED + SEALED) as conn:
            posted = await _post(conn, ship, entries, now_ns)
    except (FrameFault, EntryFault, msgspec.MsgspecError) as fault:
        return await _refused(pool, ship, f"{ship.journal_id}: {fault}")
    if posted.outcome is not None:
        if metrics is not None:
            metrics.observe(posted.outcome)
        if feed.watched:
            for event in events(posted.outcome, posted.posting_ids, now_ns):
                feed.publish(event)
    return posted.reply


async def cursor_of(conn: Connection, journal_id: str) -> Cursor:
    """The cursor of a journal; at zero if nothing was ever posted."""
    found = await conn.execute(
        "SELECT posted_through, shipments, openings, closings, final FROM journal WHERE id = %s FOR UPDATE",
        (journal_id,),
    )
    row = await found.fetchone()
    return Cursor(*row) if row else Cursor()


def _decode(ship: ShipRequest) -> list[tuple[int, Entry]]:
    """Entries with their positions. The first of a journal is its head and says what the request says."""
    entries = [(ship.from_position + offset, journal.decode(payload)) for offset, payload in split(ship.frames)]
    if entries and ship.from_position == 0:
        head = entries[0][1]
        if not isinstance(head, Head):
            raise EntryFault("a journal begins with its head")
        if (head.journal_id, head.worker, head.format) != (ship.journal_id, ship.worker, journal.FORMAT):
            raise EntryFault(f"the head is of {head.journal_id}, {head.worker}, format {head.format}")
    return entries


async def _post(conn: Connection, ship: ShipRequest, entries: list[tuple[int, Entry]], now_ns: int) -> _Posted:
    cursor = await cursor_of(conn, ship.journal_id)
    done, through = cursor.posted_through, ship.from_position + len(ship.frames)
    if ship.from_position > done:
        return _Posted(ShipReply(done, f"{ship.journal_id}: bytes from {done} to {ship.from_position} are missing"))
    new = tuple([entry for entry in entries if entry[0] >= done])
    if through > done and (not new or new[0][0] != done):
        return _Posted(ShipReply(done, f"{ship.journal_id}: no entry begins at {done}"))
    if not new and (cursor.final or not ship.final or not cursor.shipments):
        return _Posted(ShipReply(done))
    through = max(through, done)
    batch = Batch(ship.journal_id, done, through, now_ns, new)
    outcome = decide(batch, await look_up(conn, ship.journal_id, named(new)))
    posted = await post_all(conn, outcome.postings, now_ns)
    ids = {posting.legal_entity_id: item.id for posting, item in zip(outcome.postings, posted, strict=True)}
    await rows.write(conn, ship.journal_id, outcome, ids)
    await lease_rows.end_leases(conn, [_end(end, ids) for end in outcome.lease_ends], now_ns)
    after = cursor.after(through, outcome, ship.final)
    await _advance(conn, ship, batch, outcome, after)
    waiting = after.openings - after.closings
    fault = f"{ship.journal_id}: {waiting} requests are still open" if ship.final and not after.final else ""
    return _Posted(ShipReply(through, fault), outcome, ids)


def _end(end: LeaseEnd, ids: dict[str, int]) -> End:
    posting_id = ids[end.legal_entity_id] if end.remainder else None
    return End(end.lease_id, "closed", end.remainder, end.claimed, posting_id)


async def _advance(conn: Connection, ship: ShipRequest, batch: Batch, outcome: Outcome, after: Cursor) -> None:
    """Add the shipment's row and move the journal's cursor, which is a cache over these rows."""
    await conn.execute(
        """
        INSERT INTO shipment (journal_id, ordinal, worker, from_position, through_position, openings, closings,
            repeats, unproven, final, posted_at_ns)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            *(ship.journal_id, after.shipments, ship.worker, batch.from_position, batch.through_position),
            *(len(outcome.opened), len(outcome.records), outcome.repeats, outcome.unproven, after.final, batch.at_ns),
        ),
    )
    await conn.execute(
        """
        INSERT INTO journal (id, worker, posted_through, shipments, openings, closings, final)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (id) DO UPDATE SET posted_through = excluded.posted_through, shipments = excluded.shipments,
            openings = excluded.openings, closings = excluded.closings, final = excluded.final
        """,
        (
            *(ship.journal_id, ship.worker, after.posted_through, after.shipments, after.openings, after.closings),
            after.final,
        ),
    )


async def _refused(pool: Pool, ship: ShipRequest, fault: str) -> ShipReply:
    async with pool.connection() as conn:
        return ShipReply((await cursor_of(conn, ship.journal_id)).posted_through, fault)
