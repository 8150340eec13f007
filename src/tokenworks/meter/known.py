"""What the ledger knows of the leases, buckets and openings that batches name, read under the right locks."""

from collections.abc import Collection, Mapping

import msgspec

from tokenworks.core import postings
from tokenworks.core.journal import Opening, Reserved
from tokenworks.core.metering import Known
from tokenworks.core.named import Named
from tokenworks.core.standing import OpenLease, SoldBucket, Standing
from tokenworks.ledger import accounts
from tokenworks.ledger.accounts import Key
from tokenworks.ledger.arrays import numbers, texts
from tokenworks.ledger.lease_rows import REGISTERED, find_lost
from tokenworks.ledger.seal import Connection
from tokenworks.meter.tables import OPENING_COLUMNS, ORDINAL_BITS

Held = tuple[dict[int, OpenLease], dict[str, SoldBucket]]


class Shared(msgspec.Struct, frozen=True):
    """What all batches of a transaction share: leases, buckets, leases that were lost, what buckets have for these."""

    leases: dict[int, OpenLease] = {}
    buckets: dict[str, SoldBucket] = {}
    lost: frozenset[int] = frozenset()
    available: dict[str, int] = {}

    def standing(self, *, is_settling: bool) -> Standing:
        """As the batches change it."""
        return Standing(self.leases, self.buckets, self.lost, self.available, is_settling)


async def look_up(conn: Connection, lease_ids: Collection[int], taken: Mapping[int, str]) -> Shared:
    """Open leases and their buckets, by id. The buckets are locked, so that nobody else spends, expires or reclaims.

    `taken` are leases that workers say they took, with their buckets.
    """
    lost = await find_lost(conn, taken) if taken else frozenset[int]()
    leases, buckets = await _held(conn, lease_ids, {taken[lease_id] for lease_id in lost})
    if not lost and not any(lease.draws for lease in leases.values()):
        return Shared(leases, buckets)
    keys = {
        bucket_id: (bucket.legal_entity_id, postings.available(bucket_id), bucket.unit)
        for bucket_id, bucket in buckets.items()
    }
    held = await accounts.balances(conn, list(keys.values()))
    available = {bucket_id: amount or 0 for bucket_id, amount in zip(keys, held, strict=True)}
    return Shared(leases, buckets, lost, available)


async def _held(conn: Connection, lease_ids: Collection[int], of_lost: Collection[str]) -> Held:
    if not lease_ids and not of_lost:
        return {}, {}
    named = numbers(sorted(lease_ids))
    cursor = await conn.execute(
        """
        SELECT id, legal_entity_id, billing_account_id, unit, currency, net, granted, tax,
            CASE kind WHEN 'credit' THEN payer ELSE '' END
        FROM bucket
        WHERE id = ANY(ARRAY(SELECT bucket_id FROM lease WHERE id = ANY(%s::bigint[])) || %s::text[])
        ORDER BY id FOR NO KEY UPDATE
        """,
        (named, texts(of_lost)),
    )
    rows = await cursor.fetchall()
    sold = {
        str(row[0]): SoldBucket(row[1], row[2], row[3], row[4], int(row[5]), int(row[6]), 0, int(row[7]), row[8])
        for row in rows
    }
    cursor = await conn.execute(
        "SELECT id, bucket_id, request_digest = %s FROM lease WHERE id = ANY(%s::bigint[]) AND open",
        (REGISTERED, named),
    )
    found = await cursor.fetchall()
    bucket_of = {int(row[0]): str(row[1]) for row in found}
    return await _with_balances(conn, bucket_of, sold, {int(row[0]) for row in found if row[2]})


async def _with_balances(
    conn: Connection, bucket_of: dict[int, str], sold: dict[str, SoldBucket], drawing: set[int]
) -> Held:
    """The same with what is left on the leases and what was consumed of the buckets."""
    keys: list[Key] = []
    for lease_id, bucket_id in bucket_of.items():
        bucket = sold[bucket_id]
        keys.append((bucket.legal_entity_id, postings.lease(lease_id), bucket.unit))
    for bucket_id, bucket in sold.items():
        keys.append((bucket.legal_entity_id, postings.spent(bucket_id), bucket.unit))
        if not bucket.payer:
            keys.append((bucket.legal_entity_id, postings.expired(bucket_id), bucket.unit))
    held = iter(await accounts.balances(conn, keys))
    leases: dict[int, OpenLease] = {}
    for lease_id, bucket_id in bucket_of.items():
        left = next(held)
        if left is not None or lease_id in drawing:
            leases[lease_id] = OpenLease(bucket_id, left or 0, lease_id in drawing)
    for bucket_id, bucket in sold.items():
        spent = next(held) or 0
        expired = 0 if bucket.payer else next(held) or 0
        if consumed := spent + expired:
            sold[bucket_id] = msgspec.structs.replace(bucket, consumed=consumed)
    return leases, sold


