"""Limits of keys and customers: set, removed, listed. Every version stays, under seal; the newest holds.

What a limit means is `core.limits`; gateways count and refuse. Telling them of a change is the caller's: it knows when
the transaction has committed.
"""

from collections import defaultdict
from collections.abc import Mapping

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row

from tokenworks.core.amounts import AmountFault, scale
from tokenworks.core.commands import invalid, not_found
from tokenworks.core.limits import METRICS, WINDOWS, WITHOUT_WINDOW, Limit, Limits, Metric, Window, name_of

Connection = AsyncConnection[TupleRow]

# Beyond these a worker could not count them in the integers of its messages.
_AMOUNT_MAX = (1 << 63) - 1
_WEIGHT_MAX = 1_000
_COLUMNS = "id, version, customer_id, key_id, metric, unit, within, rolling, amount, timezone, set_at_ns"
_CURRENT = f"SELECT DISTINCT ON (id) {_COLUMNS} FROM usage_limit "  # noqa: S608 - names of columns


class LimitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a limit of a customer, or of one of its keys; without an amount it was removed."""

    id: str
    version: int
    customer_id: str
    key_id: str | None
    metric: Metric
    unit: str
    within: Window
    rolling: bool
    amount: int | None
    timezone: str
    set_at_ns: int

    def limit(self) -> Limit | None:
        """What workers count; None if it was removed."""
        if self.amount is None:
            return None
        return Limit(self.id, self.metric, self.amount, self.within, self.rolling, self.unit, self.timezone)


async def put(
    connection: Connection,
    *,
    customer_id: str,
    key_id: str | None,
    metric: Metric,
    unit: str,
    within: Window,
    rolling: bool,
    amount: int,
    timezone: str,
    currency: str,
    at_ns: int,
) -> LimitRecord:
    """Set a limit, or another amount of one. Called within a sealed transaction, whose lock keeps versions apart.

    `timezone` and `currency` are the legal entity's; nothing is spent in another currency.
    """
    record = LimitRecord(
        id=name_of(key_id or customer_id, metric, within, unit),
        version=1,
        customer_id=customer_id,
        key_id=key_id,
        metric=metric,
        unit=unit,
        within=within,
        rolling=rolling,
        amount=amount,
        timezone=timezone,
        set_at_ns=at_ns,
    )
    _check(record, currency)
    return await _add(connection, record, await _newest(connection, record.id))


async def remove(connection: Connection, limit_id: str, at_ns: int) -> LimitRecord:
    """Remove a limit. Removing it again changes nothing; its versions stay."""
    newest = await get(connection, limit_id)
    return await _add(connection, msgspec.structs.replace(newest, amount=None, set_at_ns=at_ns), newest)


async def get(connection: Connection, limit_id: str) -> LimitRecord:
    """The newest version of one limit; refused if there never was one."""
    newest = await _newest(connection, limit_id)
    if newest is None:
        raise not_found("limit", limit_id)
    return newest


async def listed(connection: Connection, customer_id: str, key_id: str, limit: int, after: str) -> list[LimitRecord]:
    """Limits that hold, by id: of all, of a customer with all its keys, or of one key. `after`: the last id seen."""
    async with connection.cursor(row_factory=class_row(LimitRecord)) as cursor:
        await cursor.execute(
            f"""SELECT * FROM ({_CURRENT} WHERE id > %(after)s AND (%(customer)s = '' OR customer_id = %(customer)s)
                    AND (%(key)s = '' OR key_id = %(key)s) ORDER BY id, version DESC) AS newest
                WHERE amount IS NOT NULL ORDER BY id LIMIT %(limit)s""".encode(),  # noqa: S608 - no value in the text
            {"after": after, "customer": customer_id, "key": key_id, "limit": limit},
        )
        return await cursor.fetchall()


async def of_keys(connection: Connection, customers: Mapping[str, str]) -> dict[str, Limits | None]:
    """What holds for each of these keys, which come with their customers: its own limits and its customer's."""
    if not customers:
        return {}
    where = "WHERE customer_id = ANY(%s) AND (key_id IS NULL OR key_id = ANY(%s)) ORDER BY id, version DESC"
    held: defaultdict[str, list[LimitRecord]] = defaultdict(list)
    async with connection.cursor(row_factory=class_row(LimitRecord)) as cursor:
        await cursor.execute((_CURRENT + where).encode(), (list(set(customers.values())), list(customers)))
        for record in await cursor.fetchall():
            held[record.customer_id].append(record)
    return {key_id: _of_key(key_id, held[customer_id]) for key_id, customer_id in customers.items()}


def _of_key(key_id: str, held: list[LimitRecord]) -> Limits | None:
    mine = [record.limit() for record in held if record.key_id in (None, key_id)]
    each = [limit for limit in mine if limit is not None]
    weight = next((limit.amount for limit in each if limit.metric == "weight"), 1)
    return Limits(tuple(limit for limit in each if limit.metric != "weight"), weight=weight) if each else None


async def _newest(connection: Connection, limit_id: str) -> LimitRecord | None:
    async with connection.cursor(row_factory=class_row(LimitRecord)) as cursor:
        await cursor.execute((_CURRENT + "WHERE id = %s ORDER BY id, version DESC").encode(), (limit_id,))
        return await cursor.fetchone()


async def _add(connection: Connection, record: LimitRecord, newest: LimitRecord | None) -> LimitRecord:
    """The next version, or the newest if it says the same."""
    if newest is not None:
        record = msgspec.structs.replace(record, version=newest.version + 1)
        if msgspec.structs.replace(newest, version=record.version, set_at_ns=record.set_at_ns) == record:
            return newest
    await connection.execute(
        f"""INSERT INTO usage_limit ({_COLUMNS}) VALUES (%(id)s, %(version)s, %(customer_id)s, %(key_id)s, %(metric)s,
            %(unit)s, %(within)s, %(rolling)s, %(amount)s, %(timezone)s, %(set_at_ns)s)""".encode(),  # noqa: S608
        msgspec.structs.asdict(record),
    )
    return record


def _check(record: LimitRecord, currency: str) -> None:
    metric, amount = record.metric, record.amount or 0
    if metric not in METRICS:
        raise invalid(f"{metric!r} cannot be limited: {', '.join(METRICS)}.", "metric")
    if metric in WITHOUT_WINDOW and (record.within or record.rolling):
        raise invalid(f"A limit of {metric} has no window.", "window")
    if metric not in WITHOUT_WINDOW and record.within not in WINDOWS:
        raise invalid(f"A limit of {metric} is per {', '.join(WINDOWS)}.", "window")
    if metric == "spend":
        _check_unit(record.unit, currency)
    elif record.unit:
        raise invalid(f"A limit of {metric} has no unit.", "unit")
    if metric == "weight" and (record.key_id or not 1 <= amount <= _WEIGHT_MAX):
        raise invalid(f"A weight is a customer's, between 1 and {_WEIGHT_MAX}.", "amount")
    if not 0 <= amount <= _AMOUNT_MAX:
        raise invalid(f"A limit is between 0 and {_AMOUNT_MAX}.", "amount")


def _check_unit(unit: str, currency: str) -> None:
    try:
        is_currency = scale(unit) != 1
    except AmountFault as fault:
        raise invalid(f"{fault}.", "unit") from fault
    if is_currency and unit != currency:
        raise invalid(f"The legal entity sells in {currency}.", "unit")
