"""Buckets in the ledger: selling one, granting one on credit, and expiring what is left when its validity is over.

Terms are `core.bucket.Bucket`; here they meet the amounts, the price and the order. Who may buy what, and who gets
credit, is the shop's affair.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from tokenworks.base.database import Pool
from tokenworks.core import postings
from tokenworks.core.bucket import Bucket
from tokenworks.core.postings import Posting
from tokenworks.core.sales import recognised
from tokenworks.ledger import accounts
from tokenworks.ledger.faults import EventConflict, LedgerFault
from tokenworks.ledger.seal import Connection
from tokenworks.ledger.store import post_all, transaction

STREAM = "ledger"
EXPIRIES_AT_ONCE = 500

TERMS = """
    b.id, b.billing_account_id, b.legal_entity_id, b.unit, b.tariff_id, b.valid_from_ns, b.valid_to_ns, b.priority,
    b.tier, b.models
"""

_INSERT = """
    INSERT INTO bucket (id, billing_account_id, legal_entity_id, unit, tariff_id, valid_from_ns, valid_to_ns,
        priority, tier, models, granted, net, tax, currency, kind, payer, offer_id, order_id, sold_at_ns)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket with its amount and price: `net` and `tax` of all that is `granted`, in nano-units of `currency`.

    `payer` is who owes the price, for example `carrier/sandbox`. `order_id` is the order it was bought by, or the
    credit agreement that it is one period of.
    """

    bucket: Bucket
    granted: int
    net: int
    tax: int
    currency: str
    payer: str
    offer_id: str
    order_id: str


class _Due(msgspec.Struct, frozen=True):
    """An expired bucket that still has something available."""

    id: str
    legal_entity_id: str
    unit: str
    currency: str
    kind: str
    granted: int
    net: int
    consumed: int
    available: int
    serial: int


def terms(row: tuple[Any, ...]) -> Bucket:
    """A bucket's terms from the columns of `TERMS`."""
    return Bucket(*row[:9], models=tuple(row[9]))


async def sell(
    conn: Connection,
    *,
    order_id: str,
    bucket: Bucket,
    granted: int,
    payer: str,
    currency: str,
    net: int,
    tax: int,
    offer_id: str,
    at_ns: int,
) -> int:
    """Add a paid bucket and post the sale; gives the posting's id. The same order again changes nothing.

    `payer` is who owes the price, for example `carrier/sandbox`; `net` and `tax` are in nano-units of `currency`.
    """
    priced = Priced(
        bucket=bucket,
        granted=granted,
        net=net,
        tax=tax,
        currency=currency,
        payer=payer,
        offer_id=offer_id,
        order_id=order_id,
    )
    return (await sell_all(conn, [priced], at_ns))[0]


async def sell_all(conn: Connection, sold: Sequence[Priced], at_ns: int) -> list[int]:
    """Sell several buckets as `sell` does, with a number of round trips that does not grow with theirs."""
    return await _add_all(conn, "prepaid", sold, [_sale(each, at_ns) for each in sold], at_ns)


def _sale(priced: Priced, at_ns: int) -> Posting:
    return postings.package_sold(
        priced.order_id,
        priced.bucket.legal_entity_id,
        at_ns,
        bucket_id=priced.bucket.id,
        unit=priced.bucket.unit,
        granted=priced.granted,
        payer=priced.payer,
        currency=priced.currency,
        net=priced.net,
        tax=priced.tax,
    )


async def grant_credit(
    conn: Connection,
    *,
    agreement_id: str,
    bucket: Bucket,
    granted: int,
    currency: str,
    net: int,
    tax: int,
    offer_id: str,
    at_ns: int,
) -> int:
    """Add a credit bucket, one period of an agreement, and post its limit; gives the posting's id.

    `net` and `tax` are what the whole limit costs once it is spent. The same bucket again changes nothing.
    """
    grant = postings.credit_granted(
        bucket.id, bucket.legal_entity_id, at_ns, agreement_id=agreement_id, unit=bucket.unit, granted=granted
    )
    priced = Priced(
        bucket=bucket,
        granted=granted,
        net=net,
        tax=tax,
        currency=currency,
        payer=postings.credit_payer(agreement_id),
        offer_id=offer_id,
        order_id=agreement_id,
    )
    return (await _add_all(conn, "credit", [priced], [grant], at_ns))[0]


async def expire_due(pool: Pool, now_ns: int) -> int:
    """Expire what is available in buckets past their validity; gives how many buckets.

    What is still leased then is expired when it has come back, under the bucket's next serial. A named number of
    buckets is taken at once; call again while that many come.
    """
    async with transaction(pool, STREAM, now_ns) as conn:
        due = await _lock_due(conn, now_ns)
        await post_all(conn, [_expiry(bucket, now_ns) for bucket in due], now_ns)
        return len(due)


def _expiry(due: _Due, now_ns: int) -> Posting:
    earned = 0
    if due.kind == "prepaid":
        before = recognised(due.net, due.consumed, due.granted)
        earned = recognised(due.net, due.consumed + due.available, due.granted) - before
    return postings.bucket_expired(
        due.id,
        due.legal_entity_id,
        now_ns,
        unit=due.unit,
        amount=due.available,
        currency=due.currency,
        earned=earned,
        serial=due.serial,
    )


