"""Tariffs: versions are immutable and numbered; offers are checked against them."""

import psycopg
import pytest

from shop.shopfront import NOON, offer, opened
from tokenworks.base.database import Pool
from tokenworks.core.amounts import MILLION, parse
from tokenworks.core.commands import CommandRefused
from tokenworks.core.tariff import Rate, flat
from tokenworks.shop import offers, sealed, tariffs

DEAR = Rate(MILLION, MILLION // 10, MILLION, 3 * MILLION, 3 * MILLION)


async def test_publishing_again_makes_a_version_only_if_something_changed(database: Pool) -> None:
    shop = await opened(database)
    names: list[str] = []
    for rates in ({"*/*": flat(MILLION)}, {"*/*": flat(MILLION), "glm-5/*": DEAR}, {"*/*": flat(MILLION)}):
        async with sealed.transaction(database, NOON) as connection:
            names.append((await tariffs.publish(connection, "plain", "token", rates, NOON)).tariff.name)
    assert names == ["plain@1", "plain@2", "plain@3"]
    async with shop.pool.connection() as connection:
        assert (await tariffs.get(connection, "plain")).tariff.version == 3
        assert (await tariffs.get(connection, "plain@2")).tariff.rates == {"*/*": flat(MILLION), "glm-5/*": DEAR}
        assert [found.tariff.name for found in await tariffs.listed(connection, 10, "")] == ["plain@3"]
        assert (await tariffs.currents(connection))["plain"].version == 3


async def test_what_a_stopped_answer_costs_is_a_term_of_its_version(database: Pool) -> None:
    shop = await opened(database)
    rates = {"*/*": flat(MILLION)}
    async with sealed.transaction(database, NOON) as connection:
        for stopped in ("nothing", "nothing", "generated"):
            await tariffs.publish(connection, "kind", "token", rates, NOON, stopped=stopped)
    async with shop.pool.connection() as connection:
        found = [(await tariffs.get(connection, name)).tariff for name in ("kind@1", "kind", "plain")]
    assert [each.stopped for each in found] == ["nothing", "generated", "passed"]
    assert found[1].version == 2


async def test_a_published_version_cannot_be_changed(database: Pool) -> None:
    await opened(database)
    statements = (
        "UPDATE tariff_rate SET input = 0",
        "DELETE FROM tariff_rate",
        "UPDATE tariff SET unit = 'point'",
        "DELETE FROM tariff",
    )
    async with database.connection() as connection:
        for statement in statements:
            with pytest.raises(psycopg.errors.RestrictViolation, match="are final"):
                await connection.execute(statement.encode())
            await connection.rollback()


async def test_an_unknown_tariff_is_not_found(database: Pool) -> None:
    await opened(database)
    async with database.connection() as connection:
        for name in ("other", "plain@2", "plain@x", "plain@", "plain@99999999999"):
            with pytest.raises(CommandRefused, match="no tariff"):
                await tariffs.get(connection, name)


SENSELESS_RATES: list[tuple[str, str, dict[str, Rate], str]] = [
    ("No Spaces", "token", {"*/*": flat(1)}, "id"),
    ("new", "dollars", {"*/*": flat(1)}, "unit"),
    ("plain", "point", {"*/*": flat(1)}, "unit"),
    ("new", "token", {}, "rates"),
    ("new", "token", {"m": flat(1)}, "rates"),
    ("new", "token", {"m/gold": flat(1)}, "rates"),
    ("new", "token", {"/free": flat(1)}, "rates"),
    ("new", "token", {"m/free": flat(-1)}, "rates"),
]


async def test_a_tariff_that_makes_no_sense_is_refused(database: Pool) -> None:
    await opened(database)
    async with sealed.transaction(database, NOON) as connection:
        for tariff_id, unit, rates, field in SENSELESS_RATES:
            with pytest.raises(CommandRefused) as refused:
                await tariffs.publish(connection, tariff_id, unit, rates, NOON)
            assert refused.value.field == field
        named = await tariffs.publish(connection, "new", "token", {"Org/Model-1/free": flat(0)}, NOON)
    assert named.tariff.rate("Org/Model-1", "free") == flat(0)


SENSELESS_OFFERS: list[tuple[dict[str, object], str]] = [
    ({"id": "No Spaces"}, "id"),
    ({"name": ""}, "name"),
    ({"price": 0}, "price"),
    ({"granted": 0}, "grant"),
    ({"unit": "point"}, "grant"),
    ({"currency": "USD"}, "price"),
    ({"tier": "gold"}, "tier"),
    ({"validity": "PT1H"}, "validity"),
    ({"priority": -1}, "priority"),
    ({"legal_entity_id": "nobody"}, "legal_entity_id"),
]


async def test_an_offer_that_makes_no_sense_is_refused(database: Pool) -> None:
    await opened(database)
    async with sealed.transaction(database, NOON) as connection:
        for changes, field in SENSELESS_OFFERS:
            with pytest.raises(CommandRefused) as refused:
                await offers.add(connection, offer("new", **changes))
            assert refused.value.field == field, changes


async def test_an_offer_is_kept_as_it_is(database: Pool) -> None:
    await opened(database)
    huge = offer("huge", granted=10**30, price=parse("17438056000", "CNY"))
    async with sealed.transaction(database, NOON) as connection:
        await offers.add(connection, huge)
        assert await offers.get(connection, "huge") == huge
        assert [found.id for found in await offers.listed(connection, 10, "huge")] == ["p10"]
        with pytest.raises(CommandRefused, match="exists already"):
            await offers.add(connection, huge)
