"""Balances as they were at a moment, rebuilt from the transfers: wallets and ledger accounts.

By posting time a balance is what was in the books then. By the time of use it is what belongs there: what was posted
later but happened before counts, and what happened after does not. Whole hours come from `account_hour`, the hour of
the moment and whatever that table does not cover yet from the transfers themselves.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from tokenworks.core.bucket import Bucket
from tokenworks.core.sales import owed, still_sold
from tokenworks.ledger.balance import AccountBalance, BucketBalance
from tokenworks.ledger.buckets import TERMS, terms
from tokenworks.ledger.hours import HOUR_NS
from tokenworks.ledger.seal import Connection

_PARTS = ("issued", "available", "spent", "expired", "withdrawn")


class Moment(msgspec.Struct, frozen=True):
    """A time, itself included; `by` what is posted or what is used until then."""

    at_ns: int
    by: Literal["posted", "used"] = "posted"


class _Sold(msgspec.Struct, frozen=True):
    """A bucket's row, without balances."""

    bucket: Bucket
    offer_id: str
    order_id: str
    sold_at_ns: int
    net: int
    tax: int
    currency: str
    kind: Literal["prepaid", "credit"]


async def accounts(
    conn: Connection, prefix: str, moment: Moment, legal_entity_id: str | None = None
) -> list[AccountBalance]:
    """Ledger accounts whose code starts with `prefix`, by code, with their balances at the moment if not zero."""
    cursor = await conn.execute(
        """SELECT id, legal_entity_id, code, unit, debit_normal FROM account
           WHERE starts_with(code, %(prefix)s) AND (%(entity)s::text IS NULL OR legal_entity_id = %(entity)s)
           ORDER BY code, unit, legal_entity_id""",
        {"prefix": prefix, "entity": legal_entity_id},
    )
    rows = await cursor.fetchall()
    sums = await _debits(conn, moment, [row[0] for row in rows] if prefix or legal_entity_id else None)
    return [
        AccountBalance(row[1], row[2], row[3], sums[row[0]] if row[4] else -sums[row[0]], row[4])
        for row in rows
        if sums.get(row[0])
    ]


async def wallet(conn: Connection, billing_account_id: str, moment: Moment) -> list[BucketBalance]:
    """All buckets that a billing account had at the moment, in draw order."""
    cursor = await conn.execute(
        f"""SELECT {TERMS}, b.offer_id, b.order_id, b.sold_at_ns, b.net, b.tax, b.currency, b.kind FROM bucket b
            WHERE b.billing_account_id = %s AND b.sold_at_ns <= %s
            ORDER BY b.priority, b.valid_to_ns, b.id""".encode(),  # noqa: S608 - only a column list is put in
        (billing_account_id, moment.at_ns),
    )
    buckets = [_sold(row) for row in await cursor.fetchall()]
    found = await _balances(conn, moment, (code for sold in buckets for code in _codes(sold.bucket.id)))
    return [_held(sold, found) for sold in buckets]


def _codes(bucket_id: str) -> list[str]:
    return [*(f"bucket/{bucket_id}/{part}" for part in _PARTS), f"contract_liability/{bucket_id}"]


async def _balances(conn: Connection, moment: Moment, codes: Iterable[str]) -> dict[str, int]:
    """Balances by code of accounts that have one unit and legal entity, as those of buckets have."""
    cursor = await conn.execute("SELECT id, code, debit_normal FROM account WHERE code = ANY(%s)", (list(codes),))
    rows = await cursor.fetchall()
    sums = await _debits(conn, moment, [row[0] for row in rows])
    return {row[1]: sums.get(row[0], 0) if row[2] else -sums.get(row[0], 0) for row in rows}


def _sold(row: tuple[Any, ...]) -> _Sold:
    fields: tuple[Any, ...] = (terms(row), *row[10:13], int(row[13]), int(row[14]), *row[15:])
    return _Sold(*fields)


