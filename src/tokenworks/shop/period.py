"""What happened to a billing account since its last bill: purchases, corrections, use by bucket and model, balances.

An open period is read in one snapshot of the database. The heads of all seal streams in that snapshot are its cut:
sequence numbers grow in the order of commits, so whatever is at or below the cut was seen, and whatever comes later is
above it. The next period begins where the cut ends; nothing is covered twice or left out, however late it arrives.
The tables of ledger and meter are only read here. What use on credit comes to, and what is owed for it, is
`period_credit`.
"""

from collections import Counter
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.base.database import Pool
from tokenworks.core.usage import Tokens
from tokenworks.ledger import balance
from tokenworks.ledger.balance import BucketBalance
from tokenworks.shop import parties, period_credit
from tokenworks.shop.parties import Customer
from tokenworks.shop.period_credit import BooksDiffer, CreditLine, OwedLine, Shown

Connection = AsyncConnection[TupleRow]


class Purchase(msgspec.Struct, frozen=True, kw_only=True):
    """A package bought; money in nano-units of the period's currency, `total` = `net` + `tax`."""

    order_id: str
    offer_id: str
    name: str
    bucket_id: str
    granted: int
    unit: str
    tax_basis_points: int
    net: int
    tax: int
    total: int
    sold_at_ns: int


class UsageLine(msgspec.Struct, frozen=True, kw_only=True):
    """What one model took from one bucket under one tariff version; of a credit bucket its price is a `CreditLine`."""

    bucket_id: str
    model: str
    tariff: str
    records: int
    tokens: Tokens
    unit: str
    amount: int


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket over the period: opening + granted + refunded = spent + expired + withdrawn + closing."""

    bucket_id: str
    unit: str
    valid_to_ns: int
    opening: int
    granted: int
    refunded: int
    spent: int
    expired: int
    withdrawn: int
    closing: int


class Adjustment(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a correction posted in the period; `used_at_ns` is when what it corrects happened.

    `amount` of `unit` was given back to the bucket, moved to another (`replacement_id`) or withdrawn. `net` and `tax`
    are what the bill is lessened by; `due` is what the customer owes directly, or no longer owes after a write-off.
    """

    correction_id: str
    line: int
    kind: str
    about: str
    reason: str
    bucket_id: str | None
    replacement_id: str | None
    unit: str
    amount: int
    net: int
    tax: int
    due: int
    used_at_ns: int
    at_ns: int


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """A period of a billing account, open or closed. `cut` is the last seq covered of each seal stream."""

    customer_id: str
    legal_entity_id: str
    billing_account_id: str
    ordinal: int
    from_ns: int
    to_ns: int
    cut: dict[str, int]
    currency: str
    purchases: tuple[Purchase, ...]
    corrections: tuple[Adjustment, ...]
    usage: tuple[UsageLine, ...]
    balances: tuple[Movement, ...]

    on_credit: tuple[CreditLine, ...] = ()
    owed: tuple[OwedLine, ...] = ()

    @property
    def net(self) -> int:
        """Of all purchases and all use on credit, less what was given back; below zero when that is more."""
        given = sum(line.net for line in (*self.purchases, *self.on_credit))
        return given - sum(line.net for line in self.corrections)

    @property
    def tax(self) -> int:
        """The same of the tax."""
        given = sum(line.tax for line in (*self.purchases, *self.on_credit))
        return given - sum(line.tax for line in self.corrections)

    @property
    def total(self) -> int:
        """Tax included: exactly what was paid or is owed for the period, less what was given back."""
        return self.net + self.tax


class _Last(msgspec.Struct, frozen=True):
    """The bill that the open period follows; for the first period, none."""

    ordinal: int
    to_ns: int
    cut: dict[str, int]


async def open_period(pool: Pool, customer_id: str, now_ns: int) -> Period:
    """The period since the customer's last bill, up to now."""
    async with pool.connection() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return await read(connection, customer_id, now_ns)


