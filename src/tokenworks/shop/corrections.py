"""Corrections that concern a customer: which use, bucket or order is meant, in the words of a management command.

The ledger decides what they do to the books (`core.corrections`, `ledger.corrections`). A late correction of a closed
period is posted now, in the open one, with the time of what it corrects.
"""

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.core import postings
from tokenworks.core.commands import not_found
from tokenworks.core.corrections import Charged, Head, Kind
from tokenworks.ledger import corrections
from tokenworks.ledger.correction_rows import Correction
from tokenworks.meter import usage
from tokenworks.shop import order_rows, parties, payments, validity

Connection = AsyncConnection[TupleRow]


class Ground(msgspec.Struct, frozen=True):
    """Why and when a correction is made, and under which id; `reference` is somebody else's name for it."""

    correction_id: str
    reason: str
    reference: str
    at_ns: int


async def refund(
    connection: Connection, ground: Ground, request_id: str, amount: tuple[int, str] | None, replacement_validity: str
) -> Correction:
    """Give the use of one request back, all of it or an amount; an expired bucket is replaced for that long."""
    validity.check(replacement_validity)
    found = await usage.records(connection, request_id=request_id, limit=1)
    if not found:
        raise not_found("usage record", request_id, "request")
    record = found[0]
    entity = await parties.legal_entity(connection, record.legal_entity_id)
    charged = [
        Charged(place, line.bucket_id, line.unit, line.amount)
        for place, line in enumerate(record.charges)
        if line.proven
    ]
    until_ns = validity.end_ns(ground.at_ns, replacement_validity, entity.timezone)
    head = _head(
        ground, "usage_refunded", entity.id, record.billing_account_id, request_id, used_at_ns=record.closed_at_ns
    )
    asked = await _asked_of(connection, record.billing_account_id)
    return await corrections.refund(connection, head, charged, amount, until_ns, asked)


async def withdraw(connection: Connection, ground: Ground, bucket_id: str, amount: int | None) -> Correction:
    """Cancel a package, or a part of it: what is available goes back, its share of price and tax is owed."""
    cursor = await connection.execute(
        "SELECT legal_entity_id, billing_account_id FROM bucket WHERE id = %s", (bucket_id,)
    )
    row = await cursor.fetchone()
    if row is None:
        raise not_found("bucket", bucket_id, "bucket")
    return await corrections.withdraw(connection, _head(ground, "package_withdrawn", row[0], row[1], bucket_id), amount)


async def charge_back(connection: Connection, ground: Ground, order_id: str) -> Correction:
    """The payer of an order took the price back."""
    order = await order_rows.get(connection, order_id)
    head = _head(ground, "payment_charged_back", order.legal_entity_id, order.billing_account_id, order_id)
    return await corrections.charge_back(connection, head)


async def write_off(
    connection: Connection, ground: Ground, customer_id: str, agreement_id: str, amount: int | None
) -> Correction:
    """Give up what a customer owes under a credit agreement, or if none is named directly, after a chargeback."""
    customer = await parties.customer(connection, customer_id, "customer")
    entity = await parties.legal_entity(connection, customer.legal_entity_id)
    payer = f"customer/{customer.billing_account_id}"
    if agreement_id:
        payer = postings.credit_payer(agreement_id)
        cursor = await connection.execute(
            "SELECT 1 FROM bucket WHERE (billing_account_id, payer) = (%s, %s)", (customer.billing_account_id, payer)
        )
        if await cursor.fetchone() is None:
            raise not_found("credit agreement of this customer", agreement_id, "agreement")
    head = _head(ground, "receivable_written_off", entity.id, customer.billing_account_id, payer)
    asked = await payments.asked_for(connection, [payer])
    return await corrections.write_off(connection, head, entity.currency, amount, asked)


async def settle_refund(
    connection: Connection, ground: Ground, legal_entity_id: str, payer: str, amount: int, currency: str
) -> Correction:
    """A payer has refunded its customers and keeps as much of what it owes us."""
    entity = await parties.legal_entity(connection, legal_entity_id, "legal_entity_id")
    head = _head(ground, "refund_settled", entity.id, "", payer)
    asked = await payments.asked_for(connection, [payer])
    return await corrections.settle_refund(connection, head, currency, amount, asked)


async def unit_of(connection: Connection, bucket_id: str) -> str:
    """The unit that amounts of a bucket are in."""
    row = await (await connection.execute("SELECT unit FROM bucket WHERE id = %s", (bucket_id,))).fetchone()
    if row is None:
        raise not_found("bucket", bucket_id, "bucket")
    return str(row[0])


async def _asked_of(connection: Connection, billing_account_id: str) -> dict[str, int]:
    cursor = await connection.execute(
        "SELECT DISTINCT payer FROM bucket WHERE billing_account_id = %s AND kind = 'credit'", (billing_account_id,)
    )
    return await payments.asked_for(connection, [row[0] for row in await cursor.fetchall()])


def _head(
    ground: Ground, kind: Kind, entity_id: str, billing_account_id: str, about: str, *, used_at_ns: int | None = None
) -> Head:
    return Head(
        id=ground.correction_id,
        kind=kind,
        legal_entity_id=entity_id,
        billing_account_id=billing_account_id,
        about=about,
        reason=ground.reason,
        reference=ground.reference,
        used_at_ns=ground.at_ns if used_at_ns is None else used_at_ns,
        at_ns=ground.at_ns,
    )
