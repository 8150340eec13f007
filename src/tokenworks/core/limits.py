"""Limits: how much a key or a customer may use in a time, and the count of what was used. Pure: times come in.

What is used is counted in cells of time: one for each fixed window, sixty for a rolling one, which leave it one by one.
A cell keeps apart what this worker counted and what it heard from each other, so that counts may be heard twice, late
or never without being added twice. Who counts what, and when others are told, is the gateway's affair.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from tokenworks.core.bounds import Need

Metric = Literal["requests", "tokens", "concurrency", "spend", "weight"]
Window = Literal["", "minute", "day", "month"]

METRICS: tuple[Metric, ...] = ("requests", "tokens", "concurrency", "spend", "weight")
WINDOWS: tuple[Window, ...] = ("minute", "day", "month")
# What is counted of now, and what is no count at all, has no window.
WITHOUT_WINDOW: frozenset[Metric] = frozenset({"concurrency", "weight"})

SECOND_NS = 1_000_000_000
# How long a rolling window is: a month of it has thirty days.
ROLLING_NS: dict[str, int] = {
    "minute": 60 * SECOND_NS,
    "day": 86_400 * SECOND_NS,
    "month": 30 * 86_400 * SECOND_NS,
}
CELLS = 60
# A request is refused rather than answered with fewer tokens than these parts of its limit, or than are likely.
_LEAST_PART = 4


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """At most `amount` of the metric within the window; of `spend` in the smallest part of `unit`.

    `weight` is no limit: it is the share a customer gets where capacity is short. Days and months begin where
    `timezone` says.
    """

    id: str
    metric: Metric
    amount: int
    window: Window = ""
    rolling: bool = False
    unit: str = ""
    timezone: str = "UTC"


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """What one worker (`epoch`, one life of it) has counted of a limit in a cell, in all, and until when it counts."""

    limit_id: str
    epoch: str
    cell_ns: int
    used: int
    until_ns: int = 0


class Limits(msgspec.Struct, frozen=True):
    """What holds for a key: its own limits, its customer's, and what was counted of them until it was asked for.

    `weight` is the customer's share where capacity is short: twice the weight, twice the tokens.
    """

    each: tuple[Limit, ...]
    counts: tuple[Counted, ...] = ()
    weight: int = 1


class _Cell:
    """What was counted in a part of time: here, and elsewhere by epoch."""

    __slots__ = ("others", "own", "total")

    def __init__(self) -> None:
        self.own = 0
        self.total = 0
        self.others: dict[str, int] = {}


class Gauge:
    """The count of one limit over a window. A clock that is set back counts on in its cell, but by more than a window
    it begins anew: else a clock that was once far ahead would use the window up until that time.
    """

    __slots__ = ("_cells", "_from_ns", "_to_ns", "_used", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._cells: dict[int, _Cell] = {}
        self._from_ns = self._to_ns = 0
        self._used = 0

    def left(self, now_ns: int) -> int:
        """How much may still be used now; below zero where workers used more at once than they could know."""
        self._advance(now_ns)
        return self.limit.amount - self._used

    def take(self, amount: int, now_ns: int) -> int:
        """Count a use; the cell it lies in."""
        self._advance(now_ns)
        self._add(self._from_ns, amount)
        return self._from_ns

    def correct(self, cell_ns: int, by: int) -> bool:
        """What was taken in a cell was more or less than was known then. Of one that is over nothing is kept."""
        if cell_ns not in self._cells:
            return False
        self._add(cell_ns, by)
        return True

    def hear(self, epoch: str, cell_ns: int, used: int, now_ns: int) -> None:
        """Another worker has counted so much in the cell, in all."""
        self._advance(now_ns)
        if self._is_over(cell_ns) or cell_ns - now_ns > ROLLING_NS[self.limit.window]:
            return
        cell = self._cell(cell_ns)
        by = used - cell.others.get(epoch, 0)
        cell.others[epoch] = used
        cell.total += by
        if self._counts(cell_ns):
            self._used += by

    def own(self) -> list[tuple[int, int]]:
        """What this worker counted, by cell: all that others need to know of it."""
        return [(cell_ns, cell.own) for cell_ns, cell in self._cells.items() if cell.own]

    def told(self, epoch: str, cell_ns: int) -> Counted:
        """What this worker has to tell of the cell."""
        cell = self._cells.get(cell_ns)
        return Counted(self.limit.id, epoch, cell_ns, cell.own if cell else 0, self._over_ns(cell_ns))

    def wait_ns(self, amount: int, now_ns: int) -> int | None:
        """How long until so much may be used, if nothing else is; None where that is never."""
        missing = amount - self.left(now_ns)
        if amount > self.limit.amount:
            return None
        if missing <= 0:
            return 0
        for cell_ns in sorted(self._cells):
            if self._counts(cell_ns):
                missing -= self._cells[cell_ns].total
                if missing <= 0:
                    return self._over_ns(cell_ns) - now_ns
        return self._to_ns - now_ns

    def reset_ns(self, now_ns: int) -> int:
        """How long until all of the limit may be used again, if nothing is."""
        self._advance(now_ns)
        used = [cell_ns for cell_ns, cell in self._cells.items() if cell.total and self._counts(cell_ns)]
        newest = max(used, default=0)
        return self._over_ns(newest) - now_ns if newest else 0

    def is_empty(self, now_ns: int) -> bool:
        """Whether nothing is counted any more that anybody would need."""
        self._advance(now_ns)
        return not any(cell.own for cell in self._cells.values())

    def _advance(self, now_ns: int) -> None:
        if now_ns < self._to_ns:
            if self._from_ns - now_ns <= ROLLING_NS[self.limit.window]:
                return
            self._cells.clear()
        self._from_ns, self._to_ns = cell_of(self.limit, now_ns)
        for cell_ns in [cell_ns for cell_ns in self._cells if self._is_over(cell_ns)]:
            del self._cells[cell_ns]
        self._used = sum(cell.total for cell_ns, cell in self._cells.items() if self._counts(cell_ns))

    def _add(self, cell_ns: int, amount: int) -> None:
        cell = self._cell(cell_ns)
        cell.own += amount
        cell.total += amount
        if self._counts(cell_ns):
            self._used += amount

    def _cell(self, cell_ns: int) -> _Cell:
        found = self._cells.get(cell_ns)
        if found is None:
            found = self._cells[cell_ns] = _Cell()
        return found

    def _counts(self, cell_ns: int) -> bool:
        """A worker whose clock is ahead may tell of a fixed window that has not begun here."""
        return self.limit.rolling or cell_ns == self._from_ns

    def _is_over(self, cell_ns: int) -> bool:
        return self._over_ns(cell_ns) <= self._from_ns if self.limit.rolling else cell_ns < self._from_ns

    def _over_ns(self, cell_ns: int) -> int:
        """When the cell counts no more: when the last use in it is as old as the window is long."""
        if self.limit.rolling:
            window_ns = ROLLING_NS[self.limit.window]
            return cell_ns + window_ns // CELLS + window_ns
        return self._to_ns


class Seats:
    """The count of what runs at once. Others' counts hold for a while and must be heard again."""

    __slots__ = ("_heard", "limit", "own")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.own = 0
        self._heard: dict[str, tuple[int, int]] = {}

    def left(self) -> int:
        """How many more may run."""
        return self.limit.amount - self.own - sum(running for running, _ in self._heard.values())

    def hear(self, epoch: str, running: int, now_ns: int) -> None:
        """So many run at another worker."""
        if running:
            self._heard[epoch] = (running, now_ns)
        else:
            self._heard.pop(epoch, None)

    def forget(self, before_ns: int) -> None:
        """A worker that was not heard since has ended, or is cut off."""
        for epoch in [epoch for epoch, (_, heard_ns) in self._heard.items() if heard_ns < before_ns]:
            del self._heard[epoch]

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs here."""
        return not self.own


def name_of(subject: str, metric: Metric, window: Window, unit: str) -> str:
    """What the limit of a key or customer is called: there is one for each metric, window and unit."""
    return ".".join(part for part in (subject, metric, unit, window) if part)


def cell_of(limit: Limit, now_ns: int) -> tuple[int, int]:
    """Beginning and end of the cell of time that `now_ns` lies in."""
    if limit.rolling or limit.window == "minute":
        width_ns = ROLLING_NS[limit.window] // (CELLS if limit.rolling else 1)
        from_ns = now_ns // width_ns * width_ns
        return from_ns, from_ns + width_ns
    zone = ZoneInfo(limit.timezone)
    day = datetime.fromtimestamp(now_ns // SECOND_NS, UTC).astimezone(zone).date()
    if limit.window == "month":
        first = day.replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1)
    else:
        first, following = day, day + timedelta(days=1)
    midnight = datetime.min.time()
    begin, end = (datetime.combine(date, midnight, zone) for date in (first, following))
    return int(begin.timestamp()) * SECOND_NS, int(end.timestamp()) * SECOND_NS


def least(asked: Need, choices: int, likely: int, limit: int) -> int:
    """The tokens that a request must have within a limit: its input, and an answer worth having.

    That is as much as was asked for, as is likely to be enough, or a quarter of the limit, whichever is least.
    """
    part = max(limit // _LEAST_PART, choices)
    return asked.input_max + min(asked.output_max, likely * choices, part)


def within(asked: Need, room: int) -> Need:
    """As much of the output as the room leaves beside the input."""
    return Need(asked.input_max, min(asked.output_max, room - asked.input_max))
