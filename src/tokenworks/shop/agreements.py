"""Credit agreements: an order of a credit offer, and the limit that it grants anew for each period.

A period is a credit bucket of its own, dated from the agreement's beginning, so that nothing has to be reset. The next
one is granted a little before the running one ends: a request at the turn finds one or the other, never none. What is
owed is the ledger's receivable of the agreement; how it is paid is `collections` and `payments`.
"""

from typing import Literal

import msgspec

from tokenworks.base import clock
from tokenworks.base.database import Pool
from tokenworks.core.amounts import payable
from tokenworks.core.bucket import Bucket
from tokenworks.core.commands import conflict, not_found
from tokenworks.core.postings import credit_payer, receivable
from tokenworks.ledger import balance, buckets
from tokenworks.ledger.balance import BucketBalance
from tokenworks.shop import offers, order_rows, parties, sealed, validity
from tokenworks.shop.offers import Offer, Payer
from tokenworks.shop.order_rows import Connection, Order

AHEAD_NS = 3_600 * clock.SECOND
"""How long before the running period ends the next one is granted."""

PERIODS_AT_ONCE = 500


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """A credit agreement now: `period` is the newest one granted, `owed` all that is not paid of any."""

    id: str
    customer_id: str
    legal_entity_id: str
    offer_id: str
    payer: Payer
    state: Literal["active", "ended"]
    began_at_ns: int
    ended_at_ns: int | None
    period: BucketBalance
    owed: int
    currency: str

    @property
    def payer_name(self) -> str:
        """How a payment names it."""
        return credit_payer(self.id)

    @property
    def payable(self) -> int:
        """What can be paid of what is owed: parts of a cent stay owed."""
        return payable(self.owed, self.currency)


class _Due(msgspec.Struct, frozen=True):
    """An agreement whose newest period ends soon or has ended."""

    order_id: str
    began_ns: int
    granted_to_ns: int


async def begun(connection: Connection, order: Order, now_ns: int) -> Order:
    """An order just written down, as an agreement with its first period if its offer is one of credit."""
    offer = await offers.get(connection, order.offer_id)
    if offer.kind != "credit":
        return order
    await _refuse_second(connection, order)
    entity = await parties.legal_entity(connection, order.legal_entity_id)
    first = _period(order, offer, 1, now_ns, validity.end_ns(now_ns, offer.validity, entity.timezone))
    await _grant(connection, order, offer, first, now_ns)
    await order_rows.agree(connection, order.id, first.id)
    return await order_rows.get(connection, order.id)


async def open_due(pool: Pool, now_ns: int) -> int:
    """Grant the next period of agreements whose newest one ends soon; gives how many were granted.

    Nothing is granted to a suspended customer. Periods that went by meanwhile are left out.
    """
    async with sealed.transaction(pool, now_ns) as connection:
        due = await _due(connection, now_ns + AHEAD_NS)
        for agreement in due:
            await _open_next(connection, agreement, now_ns)
    return len(due)


async def end(connection: Connection, agreement_id: str, now_ns: int) -> Agreement:
    """Grant no further period. What was granted may still be spent, what is owed stays owed. Again changes nothing."""
    known = await get(connection, agreement_id)
    await connection.execute(
        "INSERT INTO credit_end (order_id, ended_at_ns) VALUES (%s, %s) ON CONFLICT DO NOTHING", (known.id, now_ns)
    )
    return await get(connection, agreement_id)


async def get(connection: Connection, agreement_id: str) -> Agreement:
    """One agreement; refused if there is none."""
    found = await _read(connection, await _ids(connection, "", 1, "", agreement_id))
    if not found:
        raise not_found("credit agreement", agreement_id)
    return found[0]


async def listed(connection: Connection, customer_id: str, limit: int, before: str) -> list[Agreement]:
    """Agreements, newest first; all customers' if `customer_id` is empty. `before` is the last id already seen."""
    return await _read(connection, await _ids(connection, customer_id, limit, before, ""))


async def owed(connection: Connection, order: Order) -> int:
    """What the ledger says is owed under an agreement, with tax."""
    found = await balance.accounts(connection, receivable(credit_payer(order.id)), order.legal_entity_id)
    return sum(account.balance for account in found if account.code == receivable(credit_payer(order.id)))


