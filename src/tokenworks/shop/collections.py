"""Collections: what is owed under a phone-bill credit agreement, charged to the phone bill once for each period.

When a period is over and no worker holds any of it, what was spent is final. The charge is written down first and asked
of the carrier under its own id, again and again until there is a clear answer: the carrier charges an id once. Paid
means that the carrier owes us instead of the customer. What is declined stays owed and is asked for with the next
period.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from psycopg.rows import TupleRow

from tokenworks.base import log
from tokenworks.base.database import Pool
from tokenworks.core import postings
from tokenworks.core.amounts import payable
from tokenworks.core.sales import owed
from tokenworks.ledger import balance, store
from tokenworks.ledger.balance import BucketBalance
from tokenworks.shop import offers, order_rows, sealed
from tokenworks.shop.carrier import Carrier, CarrierUnavailable, Charge, Declined, Paid
from tokenworks.shop.order_rows import Connection, Order

COLLECTIONS_AT_ONCE = 500

_log = log.get(__name__)


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """One charge to a phone bill: what was owed at the end of the period `bucket_id` and could be paid.

    Its id is made of the period's, so that books restored to an earlier moment cannot charge the period twice.
    """

    id: str
    order_id: str
    bucket_id: str
    phone: str
    amount: int
    currency: str
    description: str
    placed_at_ns: int


@dataclass(frozen=True)
class CollectionDesk:
    """Where periods are collected. `wall_ns` is the clock of `base.clock`."""

    pool: Pool
    carrier: Carrier
    wall_ns: Callable[[], int]

    async def collect_due(self) -> int:
        """Write down what is due, and ask the carrier for all that has no answer; gives how many got one."""
        await self._place_due()
        async with self.pool.connection() as connection:
            waiting = await _unanswered(connection)
        answered = 0
        for collection in waiting:
            outcome = await self._asked(collection)
            if outcome is not None:
                await self._close(collection, outcome)
                answered += 1
        return answered

    async def _place_due(self) -> None:
        now_ns = self.wall_ns()
        async with sealed.transaction(self.pool, now_ns) as connection:
            for bucket_id, order_id in await _over(connection, now_ns):
                await _place(connection, await order_rows.get(connection, order_id), bucket_id, now_ns)

    async def _asked(self, collection: Collection) -> Paid | Declined | None:
        """What the carrier says; None to ask again later."""
        charge = Charge(
            correlator=collection.id,
            phone=collection.phone,
            amount=collection.amount,
            currency=collection.currency,
            description=collection.description,
        )
        try:
            return await self.carrier.charge(charge)
        except CarrierUnavailable as fault:
            _log.warning("a collection waits", extra={"collection": collection.id, "reason": str(fault)})
            return None

    async def _close(self, collection: Collection, outcome: Paid | Declined) -> None:
        now_ns = self.wall_ns()
        async with sealed.transaction(self.pool, now_ns) as connection:
            if not await _keep(connection, collection, self.carrier.payer, outcome, now_ns):
                return
            if isinstance(outcome, Declined):
                reason = {"collection": collection.id, "code": outcome.code}
                _log.warning("a phone bill does not take what is owed", extra=reason)
                return
            order = await order_rows.get(connection, collection.order_id)
            posting = postings.credit_collected(
                collection.id,
                order.legal_entity_id,
                now_ns,
                agreement_id=order.id,
                payer=self.carrier.payer,
                currency=collection.currency,
                amount=collection.amount,
            )
            await store.post(connection, posting, now_ns)


async def _over(connection: Connection, now_ns: int) -> list[tuple[str, str]]:
    """Periods on the phone bill that are over, not yet collected, and of agreements that owe anything."""
    cursor = await connection.execute(
        """SELECT b.id, b.order_id FROM bucket b JOIN offer f ON f.id = b.offer_id AND f.payer = 'carrier'
           JOIN account a ON a.code = 'receivable/' || b.payer AND a.unit = b.currency
               AND a.legal_entity_id = b.legal_entity_id AND a.balance > 0
           WHERE b.kind = 'credit' AND b.valid_to_ns <= %s
               AND NOT EXISTS (SELECT FROM lease l WHERE l.bucket_id = b.id AND l.open)
               AND NOT EXISTS (SELECT FROM collection c WHERE c.bucket_id = b.id)
           ORDER BY b.valid_to_ns, b.id LIMIT %s""",
        (now_ns, COLLECTIONS_AT_ONCE),
    )
    return [(str(row[0]), str(row[1])) for row in await cursor.fetchall()]


async def _place(connection: Connection, order: Order, bucket_id: str, now_ns: int) -> None:
    amount = payable(await _due_for(connection, order, bucket_id), order.currency)
    if amount == 0:
        return
    offer = await offers.get(connection, order.offer_id)
    collection = Collection(
        id=f"col_{bucket_id}",
        order_id=order.id,
        bucket_id=bucket_id,
        phone=order.phone,
        amount=amount,
        currency=order.currency,
        description=offer.name,
        placed_at_ns=now_ns,
    )
    await connection.execute(
        """INSERT INTO collection (id, order_id, bucket_id, phone, amount, currency, description, placed_at_ns)
           VALUES (%(id)s, %(order_id)s, %(bucket_id)s, %(phone)s, %(amount)s, %(currency)s, %(description)s,
               %(placed_at_ns)s)""",
        msgspec.structs.asdict(collection),
    )


async def _due_for(connection: Connection, order: Order, bucket_id: str) -> int:
    """What was spent in this period and all before it, less what was paid, given up or is being asked for already."""
    wallet = await balance.wallet(connection, order.billing_account_id)
    periods = [held for held in wallet if held.order_id == order.id]
    over_ns = next(held.bucket.valid_to_ns for held in periods if held.bucket.id == bucket_id)
    spent = sum(_price(held) for held in periods if held.bucket.valid_to_ns <= over_ns)
    cursor = await connection.execute(
        """SELECT coalesce((SELECT sum(amount) FROM payment_received WHERE payer = %(payer)s), 0)
               + coalesce((SELECT sum(l.due) FROM correction w JOIN correction_line l ON l.correction_id = w.id
                   WHERE w.kind = 'receivable_written_off' AND w.about = %(payer)s), 0)
               + coalesce((SELECT sum(c.amount) FROM collection c
                   LEFT JOIN collection_outcome u ON u.collection_id = c.id
                   WHERE c.order_id = %(order_id)s AND u.collected IS NOT FALSE), 0)""",
        {"payer": postings.credit_payer(order.id), "order_id": order.id},
    )
    row = await cursor.fetchone()
    return max(0, spent - int(row[0] if row else 0))


def _price(held: BucketBalance) -> int:
    return sum(owed(held.net, held.tax, held.spent, held.issued))


async def _unanswered(connection: Connection) -> list[Collection]:
    cursor = await connection.execute(
        """SELECT c.id, c.order_id, c.bucket_id, c.phone, c.amount, c.currency, c.description, c.placed_at_ns
           FROM collection c WHERE NOT EXISTS (SELECT FROM collection_outcome u WHERE u.collection_id = c.id)
           ORDER BY c.placed_at_ns, c.id LIMIT %s""",
        (COLLECTIONS_AT_ONCE,),
    )
    return [_collection(row) for row in await cursor.fetchall()]


def _collection(row: TupleRow) -> Collection:
    return Collection(
        id=row[0],
        order_id=row[1],
        bucket_id=row[2],
        phone=row[3],
        amount=int(row[4]),
        currency=row[5],
        description=row[6],
        placed_at_ns=row[7],
    )


async def _keep(
    connection: Connection, collection: Collection, payer: str, outcome: Paid | Declined, now_ns: int
) -> bool:
    """Write the answer down; False if there is one already."""
    is_paid = isinstance(outcome, Paid)
    cursor = await connection.execute(
        """INSERT INTO collection_outcome (collection_id, collected, payer, reference, code, message, at_ns)
           VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
        (
            *(collection.id, is_paid, payer, outcome.reference if is_paid else ""),
            *("" if is_paid else outcome.code, "" if is_paid else outcome.message, now_ns),
        ),
    )
    return cursor.rowcount == 1
