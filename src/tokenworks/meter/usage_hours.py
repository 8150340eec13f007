"""Roll-ups of usage: what each billing account used of each model in each hour, by unit, what it earned and cost.

The table `usage_hour` is a cache over usage records, kept up behind the scenes up to the seal `usage_hour_cursor`, and
rebuilt by `verify`. A record belongs to the hour in which it was closed, however late it is posted. Whoever reads sums
here gets them exact: records that are not covered yet are added up as they are. Nothing is kept by the transactions
that post, which would wait for each other at the rows of busy accounts.

Amounts of different units never share a row: a charge counts in its unit, revenue and cost in their currency. A request
counts once, in the unit of its first charge, or of its first reservation if it was charged nothing.
"""

from typing import Any, Literal

import msgspec

from tokenworks.base import steps
from tokenworks.base.database import Pool
from tokenworks.core.usage import Tokens
from tokenworks.ledger.seal import Connection
from tokenworks.meter.tables import STREAM, TOKEN_COLUMNS, first_id
from tokenworks.meter.usage import seal_through

HOUR_NS = 3_600_000_000_000
DAY_NS = 24 * HOUR_NS
# About so many records are added up in one step: some tenths of a second.
RECORDS_AT_ONCE = 25_000

_MEASURES = ("requests", *TOKEN_COLUMNS, "charged", "unproven", "revenue", "cost")
_KEY = ("hour_ns", "legal_entity_id", "billing_account_id", "model", "unit")


class Used(msgspec.Struct, frozen=True):
    """Sums of a span in one unit: `charged`; `unproven`, delivered and charged to nobody; what it earned and cost."""

    from_ns: int
    legal_entity_id: str
    billing_account_id: str
    model: str
    unit: str
    requests: int
    tokens: Tokens
    charged: int
    unproven: int
    revenue: int
    cost: int


class Wanted(msgspec.Struct, frozen=True):
    """Which usage: closed from a time until before another, of one billing account or of all."""

    by: Literal["hour", "day"] = "hour"
    from_ns: int = 0
    to_ns: int = (1 << 62) - 1
    billing_account_id: str | None = None


async def summary(conn: Connection, wanted: Wanted) -> list[Used]:
    """Sums by whole hour or day (UTC), oldest first. The ends of the time are taken down to whole spans."""
    span_ns = HOUR_NS if wanted.by == "hour" else DAY_NS
    cursor = await conn.execute(
        f"""
        SELECT hour_ns - hour_ns %% %(span)s AS from_ns, legal_entity_id, billing_account_id, model, unit,
            {", ".join(f"sum({name})" for name in _MEASURES)}
        FROM ({_ALL}) h
        WHERE hour_ns >= %(from)s AND hour_ns < %(to)s
            AND (%(account)s::text IS NULL OR billing_account_id = %(account)s)
        GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        """.encode(),  # noqa: S608 - queries of ours
        {
            "span": span_ns,
            "from": wanted.from_ns - wanted.from_ns % span_ns,
            "to": wanted.to_ns - wanted.to_ns % span_ns,
            "account": wanted.billing_account_id,
            "uncovered": first_id(await _covered(conn) + 1),
        },
    )
    return [_used(row) for row in await cursor.fetchall()]


async def cost_of(conn: Connection, billing_account_id: str) -> dict[str, int]:
    """What the use of a billing account has cost us so far, by currency."""
    cost: dict[str, int] = {}
    for used in await summary(conn, Wanted(billing_account_id=billing_account_id)):
        if used.cost:
            cost[used.unit] = cost.get(used.unit, 0) + used.cost
    return cost


async def keep_up(pool: Pool, records_at_once: int = RECORDS_AT_ONCE) -> None:
    """Cover every record that was sealed before."""
    await steps.all_of(lambda: _add_up(pool, records_at_once))


async def _add_up(pool: Pool, records_at_once: int) -> bool:
    """Cover some of the records sealed since the last time; whether there are more."""
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO usage_hour_cursor (stream, seq) VALUES (%s, 0) ON CONFLICT DO NOTHING", (STREAM,)
        )
        done = await _covered(conn, lock=True)
        head = await (await conn.execute("SELECT seq FROM seal_stream WHERE stream = %s", (STREAM,))).fetchone()
        last = int(head[0]) if head else 0
        if last <= done:
            return False
        upto = await seal_through(conn, done, last, records_at_once)
        # Sums of a day's busy hour: what does not fit is written to disk and read again.
        await conn.execute("SET LOCAL work_mem = '64MB'")
        # There are far fewer groups than the planner fears: all records need not be sorted for them.
        await conn.execute("SET LOCAL enable_sort = off")
        await conn.execute(_ADD.encode(), {"uncovered": first_id(done + 1), "upto": first_id(upto + 1)})
        await conn.execute("UPDATE usage_hour_cursor SET seq = %s", (upto,))
        return upto < last


async def _covered(conn: Connection, *, lock: bool = False) -> int:
    """The last seal whose records are in `usage_hour`."""
    cursor = await conn.execute(f"SELECT seq FROM usage_hour_cursor{' FOR UPDATE' if lock else ''}".encode())  # noqa: S608
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


def _used(row: tuple[Any, ...]) -> Used:
    requests, *tokens, charged, unproven, revenue, cost = (int(number) for number in row[5:])
    fields: tuple[Any, ...] = (*row[:5], requests, Tokens(*tokens), charged, unproven, revenue, cost)
    return Used(*fields)


