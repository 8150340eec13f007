"""Status: what a worker says of itself each second: requests that wait, and how its endpoints are.

Told to whoever listens, which is the office, for people to look at. Nothing depends on it.
"""

from contextlib import suppress

from tokenworks.base import clock
from tokenworks.base.bus import BusFault
from tokenworks.core.wire import WorkerState
from tokenworks.gateway.flow import Errands
from tokenworks.gateway.queues import Queues
from tokenworks.grid.dispatch import Board
from tokenworks.shipping.office import Office

_PAUSE_NS = clock.SECOND


class Status:
    """Tells the state of one worker."""

    def __init__(self, office: Office, errands: Errands, worker: str, queues: Queues, board: Board) -> None:
        self._office = office
        self._errands = errands
        self._worker = worker
        self._queues = queues
        self._board = board
        self._told_ns = 0

    def tick(self) -> None:
        """Tell it when it is time."""
        now_ns = clock.boot_ns()
        if now_ns - self._told_ns >= _PAUSE_NS:
            self._told_ns = now_ns
            self._errands.start(self._tell(self.state(now_ns)))

    def state(self, now_ns: int) -> WorkerState:
        """How it is now."""
        return WorkerState(
            self._worker,
            {model: queue.lengths() for model, queue in self._queues.lines.items()},
            self._board.running(),
            tuple(self._board.resting(now_ns)),
        )

    async def _tell(self, state: WorkerState) -> None:
        with suppress(BusFault):
            await self._office.tell_state(state)
