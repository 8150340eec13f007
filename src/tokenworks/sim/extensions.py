"""Bounds of requests as the journals say them: those of the opening, or those of the last extension, and each step."""

from collections import Counter
from collections.abc import Iterator

import msgspec

from tokenworks.base.journal import FrameFault, split
from tokenworks.core import journal
from tokenworks.core.journal import Extension, Opening, Reserved
from tokenworks.sim.commands import Ship


class Bound(msgspec.Struct, frozen=True):
    """The most a request may be charged: tokens, and amounts by lease."""

    input_max: int
    output_max: int
    reserved: dict[int, int]


class Drawn(msgspec.Struct, frozen=True):
    """What was reserved at once: all of an opening, or what an extension had more. `known_ns` is when it was shipped.

    `is_first`: the opening's.
    """

    worker: str
    known_ns: int
    is_first: bool
    reserved: tuple[Reserved, ...]


class Extensions:
    """The extensions of all journals that were shipped. Read by the auditor: a record does not hold them."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], tuple[int, Extension]] = {}
        self._all: dict[tuple[str, int], dict[int, Drawn]] = {}

    def take(self, ship: Ship, now_ns: int) -> None:
        """Read a shipment."""
        request = ship.request
        try:
            entries = [(request.from_position + at, journal.decode(payload)) for at, payload in split(request.frames)]
        except (FrameFault, msgspec.MsgspecError):
            return
        for position, entry in entries:
            if isinstance(entry, Opening | Extension):
                is_first = isinstance(entry, Opening)
                place = (request.journal_id, position if is_first else entry.opening)
                drawn = Drawn(request.worker, now_ns, is_first, entry.reserved)
                self._all.setdefault(place, {}).setdefault(position, drawn)
            if isinstance(entry, Extension):
                place = (request.journal_id, entry.opening)
                before = self._last.get(place)
                if before is None or before[0] < position:
                    self._last[place] = (position, entry)

    def drawn(self, journal_id: str, position: int) -> Iterator[Drawn]:
        """What was reserved for the request that was opened there, step by step; of each step only what is new."""
        before: dict[int, int] = {}
        for _, step in sorted(self._all.get((journal_id, position), {}).items()):
            sums: Counter[int] = Counter()
            for part in step.reserved:
                sums[part.lease_id] += part.amount
            new = [
                part for part in step.reserved if step.is_first or sums[part.lease_id] > before.get(part.lease_id, 0)
            ]
            before = dict(sums)
            yield msgspec.structs.replace(step, reserved=tuple(new))

    def bound(self, journal_id: str, position: int, opening: Opening) -> Bound:
        """What bounds the request that was opened there."""
        last = self._last.get((journal_id, position))
        source = last[1] if last else opening
        reserved: dict[int, int] = {}
        for part in source.reserved:
            reserved[part.lease_id] = reserved.get(part.lease_id, 0) + part.amount
        return Bound(source.input_max, source.output_max, reserved)
