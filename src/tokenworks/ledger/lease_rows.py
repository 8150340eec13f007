"""Rows of the tables `lease` and `lease_end`: reading, locking and adding them. Who gets what is decided elsewhere."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from tokenworks.core.leasing import Held, Lease, SliceGrant
from tokenworks.ledger.arrays import flags, numbers, texts
from tokenworks.ledger.buckets import TERMS, terms
from tokenworks.ledger.seal import Connection

Name = tuple[str, str, int]  # worker, epoch, sequence


# Stands for the digest of the request in leases that were registered again: nobody knows the request any more.
REGISTERED = ""


class NewLease(msgspec.Struct, frozen=True):
    """A lease about to be added."""

    name: Name
    ordinal: int
    digest: str
    grant: SliceGrant
    use_until_ns: int

    @property
    def key(self) -> tuple[Name, int]:
        """What names the lease before it has an id."""
        return (self.name, self.ordinal)


class Lost(msgspec.Struct, frozen=True):
    """A lease whose grant this ledger lost, as its worker wrote it down; to be registered again."""

    lease_id: int
    name: Name
    ordinal: int
    bucket_id: str
    amount: int
    use_until_ns: int


class Before(msgspec.Struct, frozen=True):
    """What was granted for a request that comes again; the time to use it has shrunk meanwhile."""

    digest: str
    leases: tuple[Lease, ...]


class Due(msgspec.Struct, frozen=True):
    """A lease to reclaim, locked; `left` is what the ledger still has on it."""

    lease_id: int
    bucket_id: str
    legal_entity_id: str
    unit: str
    left: int


class End(msgspec.Struct, frozen=True):
    """The end of a lease. `remainder` went back to the bucket; `claimed` is what its worker said was left."""

    lease_id: int
    how: Literal["closed", "reclaimed"]
    remainder: int
    claimed: int | None
    posting_id: int | None


class Part(msgspec.Struct, frozen=True):
    """A part of a lease that went back to the bucket while the lease stays open; `claimed` is what its worker said."""

    lease_id: int
    amount: int
    claimed: int
    posting_id: int | None


async def granted_before(conn: Connection, names: set[Name], now_ns: int) -> dict[Name, Before]:
    """Leases of these requests that exist already, by request."""
    cursor = await conn.execute(
        f"""
        SELECT l.worker, l.epoch, l.sequence, l.request_digest, l.id, l.amount, l.use_until_ns, l.linger, {TERMS}
        FROM lease l
        JOIN unnest(%s::text[], %s::text[], %s::bigint[]) AS n (worker, epoch, sequence) USING (worker, epoch, sequence)
        JOIN bucket b ON b.id = l.bucket_id
        ORDER BY l.id
        """,  # noqa: S608 - only the column list is put in
        (texts(name[0] for name in names), texts(name[1] for name in names), numbers(name[2] for name in names)),
    )
    found: dict[Name, Before] = {}
    for row in await cursor.fetchall():
        name = (row[0], row[1], row[2])
        use_for_ns = max(0, row[6] - now_ns)
        lease = Lease(row[4], terms(row[8:]), int(row[5]), use_for_ns, row[7])
        earlier = found[name].leases if name in found else ()
        found[name] = Before(row[3], (*earlier, lease))
    return found


async def lock_held(conn: Connection, billing_account_ids: set[str], now_ns: int) -> dict[str, list[Held]]:
    """Valid buckets of these billing accounts with their balances, their available accounts locked.

    Where a posting is waited for, what is with workers is still as it was before that: more, never less.
    """
    cursor = await conn.execute(
        f"""
        WITH held AS MATERIALIZED (
            SELECT {TERMS}, a.balance
            FROM bucket b
            JOIN account a ON a.code = 'bucket/' || b.id || '/available' AND a.unit = b.unit
                AND a.legal_entity_id = b.legal_entity_id
            WHERE b.billing_account_id = ANY(%s) AND b.valid_from_ns <= %s AND b.valid_to_ns > %s
            ORDER BY a.id FOR NO KEY UPDATE OF a)
        SELECT *, (SELECT coalesce(sum(a.balance), 0) FROM lease l JOIN account a ON a.code = 'lease/' || l.id
            WHERE l.open AND l.bucket_id = held.id) FROM held
        """,  # noqa: S608 - only the column list is put in
        (list(billing_account_ids), now_ns, now_ns),
    )
    held: dict[str, list[Held]] = defaultdict(list)
    for row in await cursor.fetchall():
        bucket = terms(row)
        held[bucket.billing_account_id].append(Held(bucket, int(row[10]), int(row[11])))
    return held


async def insert_leases(conn: Connection, new: list[NewLease], now_ns: int) -> dict[tuple[Name, int], int]:
    """Add leases; gives their ids."""
    if not new:
        return {}
    cursor = await conn.execute(
        """
        INSERT INTO lease (worker, epoch, sequence, ordinal, request_digest, bucket_id, amount, use_until_ns, linger,
            granted_at_ns)
        SELECT worker, epoch, sequence, ordinal, request_digest, bucket_id, amount, use_until_ns, linger, %s
        FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::integer[], %s::text[], %s::text[], %s::numeric[],
            %s::bigint[], %s::boolean[]) WITH ORDINALITY AS l (worker, epoch, sequence, ordinal, request_digest,
            bucket_id, amount, use_until_ns, linger, place)
        ORDER BY place
        RETURNING worker, epoch, sequence, ordinal, id
        """,
        (
            now_ns,
            texts(lease.name[0] for lease in new),
            texts(lease.name[1] for lease in new),
            numbers(lease.name[2] for lease in new),
            numbers(lease.ordinal for lease in new),
            texts(lease.digest for lease in new),
            texts(lease.grant.bucket.id for lease in new),
            numbers(lease.grant.amount for lease in new),
            numbers(lease.use_until_ns for lease in new),
            flags(lease.grant.linger for lease in new),
        ),
    )
    return {((row[0], row[1], row[2]), row[3]): row[4] for row in await cursor.fetchall()}


async def find_lost(conn: Connection, lease_ids: Collection[int]) -> frozenset[int]:
    """Which of these leases, all taken by workers, the ledger does not know.

    Ids that it has yet to give are not among them: such a lease would be granted a second time.
    """
    cursor = await conn.execute(
        """
        SELECT t.id FROM unnest(%s::bigint[]) AS t (id)
        WHERE t.id <= pg_sequence_last_value(pg_get_serial_sequence('lease', 'id')::regclass)
            AND NOT EXISTS (SELECT FROM lease l WHERE l.id = t.id)
        """,
        (numbers(lease_ids),),
    )
    return frozenset([int(row[0]) for row in await cursor.fetchall()])


async def register(conn: Connection, lost: Sequence[Lost], now_ns: int) -> None:
    """Add leases again, under the ids they had."""
    if not lost:
        return
    await conn.execute(
        """
        INSERT INTO lease (id, worker, epoch, sequence, ordinal, request_digest, bucket_id, amount, use_until_ns,
            linger, granted_at_ns)
        OVERRIDING SYSTEM VALUE
        SELECT id, worker, epoch, sequence, ordinal, %s, bucket_id, amount, use_until_ns, false, %s
        FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::integer[], %s::text[], %s::numeric[],
            %s::bigint[]) AS l (id, worker, epoch, sequence, ordinal, bucket_id, amount, use_until_ns)
        """,
        (
            REGISTERED,
            now_ns,
            numbers(lease.lease_id for lease in lost),
            texts(lease.name[0] for lease in lost),
            texts(lease.name[1] for lease in lost),
            numbers(lease.name[2] for lease in lost),
            numbers(lease.ordinal for lease in lost),
            texts(lease.bucket_id for lease in lost),
            numbers(lease.amount for lease in lost),
            numbers(lease.use_until_ns for lease in lost),
        ),
    )


async def lock_due(
    conn: Connection, silent_since_ns: int, shipping: Collection[str], final: Collection[str], limit: int
) -> list[Due]:
    """Open leases not to be used since then, but for epochs that are `shipping`, and all of epochs that are `final`.

    Their buckets are locked first, as metering does.
    """
    is_due = "open AND ((use_until_ns <= %(since)s AND NOT epoch = ANY(%(shipping)s)) OR epoch = ANY(%(final)s))"
    values = {"since": silent_since_ns, "shipping": list(shipping), "final": list(final), "limit": limit}
    cursor = await conn.execute(
        f"""
        SELECT id FROM bucket WHERE id IN (
            SELECT bucket_id FROM lease WHERE {is_due} ORDER BY use_until_ns, id LIMIT %(limit)s)
        ORDER BY id FOR NO KEY UPDATE
        """.encode(),  # noqa: S608 - a condition of ours
        values,
    )
    buckets = [str(row[0]) for row in await cursor.fetchall()]
    cursor = await conn.execute(
        f"""
        SELECT l.id, l.bucket_id, b.legal_entity_id, b.unit, coalesce(a.balance, 0)
        FROM (SELECT * FROM lease WHERE {is_due}) l
        JOIN bucket b ON b.id = l.bucket_id
        LEFT JOIN account a ON a.code = 'lease/' || l.id AND a.unit = b.unit AND a.legal_entity_id = b.legal_entity_id
        WHERE l.bucket_id = ANY(%(buckets)s)
        ORDER BY l.use_until_ns, l.id LIMIT %(limit)s
        """.encode(),  # noqa: S608
        values | {"buckets": buckets},
    )
    return [Due(row[0], row[1], row[2], row[3], int(row[4])) for row in await cursor.fetchall()]


async def end_leases(conn: Connection, ends: list[End], now_ns: int) -> None:
    """Add the ends of leases and close the rows; the bucket rows are locked by the caller."""
    if not ends:
        return
    await conn.execute(
        """
        INSERT INTO lease_end (lease_id, how, remainder, claimed, posting_id, ended_at_ns)
        SELECT e.*, %s FROM unnest(%s::bigint[], %s::text[], %s::numeric[], %s::numeric[], %s::bigint[]) AS e
        """,
        (
            now_ns,
            numbers(end.lease_id for end in ends),
            texts(end.how for end in ends),
            numbers(end.remainder for end in ends),
            numbers(end.claimed for end in ends),
            numbers(end.posting_id for end in ends),
        ),
    )
    await conn.execute(
        "UPDATE lease SET open = false WHERE id = ANY(%s::bigint[])", (numbers(end.lease_id for end in ends),)
    )


async def return_parts(conn: Connection, parts: list[Part], now_ns: int) -> None:
    """Add parts that went back; the bucket rows are locked by the caller."""
    if not parts:
        return
    await conn.execute(
        """
        INSERT INTO lease_return (lease_id, amount, claimed, posting_id, returned_at_ns)
        SELECT p.*, %s FROM unnest(%s::bigint[], %s::numeric[], %s::numeric[], %s::bigint[]) AS p
        """,
        (
            now_ns,
            numbers(part.lease_id for part in parts),
            numbers(part.amount for part in parts),
            numbers(part.claimed for part in parts),
            numbers(part.posting_id for part in parts),
        ),
    )


async def open_of_worker(conn: Connection, worker: str) -> Counter[str]:
    """What is on the open leases of a worker, all its processes together, by unit."""
    cursor = await conn.execute(
        """
        SELECT b.unit, sum(a.balance) FROM lease l
        JOIN bucket b ON b.id = l.bucket_id
        JOIN account a ON a.code = 'lease/' || l.id AND a.unit = b.unit AND a.legal_entity_id = b.legal_entity_id
        WHERE l.open AND l.worker = %s GROUP BY b.unit
        """,
        (worker,),
    )
    return Counter({str(unit): int(amount) for unit, amount in await cursor.fetchall()})
