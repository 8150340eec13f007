"""The rows of orders, payments and failures, read and written. What happens in between is `orders`."""

from typing import Literal, LiteralString

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.core.commands import CommandCode, CommandRefused, not_found

Connection = AsyncConnection[TupleRow]
State = Literal["accepted", "completed", "failed"]

_SELECT = """SELECT o.id, o.customer_id, o.billing_account_id, o.legal_entity_id, o.offer_id, o.phone, o.price, o.net,
        o.tax, o.tax_basis_points, o.currency, o.state, o.bucket_id, coalesce(f.code, ''), coalesce(f.message, ''),
        o.placed_at_ns, o.charged_since_ns, coalesce(p.paid_at_ns, f.failed_at_ns,
            CASE o.state WHEN 'completed' THEN o.placed_at_ns END),
        p.method, p.payer, p.reference, p.amount, p.currency, p.paid_at_ns
    FROM customer_order o LEFT JOIN payment p ON p.order_id = o.id
    LEFT JOIN order_failure f ON f.order_id = o.id AND o.state = 'failed'"""


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """A price that somebody has taken over: `payer` owes it to us."""

    method: Literal["carrier"]
    payer: str
    reference: str
    amount: int
    currency: str
    paid_at_ns: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One order at the price and tax it was placed at.

    `accepted`: written down, payment unknown. `completed`: paid, and the bucket is there. `failed`: not charged. An
    order of a credit offer is completed without a payment: it is the agreement then, and `bucket_id` its first period.
    `charged_since_ns` is when the carrier was last about to be asked to charge.
    """

    id: str
    customer_id: str
    billing_account_id: str
    legal_entity_id: str
    offer_id: str
    phone: str
    price: int
    net: int
    tax: int
    tax_basis_points: int
    currency: str
    state: State
    bucket_id: str | None
    failure_code: str
    failure: str
    placed_at_ns: int
    charged_since_ns: int
    closed_at_ns: int | None
    payment: Payment | None


async def insert(connection: Connection, order: Order) -> Order:
    """Write an order down, or give the one that has this id; refused if that is for something else."""
    await connection.execute(
        """INSERT INTO customer_order (id, customer_id, billing_account_id, legal_entity_id, offer_id, phone, price,
               net, tax, tax_basis_points, currency, state, placed_at_ns, charged_since_ns)
           VALUES (%(id)s, %(customer_id)s, %(billing_account_id)s, %(legal_entity_id)s, %(offer_id)s, %(phone)s,
               %(price)s, %(net)s, %(tax)s, %(tax_basis_points)s, %(currency)s, %(state)s, %(placed_at_ns)s,
               %(charged_since_ns)s)
           ON CONFLICT (id) DO NOTHING""",
        {name: value for name, value in msgspec.structs.asdict(order).items() if name != "payment"},
    )
    return await get(connection, order.id)


async def get(connection: Connection, order_id: str) -> Order:
    """One order; refused if there is none."""
    order = await find(connection, order_id)
    if order is None:
        raise not_found("order", order_id)
    return order


async def find(connection: Connection, order_id: str) -> Order | None:
    """One order, if there is one."""
    found = await _read(connection, "WHERE o.id = %(id)s", {"id": order_id})
    return found[0] if found else None


async def lock(connection: Connection, order_id: str) -> Order:
    """One order, nobody else's to change until the transaction ends."""
    await connection.execute("SELECT id FROM customer_order WHERE id = %s FOR UPDATE", (order_id,))
    return await get(connection, order_id)


async def listed(connection: Connection, customer_id: str, limit: int, before: str) -> list[Order]:
    """Orders, newest first; all customers' if `customer_id` is empty. `before` is the last id already seen."""
    return await _read(
        connection,
        """WHERE (%(customer_id)s = '' OR o.customer_id = %(customer_id)s) AND (%(before)s = '' OR o.id < %(before)s)
           ORDER BY o.id DESC LIMIT %(limit)s""",
        {"customer_id": customer_id, "before": before, "limit": limit},
    )


async def undecided(connection: Connection, limit: int) -> list[Order]:
    """Orders whose payment is unknown, oldest first."""
    return await _read(
        connection, "WHERE o.state = 'accepted' ORDER BY o.placed_at_ns, o.id LIMIT %(limit)s", {"limit": limit}
    )


async def charge_again(connection: Connection, order_id: str, at_ns: int) -> None:
    """Note that the carrier is about to be asked to charge; nothing to note of an order that is closed."""
    await connection.execute(
        """UPDATE customer_order SET charged_since_ns = greatest(charged_since_ns, %s)
           WHERE id = %s AND state = 'accepted'""",
        (at_ns, order_id),
    )


async def complete(connection: Connection, order_id: str, payment: Payment, bucket_id: str) -> None:
    """Keep the payment and close the order."""
    await connection.execute(
        """INSERT INTO payment (order_id, method, payer, reference, amount, currency, paid_at_ns)
           VALUES (%(order_id)s, %(method)s, %(payer)s, %(reference)s, %(amount)s, %(currency)s, %(paid_at_ns)s)""",
        msgspec.structs.asdict(payment) | {"order_id": order_id},
    )
    await agree(connection, order_id, bucket_id)


async def agree(connection: Connection, order_id: str, bucket_id: str) -> None:
    """Close an order that nothing is paid for yet: it is a credit agreement from now on."""
    await connection.execute(
        "UPDATE customer_order SET state = 'completed', bucket_id = %s WHERE id = %s", (bucket_id, order_id)
    )


async def fail(connection: Connection, order_id: str, code: str, message: str, at_ns: int) -> None:
    """Close the order unpaid."""
    await connection.execute(
        "INSERT INTO order_failure (order_id, code, message, failed_at_ns) VALUES (%s, %s, %s, %s)",
        (order_id, code, message, at_ns),
    )
    await connection.execute("UPDATE customer_order SET state = 'failed' WHERE id = %s", (order_id,))


def check_same(order: Order, customer_id: str, offer_id: str) -> None:
    """An order's id names one order: the same id for something else is refused."""
    if (order.customer_id, order.offer_id) != (customer_id, offer_id):
        raise CommandRefused(
            CommandCode.IDEMPOTENCY_CONFLICT, f"The order {order.id!r} was placed before with another content."
        )


async def _read(connection: Connection, rest: LiteralString, values: dict[str, object]) -> list[Order]:
    cursor = await connection.execute(f"{_SELECT} {rest}", values)
    return [_order(row) for row in await cursor.fetchall()]


def _order(row: TupleRow) -> Order:
    return Order(
        id=row[0],
        customer_id=row[1],
        billing_account_id=row[2],
        legal_entity_id=row[3],
        offer_id=row[4],
        phone=row[5],
        price=int(row[6]),
        net=int(row[7]),
        tax=int(row[8]),
        tax_basis_points=row[9],
        currency=row[10],
        state=row[11],
        bucket_id=row[12],
        failure_code=row[13],
        failure=row[14],
        placed_at_ns=row[15],
        charged_since_ns=row[16],
        closed_at_ns=row[17],
        payment=_payment(row[18:]) if row[18] is not None else None,
    )


def _payment(row: TupleRow) -> Payment:
    return Payment(
        method=row[0], payer=row[1], reference=row[2], amount=int(row[3]), currency=row[4], paid_at_ns=row[5]
    )