async def read(connection: Connection, customer_id: str, now_ns: int) -> Period:
    """The same within a transaction of one snapshot."""
    customer = await parties.customer(connection, customer_id, "customer")
    entity = await parties.legal_entity(connection, customer.legal_entity_id)
    last = await _last(connection, customer)
    usage = await _usage(connection, customer.billing_account_id, last.cut)
    before = await _before(connection, customer.billing_account_id)
    wallet = await balance.wallet(connection, customer.billing_account_id)
    balances = _balances(wallet, await _refunded(connection, customer.billing_account_id), before)
    _check(usage, balances)
    on_credit = await period_credit.lines(connection, wallet, before)
    return Period(
        customer_id=customer.id,
        legal_entity_id=entity.id,
        billing_account_id=customer.billing_account_id,
        ordinal=last.ordinal + 1,
        from_ns=last.to_ns,
        to_ns=max(now_ns, last.to_ns),
        cut=await _heads(connection),
        currency=entity.currency,
        purchases=await _purchases(connection, customer.billing_account_id, last.cut),
        corrections=await _corrections(connection, customer.billing_account_id, last.cut),
        usage=usage,
        balances=balances,
        on_credit=on_credit,
        owed=await period_credit.owed(connection, customer.billing_account_id, on_credit, last.cut),
    )


async def _last(connection: Connection, customer: Customer) -> _Last:
    cursor = await connection.execute(
        "SELECT ordinal, to_ns, cut FROM bill WHERE billing_account_id = %s ORDER BY ordinal DESC LIMIT 1",
        (customer.billing_account_id,),
    )
    row = await cursor.fetchone()
    return _Last(row[0], row[1], row[2]) if row else _Last(0, customer.created_at_ns, {})


async def _heads(connection: Connection) -> dict[str, int]:
    cursor = await connection.execute("SELECT stream, seq FROM seal_stream ORDER BY stream")
    return {row[0]: row[1] for row in await cursor.fetchall()}


async def _purchases(connection: Connection, billing_account_id: str, after: dict[str, int]) -> tuple[Purchase, ...]:
    cursor = await connection.execute(
        """SELECT b.order_id, b.offer_id, f.name, b.id, b.granted, b.unit, o.tax_basis_points, b.net, b.tax,
               b.sold_at_ns
           FROM bucket b JOIN customer_order o ON o.bucket_id = b.id JOIN offer f ON f.id = b.offer_id
           WHERE b.billing_account_id = %(account)s AND b.kind = 'prepaid'
             AND b.seq > coalesce((%(after)s::jsonb ->> b.stream)::bigint, 0)
           ORDER BY b.sold_at_ns, b.id""",
        {"account": billing_account_id, "after": msgspec.json.encode(after).decode()},
    )
    return tuple(
        Purchase(
            order_id=row[0],
            offer_id=row[1],
            name=row[2],
            bucket_id=row[3],
            granted=int(row[4]),
            unit=row[5],
            tax_basis_points=row[6],
            net=int(row[7]),
            tax=int(row[8]),
            total=int(row[7] + row[8]),
            sold_at_ns=row[9],
        )
        for row in await cursor.fetchall()
    )


async def _corrections(
    connection: Connection, billing_account_id: str, after: dict[str, int]
) -> tuple[Adjustment, ...]:
    """Price that moved into another bucket of the customer lessens no bill."""
    cursor = await connection.execute(
        """SELECT c.id, l.ordinal, c.kind, c.about, c.reason, l.bucket_id, l.replacement_id, l.unit, l.amount,
               CASE WHEN c.kind = 'usage_refunded' THEN 0 ELSE l.net END,
               CASE WHEN c.kind = 'usage_refunded' THEN 0 ELSE l.tax END, l.due, c.used_at_ns, c.at_ns
           FROM correction c JOIN correction_line l ON l.correction_id = c.id
           WHERE c.billing_account_id = %(account)s AND c.seq > coalesce((%(after)s::jsonb ->> c.stream)::bigint, 0)
           ORDER BY c.id, l.ordinal""",
        {"account": billing_account_id, "after": msgspec.json.encode(after).decode()},
    )
    return tuple(adjustment(row) for row in await cursor.fetchall())


