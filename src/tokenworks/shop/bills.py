"""Bills: closed periods, numbered without a gap within each legal entity. A bill is never changed once written.

Amounts are kept exactly; whoever shows a bill may round for the eye. What a period contains is `period`.
"""

from typing import Any, LiteralString

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.base import ids
from tokenworks.base.database import Pool
from tokenworks.core.commands import CommandCode, CommandRefused, conflict, not_found
from tokenworks.core.usage import Tokens
from tokenworks.shop import sealed
from tokenworks.shop.period import Movement, Period, Purchase, UsageLine, adjustment, open_period
from tokenworks.shop.period_credit import CreditLine, OwedLine

Connection = AsyncConnection[TupleRow]


class Bill(msgspec.Struct, frozen=True):
    """A closed period with its tax-document number; `serial` counts the bills of the legal entity from 1."""

    id: str
    serial: int
    number: str
    period: Period


async def close(pool: Pool, customer_id: str, now_ns: int, bill_id: str = "") -> Bill:
    """Close the customer's open period now. Closing again under the same bill id gives the same bill."""
    bill_id = bill_id or ids.new("bil")
    async with pool.connection() as connection:
        known = await _find(connection, [bill_id])
    if known:
        return _same(known[0], customer_id)
    period = await open_period(pool, customer_id, now_ns)
    async with sealed.transaction(pool, now_ns) as connection:
        if await _closed_meanwhile(connection, period):
            raise conflict("Another bill was closed for this customer at the same moment.", "customer")
        bill = await _numbered(connection, bill_id, period)
        await _insert(connection, bill)
    return bill


async def get(connection: Connection, bill_id: str) -> Bill:
    """One bill; refused if there is none."""
    found = await _find(connection, [bill_id])
    if not found:
        raise not_found("bill", bill_id)
    return found[0]


async def listed(connection: Connection, customer_id: str, limit: int, before: str) -> list[Bill]:
    """Bills, newest first; all customers' if `customer_id` is empty. `before` is the last id already seen."""
    cursor = await connection.execute(
        """SELECT id FROM bill
           WHERE (%(customer_id)s = '' OR customer_id = %(customer_id)s) AND (%(before)s = '' OR id < %(before)s)
           ORDER BY id DESC LIMIT %(limit)s""",
        {"customer_id": customer_id, "before": before, "limit": limit},
    )
    return await _find(connection, [row[0] for row in await cursor.fetchall()])


def _same(bill: Bill, customer_id: str) -> Bill:
    if bill.period.customer_id != customer_id:
        raise CommandRefused(CommandCode.IDEMPOTENCY_CONFLICT, f"The bill {bill.id!r} is another customer's.")
    return bill


async def _closed_meanwhile(connection: Connection, period: Period) -> bool:
    cursor = await connection.execute(
        "SELECT 1 FROM bill WHERE billing_account_id = %s AND ordinal >= %s",
        (period.billing_account_id, period.ordinal),
    )
    return await cursor.fetchone() is not None


async def _numbered(connection: Connection, bill_id: str, period: Period) -> Bill:
    """The next number; the lock on the shop's stream, held to the end, keeps numbers apart and without a gap."""
    cursor = await connection.execute(
        "SELECT coalesce(max(serial), 0) + 1 FROM bill WHERE legal_entity_id = %s", (period.legal_entity_id,)
    )
    row = await cursor.fetchone()
    serial = int(row[0]) if row else 1
    return Bill(bill_id, serial, f"{period.legal_entity_id}-{serial:08d}", period)


