"""Rows of posted batches as PostgreSQL's own text, for `seal.copy`. Decides nothing.

A record is one row with its charges and attempts in it. Making the text takes much of metering's time, so it is one
expression over names that are looked up in their written form, and it is drafted as soon as an opening and its closing
are read, while the database is busy with others. What only deciding finds out is put in between the parts of a draft,
and the row is on its way before the next record is decided.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from tokenworks.core.journal import Attempt, Closing, Opening, Reserved
from tokenworks.core.metering import Deciding, Line, Outcome, Record, moves
from tokenworks.core.purse import Charge
from tokenworks.core.usage import Tokens
from tokenworks.ledger import seal
from tokenworks.ledger.copied import composites, elements, nested, plain, remembered
from tokenworks.ledger.seal import Connection
from tokenworks.meter import partitions
from tokenworks.meter.tables import EXTENSION, OPENING, RECORD, first_id

_Counted = tuple[Tokens, str]  # and as text


class Draft(msgspec.Struct, frozen=True, gc=False):
    """What can be written of a record before it is decided; `opening` is the one that was looked at.

    `before` are the columns up to the flags; `charges` are all fields of each charge but those that deciding adds.
    `moves`: there is a posting for it, because it charges something or cost something.
    """

    opening: Opening
    before: str
    charges: tuple[str, ...]
    attempts: str
    moves: bool


class Undecided(msgspec.Struct, frozen=True):
    """A batch of one journal that is decided record by record.

    `posting_ids` are those that its postings will have, by legal entity; `drafts` of some of its records, by the
    positions of their closings.
    """

    journal_id: str
    deciding: Deciding
    posting_ids: dict[str, int]
    drafts: Mapping[int, Draft]


async def add_records(conn: Connection, batches: Iterable[Undecided], days: Collection[int]) -> None:
    """Decide batches, and add their records with charges and attempts. Batches come in the order of their journals.

    `days` are those on which the requests were opened.
    """
    if days:
        await partitions.make(conn, days)
    into = partitions.name(*days) if len(days) == 1 else ""
    await seal.copy(conn, RECORD, _records(batches, first_id(seal.head_of(conn).seq)), into)


async def add_openings(conn: Connection, decided: Sequence[tuple[str, Outcome]]) -> None:
    """Add openings that wait, and what grew of those that waited before, of batches by their journals."""
    await seal.copy(conn, OPENING, (row for each in decided for row in _waiting(*each)))
    await seal.copy(conn, EXTENSION, (row for each in decided for row in _grown(*each)))


def _waiting(journal_id: str, outcome: Outcome) -> Iterator[str]:
    for position, opening in outcome.waiting:
        yield f"{remembered[journal_id]}\t{position}\t{_opening(opening)}"


def _grown(journal_id: str, outcome: Outcome) -> Iterator[str]:
    for grown in outcome.grown:
        opening = grown.opening
        yield (
            f"{remembered[journal_id]}\t{grown.position}\t{grown.at}\t{opening.input_max}\t"
            f"{opening.output_max}\t{_parts(opening.reserved)}"
        )


def _records(batches: Iterable[Undecided], number: int) -> Iterator[str]:
    for batch in batches:
        journal, posting_ids, drafts = remembered[batch.journal_id], batch.posting_ids, batch.drafts
        for record in batch.deciding.records():
            opening, place = record.opening, record.closing_position
            drafted = drafts.get(place)
            if drafted is None or drafted.opening is not opening:
                drafted = draft(record.position, place, opening, record.closing)
            posting_id = posting_ids[opening.legal_entity_id] if drafted.moves else _NULL
            yield f"{number}\t{journal}\t{_record(drafted, record)}\t{posting_id}"
            number += 1


_NULL = "\\N"
_TAB = "\t"
_encode = msgspec.json.Encoder().encode


def draft(position: int, closing_position: int, opening: Opening, closing: Closing) -> Draft:
    """What is known of the record of a request as soon as its entries are read."""
    tokens, reported, charges = closing.tokens, closing.reported, closing.charges
    # What was counted once mostly comes again: reported, charged, and bought.
    known = (tokens, _counts(tokens))
    told = _NULL if reported is None else f"{{{_counted(reported, known)}}}"
    return Draft(
        opening,
        f"{position}\t{closing_position}\t{_opening(opening)}\t"
        f"{closing.closed_at_ns}\t{closing.first_token_after_ns}\t{closing.ending}\t{closing.basis}\t"
        f"{known[1].replace(',', _TAB)}\t{{{_counts(closing.counted)}}}\t{told}",
        (_charge(charges[0], known),) if len(charges) == 1 else tuple([_charge(charge, known) for charge in charges]),
        _attempts(closing.attempts, known),
        moves(closing),
    )


def _record(drafted: Draft, record: Record) -> str:
    flags = elements(record.flags) if record.flags else "{}"
    lines, charges = record.lines, drafted.charges
    if len(lines) == 1:
        charged = f'{{"({_decided(charges[0], lines[0])})"}}'
    else:
        charged = composites(map(_decided, charges, lines))
    return f"{drafted.before}\t{flags}\t{charged}\t{drafted.attempts}"


def _opening(opening: Opening) -> str:
    return (
        f"{plain(opening.request_id)}\t{opening.opened_at_ns}\t{remembered[opening.legal_entity_id]}\t"
        f"{remembered[opening.billing_account_id]}\t{remembered[opening.key_id]}\t{remembered[opening.model]}\t"
        f"{'t' if opening.stream else 'f'}\t{opening.input_max}\t{opening.output_max}\t{_parts(opening.reserved)}"
    )


def _parts(parts: tuple[Reserved, ...]) -> str:
    # Nearly always there is one, here and below.
    return f'{{"({_part(parts[0])})"}}' if len(parts) == 1 else composites([_part(part) for part in parts])


def _part(part: Reserved) -> str:
    return f"{part.lease_id},{nested[part.bucket_id]},{nested[part.unit]},{part.amount}"


def _attempts(attempts: tuple[Attempt, ...], known: _Counted) -> str:
    if len(attempts) == 1:
        return f'{{"({_attempt(attempts[0], known)})"}}'
    return composites([_attempt(attempt, known) for attempt in attempts])


def _attempt(attempt: Attempt, known: _Counted) -> str:
    return (
        f"{nested[attempt.endpoint_id]},{nested[attempt.supplier_id]},{nested[attempt.tariff]},"
        f"{nested[attempt.currency]},{_counted(attempt.tokens, known)},{attempt.cost},{attempt.outcome},"
        f"{attempt.sent_after_ns},{attempt.first_token_after_ns},{attempt.ended_after_ns}"
    )


def _charge(charge: Charge, known: _Counted) -> str:
    return (
        f"{charge.lease_id},{nested[charge.bucket_id]},{nested[charge.tariff]},{nested[charge.unit]},"
        f"{_counted(charge.tokens, known)},{charge.amount}"
    )


def _decided(charge: str, line: Line) -> str:
    return f"{charge},{'t' if line.proven else 'f'},{line.revenue},{nested[line.currency]}"


def _counted(tokens: Tokens, known: _Counted) -> str:
    return known[1] if tokens == known[0] else _counts(tokens)


def _counts(tokens: Tokens) -> str:
    """The five with commas between: written as JSON, `[1,2,3,4,5]`, by what does it fastest."""
    return _encode(tokens)[1:-1].decode()
