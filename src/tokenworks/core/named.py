"""What a batch of journal entries names, found before anything is known of the ledger.

Refuses what no correct worker writes and says what to look up; amounts and counts below zero were refused when the
entries were decoded. What the entries mean is decided in `core.metering`.
"""

from collections.abc import Iterable, Mapping

import msgspec

from tokenworks.core.journal import Closing, Entry, Extension, Head, LeaseClose, LeaseReturn, LeaseTaken, Opening


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
        elif isinstance(entry, Opening):
            opened.add(position)
        elif isinstance(entry, LeaseClose):
            leases.add(entry.lease_id)
        elif isinstance(entry, LeaseTaken) and entry.bucket_id:
            taken[entry.lease_id] = entry.bucket_id
        elif isinstance(entry, LeaseReturn):
            leases.add(entry.lease_id)
        elif isinstance(entry, Extension):
            if entry.opening >= position:
                raise EntryFault(f"the extension at {position} names no opening before it, but {entry.opening}")
            if entry.opening not in opened:
                earlier.add(entry.opening)
        elif isinstance(entry, Head) and position > 0:
            raise EntryFault(f"a second head at {position}")
    return Named(frozenset(leases), frozenset(earlier), taken)