def _held(sold: _Sold, found: dict[str, int]) -> BucketBalance:
    name = sold.bucket.id
    issued, available, spent, expired, withdrawn = (found.get(f"bucket/{name}/{part}", 0) for part in _PARTS)
    liability = found.get(f"contract_liability/{name}", 0)
    if sold.kind == "credit":
        recognised = owed(sold.net, sold.tax, spent, issued)[0] if issued else 0
    else:
        recognised = still_sold(sold.net, withdrawn, issued) - liability if issued else 0
    return BucketBalance(
        bucket=sold.bucket,
        offer_id=sold.offer_id,
        order_id=sold.order_id,
        sold_at_ns=sold.sold_at_ns,
        issued=issued,
        available=available,
        # Whatever leaves a lease comes to one of the others, so it need not be looked for lease by lease.
        leased=issued - available - spent - expired - withdrawn,
        spent=spent,
        expired=expired,
        withdrawn=withdrawn,
        net=sold.net,
        tax=sold.tax,
        recognised=recognised,
        currency=sold.currency,
        kind=sold.kind,
    )


async def _debits(conn: Connection, moment: Moment, account_ids: list[int] | None) -> dict[int, int]:
    """Debits less credits until the moment, by account; of these accounts, or of all."""
    values = {"ids": account_ids, "at": moment.at_ns, "from": moment.at_ns - moment.at_ns % HOUR_NS, "hour": HOUR_NS}
    sums: defaultdict[int, int] = defaultdict(int)
    queries = [_WHOLE_HOURS, _moved(_THIS_HOUR), _moved(_UNCOVERED)]
    if moment.by == "used":
        queries += [_moved(_POSTED_SOON_AFTER), _moved(_POSTED_LATE)]
    for query in queries:
        for account_id, amount in await (await conn.execute(query.encode(), values)).fetchall():
            sums[int(account_id)] += int(amount)
    return sums


_WHOLE_HOURS = """
    SELECT account_id, sum(debit - credit) FROM account_hour
    WHERE hour_ns < %(from)s AND (%(ids)s::bigint[] IS NULL OR account_id = ANY(%(ids)s::bigint[])) GROUP BY account_id
"""

# Postings, and whether what they moved counts or is to be taken off again.
_THIS_HOUR = "SELECT id, 1 AS sign FROM posting WHERE at_ns >= %(from)s AND at_ns <= %(at)s"
_UNCOVERED = """
    SELECT p.id, 1 AS sign FROM seal_stream s LEFT JOIN hours_cursor c USING (stream)
    JOIN posting p ON p.stream = s.stream AND p.seq > coalesce(c.seq, 0) WHERE p.at_ns < %(from)s
"""
# Between use and posting there is rarely more than a moment. The rest is found by an index of its own.
_POSTED_SOON_AFTER = """
    SELECT id, 1 AS sign FROM posting WHERE at_ns > %(at)s AND at_ns <= %(at)s + %(hour)s AND used_at_ns <= %(at)s
        AND abs(at_ns - used_at_ns) <= 3600000000000
    UNION ALL
    SELECT id, -1 FROM posting WHERE at_ns > %(at)s - %(hour)s AND at_ns <= %(at)s AND used_at_ns > %(at)s
        AND abs(at_ns - used_at_ns) <= 3600000000000
"""
_POSTED_LATE = """
    SELECT id, CASE WHEN at_ns > %(at)s THEN 1 ELSE -1 END AS sign FROM posting
    WHERE abs(at_ns - used_at_ns) > 3600000000000 AND (at_ns > %(at)s) <> (used_at_ns > %(at)s)
"""


def _moved(postings: str) -> str:
    """What these postings moved, by account; their transfers are read as a range of ids, as they lie on disk."""
    return f"""
        WITH posted AS MATERIALIZED ({postings}),
        moved AS MATERIALIZED (
            SELECT p.sign * t.amount AS amount, t.debit_account_id, t.credit_account_id
            FROM transfer t JOIN posted p ON p.id = t.posting_id
            WHERE t.posting_id BETWEEN (SELECT min(id) FROM posted) AND (SELECT max(id) FROM posted))
        SELECT account_id, sum(amount) FROM (
            SELECT debit_account_id AS account_id, amount FROM moved
            UNION ALL
            SELECT credit_account_id, -amount FROM moved) legs
        WHERE %(ids)s::bigint[] IS NULL OR account_id = ANY(%(ids)s::bigint[]) GROUP BY account_id
    """  # noqa: S608 - queries of ours
