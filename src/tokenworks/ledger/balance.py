"""Balances for people: the wallet of a billing account bucket by bucket, and ledger accounts by code."""

from typing import Any, Literal

import msgspec

from tokenworks.core.bucket import Bucket
from tokenworks.core.sales import owed, still_sold
from tokenworks.ledger.buckets import TERMS, terms
from tokenworks.ledger.seal import Connection


class BucketBalance(msgspec.Struct, frozen=True):
    """A bucket with its two books: amounts in the bucket's unit, `net` and `recognised` in nano-units of `currency`.

    issued = available + leased + spent + expired + withdrawn. `net` and `tax` are as sold; `recognised` is the revenue
    of what was spent or expired. Of a credit bucket `net` and `tax` are of the whole limit, and `recognised` is what
    its payer owes or owed for what was spent, less the tax on it.
    """

    bucket: Bucket
    offer_id: str
    order_id: str
    sold_at_ns: int
    issued: int
    available: int
    leased: int
    spent: int
    expired: int
    withdrawn: int
    net: int
    tax: int
    recognised: int
    currency: str
    kind: Literal["prepaid", "credit"]


class AccountBalance(msgspec.Struct, frozen=True):
    """A ledger account; the balance is on its normal side."""

    legal_entity_id: str
    code: str
    unit: str
    balance: int
    debit_normal: bool


async def wallet(conn: Connection, billing_account_id: str) -> list[BucketBalance]:
    """All buckets of a billing account, past ones too, in draw order."""
    cursor = await conn.execute(
        f"""
        SELECT {TERMS}, b.offer_id, b.order_id, b.sold_at_ns,
            {_balance("issued")}, {_balance("available")},
            (SELECT coalesce(sum(a.balance), 0) FROM lease l JOIN account a ON a.code = 'lease/' || l.id
             WHERE l.open AND l.bucket_id = b.id),
            {_balance("spent")}, {_balance("expired")}, {_balance("withdrawn")},
            b.net, b.tax, coalesce((SELECT a.balance FROM account a
             WHERE a.code = 'contract_liability/' || b.id AND a.unit = b.currency
                AND a.legal_entity_id = b.legal_entity_id), 0),
            b.currency, b.kind
        FROM bucket b WHERE b.billing_account_id = %s
        ORDER BY b.priority, b.valid_to_ns, b.id
        """.encode(),  # noqa: S608 - only column lists are put in
        (billing_account_id,),
    )
    return [_bucket_balance(row) for row in await cursor.fetchall()]


async def accounts(conn: Connection, prefix: str, legal_entity_id: str | None = None) -> list[AccountBalance]:
    """Ledger accounts whose code starts with `prefix`, by code; of one legal entity or of all."""
    cursor = await conn.execute(
        """
        SELECT legal_entity_id, code, unit, balance, debit_normal FROM account
        WHERE starts_with(code, %(prefix)s)
            AND (%(entity)s::text IS NULL OR legal_entity_id = %(entity)s)
        ORDER BY code, unit, legal_entity_id
        """,
        {"prefix": prefix, "entity": legal_entity_id},
    )
    return [AccountBalance(row[0], row[1], row[2], int(row[3]), row[4]) for row in await cursor.fetchall()]


def _bucket_balance(row: tuple[Any, ...]) -> BucketBalance:
    issued, available, leased, spent, expired, withdrawn, net, tax, liability = (int(amount) for amount in row[13:22])
    parts = (issued, available, leased, spent, expired, withdrawn)
    on_credit = row[23] == "credit"
    recognised = owed(net, tax, spent, issued)[0] if on_credit else still_sold(net, withdrawn, issued) - liability
    fields: tuple[Any, ...] = (terms(row), *row[10:13], *parts, net, tax, recognised, *row[22:])
    return BucketBalance(*fields)


def _balance(part: str) -> str:
    """SQL of the balance of one part of bucket `b`, zero where nothing was ever posted."""
    return f"""coalesce((SELECT a.balance FROM account a WHERE a.code = 'bucket/' || b.id || '/{part}'
        AND a.unit = b.unit AND a.legal_entity_id = b.legal_entity_id), 0)"""  # noqa: S608
