"""Turns: which shipments are posted together next, so that a backlog never keeps fresh usage waiting for long.

A shipment with nothing behind it is live: its worker keeps up. After an outage shipments come with gigabytes behind
them. Live ones go together in one turn; a backlog has larger turns, which cost less for each record; and while both
wait, they take turns. So a live shipment waits for at most one turn of a backlog here, and a backlog always goes on.
"""

import asyncio
from collections import deque

import msgspec

from tokenworks.meter.posting import Posted
from tokenworks.meter.shipments import Shipment

# A turn of some milliseconds, and one of up to a second.
LIVE_BYTES = 512 << 10
BACKLOG_BYTES = 8 << 20


class Waiting(msgspec.Struct, frozen=True, eq=False):
    """A shipment that was read, and who waits for its answer."""

    shipment: Shipment
    answer: asyncio.Future[Posted]


class Turns:
    """Two queues, each in the order of arrival."""

    def __init__(self) -> None:
        self._live: deque[Waiting] = deque()
        self._backlog: deque[Waiting] = deque()
        self._is_live_next = True

    def add(self, waiting: Waiting) -> None:
        """Queue a shipment. There is never more than one of a journal."""
        (self._backlog if waiting.shipment.request.bytes_behind else self._live).append(waiting)

    def next(self) -> list[Waiting]:
        """The next turn, with at least one shipment if any waits."""
        is_live = bool(self._live) and (self._is_live_next or not self._backlog)
        self._is_live_next = not is_live
        return _taken(self._live, LIVE_BYTES) if is_live else _taken(self._backlog, BACKLOG_BYTES)


def _taken(queue: deque[Waiting], bytes_max: int) -> list[Waiting]:
    turn: list[Waiting] = []
    size = 0
    while queue and (not turn or size + len(queue[0].shipment.request.frames) <= bytes_max):
        turn.append(queue.popleft())
        size += len(turn[-1].shipment.request.frames)
    return turn
