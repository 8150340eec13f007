"""Suppliers, purchase prices in versions, and what the ledger says they are owed."""

import psycopg
import pytest

from shop.shopfront import opened
from tokenworks.base.database import Pool
from tokenworks.core.amounts import parse
from tokenworks.core.commands import CommandRefused
from tokenworks.core.tariff import Rate, flat
from tokenworks.core.usage import Tokens
from tokenworks.ledger import store
from tokenworks.ledger.tables import SEALED
from tokenworks.supply import books, prices, suppliers
from tokenworks.supply.books import Owed
from tokenworks.supply.sealed import SEALED as SUPPLY_SEALED
from tokenworks.supply.suppliers import Supplier

SUPPLIER = Supplier(id="sup", name="S", currency="CNY", created_at_ns=1)
RATE = Rate(*(parse(price, "CNY") for price in ("0.30", "0.03", "0.30", "0.60", "0.60")))


async def test_a_new_price_is_a_new_version_for_one_supplier(database: Pool) -> None:
    async with store.transaction(database, "shop", 1, SEALED + SUPPLY_SEALED) as connection:
        supplier = await suppliers.add(connection, SUPPLIER)
        other = await suppliers.add(connection, Supplier(id="sup2", name="T", currency="CNY", created_at_ns=1))
        published = [await prices.publish(connection, "e1", supplier, rate, 7) for rate in (RATE, RATE, flat(5), RATE)]
        await prices.publish(connection, "e2", other, RATE, 7)
        assert [tariff.name for tariff in published] == ["e1@1", "e1@1", "e1@2", "e1@3"]
        assert await prices.currents(connection, "e1") == {"e1": published[-1]}
        assert set(await prices.currents(connection)) == {"e1", "e2"}
        with pytest.raises(CommandRefused, match="another supplier"):
            await prices.publish(connection, "e1", other, RATE, 7)
    async with database.connection() as connection:
        with pytest.raises(psycopg.errors.RestrictViolation):
            await connection.execute("UPDATE purchase_tariff SET input = 0")
        await connection.rollback()


async def test_what_a_supplier_is_owed(database: Pool) -> None:
    """The shop's customer uses an endpoint of the supplier `sup` twice; its neighbour by name has served nothing."""
    shop = await opened(database)
    await shop.desk.place(shop.customer.id, "p10")
    await shop.use(Tokens(input=5))
    await shop.use(Tokens(output=5))
    async with database.connection() as connection:
        assert await books.owed(connection, "sup", "CNY") == Owed("CNY", 6, 6)
        assert await books.owed(connection, "su", "CNY") == Owed("CNY", 0, 0)
        assert await books.owed(connection, "sup", "USD") == Owed("USD", 0, 0)


async def test_suppliers_that_make_no_sense_are_refused(database: Pool) -> None:
    async with database.connection() as connection:
        await suppliers.add(connection, SUPPLIER)
        for supplier, field in (
            (Supplier(id="A", name="S", currency="CNY", created_at_ns=1), "id"),
            (Supplier(id="a", name="", currency="CNY", created_at_ns=1), "name"),
            (Supplier(id="a", name="S", currency="token", created_at_ns=1), "currency"),
            (Supplier(id="a", name="S", currency="yuan", created_at_ns=1), "currency"),
            (SUPPLIER, "id"),
        ):
            with pytest.raises(CommandRefused) as refused:
                await suppliers.add(connection, supplier)
            assert refused.value.field == field
        assert await suppliers.listed(connection, 10, "") == [SUPPLIER]
