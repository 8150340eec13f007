"""Rows of posted batches as PostgreSQL's own text, for `seal.copy`. Decides nothing.

A record is one row with its charges and attempts in it. Making the text takes most of metering's time, so each row is
one expression over names that are looked up in their written form.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TypeVar

import msgspec

from tokenworks.core.journal import Attempt, Opening, Reserved
from tokenworks.core.metering import Line, Outcome, Record
from tokenworks.core.usage import Tokens
from tokenworks.ledger import seal
from tokenworks.ledger.copied import composites, elements, nested, plain, remembered
from tokenworks.ledger.seal import Connection
from tokenworks.meter import partitions
from tokenworks.meter.tables import EXTENSION, OPENING, RECORD, first_id

Part = TypeVar("Part")


class Written(msgspec.Struct, frozen=True):
    """A decided batch of one journal with the ids of its postings, by legal entity."""

    journal_id: str
    outcome: Outcome
    posting_ids: dict[str, int]


async def write(conn: Connection, batches: list[Written]) -> None:
    """Add openings that wait, what grew of those that waited before, and records with their charges and attempts.

    Batches come in the order of their journals.
    """
    records = [record for batch in batches for record in batch.outcome.records]
    if records:
        days = partitions.days_of([record.opening.opened_at_ns for record in records])
        await partitions.make(conn, days)
    await seal.copy(conn, OPENING, chain.from_iterable(map(_waiting, batches)))
    await seal.copy(conn, EXTENSION, chain.from_iterable(map(_grown, batches)))
    await seal.copy(conn, RECORD, _records(batches, first_id(seal.head_of(conn).seq)))


def _waiting(batch: Written) -> Iterator[str]:
    for position, opening in batch.outcome.waiting:
        yield f"{remembered[batch.journal_id]}\t{position}\t{_opening(opening)}"


def _grown(batch: Written) -> Iterator[str]:
    for grown in batch.outcome.grown:
        opening = grown.opening
        yield (
            f"{remembered[batch.journal_id]}\t{grown.position}\t{grown.at}\t{opening.input_max}\t"
            f"{opening.output_max}\t{_each(_part, opening.reserved)}"
        )


def _records(batches: Iterable[Written], number: int) -> Iterator[str]:
    for batch in batches:
        journal, posting_ids = remembered[batch.journal_id], batch.posting_ids
        for record in batch.outcome.records:
            posting_id = posting_ids.get(record.opening.legal_entity_id)
            yield f"{number}\t{journal}\t{_record(record)}\t{_NULL if posting_id is None else posting_id}"
            number += 1


_NULL = "\\N"


def _record(record: Record) -> str:
    closing = record.closing
    tokens, counted, reported = closing.tokens, closing.counted, closing.reported
    flags = record.flags
    return (
        f"{record.position}\t{record.closing_position}\t{_opening(record.opening)}\t"
        f"{closing.closed_at_ns}\t{closing.first_token_after_ns}\t{closing.ending}\t{closing.basis}\t"
        f"{tokens.input}\t{tokens.cached_input}\t{tokens.cache_write}\t{tokens.output}\t{tokens.reasoning}\t"
        f"{{{counted.input},{counted.cached_input},{counted.cache_write},{counted.output},{counted.reasoning}}}\t"
        f"{_NULL if reported is None else f'{{{_counts(reported)}}}'}\t{elements(flags) if flags else '{}'}\t"
        f"{_each(_charge, record.lines)}\t{_each(_attempt, closing.attempts)}"
    )


def _opening(opening: Opening) -> str:
    return (
        f"{plain(opening.request_id)}\t{opening.opened_at_ns}\t{remembered[opening.legal_entity_id]}\t"
        f"{remembered[opening.billing_account_id]}\t{remembered[opening.key_id]}\t{remembered[opening.model]}\t"
        f"{'t' if opening.stream else 'f'}\t{opening.input_max}\t{opening.output_max}\t"
        f"{_each(_part, opening.reserved)}"
    )


def _each(text_of: Callable[[Part], str], parts: tuple[Part, ...]) -> str:
    """The parts as an array; nearly always there is one."""
    return f'{{"({text_of(parts[0])})"}}' if len(parts) == 1 else composites(map(text_of, parts))


def _part(part: Reserved) -> str:
    return f"{part.lease_id},{nested[part.bucket_id]},{nested[part.unit]},{part.amount}"


def _charge(line: Line) -> str:
    charge = line.charge
    tokens = charge.tokens
    return (
        f"{charge.lease_id},{nested[charge.bucket_id]},{nested[charge.tariff]},{nested[charge.unit]},"
        f"{tokens.input},{tokens.cached_input},{tokens.cache_write},{tokens.output},{tokens.reasoning},"
        f"{charge.amount},{'t' if line.proven else 'f'},{line.revenue},{nested[line.currency]}"
    )


def _attempt(attempt: Attempt) -> str:
    tokens = attempt.tokens
    return (
        f"{nested[attempt.endpoint_id]},{nested[attempt.supplier_id]},{nested[attempt.tariff]},"
        f"{nested[attempt.currency]},"
        f"{tokens.input},{tokens.cached_input},{tokens.cache_write},{tokens.output},{tokens.reasoning},"
        f"{attempt.cost},{attempt.outcome},"
        f"{attempt.sent_after_ns},{attempt.first_token_after_ns},{attempt.ended_after_ns}"
    )


def _counts(tokens: Tokens) -> str:
    return f"{tokens.input},{tokens.cached_input},{tokens.cache_write},{tokens.output},{tokens.reasoning}"
