"""Rows of journals and of their shipments: how far each journal is posted. `journal` is a cache over `shipment`."""

from collections.abc import Collection, Sequence

import msgspec

from tokenworks.core.metering import Batch, Outcome
from tokenworks.ledger.arrays import flags, numbers, texts
from tokenworks.ledger.seal import Connection

# How many requests that are still open one answer names.
WAITING_MAX = 1_000


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


class Advance(msgspec.Struct, frozen=True):
    """A batch of a worker's journal that is posted, and the cursor after it."""

    worker: str
    batch: Batch
    outcome: Outcome
    after: Cursor


async def lock(conn: Connection, journal_ids: Collection[str]) -> dict[str, Cursor]:
    """The cursors of these journals; at zero where nothing was ever posted."""
    found = await conn.execute(
        """
        SELECT id, posted_through, shipments, openings, closings, final FROM journal
        WHERE id = ANY(%s::text[]) ORDER BY id FOR UPDATE
        """,
        (texts(journal_ids),),
    )
    cursors = {str(row[0]): Cursor(*row[1:]) for row in await found.fetchall()}
    return {journal_id: cursors.get(journal_id, Cursor()) for journal_id in journal_ids}


async def posted_through(conn: Connection, journal_id: str) -> int:
    """How far the journal is posted, without a lock."""
    found = await conn.execute("SELECT posted_through FROM journal WHERE id = %s", (journal_id,))
    row = await found.fetchone()
    return int(row[0]) if row else 0


async def waiting(conn: Connection, journal_id: str) -> tuple[int, ...]:
    """Positions of openings without a closing, the first few."""
    found = await conn.execute(
        """
        SELECT position FROM usage_opening o WHERE journal_id = %s AND NOT EXISTS (
            SELECT FROM usage_record r WHERE r.request_id = o.request_id AND r.opened_at_ns = o.opened_at_ns
                AND (r.journal_id, r.position) = (o.journal_id, o.position))
        ORDER BY position LIMIT %s
        """,
        (journal_id, WAITING_MAX),
    )
    return tuple([int(row[0]) for row in await found.fetchall()])


async def final_with_leases(conn: Connection) -> list[str]:
    """Journals that are complete while leases of their workers are open: granted, and never written down."""
    cursor = await conn.execute(
        "SELECT DISTINCT l.epoch FROM lease l JOIN journal j ON j.id = l.epoch WHERE l.open AND j.final"
    )
    return [str(row[0]) for row in await cursor.fetchall()]


async def advance(conn: Connection, advances: Sequence[Advance]) -> None:
    """Add the shipments' rows and move the journals' cursors."""
    await conn.execute(
        """
        INSERT INTO shipment (journal_id, ordinal, worker, from_position, through_position, openings, closings,
            repeats, unproven, final, posted_at_ns)
        SELECT * FROM unnest(%s::text[], %s::integer[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[],
            %s::bigint[], %s::bigint[], %s::bigint[], %s::boolean[], %s::bigint[])
        """,
        (
            texts(one.batch.journal_id for one in advances),
            numbers(one.after.shipments for one in advances),
            texts(one.worker for one in advances),
            numbers(one.batch.from_position for one in advances),
            numbers(one.batch.through_position for one in advances),
            numbers(len(one.outcome.opened) for one in advances),
            numbers(len(one.outcome.records) for one in advances),
            numbers(one.outcome.repeats for one in advances),
            numbers(one.outcome.unproven for one in advances),
            flags(one.after.final for one in advances),
            numbers(one.batch.at_ns for one in advances),
        ),
    )
    await conn.execute(
        """
        INSERT INTO journal (id, worker, posted_through, shipments, openings, closings, final)
        SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::integer[], %s::bigint[], %s::bigint[],
            %s::boolean[])
        ON CONFLICT (id) DO UPDATE SET posted_through = excluded.posted_through, shipments = excluded.shipments,
            openings = excluded.openings, closings = excluded.closings, final = excluded.final
        """,
        (
            texts(one.batch.journal_id for one in advances),
            texts(one.worker for one in advances),
            numbers(one.after.posted_through for one in advances),
            numbers(one.after.shipments for one in advances),
            numbers(one.after.openings for one in advances),
            numbers(one.after.closings for one in advances),
            flags(one.after.final for one in advances),
        ),
    )
