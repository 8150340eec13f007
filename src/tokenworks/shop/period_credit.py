"""Use on credit in a period: what was spent of each credit bucket and what that costs, and what is owed at its end.

A price is the difference of two cumulative ones, of all that was spent until now and until the last bill, so the bills
of a period's limit add up to exactly what the ledger has. The tables of ledger and meter are only read here.
"""

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.core import sales
from tokenworks.core.postings import receivable, refund_due
from tokenworks.ledger import balance
from tokenworks.ledger.balance import BucketBalance

Connection = AsyncConnection[TupleRow]


class BooksDiffer(Exception):
    """What the lines of a period add up to is not what the ledger has: a broken invariant."""


class Shown(msgspec.Struct, frozen=True):
    """What earlier bills have shown of a bucket."""

    granted: int = 0
    refunded: int = 0
    spent: int = 0
    expired: int = 0
    withdrawn: int = 0

    @property
    def kept(self) -> int:
        """What was spent and not given back."""
        return self.spent - self.refunded

    @property
    def closing(self) -> int:
        """What was left."""
        return self.granted - self.kept - self.expired - self.withdrawn


class CreditLine(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent of a credit bucket, in its unit, and what it costs: `total` = `net` + `tax`.

    All are below zero where more use was refunded than there was.
    """

    order_id: str
    offer_id: str
    name: str
    bucket_id: str
    unit: str
    used: int
    tax_basis_points: int
    net: int
    tax: int
    total: int


class OwedLine(msgspec.Struct, frozen=True, kw_only=True):
    """What is owed under a credit agreement over the period: `opening` + `used` = `paid` + `closing`, with tax.

    `paid` is what was paid, taken over by a carrier or given up. Below zero is what is owed back.
    """

    order_id: str
    opening: int
    used: int
    paid: int
    closing: int


async def lines(
    connection: Connection, wallet: list[BucketBalance], before: dict[str, Shown]
) -> tuple[CreditLine, ...]:
    """Every credit bucket of the wallet that something was spent of, or given back, since the last bill."""
    spent = [
        (held, before.get(held.bucket.id, Shown()).kept)
        for held in wallet
        if held.kind == "credit" and held.spent != before.get(held.bucket.id, Shown()).kept
    ]
    names = await _names(connection, [held.order_id for held, _ in spent])
    return tuple(_line(held, earlier, *names[held.order_id]) for held, earlier in spent)


async def owed(
    connection: Connection, billing_account_id: str, used: tuple[CreditLine, ...], after: dict[str, int]
) -> tuple[OwedLine, ...]:
    """Every agreement that something was owed under, was used, or was paid; checked against the ledger."""
    opening = await _opening(connection, billing_account_id)
    paid = await _paid(connection, billing_account_id, after)
    found: list[OwedLine] = []
    for order_id, booked in (await _booked(connection, billing_account_id)).items():
        charged = sum(line.total for line in used if line.order_id == order_id)
        begun, settled = opening.get(order_id, 0), paid.get(order_id, 0)
        if begun + charged != settled + booked:
            raise BooksDiffer(f"{order_id}: {begun} + {charged} used - {settled} paid is not the {booked} booked")
        if begun or charged or settled:
            found.append(OwedLine(order_id=order_id, opening=begun, used=charged, paid=settled, closing=booked))
    return tuple(found)


def _line(held: BucketBalance, spent_before: int, name: str, tax_basis_points: int) -> CreditLine:
    net_before, tax_before = sales.owed(held.net, held.tax, spent_before, held.issued)
    net, tax = sales.owed(held.net, held.tax, held.spent, held.issued)
    return CreditLine(
        order_id=held.order_id,
        offer_id=held.offer_id,
        name=name,
        bucket_id=held.bucket.id,
        unit=held.bucket.unit,
        used=held.spent - spent_before,
        tax_basis_points=tax_basis_points,
        net=net - net_before,
        tax=tax - tax_before,
        total=net + tax - net_before - tax_before,
    )


async def _names(connection: Connection, order_ids: list[str]) -> dict[str, tuple[str, int]]:
    cursor = await connection.execute(
        """SELECT o.id, f.name, o.tax_basis_points FROM customer_order o JOIN offer f ON f.id = o.offer_id
           WHERE o.id = ANY(%s)""",
        (order_ids,),
    )
    return {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}


async def _opening(connection: Connection, billing_account_id: str) -> dict[str, int]:
    """What the newest bill that shows an agreement says is owed under it."""
    cursor = await connection.execute(
        """SELECT DISTINCT ON (l.order_id) l.order_id, l.closing FROM bill b JOIN bill_owed l ON l.bill_id = b.id
           WHERE b.billing_account_id = %s ORDER BY l.order_id, b.ordinal DESC""",
        (billing_account_id,),
    )
    return {row[0]: int(row[1]) for row in await cursor.fetchall()}


async def _paid(connection: Connection, billing_account_id: str, after: dict[str, int]) -> dict[str, int]:
    """What was paid, taken over or given up since the last bill."""
    cursor = await connection.execute(
        """SELECT o.id, sum(x.amount) FROM customer_order o JOIN (
               SELECT order_id, amount, u.stream, u.seq FROM collection c
               JOIN collection_outcome u ON u.collection_id = c.id AND u.collected
               UNION ALL
               SELECT substr(payer, 8), amount, stream, seq FROM payment_received WHERE payer LIKE 'credit/%%'
               UNION ALL
               SELECT substr(w.about, 8), l.due, w.stream, w.seq FROM correction w
               JOIN correction_line l ON l.correction_id = w.id
               WHERE w.kind = 'receivable_written_off' AND w.about LIKE 'credit/%%') x
               ON x.order_id = o.id
           WHERE o.billing_account_id = %(account)s AND x.seq > coalesce((%(after)s::jsonb ->> x.stream)::bigint, 0)
           GROUP BY o.id""",
        {"account": billing_account_id, "after": msgspec.json.encode(after).decode()},
    )
    return {row[0]: int(row[1]) for row in await cursor.fetchall()}


async def _booked(connection: Connection, billing_account_id: str) -> dict[str, int]:
    """The receivable of every agreement of the account less what is owed back, by agreement."""
    cursor = await connection.execute(
        """SELECT DISTINCT order_id, payer, legal_entity_id FROM bucket
           WHERE billing_account_id = %s AND kind = 'credit' ORDER BY order_id""",
        (billing_account_id,),
    )
    booked: dict[str, int] = {}
    for order_id, payer, entity in await cursor.fetchall():
        owed_to_us = await _balance(connection, receivable(payer), entity)
        booked[order_id] = owed_to_us - await _balance(connection, refund_due(payer), entity)
    return booked


async def _balance(connection: Connection, code: str, entity: str) -> int:
    found = await balance.accounts(connection, code, entity)
    return sum(account.balance for account in found if account.code == code)
