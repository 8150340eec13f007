"""Suppliers: the businesses that endpoints belong to. What they are paid is their purchase tariffs and the ledger's."""

import re

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row

from tokenworks.core.amounts import NANO, AmountFault, scale
from tokenworks.core.commands import conflict, invalid, not_found

Connection = AsyncConnection[TupleRow]

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NAME_LENGTH_MAX = 200


class Supplier(msgspec.Struct, frozen=True, kw_only=True):
    """One supplier, paid in one currency."""

    id: str
    name: str
    currency: str
    created_at_ns: int


async def add(connection: Connection, supplier: Supplier) -> Supplier:
    """Register a supplier."""
    if not _ID.fullmatch(supplier.id):
        raise invalid("A supplier's id has 1 to 64 lower-case letters, digits and . _ -", "id")
    if not 0 < len(supplier.name) <= _NAME_LENGTH_MAX:
        raise invalid(f"A supplier's name has 1 to {_NAME_LENGTH_MAX} characters.", "name")
    if not _is_currency(supplier.currency):
        raise invalid(f"{supplier.currency!r} is not a currency code such as CNY.", "currency")
    cursor = await connection.execute(
        """INSERT INTO supplier (id, name, currency, created_at_ns)
           VALUES (%(id)s, %(name)s, %(currency)s, %(created_at_ns)s) ON CONFLICT DO NOTHING""",
        msgspec.structs.asdict(supplier),
    )
    if cursor.rowcount == 0:
        raise conflict(f"The supplier {supplier.id!r} exists already.", "id")
    return supplier


async def get(connection: Connection, supplier_id: str, field: str = "") -> Supplier:
    """One supplier; refused if there is none. `field` names the command's field that holds the id."""
    async with connection.cursor(row_factory=class_row(Supplier)) as cursor:
        await cursor.execute("SELECT id, name, currency, created_at_ns FROM supplier WHERE id = %s", (supplier_id,))
        supplier = await cursor.fetchone()
    if supplier is None:
        raise not_found("supplier", supplier_id, field)
    return supplier


async def listed(connection: Connection, limit: int, after: str) -> list[Supplier]:
    """Suppliers by id. `after` is the last id already seen."""
    async with connection.cursor(row_factory=class_row(Supplier)) as cursor:
        await cursor.execute(
            "SELECT id, name, currency, created_at_ns FROM supplier WHERE id > %s ORDER BY id LIMIT %s", (after, limit)
        )
        return await cursor.fetchall()


def _is_currency(unit: str) -> bool:
    try:
        return scale(unit) == NANO
    except AmountFault:
        return False
