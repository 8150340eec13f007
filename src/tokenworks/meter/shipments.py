"""A shipment as it comes in: its frames as entries with positions, refused where no correct worker wrote them.

This is done before anything is asked of the database, and in small steps, so that leases are granted meanwhile. The
rows of requests that are whole in it are drafted, too, while their entries are at hand.
"""

import asyncio
from collections.abc import Iterable, Mapping
from itertools import islice

import msgspec

from tokenworks.base.journal import FrameFault, split
from tokenworks.core import journal
from tokenworks.core.journal import Closing, Entry, Extension, Head, Opening
from tokenworks.core.named import EntryFault, Named, named
from tokenworks.core.wire import ShipRequest
from tokenworks.meter.partitions import DAY_NS
from tokenworks.meter.rows import Draft, draft

# Half a millisecond: a database that takes rows in meanwhile is not to wait for more of them.
_ENTRIES_AT_ONCE = 100


class ShipmentFault(Exception):
    """The shipment's bytes are not what a worker writes; the text says why."""


class Shipment(msgspec.Struct, frozen=True):
    """What was sent, as entries with their positions, and what they name. `drafts` by positions of closings.

    `days` and `entities`: on which days (as `partitions` counts them) requests were opened, and whose they are.
    """

    request: ShipRequest
    entries: list[tuple[int, Entry]]
    named: Named
    drafts: Mapping[int, Draft] = {}
    days: frozenset[int] = frozenset()
    entities: frozenset[str] = frozenset()

    @property
    def through(self) -> int:
        """The position after its last byte."""
        return self.request.from_position + len(self.request.frames)

    def since(self, position: int) -> "Shipment":
        """What of it is new when everything below a position has been posted before."""
        if position <= self.request.from_position:
            return self
        entries = [entry for entry in self.entries if entry[0] >= position]
        return msgspec.structs.replace(self, entries=entries, named=named(entries))


async def read(request: ShipRequest) -> Shipment:
    """Entries with their positions. The first of a journal is its head and says what the request says."""
    try:
        entries: list[tuple[int, Entry]] = []
        drafts = _Drafts()
        frames = split(request.frames, request.from_position)
        while read := [(position, journal.decode(payload)) for position, payload in islice(frames, _ENTRIES_AT_ONCE)]:
            entries += read
            drafts.add(read)
            await asyncio.sleep(0)
        if entries and request.from_position == 0:
            _check_head(entries[0][1], request)
        days, entities = frozenset(drafts.days), frozenset(drafts.entities)
        return Shipment(request, entries, named(entries), drafts.made, days, entities)
    except (FrameFault, EntryFault, msgspec.MsgspecError) as fault:
        raise ShipmentFault(f"{request.journal_id}: {fault}") from fault


class _Drafts:
    """Drafts of what is opened and closed in one shipment, with the reservation of the opening."""

    def __init__(self) -> None:
        self.made: dict[int, Draft] = {}
        self.days: set[int] = set()
        self.entities: set[str] = set()
        self._opened: dict[int, Opening] = {}

    def add(self, entries: Iterable[tuple[int, Entry]]) -> None:
        """The next entries."""
        opened = self._opened
        for position, entry in entries:
            if isinstance(entry, Opening):
                opened[position] = entry
                self.days.add(entry.opened_at_ns // DAY_NS)
                self.entities.add(entry.legal_entity_id)
            elif isinstance(entry, Closing):
                if opening := opened.pop(entry.opening, None):
                    self.made[position] = draft(entry.opening, position, opening, entry)
            elif isinstance(entry, Extension):
                opened.pop(entry.opening, None)


def _check_head(head: Entry, request: ShipRequest) -> None:
    if not isinstance(head, Head):
        raise EntryFault("a journal begins with its head")
    if (head.journal_id, head.worker, head.format) != (request.journal_id, request.worker, journal.FORMAT):
        raise EntryFault(f"the head is of {head.journal_id}, {head.worker}, format {head.format}")
