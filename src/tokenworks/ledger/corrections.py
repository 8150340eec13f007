"""Corrections of the books: each is decided in `core.corrections`, posted once and kept under seal with its reason.

All run inside a sealed transaction of the shop's stream whose tables include `tables.CORRECTIONS`; the caller makes a
command happen once. `asked` is what others are being asked to take over of what payers owe. Refusals are
`CommandRefused`. Locks: bucket rows, then what is available in them, then the posting's accounts.
"""

from collections.abc import Mapping, Sequence

import msgspec

from tokenworks.core import corrections, postings
from tokenworks.core.commands import conflict, not_found
from tokenworks.core.corrections import BucketBooks, Charged, Decision, Head
from tokenworks.ledger import correction_rows
from tokenworks.ledger.correction_rows import Correction
from tokenworks.ledger.faults import LedgerFault
from tokenworks.ledger.seal import Connection
from tokenworks.ledger.store import post

NOTHING: Mapping[str, int] = {}


async def refund(
    conn: Connection,
    head: Head,
    charged: Sequence[Charged],
    amount: tuple[int, str] | None,
    until_ns: int,
    asked: Mapping[str, int] = NOTHING,
) -> Correction:
    """Give use of the request `head.about` back to its buckets. `charged`: what its record charged, all of it.

    A bucket that has expired is replaced by one with the same terms that is valid until `until_ns`.
    """
    books = await correction_rows.lock_books(conn, {charge.bucket_id for charge in charged})
    for order_id in sorted({await _order_of(conn, bucket_id) for bucket_id in books}):
        await _refuse_charged_back(conn, order_id, "request")
    before = await correction_rows.refunded(conn, head.about)
    left = [msgspec.structs.replace(charge, left=charge.left - before.get(charge.place, 0)) for charge in charged]
    receivables = {
        each.payer: await _receivable(conn, head, each.payer, each.currency, asked)
        for each in books.values()
        if each.kind == "credit"
    }
    return await _carry_out(conn, head, corrections.refund(head, left, books, receivables, amount, until_ns))


async def withdraw(conn: Connection, head: Head, amount: int | None) -> Correction:
    """Take back what is available in the bucket `head.about`; its share of the price is owed back to the payer."""
    books = await _one(conn, head.about)
    await _refuse_charged_back(conn, await _order_of(conn, head.about), "bucket")
    return await _carry_out(conn, head, corrections.withdraw(head, books, amount))


async def charge_back(conn: Connection, head: Head) -> Correction:
    """The payer of the order `head.about` took the price back."""
    ids = await correction_rows.family(conn, head.about)
    if not ids:
        raise not_found("paid order", head.about, "order")
    books = await correction_rows.lock_books(conn, ids)
    await _refuse_charged_back(conn, head.about, "order")
    family = [books[bucket_id] for bucket_id in ids]
    receivable = await _balance(conn, head, postings.receivable(family[0].payer), family[0].currency)
    return await _carry_out(conn, head, corrections.charge_back(head, family, receivable))


async def write_off(
    conn: Connection, head: Head, currency: str, amount: int | None, asked: Mapping[str, int] = NOTHING
) -> Correction:
    """Give up what the payer `head.about` owes."""
    owed = await _receivable(conn, head, head.about, currency, asked)
    return await _carry_out(conn, head, corrections.write_off(head, currency, owed, amount))


async def settle_refund(
    conn: Connection, head: Head, currency: str, amount: int, asked: Mapping[str, int] = NOTHING
) -> Correction:
    """The payer `head.about` has refunded its customers and keeps that much of what it owes us."""
    due = await _balance(conn, head, postings.refund_due(head.about), currency)
    receivable = await _receivable(conn, head, head.about, currency, asked)
    return await _carry_out(conn, head, corrections.settle_refund(head, currency, due, receivable, amount))


async def credit_supplier(conn: Connection, head: Head, currency: str, amount: int) -> Correction:
    """A credit note of the supplier `head.about`."""
    payable = await _balance(conn, head, postings.payable(head.about), currency)
    cost = await _balance(conn, head, postings.cost(head.about), currency)
    return await _carry_out(conn, head, corrections.credit_supplier(head, currency, payable, cost, amount))


async def _carry_out(conn: Connection, head: Head, decision: Decision) -> Correction:
    corrections.check_reason(head.reason)
    posting_id = await post(conn, decision.posting, head.at_ns)
    for new in decision.replacements:
        await correction_rows.open_replacement(conn, new, head.at_ns)
    await correction_rows.insert(conn, head, decision, posting_id)
    return Correction(head, posting_id, decision.lines)


async def _receivable(conn: Connection, head: Head, payer: str, currency: str, asked: Mapping[str, int]) -> int:
    """What the payer owes and nobody else is being asked to take over at this moment: that may be paid already."""
    return max(0, await _balance(conn, head, postings.receivable(payer), currency) - asked.get(payer, 0))


async def _balance(conn: Connection, head: Head, code: str, currency: str) -> int:
    return await correction_rows.balance_of(conn, head.legal_entity_id, code, currency)


async def _one(conn: Connection, bucket_id: str) -> BucketBooks:
    books = await correction_rows.lock_books(conn, [bucket_id])
    if bucket_id not in books:
        raise not_found("bucket", bucket_id, "bucket")
    return books[bucket_id]


async def _order_of(conn: Connection, bucket_id: str) -> str:
    row = await (await conn.execute("SELECT order_id FROM bucket WHERE id = %s", (bucket_id,))).fetchone()
    if row is None:
        raise LedgerFault(f"a charge names the bucket {bucket_id}, which does not exist")
    return str(row[0])


async def _refuse_charged_back(conn: Connection, order_id: str, field: str) -> None:
    if await correction_rows.charged_back(conn, order_id):
        raise conflict(
            f"The payment of the order {order_id!r} was charged back; write off what the customer owes instead.", field
        )