def adjustment(row: TupleRow) -> Adjustment:
    """From the columns of `bill_correction` behind the bill's."""
    values: dict[str, Any] = dict(zip(Adjustment.__struct_fields__, row, strict=True))
    values.update({name: int(values[name]) for name in ("amount", "net", "tax", "due")})
    return Adjustment(**values)


async def _usage(connection: Connection, billing_account_id: str, after: dict[str, int]) -> tuple[UsageLine, ...]:
    """By bucket, model and tariff version. Charges of leases that had ended took nothing from the customer."""
    cursor = await connection.execute(
        """SELECT c.bucket_id, r.model, c.tariff, count(DISTINCT r.id), sum(c.tokens_input), sum(c.tokens_cached_input),
               sum(c.tokens_cache_write), sum(c.tokens_output), sum(c.tokens_reasoning), c.unit, sum(c.amount)
           FROM usage_record r CROSS JOIN unnest(r.charges) c
           WHERE r.billing_account_id = %(account)s AND c.proven
             AND r.seq > coalesce((%(after)s::jsonb ->> r.stream)::bigint, 0)
           GROUP BY c.bucket_id, r.model, c.tariff, c.unit ORDER BY c.bucket_id, r.model, c.tariff""",
        {"account": billing_account_id, "after": msgspec.json.encode(after).decode()},
    )
    return tuple(
        UsageLine(
            bucket_id=row[0],
            model=row[1],
            tariff=row[2],
            records=row[3],
            tokens=Tokens(*(int(count) for count in row[4:9])),
            unit=row[9],
            amount=int(row[10]),
        )
        for row in await cursor.fetchall()
    )


def _balances(wallet: list[BucketBalance], refunded: dict[str, int], before: dict[str, Shown]) -> tuple[Movement, ...]:
    moved = (
        _movement(bucket, refunded.get(bucket.bucket.id, 0), before.get(bucket.bucket.id, Shown())) for bucket in wallet
    )
    return tuple(movement for movement in moved if movement.opening or movement.granted or movement.refunded)


async def _before(connection: Connection, billing_account_id: str) -> dict[str, Shown]:
    cursor = await connection.execute(
        """SELECT l.bucket_id, sum(l.granted), sum(l.refunded), sum(l.spent), sum(l.expired), sum(l.withdrawn)
           FROM bill b JOIN bill_balance l ON l.bill_id = b.id
           WHERE b.billing_account_id = %s GROUP BY l.bucket_id""",
        (billing_account_id,),
    )
    return {row[0]: Shown(*(int(amount) for amount in row[1:])) for row in await cursor.fetchall()}


async def _refunded(connection: Connection, billing_account_id: str) -> dict[str, int]:
    """All use that was ever given back, by the bucket that it was taken from."""
    cursor = await connection.execute(
        """SELECT l.bucket_id, sum(l.amount) FROM correction c JOIN correction_line l ON l.correction_id = c.id
           WHERE c.billing_account_id = %s AND c.kind = 'usage_refunded' GROUP BY l.bucket_id""",
        (billing_account_id,),
    )
    return {row[0]: int(row[1]) for row in await cursor.fetchall()}


def _movement(bucket: BucketBalance, refunded: int, before: Shown) -> Movement:
    return Movement(
        bucket_id=bucket.bucket.id,
        unit=bucket.bucket.unit,
        valid_to_ns=bucket.bucket.valid_to_ns,
        opening=before.closing,
        granted=bucket.issued - before.granted,
        refunded=refunded - before.refunded,
        spent=bucket.spent + refunded - before.spent,
        expired=bucket.expired - before.expired,
        withdrawn=bucket.withdrawn - before.withdrawn,
        closing=bucket.available + bucket.leased,
    )


def _check(usage: tuple[UsageLine, ...], balances: tuple[Movement, ...]) -> None:
    """What cost nothing may be of a bucket that is no longer shown: only amounts are compared."""
    charged: Counter[str] = Counter()
    for line in usage:
        charged[line.bucket_id] += line.amount
    spent = Counter({movement.bucket_id: movement.spent for movement in balances})
    # Counters are equal where one lacks what the other has zero of.
    if charged != spent:
        raise BooksDiffer(f"charges {charged} are not what the buckets have lost {spent}")
