"""Bounds of requests as the journals say them: those of the opening, or those of the last extension."""

import msgspec

from tokenworks.base.journal import FrameFault, split
from tokenworks.core import journal
from tokenworks.core.journal import Extension, Opening
from tokenworks.sim.commands import Ship


class Bound(msgspec.Struct, frozen=True):
    """The most a request may be charged: tokens, and amounts by lease."""

    input_max: int
    output_max: int
    reserved: dict[int, int]


class Extensions:
    """The extensions of all journals that were shipped. Read by the auditor: a record does not hold them."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], tuple[int, Extension]] = {}

    def take(self, ship: Ship) -> None:
        """Read a shipment."""
        request = ship.request
        try:
            entries = [(request.from_position + at, journal.decode(payload)) for at, payload in split(request.frames)]
        except (FrameFault, msgspec.MsgspecError):
            return
        for position, entry in entries:
            if isinstance(entry, Extension):
                place = (request.journal_id, entry.opening)
                before = self._last.get(place)
                if before is None or before[0] < position:
                    self._last[place] = (position, entry)

    def bound(self, journal_id: str, position: int, opening: Opening) -> Bound:
        """What bounds the request that was opened there."""
        last = self._last.get((journal_id, position))
        source = last[1] if last else opening
        reserved: dict[int, int] = {}
        for part in source.reserved:
            reserved[part.lease_id] = reserved.get(part.lease_id, 0) + part.amount
        return Bound(source.input_max, source.output_max, reserved)
