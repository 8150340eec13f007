"""Payments received: money that a payer owed and has sent, recorded by whoever looks after the bank account.

A payer is named as its receivable is: `carrier/sandbox` for what a carrier has taken over, `credit/{agreement}` for use
under a credit agreement that is paid by invoice. Nobody can pay more than is owed; matching the bank's statement is not
done here.
"""

import msgspec
from psycopg.rows import TupleRow

from tokenworks.core import postings
from tokenworks.core.amounts import exact
from tokenworks.core.commands import conflict, invalid
from tokenworks.ledger import balance, store
from tokenworks.shop.order_rows import Connection
from tokenworks.shop.parties import LegalEntity

_REFERENCE_LENGTH_MAX = 100


class PaymentReceived(msgspec.Struct, frozen=True, kw_only=True):
    """`reference` is the payer's or the bank's name for the payment: the same one is recorded once."""

    id: str
    legal_entity_id: str
    payer: str
    amount: int
    currency: str
    reference: str
    received_at_ns: int


async def receive(connection: Connection, entity: LegalEntity, payment: PaymentReceived) -> PaymentReceived:
    """Record a payment and post it; refused if the payer does not owe as much, or if it was recorded before.

    Called within a transaction of the shop, whose lock keeps it apart from collections.
    """
    if payment.amount <= 0:
        raise invalid("A payment is above zero.", "amount")
    if payment.currency != entity.currency:
        raise invalid(f"The legal entity {entity.id!r} is owed {entity.currency}.", "amount")
    if not 0 < len(payment.reference) <= _REFERENCE_LENGTH_MAX:
        raise invalid(f"A payment has a reference of 1 to {_REFERENCE_LENGTH_MAX} characters.", "reference")
    if not await _insert(connection, payment):
        raise conflict(f"The payment {payment.reference!r} of {payment.payer} is recorded already.", "reference")
    await _check_owed(connection, payment)
    await _post(connection, payment)
    return payment


async def listed(connection: Connection, payer: str, limit: int, before: str) -> list[PaymentReceived]:
    """Payments, newest first; all payers' if `payer` is empty. `before` is the last id already seen."""
    cursor = await connection.execute(
        """SELECT id, legal_entity_id, payer, amount, currency, reference, received_at_ns FROM payment_received
           WHERE (%(payer)s = '' OR payer = %(payer)s) AND (%(before)s = '' OR id < %(before)s)
           ORDER BY id DESC LIMIT %(limit)s""",
        {"payer": payer, "before": before, "limit": limit},
    )
    return [_payment(row) for row in await cursor.fetchall()]


async def asked_for(connection: Connection, payers: list[str]) -> dict[str, int]:
    """What carriers are being asked to take over of what these payers owe, without an answer yet."""
    cursor = await connection.execute(
        """SELECT 'credit/' || c.order_id AS payer, sum(c.amount) FROM collection c
           WHERE 'credit/' || c.order_id = ANY(%s)
               AND NOT EXISTS (SELECT FROM collection_outcome u WHERE u.collection_id = c.id)
           GROUP BY 1""",
        (payers,),
    )
    return {str(row[0]): int(row[1]) for row in await cursor.fetchall()}


async def _insert(connection: Connection, payment: PaymentReceived) -> bool:
    cursor = await connection.execute(
        """INSERT INTO payment_received (id, legal_entity_id, payer, amount, currency, reference, received_at_ns)
           VALUES (%(id)s, %(legal_entity_id)s, %(payer)s, %(amount)s, %(currency)s, %(reference)s, %(received_at_ns)s)
           ON CONFLICT DO NOTHING""",
        msgspec.structs.asdict(payment),
    )
    return cursor.rowcount == 1


async def _check_owed(connection: Connection, payment: PaymentReceived) -> None:
    """What a carrier is being asked to take over is not to be paid as well: it may have said yes already."""
    code = postings.receivable(payment.payer)
    found = await balance.accounts(connection, code, payment.legal_entity_id)
    owed = sum(each.balance for each in found if (each.code, each.unit) == (code, payment.currency))
    open_to_pay = owed - (await asked_for(connection, [payment.payer])).get(payment.payer, 0)
    if payment.amount > open_to_pay:
        left = f"{exact(max(0, open_to_pay), payment.currency)} {payment.currency}"
        raise conflict(f"{payment.payer} owes {left} that nobody is asked for yet; no more can be paid.", "amount")


async def _post(connection: Connection, payment: PaymentReceived) -> None:
    posting = postings.payment_received(
        payment.id,
        payment.legal_entity_id,
        payment.received_at_ns,
        payer=payment.payer,
        currency=payment.currency,
        amount=payment.amount,
    )
    await store.post(connection, posting, payment.received_at_ns)


def _payment(row: TupleRow) -> PaymentReceived:
    return PaymentReceived(
        id=row[0],
        legal_entity_id=row[1],
        payer=row[2],
        amount=int(row[3]),
        currency=row[4],
        reference=row[5],
        received_at_ns=row[6],
    )
