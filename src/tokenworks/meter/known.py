"""What the ledger knows of the leases, buckets and openings that a batch names, read under the right locks."""

import msgspec

from tokenworks.core.journal import Opening, Reserved
from tokenworks.core.metering import Known, Named, OpenLease, SoldBucket
from tokenworks.ledger.arrays import numbers, texts
from tokenworks.ledger.seal import Connection
from tokenworks.meter.tables import OPENING_COLUMNS


async def look_up(conn: Connection, journal_id: str, named: Named) -> Known:
    """Lock the buckets of the named leases, so that nobody else spends, expires or reclaims, and read the state."""
    leases = numbers(sorted(named.leases))
    cursor = await conn.execute(
        """
        SELECT id FROM bucket WHERE id IN (SELECT bucket_id FROM lease WHERE id = ANY(%s::bigint[]))
        ORDER BY id FOR NO KEY UPDATE
        """,
        (leases,),
    )
    buckets = texts(str(row[0]) for row in await cursor.fetchall())
    openings = list(named.openings)
    return Known(
        leases=await _leases(conn, leases),
        buckets=await _buckets(conn, buckets),
        openings=await _openings(conn, journal_id, openings),
        closed=await _closed(conn, journal_id, openings),
    )


async def _leases(conn: Connection, leases: str) -> dict[int, OpenLease]:
    cursor = await conn.execute(
        """
        SELECT l.id, l.bucket_id, a.balance FROM lease l JOIN account a ON a.code = 'lease/' || l.id
        WHERE l.id = ANY(%s::bigint[]) AND l.open
        """,
        (leases,),
    )
    return {int(row[0]): OpenLease(str(row[1]), int(row[2])) for row in await cursor.fetchall()}


async def _buckets(conn: Connection, buckets: str) -> dict[str, SoldBucket]:
    cursor = await conn.execute(
        """
        SELECT b.id, b.legal_entity_id, b.billing_account_id, b.unit, b.currency, b.net, b.granted,
            (SELECT coalesce(sum(a.balance), 0) FROM account a
             WHERE a.code IN ('bucket/' || b.id || '/spent',
                    CASE b.kind WHEN 'prepaid' THEN 'bucket/' || b.id || '/expired' END)
                AND a.unit = b.unit AND a.legal_entity_id = b.legal_entity_id),
            b.tax, CASE b.kind WHEN 'credit' THEN b.payer ELSE '' END
        FROM bucket b WHERE b.id = ANY(%s::text[])
        """,
        (buckets,),
    )
    return {
        str(row[0]): SoldBucket(*row[1:5], *(int(amount) for amount in row[5:9]), payer=row[9])
        for row in await cursor.fetchall()
    }


async def _openings(conn: Connection, journal_id: str, positions: list[int]) -> dict[int, Opening]:
    if not positions:
        return {}
    cursor = await conn.execute(
        f"SELECT position, {', '.join(OPENING_COLUMNS)} FROM usage_opening"  # noqa: S608 - a column list of ours
        " WHERE journal_id = %s AND position = ANY(%s)".encode(),
        (journal_id, positions),
    )
    return {
        int(row[0]): Opening(*row[1:10], reserved=msgspec.convert(row[10], tuple[Reserved, ...]))
        for row in await cursor.fetchall()
    }


async def _closed(conn: Connection, journal_id: str, positions: list[int]) -> frozenset[int]:
    if not positions:
        return frozenset()
    cursor = await conn.execute(
        "SELECT position FROM usage_record WHERE journal_id = %s AND position = ANY(%s)", (journal_id, positions)
    )
    return frozenset([int(row[0]) for row in await cursor.fetchall()])