async def known_of(conn: Connection, journal_id: str, named: Named, shared: Shared) -> Known:
    """What one journal's batch refers to, with what all batches of the transaction share."""
    leases, buckets = shared.leases, shared.buckets
    positions = list(named.openings)
    if not positions:
        return Known(leases, buckets, {})
    openings = await _openings(conn, journal_id, positions)
    return Known(leases, buckets, openings, await _closed(conn, journal_id, positions, openings))


async def _openings(conn: Connection, journal_id: str, positions: list[int]) -> dict[int, Opening]:
    """Openings that were posted, with the reservation of their last extension."""
    cursor = await conn.execute(
        f"""
        SELECT position, {", ".join(f"o.{column}" for column in OPENING_COLUMNS[:-3])},
            coalesce(e.input_max, o.input_max), coalesce(e.output_max, o.output_max),
            to_jsonb(coalesce(e.reserved, o.reserved))
        FROM usage_opening o LEFT JOIN LATERAL (
            SELECT input_max, output_max, reserved FROM usage_extension e
            WHERE (e.journal_id, e.position) = (o.journal_id, o.position) ORDER BY extended_at DESC LIMIT 1) e ON true
        WHERE o.journal_id = %s AND o.position = ANY(%s::bigint[])
        """.encode(),  # noqa: S608 - a column list of ours
        (journal_id, numbers(positions)),
    )
    return {
        int(row[0]): Opening(*row[1:10], reserved=tuple([Reserved(**part) for part in row[10]]))
        for row in await cursor.fetchall()
    }


async def _closed(
    conn: Connection, journal_id: str, positions: list[int], openings: dict[int, Opening]
) -> frozenset[int]:
    """Which of them have a record."""
    elsewhere = [position for position in positions if position not in openings]
    closed = await _closed_later(conn, journal_id, openings) if openings else set[int]()
    return frozenset(closed | await _closed_at_once(conn, journal_id, elsewhere)) if elsewhere else frozenset(closed)


async def _closed_later(conn: Connection, journal_id: str, openings: dict[int, Opening]) -> set[int]:
    """Of openings that were posted before their closings. Day and name are known, so one partition is looked at."""
    cursor = await conn.execute(
        """
        SELECT r.position FROM unnest(%s::bigint[], %s::bigint[], %s::text[]) AS k (position, opened_at_ns, request_id)
        JOIN usage_record r ON r.request_id = k.request_id AND r.opened_at_ns = k.opened_at_ns
            AND r.journal_id = %s AND r.position = k.position
        """,
        (
            numbers(openings),
            numbers(opening.opened_at_ns for opening in openings.values()),
            texts(opening.request_id for opening in openings.values()),
            journal_id,
        ),
    )
    return {int(row[0]) for row in await cursor.fetchall()}


async def _closed_at_once(conn: Connection, journal_id: str, positions: list[int]) -> set[int]:
    """Of openings that were posted with their closings: their records lie with the seal of that shipment."""
    cursor = await conn.execute(
        """
        SELECT r.position FROM unnest(%s::bigint[]) AS k (position)
        CROSS JOIN LATERAL (
            SELECT seq FROM shipment
            WHERE journal_id = %s AND from_position <= k.position AND through_position > k.position LIMIT 1) s
        CROSS JOIN LATERAL (
            SELECT position FROM usage_record
            WHERE id >= s.seq << %s AND id < (s.seq + 1) << %s AND (journal_id, position) = (%s, k.position) LIMIT 1) r
        """,
        (numbers(positions), journal_id, ORDINAL_BITS, ORDINAL_BITS, journal_id),
    )
    return {int(row[0]) for row in await cursor.fetchall()}