async def _refuse_second(connection: Connection, order: Order) -> None:
    """Two agreements of one offer would double its limit."""
    cursor = await connection.execute(
        """SELECT o.id FROM customer_order o WHERE o.billing_account_id = %s AND o.offer_id = %s AND o.id <> %s
               AND o.state = 'completed' AND NOT EXISTS (SELECT FROM credit_end e WHERE e.order_id = o.id)""",
        (order.billing_account_id, order.offer_id, order.id),
    )
    other = await cursor.fetchone()
    if other is not None:
        raise conflict(f"The customer has this credit already, by the agreement {other[0]!r}.", "offer")


def _period(order: Order, offer: Offer, number: int, from_ns: int, to_ns: int) -> Bucket:
    """The number is in the bucket's name, so that a period cannot be granted twice."""
    return offers.dated(offer, f"{order.id}.{number}", order.billing_account_id, from_ns, to_ns)


async def _grant(connection: Connection, order: Order, offer: Offer, period: Bucket, now_ns: int) -> None:
    await buckets.grant_credit(
        connection,
        agreement_id=order.id,
        bucket=period,
        granted=offer.granted,
        currency=order.currency,
        net=order.net,
        tax=order.tax,
        offer_id=offer.id,
        at_ns=now_ns,
    )


async def _due(connection: Connection, until_ns: int) -> list[_Due]:
    cursor = await connection.execute(
        """SELECT o.id, min(b.valid_from_ns), max(b.valid_to_ns)
           FROM customer_order o JOIN offer f ON f.id = o.offer_id AND f.kind = 'credit'
           JOIN billing_account a ON a.id = o.billing_account_id AND a.state = 'active'
           JOIN bucket b ON b.order_id = o.id
           WHERE o.state = 'completed' AND NOT EXISTS (SELECT FROM credit_end e WHERE e.order_id = o.id)
           GROUP BY o.id HAVING max(b.valid_to_ns) <= %s ORDER BY max(b.valid_to_ns), o.id LIMIT %s""",
        (until_ns, PERIODS_AT_ONCE),
    )
    return [_Due(*row) for row in await cursor.fetchall()]


async def _open_next(connection: Connection, due: _Due, now_ns: int) -> None:
    order = await order_rows.get(connection, due.order_id)
    offer = await offers.get(connection, order.offer_id)
    entity = await parties.legal_entity(connection, order.legal_entity_id)
    number, from_ns, to_ns = 1, due.began_ns, due.began_ns
    while to_ns <= due.granted_to_ns or to_ns <= now_ns:
        from_ns, to_ns = to_ns, validity.end_ns(due.began_ns, offer.validity, entity.timezone, number)
        number += 1
    await _grant(connection, order, offer, _period(order, offer, number - 1, from_ns, to_ns), now_ns)


async def _ids(connection: Connection, customer_id: str, limit: int, before: str, only: str) -> list[str]:
    cursor = await connection.execute(
        """SELECT o.id FROM customer_order o JOIN offer f ON f.id = o.offer_id
           WHERE f.kind = 'credit' AND o.state = 'completed'
               AND (%(customer_id)s = '' OR o.customer_id = %(customer_id)s)
               AND (%(before)s = '' OR o.id < %(before)s) AND (%(only)s = '' OR o.id = %(only)s)
           ORDER BY o.id DESC LIMIT %(limit)s""",
        {"customer_id": customer_id, "before": before, "limit": limit, "only": only},
    )
    return [str(row[0]) for row in await cursor.fetchall()]


async def _read(connection: Connection, agreement_ids: list[str]) -> list[Agreement]:
    cursor = await connection.execute(
        "SELECT order_id, ended_at_ns FROM credit_end WHERE order_id = ANY(%s)", (agreement_ids,)
    )
    ended = {str(row[0]): int(row[1]) for row in await cursor.fetchall()}
    return [await _agreement(connection, each, ended.get(each)) for each in agreement_ids]


async def _agreement(connection: Connection, agreement_id: str, ended_at_ns: int | None) -> Agreement:
    order = await order_rows.get(connection, agreement_id)
    offer = await offers.get(connection, order.offer_id)
    wallet = await balance.wallet(connection, order.billing_account_id)
    periods = [held for held in wallet if held.order_id == order.id]
    return Agreement(
        id=order.id,
        customer_id=order.customer_id,
        legal_entity_id=order.legal_entity_id,
        offer_id=offer.id,
        payer=offer.payer,
        state="active" if ended_at_ns is None else "ended",
        began_at_ns=order.placed_at_ns,
        ended_at_ns=ended_at_ns,
        period=max(periods, key=lambda held: held.bucket.valid_to_ns),
        owed=await owed(connection, order),
        currency=order.currency,
    )