async def _insert(connection: Connection, bill: Bill) -> None:
    period = bill.period
    await connection.execute(
        """INSERT INTO bill (id, legal_entity_id, serial, number, customer_id, billing_account_id, ordinal, from_ns,
               to_ns, cut, currency, net, tax, total)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s::jsonb, %s, %s, %s, %s)""",
        (
            *(bill.id, period.legal_entity_id, bill.serial, bill.number, period.customer_id),
            *(period.billing_account_id, period.ordinal, period.from_ns, period.to_ns),
            *(msgspec.json.encode(period.cut).decode(), period.currency, period.net, period.tax, period.total),
        ),
    )
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """INSERT INTO bill_line (bill_id, ordinal, order_id, offer_id, name, bucket_id, granted, unit,
                   tax_basis_points, net, tax, total, sold_at_ns)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [(bill.id, place, *msgspec.structs.astuple(line)) for place, line in enumerate(period.purchases, 1)],
        )
        await cursor.executemany(
            """INSERT INTO bill_usage (bill_id, ordinal, bucket_id, model, tariff, records, tokens_input,
                   tokens_cached_input, tokens_cache_write, tokens_output, tokens_reasoning, unit, amount)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [
                (
                    *(bill.id, place, line.bucket_id, line.model, line.tariff, line.records),
                    *(*line.tokens.each(), line.unit, line.amount),
                )
                for place, line in enumerate(period.usage, 1)
            ],
        )
        await cursor.executemany(
            """INSERT INTO bill_balance (bill_id, bucket_id, unit, valid_to_ns, opening, granted, refunded, spent,
                   expired, withdrawn, closing)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [(bill.id, *msgspec.structs.astuple(movement)) for movement in period.balances],
        )
        await cursor.executemany(
            """INSERT INTO bill_credit (bill_id, ordinal, order_id, offer_id, name, bucket_id, unit, used,
                   tax_basis_points, net, tax, total)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [(bill.id, place, *msgspec.structs.astuple(line)) for place, line in enumerate(period.on_credit, 1)],
        )
        await cursor.executemany(
            "INSERT INTO bill_owed (bill_id, order_id, opening, used, paid, closing) VALUES (%s, %s, %s, %s, %s, %s)",
            [(bill.id, *msgspec.structs.astuple(line)) for line in period.owed],
        )
        await cursor.executemany(
            """INSERT INTO bill_correction (bill_id, ordinal, correction_id, line, kind, about, reason, bucket_id,
                   replacement_id, unit, amount, net, tax, due, used_at_ns, at_ns)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [(bill.id, place, *msgspec.structs.astuple(line)) for place, line in enumerate(period.corrections, 1)],
        )


async def _find(connection: Connection, bill_ids: list[str]) -> list[Bill]:
    """Bills with all their lines, newest first."""
    cursor = await connection.execute(
        """SELECT id, serial, number, customer_id, legal_entity_id, billing_account_id, ordinal, from_ns, to_ns, cut,
               currency
           FROM bill WHERE id = ANY(%s) ORDER BY id DESC""",
        (bill_ids,),
    )
    heads = await cursor.fetchall()
    lines = await _lines(connection, _LINES, bill_ids)
    usage = await _lines(connection, _USAGE, bill_ids)
    balances = await _lines(connection, _BALANCES, bill_ids)
    on_credit = await _lines(connection, _CREDITS, bill_ids)
    owed = await _lines(connection, _OWED, bill_ids)
    corrected = await _lines(connection, _CORRECTIONS, bill_ids)
    return [
        Bill(
            row[0],
            row[1],
            row[2],
            Period(
                customer_id=row[3],
                legal_entity_id=row[4],
                billing_account_id=row[5],
                ordinal=row[6],
                from_ns=row[7],
                to_ns=row[8],
                cut=row[9],
                currency=row[10],
                purchases=tuple(_purchase(line) for line in lines[row[0]]),
                corrections=tuple(adjustment(line) for line in corrected[row[0]]),
                usage=tuple(_usage(line) for line in usage[row[0]]),
                balances=tuple(_movement(line) for line in balances[row[0]]),
                on_credit=tuple(_credit(line) for line in on_credit[row[0]]),
                owed=tuple(_owed(line) for line in owed[row[0]]),
            ),
        )
        for row in heads
    ]


_LINES = """SELECT bill_id, order_id, offer_id, name, bucket_id, granted, unit, tax_basis_points, net, tax, total,
        sold_at_ns
    FROM bill_line WHERE bill_id = ANY(%s) ORDER BY bill_id, ordinal"""
_USAGE = """SELECT bill_id, bucket_id, model, tariff, records, tokens_input, tokens_cached_input, tokens_cache_write,
        tokens_output, tokens_reasoning, unit, amount
    FROM bill_usage WHERE bill_id = ANY(%s) ORDER BY bill_id, ordinal"""
_BALANCES = """SELECT bill_id, bucket_id, unit, valid_to_ns, opening, granted, refunded, spent, expired, withdrawn,
        closing
    FROM bill_balance WHERE bill_id = ANY(%s) ORDER BY bill_id, bucket_id"""
_CORRECTIONS = """SELECT bill_id, correction_id, line, kind, about, reason, bucket_id, replacement_id, unit, amount,
        net, tax, due, used_at_ns, at_ns
    FROM bill_correction WHERE bill_id = ANY(%s) ORDER BY bill_id, ordinal"""

_CREDITS = """SELECT bill_id, order_id, offer_id, name, bucket_id, unit, used, tax_basis_points, net, tax, total
    FROM bill_credit WHERE bill_id = ANY(%s) ORDER BY bill_id, ordinal"""
_OWED = """SELECT bill_id, order_id, opening, used, paid, closing
    FROM bill_owed WHERE bill_id = ANY(%s) ORDER BY bill_id, order_id"""


async def _lines(connection: Connection, query: LiteralString, bill_ids: list[str]) -> dict[str, list[TupleRow]]:
    cursor = await connection.execute(query, (bill_ids,))
    found: dict[str, list[TupleRow]] = {bill_id: [] for bill_id in bill_ids}
    for row in await cursor.fetchall():
        found[row[0]].append(row[1:])
    return found


def _purchase(row: TupleRow) -> Purchase:
    return Purchase(
        order_id=row[0],
        offer_id=row[1],
        name=row[2],
        bucket_id=row[3],
        granted=int(row[4]),
        unit=row[5],
        tax_basis_points=row[6],
        net=int(row[7]),
        tax=int(row[8]),
        total=int(row[9]),
        sold_at_ns=row[10],
    )


def _usage(row: TupleRow) -> UsageLine:
    return UsageLine(
        bucket_id=row[0],
        model=row[1],
        tariff=row[2],
        records=row[3],
        tokens=Tokens(*row[4:9]),
        unit=row[9],
        amount=int(row[10]),
    )


def _movement(row: TupleRow) -> Movement:
    values: dict[str, Any] = dict(zip(Movement.__struct_fields__, row, strict=True))
    values.update({name: int(value) for name, value in values.items() if name not in {"bucket_id", "unit"}})
    return Movement(**values)


def _credit(row: TupleRow) -> CreditLine:
    return CreditLine(
        order_id=row[0],
        offer_id=row[1],
        name=row[2],
        bucket_id=row[3],
        unit=row[4],
        used=int(row[5]),
        tax_basis_points=row[6],
        net=int(row[7]),
        tax=int(row[8]),
        total=int(row[9]),
    )


def _owed(row: TupleRow) -> OwedLine:
    opening, used, paid, closing = (int(amount) for amount in row[1:])
    return OwedLine(order_id=row[0], opening=opening, used=used, paid=paid, closing=closing)
