"""Usage records for people and programs: each with its charges by bucket and its attempts, newest first."""

from collections import defaultdict
from typing import Any

import msgspec

from tokenworks.core.journal import Reserved
from tokenworks.core.usage import Tokens
from tokenworks.ledger.seal import Connection
from tokenworks.meter.tables import CLOSING_COLUMNS, OPENING_COLUMNS, TOKEN_COLUMNS

Key = tuple[str, int]  # journal, position


class ChargeLine(msgspec.Struct, frozen=True):
    """What a record took from one bucket; `proven` is false if it took nothing because the lease had ended."""

    lease_id: int
    bucket_id: str
    tariff: str
    unit: str
    tokens: Tokens
    amount: int
    proven: bool
    revenue: int
    currency: str


class AttemptLine(msgspec.Struct, frozen=True):
    """One try at one endpoint and what it costs; durations since the opening."""

    endpoint_id: str
    supplier_id: str
    tariff: str
    currency: str
    tokens: Tokens
    cost: int
    outcome: str
    sent_after_ns: int
    first_token_after_ns: int
    ended_after_ns: int


class UsageRecord(msgspec.Struct, frozen=True):
    """One request. `id` grows in the order of posting."""

    id: int
    journal_id: str
    position: int
    request_id: str
    opened_at_ns: int
    legal_entity_id: str
    billing_account_id: str
    key_id: str
    model: str
    streamed: bool
    input_max: int
    output_max: int
    reserved: tuple[Reserved, ...]
    closed_at_ns: int
    first_token_after_ns: int
    ending: str
    basis: str
    tokens: Tokens
    counted: Tokens
    reported: Tokens | None
    flags: tuple[str, ...]
    posting_id: int | None
    charges: tuple[ChargeLine, ...]
    attempts: tuple[AttemptLine, ...]


async def records(
    conn: Connection,
    billing_account_id: str | None = None,
    request_id: str | None = None,
    before: int | None = None,
    limit: int = 50,
    closed_before_ns: int | None = None,
) -> list[UsageRecord]:
    """Records of one billing account, or one request, or all; `before` is the id that the last page ended with."""
    cursor = await conn.execute(
        f"""
        SELECT id, journal_id, position, {", ".join((*OPENING_COLUMNS, *CLOSING_COLUMNS))}, posting_id
        FROM usage_record
        WHERE (%(account)s::text IS NULL OR billing_account_id = %(account)s)
            AND (%(request)s::text IS NULL OR request_id = %(request)s)
            AND (%(before)s::bigint IS NULL OR id < %(before)s)
            AND (%(closed_before_ns)s::bigint IS NULL OR closed_at_ns < %(closed_before_ns)s)
        ORDER BY id DESC LIMIT %(limit)s
        """.encode(),  # noqa: S608 - column lists of ours
        {
            "account": billing_account_id,
            "request": request_id,
            "before": before,
            "limit": limit,
            "closed_before_ns": closed_before_ns,
        },
    )
    rows = await cursor.fetchall()
    keys = [(str(row[1]), int(row[2])) for row in rows]
    charges = await _charges(conn, keys)
    attempts = await _attempts(conn, keys)
    return [_record(row, charges[key], attempts[key]) for row, key in zip(rows, keys, strict=True)]


def _record(row: tuple[Any, ...], charges: list[ChargeLine], attempts: list[AttemptLine]) -> UsageRecord:
    opening, closing = row[3:13], row[13:25]
    fields: tuple[Any, ...] = (
        *row[:3],
        *opening[:9],
        msgspec.convert(opening[9], tuple[Reserved, ...]),
        *closing[:4],
        Tokens(*closing[4:9]),
        Tokens(*closing[9]),
        Tokens(*closing[10]) if closing[10] is not None else None,
        tuple(closing[11]),
        row[25],
        tuple(charges),
        tuple(attempts),
    )
    return UsageRecord(*fields)


async def _charges(conn: Connection, keys: list[Key]) -> defaultdict[Key, list[ChargeLine]]:
    columns = ("lease_id", "bucket_id", "tariff", "unit", *TOKEN_COLUMNS, "amount", "proven", "revenue", "currency")
    found: defaultdict[Key, list[ChargeLine]] = defaultdict(list)
    for row in await _lines(conn, "charge", columns, keys):
        fields: tuple[Any, ...] = (*row[2:6], Tokens(*row[6:11]), int(row[11]), row[12], int(row[13]), row[14])
        found[row[0], row[1]].append(ChargeLine(*fields))
    return found


async def _attempts(conn: Connection, keys: list[Key]) -> defaultdict[Key, list[AttemptLine]]:
    times = ("sent_after_ns", "first_token_after_ns", "ended_after_ns")
    columns = ("endpoint_id", "supplier_id", "tariff", "currency", *TOKEN_COLUMNS, "cost", "outcome", *times)
    found: defaultdict[Key, list[AttemptLine]] = defaultdict(list)
    for row in await _lines(conn, "attempt", columns, keys):
        fields: tuple[Any, ...] = (*row[2:6], Tokens(*row[6:11]), int(row[11]), *row[12:16])
        found[row[0], row[1]].append(AttemptLine(*fields))
    return found


async def _lines(conn: Connection, table: str, columns: tuple[str, ...], keys: list[Key]) -> list[tuple[Any, ...]]:
    cursor = await conn.execute(
        f"""
        SELECT journal_id, position, {", ".join(columns)}
        FROM {table} JOIN unnest(%s::text[], %s::bigint[]) AS k (journal_id, position) USING (journal_id, position)
        ORDER BY journal_id, position, ordinal
        """.encode(),  # noqa: S608 - names of ours
        ([key[0] for key in keys], [key[1] for key in keys]),
    )
    return await cursor.fetchall()
