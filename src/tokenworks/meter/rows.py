"""Rows of a posted batch: from decided records to `COPY`, the fastest way into PostgreSQL. Decides nothing."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from tokenworks.core.journal import Opening
from tokenworks.core.metering import Outcome, Record
from tokenworks.core.usage import Tokens
from tokenworks.ledger.seal import Connection
from tokenworks.meter.tables import ATTEMPT_COLUMNS, CHARGE_COLUMNS, RECORD_COLUMNS, WAITING_COLUMNS

Row = tuple[object, ...]

_json = msgspec.json.Encoder()


async def write(conn: Connection, journal_id: str, outcome: Outcome, posting_ids: dict[str, int]) -> None:
    """Add openings that wait, records, charges and attempts. `posting_ids` are by legal entity."""
    waiting = ((journal_id, place, *_opening(opening)) for place, opening in outcome.waiting)
    await _copy(conn, "usage_opening", WAITING_COLUMNS, waiting)
    records = outcome.records
    await _copy(conn, "usage_record", RECORD_COLUMNS, _records(journal_id, records, posting_ids))
    await _copy(conn, "charge", CHARGE_COLUMNS, _charges(journal_id, records))
    await _copy(conn, "attempt", ATTEMPT_COLUMNS, _attempts(journal_id, records))


def _records(journal_id: str, records: Sequence[Record], posting_ids: dict[str, int]) -> Iterator[Row]:
    for record in records:
        closing = record.closing
        yield (
            journal_id,
            record.position,
            record.closing_position,
            *_opening(record.opening),
            closing.closed_at_ns,
            closing.first_token_after_ns,
            closing.ending,
            closing.basis,
            *closing.tokens.each(),
            _array(closing.counted),
            None if closing.reported is None else _array(closing.reported),
            list(record.flags) if record.flags else "{}",
            posting_ids.get(record.opening.legal_entity_id),
        )


def _charges(journal_id: str, records: Sequence[Record]) -> Iterator[Row]:
    for record in records:
        for ordinal, line in enumerate(record.lines):
            charge = line.charge
            yield (
                *(journal_id, record.position, ordinal, charge.lease_id, charge.bucket_id, charge.tariff, charge.unit),
                *charge.tokens.each(),
                *(charge.amount, line.proven, line.revenue, line.currency),
            )


def _attempts(journal_id: str, records: Sequence[Record]) -> Iterator[Row]:
    for record in records:
        for ordinal, attempt in enumerate(record.closing.attempts):
            yield (
                *(journal_id, record.position, ordinal, attempt.endpoint_id, attempt.supplier_id, attempt.tariff),
                attempt.currency,
                *attempt.tokens.each(),
                *(attempt.cost, attempt.outcome, attempt.sent_after_ns, attempt.first_token_after_ns),
                attempt.ended_after_ns,
            )


def _opening(opening: Opening) -> Row:
    return (
        *(opening.request_id, opening.opened_at_ns, opening.legal_entity_id, opening.billing_account_id),
        *(opening.key_id, opening.model, opening.stream, opening.input_max, opening.output_max),
        _json.encode(opening.reserved).decode(),
    )


def _array(tokens: Tokens) -> str:
    """PostgreSQL's text of an array; building it here spares a dumper that looks at every element."""
    return f"{{{','.join(map(str, tokens.each()))}}}"


async def _copy(conn: Connection, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
    async with conn.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for row in rows:
            await copy.write_row(row)