async def _lock_due(conn: Connection, now_ns: int) -> list[_Due]:
    cursor = await conn.execute(
        """
        SELECT b.id FROM bucket b
        JOIN account a ON a.code = 'bucket/' || b.id || '/available' AND a.unit = b.unit
            AND a.legal_entity_id = b.legal_entity_id
        WHERE b.valid_to_ns <= %s AND a.balance > 0
        ORDER BY b.id LIMIT %s
        FOR NO KEY UPDATE OF b
        """,
        (now_ns, EXPIRIES_AT_ONCE),
    )
    ids = [str(row[0]) for row in await cursor.fetchall()]
    # A lease granted just before the end may still be committing: the row lock waits for it and gives what is left.
    await conn.execute(
        """
        SELECT a.id FROM account a JOIN bucket b ON a.code = 'bucket/' || b.id || '/available'
        WHERE b.id = ANY(%s) ORDER BY a.id FOR NO KEY UPDATE OF a
        """,
        (ids,),
    )
    cursor = await conn.execute(
        """
        SELECT b.id, b.legal_entity_id, b.unit, b.currency, b.kind, b.granted, b.net,
            coalesce(sum(a.balance) FILTER (WHERE NOT a.code LIKE '%%/available'), 0) AS consumed,
            coalesce(sum(a.balance) FILTER (WHERE a.code LIKE '%%/available'), 0) AS available,
            (SELECT count(*) FROM posting p
             WHERE p.event_id >= 'expiry/' || b.id || '/' AND p.event_id < 'expiry/' || b.id || '0') AS serial
        FROM bucket b
        JOIN account a ON a.code IN ('bucket/' || b.id || '/available', 'bucket/' || b.id || '/spent',
            'bucket/' || b.id || '/expired') AND a.unit = b.unit AND a.legal_entity_id = b.legal_entity_id
        WHERE b.id = ANY(%s) GROUP BY b.id ORDER BY b.id
        """,
        (ids,),
    )
    found = [_Due(*row[:5], *(int(number) for number in row[5:])) for row in await cursor.fetchall()]
    return [bucket for bucket in found if bucket.available > 0]


async def _add_all(
    conn: Connection,
    kind: Literal["prepaid", "credit"],
    priced: Sequence[Priced],
    beginnings: Sequence[Posting],
    at_ns: int,
) -> list[int]:
    """Post what each bucket begins with and add its row, or find that both were done before."""
    begun = await post_all(conn, beginnings, at_ns)
    added = [each for each, done in zip(priced, begun, strict=True) if done.fresh]
    for each, beginning, done in zip(priced, beginnings, begun, strict=True):
        if not done.fresh:
            await _check_same(conn, beginning, each.bucket)
    if added:
        await _check_sellers(conn, [each.bucket for each in added])
        await _open_consumed(conn, [each.bucket for each in added])
        async with conn.cursor() as cursor:
            await cursor.executemany(_INSERT, [_row(kind, each, at_ns) for each in added])
    return [done.id for done in begun]


def _row(kind: Literal["prepaid", "credit"], priced: Priced, at_ns: int) -> tuple[object, ...]:
    bucket = priced.bucket
    return (
        *(bucket.id, bucket.billing_account_id, bucket.legal_entity_id, bucket.unit, bucket.tariff_id),
        *(bucket.valid_from_ns, bucket.valid_to_ns, bucket.priority, bucket.tier, list(bucket.models)),
        *(priced.granted, priced.net, priced.tax, priced.currency, kind, priced.payer, priced.offer_id),
        *(priced.order_id, at_ns),
    )


async def _open_consumed(conn: Connection, added: Sequence[Bucket]) -> None:
    """Metering asks for both of every bucket: an account that is there is found by its id."""
    consumed = (postings.spent, postings.expired)
    keys = [(bucket.legal_entity_id, code(bucket.id), bucket.unit) for bucket in added for code in consumed]
    await accounts.open_all(conn, keys)


async def _check_sellers(conn: Connection, added: Sequence[Bucket]) -> None:
    """A billing account is served by one legal entity: a request never finds a bucket of another one in its wallet."""
    sellers: dict[str, str] = {}
    for bucket in added:
        if sellers.setdefault(bucket.billing_account_id, bucket.legal_entity_id) != bucket.legal_entity_id:
            raise _of_another(bucket.billing_account_id, sellers[bucket.billing_account_id], bucket.legal_entity_id)
    cursor = await conn.execute(
        """SELECT s.account, b.legal_entity_id, s.seller FROM unnest(%s::text[], %s::text[]) AS s (account, seller)
           JOIN bucket b ON b.billing_account_id = s.account AND b.legal_entity_id <> s.seller LIMIT 1""",
        (list(sellers), list(sellers.values())),
    )
    other = await cursor.fetchone()
    if other is not None:
        raise _of_another(*other)


def _of_another(account: str, seller: str, another: str) -> LedgerFault:
    return LedgerFault(f"{account} is of {seller}: it gets no bucket of {another}")


async def _check_same(conn: Connection, beginning: Posting, bucket: Bucket) -> None:
    """A repeated order must name the same terms, which the posting itself does not hold."""
    cursor = await conn.execute(f"SELECT {TERMS} FROM bucket b WHERE b.id = %s", (bucket.id,))  # noqa: S608
    row = await cursor.fetchone()
    if row is None:
        raise LedgerFault(f"{beginning.event_id} is posted but its bucket {bucket.id} is missing")
    if terms(row) != bucket:
        raise EventConflict(beginning.event_id)
