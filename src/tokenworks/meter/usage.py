"""Usage records for people and programs: each with its charges by bucket and its attempts, newest first."""

from typing import Any

import msgspec

from tokenworks.core.journal import Reserved
from tokenworks.core.usage import Tokens
from tokenworks.ledger.seal import Connection
from tokenworks.meter.tables import CLOSING_COLUMNS, OPENING_COLUMNS, TOKEN_COLUMNS, first_id


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
        SELECT id, journal_id, position, {", ".join(OPENING_COLUMNS[:-1])}, to_jsonb(reserved),
            {", ".join(CLOSING_COLUMNS)}, posting_id, to_jsonb(charges), to_jsonb(attempts)
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
    return [_record(row) for row in await cursor.fetchall()]


async def seal_through(conn: Connection, done: int, last: int, records_max: int) -> int:
    """The last seal, from the one after `done` to `last`, with which there are no more records than this; at least
    one seal.
    """
    cursor = await conn.execute(
        "SELECT id FROM usage_record WHERE id >= %s ORDER BY id OFFSET %s LIMIT 1", (first_id(done + 1), records_max)
    )
    beyond = await cursor.fetchone()
    return last if beyond is None else min(last, max(done + 1, int(beyond[0]) // first_id(1) - 1))


def _record(row: tuple[Any, ...]) -> UsageRecord:
    opening, closing = row[3:13], row[13:25]
    fields: tuple[Any, ...] = (
        *row[:3],
        *opening[:9],
        tuple([Reserved(**part) for part in opening[9]]),
        *closing[:4],
        Tokens(*closing[4:9]),
        Tokens(*closing[9]),
        Tokens(*closing[10]) if closing[10] is not None else None,
        tuple(closing[11]),
        row[25],
        tuple([ChargeLine(tokens=_tokens(line), **line) for line in row[26]]),
        tuple([AttemptLine(tokens=_tokens(line), **line) for line in row[27]]),
    )
    return UsageRecord(*fields)


def _tokens(line: dict[str, Any]) -> Tokens:
    """Take the five counts out of a line."""
    return Tokens(*[line.pop(column) for column in TOKEN_COLUMNS])
