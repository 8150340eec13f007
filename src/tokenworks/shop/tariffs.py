"""Selling tariffs in versions. A published version never changes; publishing again makes the next one.

A record keeps the version it was rated by, so that every charge can be recomputed. What a use costs under a tariff is
`core.tariff`; purchase prices are `supply.prices`.
"""

import re
from typing import Any, LiteralString

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.core.amounts import AmountFault, Rounding, exact, scale
from tokenworks.core.commands import invalid, not_found
from tokenworks.core.tariff import ANY, PRICE_MAX, Rate, Stopped, Tariff
from tokenworks.core.tiers import TIERS

Connection = AsyncConnection[TupleRow]

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SELECT = """SELECT t.id, t.version, t.unit, t.rounding, t.stopped, t.published_at_ns,
        r.selector, r.input, r.cached_input, r.cache_write, r.output, r.reasoning
    FROM tariff t JOIN tariff_rate r ON r.tariff_id = t.id AND r.version = t.version"""
_ORDER = "ORDER BY t.id, t.version, r.selector"
_CURRENT = "t.version = (SELECT max(version) FROM tariff WHERE id = t.id)"


class Published(msgspec.Struct, frozen=True):
    """A tariff version and when it was published."""

    tariff: Tariff
    published_at_ns: int


async def publish(
    connection: Connection,
    tariff_id: str,
    unit: str,
    rates: dict[str, Rate],
    at_ns: int,
    rounding: Rounding = "half_up",
    stopped: Stopped = "passed",
) -> Published:
    """Make this the tariff from now on: a new version, or the current one if it says the same.

    Called within a sealed transaction, whose lock on the stream keeps versions apart.
    """
    _check(tariff_id, unit, rates)
    current = await _current(connection, tariff_id)
    if current is not None:
        tariff = current.tariff
        if tariff.unit != unit:
            raise invalid(f"The tariff {tariff_id!r} draws {tariff.unit}; another unit needs another id.", "unit")
        if (tariff.rates, tariff.rounding, tariff.stopped) == (rates, rounding, stopped):
            return current
    version = current.tariff.version + 1 if current else 1
    tariff = Tariff(tariff_id, version, unit, dict(sorted(rates.items())), rounding, stopped)
    await _insert(connection, tariff, at_ns)
    return Published(tariff, at_ns)


async def get(connection: Connection, name: str) -> Published:
    """One tariff: `personal` at its current version, `personal@1` at that one; refused if there is none."""
    tariff_id, at, version = name.partition("@")
    if not at:
        found = await _current(connection, tariff_id)
    elif version.isdecimal() and len(version) < 10:
        found = _single(await _read(connection, "WHERE t.id = %s AND t.version = %s", (tariff_id, int(version))))
    else:
        found = None
    if found is None:
        raise not_found("tariff", name)
    return found


async def listed(connection: Connection, limit: int, after: str) -> list[Published]:
    """Current versions by id. `after` is the last id already seen."""
    cursor = await connection.execute(
        "SELECT DISTINCT id FROM tariff WHERE id > %s ORDER BY id LIMIT %s", (after, limit)
    )
    ids = [row[0] for row in await cursor.fetchall()]
    return await _read(connection, f"WHERE t.id = ANY(%s) AND {_CURRENT}", (ids,))


async def currents(connection: Connection) -> dict[str, Tariff]:
    """Every tariff at its current version, by id, for the catalog."""
    return {found.tariff.id: found.tariff for found in await _read(connection, "WHERE " + _CURRENT, ())}


async def _current(connection: Connection, tariff_id: str) -> Published | None:
    return _single(await _read(connection, f"WHERE t.id = %s AND {_CURRENT}", (tariff_id,)))


async def _read(connection: Connection, condition: LiteralString, values: tuple[object, ...]) -> list[Published]:
    cursor = await connection.execute(f"{_SELECT} {condition} {_ORDER}", values)
    found: dict[tuple[str, int], Published] = {}
    for row in await cursor.fetchall():
        published = found.setdefault((row[0], row[1]), _published(row))
        published.tariff.rates[row[6]] = Rate(*(int(price) for price in row[7:]))
    return list(found.values())


async def _insert(connection: Connection, tariff: Tariff, at_ns: int) -> None:
    await connection.execute(
        "INSERT INTO tariff (id, version, unit, rounding, stopped, published_at_ns) VALUES (%s, %s, %s, %s, %s, %s)",
        (tariff.id, tariff.version, tariff.unit, tariff.rounding, tariff.stopped, at_ns),
    )
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """INSERT INTO tariff_rate
                   (tariff_id, version, selector, input, cached_input, cache_write, output, reasoning)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
            [(tariff.id, tariff.version, selector, *rate.each()) for selector, rate in tariff.rates.items()],
        )


def _single(found: list[Published]) -> Published | None:
    return found[0] if found else None


def _published(row: tuple[Any, ...]) -> Published:
    return Published(Tariff(row[0], row[1], row[2], {}, rounding=row[3], stopped=row[4]), row[5])


def _check(tariff_id: str, unit: str, rates: dict[str, Rate]) -> None:
    if not _ID.fullmatch(tariff_id):
        raise invalid("A tariff's id has 1 to 64 lower-case letters, digits and . _ -", "id")
    try:
        scale(unit)
    except AmountFault as fault:
        raise invalid(f"{fault}.", "unit") from fault
    if not rates:
        raise invalid("A tariff has at least one rate.", "rates")
    for selector, rate in rates.items():
        model, slash, tier = selector.rpartition("/")
        if not slash or not model or tier not in {*TIERS, ANY}:
            raise invalid(f"{selector!r} is not model/tier; either may be *, tiers are {', '.join(TIERS)}.", "rates")
        if min(rate.each()) < 0:
            raise invalid(f"{selector!r} has a price below zero.", "rates")
        if max(rate.each()) > PRICE_MAX:
            raise invalid(f"{selector!r} has a price above {exact(PRICE_MAX, unit)} {unit}.", "rates")
