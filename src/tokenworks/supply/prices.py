"""Purchase prices: what a supplier gets for one million tokens of each class, in versions that never change.

A purchase tariff belongs to one supplier and is named by the endpoints it is paid for. Until agreements with terms of
their own exist, the tariff's versions are the agreement. Selling prices are `shop.tariffs`.
"""

from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.core.amounts import Rounding, exact
from tokenworks.core.commands import conflict, invalid
from tokenworks.core.tariff import PRICE_MAX, Rate
from tokenworks.supply.suppliers import Supplier

Connection = AsyncConnection[TupleRow]

_SELECT = """SELECT DISTINCT ON (id) id, version, supplier_id, currency, rounding, input, cached_input, cache_write,
        output, reasoning, published_at_ns
    FROM purchase_tariff """
_INSERT = """INSERT INTO purchase_tariff (id, version, supplier_id, currency, rounding, input, cached_input,
        cache_write, output, reasoning, published_at_ns)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""


class PurchaseTariff(msgspec.Struct, frozen=True, kw_only=True):
    """One version. The rate is in the smallest part of the currency."""

    id: str
    version: int
    supplier_id: str
    currency: str
    rounding: Rounding
    rate: Rate
    published_at_ns: int

    @property
    def name(self) -> str:
        """What records keep: `embedded-engine@1`."""
        return f"{self.id}@{self.version}"


async def publish(
    connection: Connection, tariff_id: str, supplier: Supplier, rate: Rate, at_ns: int, rounding: Rounding = "half_up"
) -> PurchaseTariff:
    """Make this the supplier's price from now on: a new version, or the current one if it says the same.

    Called within a sealed transaction, whose lock on the stream keeps versions apart.
    """
    if max(rate.each()) > PRICE_MAX:
        raise invalid(f"A price is at most {exact(PRICE_MAX, supplier.currency)} {supplier.currency}.", "rate")
    current = (await currents(connection, tariff_id)).get(tariff_id)
    if current is not None and current.supplier_id != supplier.id:
        raise conflict(f"The purchase tariff {tariff_id!r} belongs to another supplier.", "id")
    if current is not None and (current.rate, current.rounding) == (rate, rounding):
        return current
    tariff = PurchaseTariff(
        id=tariff_id,
        version=current.version + 1 if current else 1,
        supplier_id=supplier.id,
        currency=supplier.currency,
        rounding=rounding,
        rate=rate,
        published_at_ns=at_ns,
    )
    await connection.execute(
        _INSERT,
        (tariff_id, tariff.version, supplier.id, tariff.currency, rounding, *rate.each(), at_ns),
    )
    return tariff


async def currents(connection: Connection, tariff_id: str = "") -> dict[str, PurchaseTariff]:
    """The current version of every purchase tariff, or of one, by id."""
    cursor = await connection.execute(
        _SELECT + """WHERE %(id)s = '' OR id = %(id)s ORDER BY id, version DESC""",
        {"id": tariff_id},
    )
    return {row[0]: _tariff(row) for row in await cursor.fetchall()}


def _tariff(row: tuple[Any, ...]) -> PurchaseTariff:
    return PurchaseTariff(
        id=row[0],
        version=row[1],
        supplier_id=row[2],
        currency=row[3],
        rounding=row[4],
        rate=Rate(*(int(price) for price in row[5:10])),
        published_at_ns=row[10],
    )
