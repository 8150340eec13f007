"""Leases that were registered again: holding, when the ledger is settled, what their workers may still charge.

Which leases those are and what they draw before is decided in `core.metering`.
"""

from tokenworks.core import postings
from tokenworks.core.postings import Posting
from tokenworks.ledger.lease_rows import REGISTERED
from tokenworks.ledger.seal import Connection
from tokenworks.ledger.store import post_all


async def hold_open(conn: Connection, epoch: int, now_ns: int) -> int:
    """Move what open registered leases have not charged or given back from available to them, as far as it is there;
    how many.

    Expects a sealed transaction. Buckets are locked first, as metering does.
    """
    await conn.execute(
        """
        SELECT id FROM bucket WHERE id IN (SELECT bucket_id FROM lease WHERE open AND request_digest = %s)
        ORDER BY id FOR NO KEY UPDATE
        """,
        (REGISTERED,),
    )
    cursor = await conn.execute(
        """
        SELECT l.id, b.id, b.legal_entity_id, b.unit,
            l.amount - coalesce(sum(t.amount), 0) - coalesce(
                (SELECT sum(r.claimed - r.amount) FROM lease_return r WHERE r.lease_id = l.id), 0),
            v.balance
        FROM lease l JOIN bucket b ON b.id = l.bucket_id
        JOIN account v ON v.code = 'bucket/' || b.id || '/available' AND v.unit = b.unit
            AND v.legal_entity_id = b.legal_entity_id
        LEFT JOIN account a ON a.code = 'lease/' || l.id AND a.unit = b.unit AND a.legal_entity_id = b.legal_entity_id
        LEFT JOIN transfer t ON t.credit_account_id = a.id AND t.debit_account_id = v.id
        WHERE l.open AND l.request_digest = %s
        GROUP BY l.id, b.id, v.id ORDER BY l.id
        """,
        (REGISTERED,),
    )
    moves: list[Posting] = []
    taken: dict[str, int] = {}
    for lease_id, bucket_id, legal_entity_id, unit, lacking, available in await cursor.fetchall():
        amount = int(min(lacking, available - taken.get(bucket_id, 0)))
        if amount > 0:
            taken[bucket_id] = taken.get(bucket_id, 0) + amount
            moves.append(postings.lease_registered(lease_id, bucket_id, legal_entity_id, now_ns, unit, amount, epoch))
    await post_all(conn, moves, now_ns)
    return len(moves)
