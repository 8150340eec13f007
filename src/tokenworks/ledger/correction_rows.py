"""Rows of corrections: what they look at, locked, and the rows that keep them. What they do is `core.corrections`."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tokenworks.core.corrections import BucketBooks, Decision, Head, Line, Replacement
from tokenworks.ledger.buckets import TERMS, terms
from tokenworks.ledger.seal import Connection

_HEAD = "c.id, c.kind, c.legal_entity_id, c.billing_account_id, c.about, c.reason, c.reference, c.used_at_ns, c.at_ns"
_LINE = (
    *("bucket_id", "unit", "amount", "currency", "revenue", "net", "tax", "due", "charge", "replacement_id"),
)  # fmt: skip
_AMOUNTS = ("amount", "revenue", "net", "tax", "due")


class Correction(msgspec.Struct, frozen=True):
    """A correction as it was made."""

    head: Head
    posting_id: int
    lines: tuple[Line, ...]

    @property
    def id(self) -> str:
        """The correction's id."""
        return self.head.id


async def lock_books(conn: Connection, bucket_ids: Iterable[str]) -> dict[str, BucketBooks]:
    """Buckets with their balances. Their rows and what is available stay locked until the transaction ends."""
    ids = sorted(set(bucket_ids))
    # What is available is locked before accounts with lower ids: a grant between two of these locks would close a
    # circle with a posting. So none is under way; the head comes before the buckets, as for those that reclaim.
    await conn.execute("SELECT 1 FROM seal_stream WHERE stream = 'lease' FOR NO KEY UPDATE")
    await conn.execute("SELECT id FROM bucket WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", (ids,))
    # Grants take from available without the bucket's lock; whoever waits for this lock reads what they have left.
    await conn.execute(
        """SELECT a.id FROM account a JOIN bucket b ON a.code = 'bucket/' || b.id || '/available'
           WHERE b.id = ANY(%s) ORDER BY a.id FOR NO KEY UPDATE OF a""",
        (ids,),
    )
    cursor = await conn.execute(
        f"""
        SELECT {TERMS}, b.currency, b.payer, b.kind, b.granted, b.net, b.tax,
            {", ".join(_balance(part) for part in ("available", "spent", "expired", "withdrawn"))},
            (SELECT coalesce(sum(a.balance), 0) FROM lease l JOIN account a ON a.code = 'lease/' || l.id
             WHERE l.open AND l.bucket_id = b.id)
        FROM bucket b WHERE b.id = ANY(%s)
        """.encode(),  # noqa: S608 - only column lists are put in
        (ids,),
    )
    return {str(row[0]): _books(row) for row in await cursor.fetchall()}