_KEYS = ", ".join(_KEY)
_COLUMNS = ", ".join((*_KEY, *_MEASURES))
_SUMS = ", ".join(f"sum({name}) AS {name}" for name in _MEASURES)
_NONE = ", ".join(f"0 AS {name}" for name in TOKEN_COLUMNS)


def _records(within: str, source: str = "usage_record") -> str:
    """Records whose ids are within a range, in rows of one unit each."""
    head = (
        f"r.closed_at_ns - mod(r.closed_at_ns, {HOUR_NS}) AS hour_ns, r.legal_entity_id, r.billing_account_id, r.model"
    )
    return f"""
        SELECT {head}, coalesce(r.charges[1].unit, r.reserved[1].unit, '') AS unit, 1 AS requests, {_NONE},
            0 AS charged, 0 AS unproven, 0 AS revenue, 0 AS cost
        FROM {source} r WHERE {within}
        UNION ALL
        SELECT {head}, c.unit, 0, {", ".join(f"c.{name}" for name in TOKEN_COLUMNS)},
            CASE WHEN c.proven THEN c.amount ELSE 0 END, CASE WHEN c.proven THEN 0 ELSE c.amount END, 0, 0
        FROM {source} r CROSS JOIN unnest(r.charges) c WHERE {within}
        UNION ALL
        SELECT {head}, c.currency, 0, {_NONE}, 0, 0, c.revenue, 0
        FROM {source} r CROSS JOIN unnest(r.charges) c WHERE {within} AND c.revenue <> 0
        UNION ALL
        SELECT {head}, a.currency, 0, {_NONE}, 0, 0, 0, a.cost
        FROM {source} r CROSS JOIN unnest(r.attempts) a WHERE {within} AND a.cost <> 0
    """  # noqa: S608 - columns of ours


KEPT = f"SELECT {_COLUMNS} FROM usage_hour"  # noqa: S608 - columns of ours
_COVERED = f"r.id < (SELECT (coalesce(max(seq), 0) + 1) * {first_id(1)} FROM usage_hour_cursor)"  # noqa: S608
TRUE = f"SELECT {_KEYS}, {_SUMS} FROM ({_records(_COVERED)}) x GROUP BY {_KEYS}"  # noqa: S608 - columns of ours
"""For `verify`: the sums that are kept, and what the records that they cover say."""

_ALL = f"{KEPT} UNION ALL {_records('r.id >= %(uncovered)s')}"

# Nearly every record has one charge and one attempt: of these, once around is enough, and lines are told apart after.
# They are taken out of their arrays once for each record, not for each of their fields, which would cost twice as much
# as all the rest: `OFFSET 0` keeps the planner from doing so. Only where some have more are these read again.
_MANY = "(cardinality(r.charges) > 1 OR cardinality(r.attempts) > 1)"
_WITHIN = "r.id >= %(uncovered)s AND r.id < %(upto)s"
_OF_TOLD = "hour_ns, legal_entity_id, billing_account_id, model"

_ADD = f"""
    WITH told AS MATERIALIZED (
        SELECT closed_at_ns - mod(closed_at_ns, {HOUR_NS}) AS hour_ns, legal_entity_id, billing_account_id, model,
            coalesce((charge).unit, reserved[1].unit, '') AS unit, (charge).currency AS earned_in,
            (attempt).currency AS paid_in, is_many, count(*) AS requests,
            {", ".join(f"coalesce(sum((charge).{name}), 0) AS {name}" for name in TOKEN_COLUMNS)},
            coalesce(sum((charge).amount) FILTER (WHERE (charge).proven), 0) AS charged,
            coalesce(sum((charge).amount) FILTER (WHERE NOT (charge).proven), 0) AS unproven,
            coalesce(sum((charge).revenue), 0) AS revenue, coalesce(sum((attempt).cost), 0) AS cost
        FROM (SELECT r.closed_at_ns, r.legal_entity_id, r.billing_account_id, r.model, r.reserved,
                r.charges[1] AS charge, r.attempts[1] AS attempt, {_MANY} AS is_many
            FROM usage_record r WHERE {_WITHIN} OFFSET 0) one
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8),
    few AS (SELECT * FROM told WHERE NOT is_many),
    many AS MATERIALIZED (
        SELECT * FROM usage_record r WHERE {_WITHIN} AND {_MANY} AND (SELECT bool_or(is_many) FROM told))
    INSERT INTO usage_hour AS h ({_COLUMNS})
    SELECT {_KEYS}, {_SUMS} FROM (
        SELECT {_OF_TOLD}, unit, requests, {", ".join(TOKEN_COLUMNS)}, charged, unproven, 0 AS revenue, 0 AS cost
        FROM few
        UNION ALL
        SELECT {_OF_TOLD}, earned_in, 0, {_NONE}, 0, 0, revenue, 0 FROM few WHERE revenue <> 0
        UNION ALL
        SELECT {_OF_TOLD}, paid_in, 0, {_NONE}, 0, 0, 0, cost FROM few WHERE cost <> 0
        UNION ALL
        {_records("true", "many")}) x
    GROUP BY {_KEYS} ORDER BY {_KEYS}
    ON CONFLICT ({_KEYS}) DO UPDATE SET {", ".join(f"{name} = h.{name} + excluded.{name}" for name in _MEASURES)}
"""  # noqa: S608 - columns of ours
