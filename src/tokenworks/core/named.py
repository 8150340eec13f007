"""What a batch of journal entries names, found before anything is known of the ledger.

Refuses what no correct worker writes and says what to look up. What the entries mean is decided in `core.metering`.
"""

from collections.abc import Iterable, Mapping

import msgspec

from tokenworks.core.journal import Closing, Entry, Extension, Head, LeaseClose, LeaseReturn, LeaseTaken, Opening
from tokenworks.core.usage import Tokens


class EntryFault(Exception):
    """Entries that no correct worker writes; the whole batch is refused, the text says why."""


class Named(msgspec.Struct, frozen=True):
    """What a batch names and the ledger must look up: leases, openings of earlier batches, leases newly taken."""

    leases: frozenset[int]
    openings: frozenset[int]
    taken: Mapping[int, str] = {}


def named(entries: Iterable[tuple[int, Entry]]) -> Named:
    """What to look up before deciding; raises `EntryFault` for entries that no correct worker writes."""
    leases: set[int] = set()
    opened: set[int] = set()
    earlier: set[int] = set()
    taken: dict[int, str] = {}
    for position, entry in entries:
        if isinstance(entry, Closing):
            if entry.opening >= position:
                raise EntryFault(f"the closing at {position} names no opening before it, but {entry.opening}")
            if entry.opening not in opened:
                earlier.add(entry.opening)
            leases.update([charge.lease_id for charge in entry.charges])
            _check(position, entry)
        elif isinstance(entry, Opening):
            opened.add(position)
        elif isinstance(entry, LeaseClose):
            leases.add(entry.lease_id)
        elif isinstance(entry, LeaseTaken) and entry.bucket_id:
            taken[entry.lease_id] = entry.bucket_id
        elif isinstance(entry, LeaseReturn):
            if entry.amount < 0:
                raise EntryFault(f"the return at {position} is negative")
            leases.add(entry.lease_id)
        elif isinstance(entry, Extension):
            _check_reserved(position, entry)
            if entry.opening not in opened:
                earlier.add(entry.opening)
        elif isinstance(entry, Head) and position > 0:
            raise EntryFault(f"a second head at {position}")
    return Named(frozenset(leases), frozenset(earlier), taken)


def _check(position: int, closing: Closing) -> None:
    if _below_zero(closing.tokens):
        raise EntryFault(f"the closing at {position} has negative tokens")
    for charge in closing.charges:
        if charge.amount < 0 or _below_zero(charge.tokens):
            raise EntryFault(f"the closing at {position} has a negative charge")
    for attempt in closing.attempts:
        if attempt.cost < 0 or _below_zero(attempt.tokens):
            raise EntryFault(f"the closing at {position} has a negative cost")


def _check_reserved(position: int, extension: Extension) -> None:
    if extension.opening >= position:
        raise EntryFault(f"the extension at {position} names no opening before it, but {extension.opening}")
    if min(extension.input_max, extension.output_max, *[part.amount for part in extension.reserved]) < 0:
        raise EntryFault(f"the extension at {position} reserves less than nothing")


def _below_zero(tokens: Tokens) -> bool:
    return (
        tokens.input < 0
        or tokens.output < 0
        or tokens.cached_input < 0
        or tokens.cache_write < 0
        or tokens.reasoning < 0
    )