async def balance_of(conn: Connection, legal_entity_id: str, code: str, currency: str) -> int:
    """The balance of an account of receivables, payables, cost or refunds; zero if it does not exist.

    Only transactions of the shop's stream make them smaller, and this is one: no lock is needed, and none is taken
    that metering, which makes them larger, could be waiting for.
    """
    cursor = await conn.execute(
        "SELECT balance FROM account WHERE (legal_entity_id, code, unit) = (%s, %s, %s)",
        (legal_entity_id, code, currency),
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def refunded(conn: Connection, request_id: str) -> dict[int, int]:
    """What of a record's charges was refunded before, by the charge's place."""
    cursor = await conn.execute(
        """SELECT l.charge, sum(l.amount) FROM correction c JOIN correction_line l ON l.correction_id = c.id
           WHERE c.kind = 'usage_refunded' AND c.about = %s GROUP BY l.charge""",
        (request_id,),
    )
    return {int(row[0]): int(row[1]) for row in await cursor.fetchall()}


async def charged_back(conn: Connection, order_id: str) -> bool:
    """Whether the payer of this order has taken the price back."""
    cursor = await conn.execute(
        "SELECT 1 FROM correction WHERE kind = 'payment_charged_back' AND about = %s", (order_id,)
    )
    return await cursor.fetchone() is not None


async def family(conn: Connection, order_id: str) -> list[str]:
    """The order's bucket and all that replaced it, oldest first."""
    cursor = await conn.execute("SELECT id FROM bucket WHERE order_id = %s ORDER BY sold_at_ns, id", (order_id,))
    return [str(row[0]) for row in await cursor.fetchall()]


async def insert(conn: Connection, head: Head, decision: Decision, posting_id: int) -> None:
    """Keep the correction, after the buckets that it opened."""
    await conn.execute(
        """INSERT INTO correction (id, kind, legal_entity_id, billing_account_id, about, reason, reference, used_at_ns,
               at_ns, posting_id)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (*msgspec.structs.astuple(head), posting_id),
    )
    async with conn.cursor() as cursor:
        await cursor.executemany(
            f"""INSERT INTO correction_line (correction_id, ordinal, {", ".join(_LINE)})
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""".encode(),  # noqa: S608 - columns of ours
            [(head.id, place, *(getattr(line, name) for name in _LINE)) for place, line in enumerate(decision.lines)],
        )


async def open_replacement(conn: Connection, new: Replacement, at_ns: int) -> None:
    """Add the dated bucket; what the posting does not say of it is as in the bucket that it replaces."""
    await conn.execute(
        """
        INSERT INTO bucket (id, billing_account_id, legal_entity_id, unit, tariff_id, valid_from_ns, valid_to_ns,
            priority, tier, models, granted, net, tax, currency, kind, payer, offer_id, order_id, sold_at_ns)
        SELECT %(id)s, billing_account_id, legal_entity_id, unit, tariff_id, %(from_ns)s, %(to_ns)s,
            priority, tier, models, %(granted)s, %(net)s, %(tax)s, currency, kind, payer, offer_id, order_id, %(at_ns)s
        FROM bucket WHERE id = %(replaces)s
        """,
        {
            "id": new.bucket.id,
            "from_ns": new.bucket.valid_from_ns,
            "to_ns": new.bucket.valid_to_ns,
            "granted": new.granted,
            "net": new.net,
            "tax": new.tax,
            "at_ns": at_ns,
            "replaces": new.replaces,
        },
    )


async def find(conn: Connection, correction_ids: Sequence[str]) -> list[Correction]:
    """Corrections with their lines, newest first."""
    cursor = await conn.execute(
        f"""SELECT l.correction_id, {", ".join(f"l.{name}" for name in _LINE)} FROM correction_line l
            WHERE l.correction_id = ANY(%s) ORDER BY l.correction_id, l.ordinal""".encode(),  # noqa: S608
        (list(correction_ids),),
    )
    lines: dict[str, list[Line]] = {}
    for row in await cursor.fetchall():
        lines.setdefault(row[0], []).append(_line(row[1:]))
    cursor = await conn.execute(
        f"SELECT {_HEAD}, c.posting_id FROM correction c WHERE c.id = ANY(%s) ORDER BY c.id DESC".encode(),  # noqa: S608
        (list(correction_ids),),
    )
    heads = [(_head(row), int(row[9])) for row in await cursor.fetchall()]
    return [Correction(head, posting_id, tuple(lines[head.id])) for head, posting_id in heads]


async def listed(conn: Connection, billing_account_id: str | None, limit: int, before: str) -> list[Correction]:
    """Corrections, newest first; of one billing account or of everybody. `before` is the last id already seen."""
    cursor = await conn.execute(
        """SELECT id FROM correction
           WHERE (%(account)s::text IS NULL OR billing_account_id = %(account)s)
               AND (%(before)s = '' OR id < %(before)s)
           ORDER BY id DESC LIMIT %(limit)s""",
        {"account": billing_account_id, "before": before, "limit": limit},
    )
    return await find(conn, [row[0] for row in await cursor.fetchall()])


def _balance(part: str) -> str:
    return f"""coalesce((SELECT a.balance FROM account a WHERE a.code = 'bucket/' || b.id || '/{part}'
        AND a.unit = b.unit AND a.legal_entity_id = b.legal_entity_id), 0)"""  # noqa: S608


def _books(row: tuple[Any, ...]) -> BucketBooks:
    granted, net, tax, available, spent, expired, withdrawn, leased = (int(amount) for amount in row[13:21])
    return BucketBooks(
        bucket=terms(row),
        currency=row[10],
        payer=row[11],
        kind=row[12],
        granted=granted,
        net=net,
        tax=tax,
        available=available,
        leased=leased,
        spent=spent,
        expired=expired,
        withdrawn=withdrawn,
    )


def _head(row: tuple[Any, ...]) -> Head:
    return Head(**dict(zip(Head.__struct_fields__, row[:9], strict=True)))


def _line(row: tuple[Any, ...]) -> Line:
    values: dict[str, Any] = dict(zip(_LINE, row, strict=True))
    values.update({name: int(values[name]) for name in _AMOUNTS})
    return Line(**values)
