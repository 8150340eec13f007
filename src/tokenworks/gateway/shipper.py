"""The shipper: journal bytes to the ledger, in order, until it says that they are posted.

The reply of each shipment says how far the ledger has come; that decides what is sent next and which segments may go.
There is no other memory of it, so shipping again after a crash of either side changes nothing.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from tokenworks.base import clock, log
from tokenworks.base.bus import BusFault
from tokenworks.base.config import Settings
from tokenworks.base.journal import read_frames, remove_below
from tokenworks.core.wire import ShipRequest
from tokenworks.gateway.office import Office

_BACK_OFF_MS_MAX = 1_000
# How often in a row the ledger may say no to the rest of a journal before it is left for later.
_REFUSALS_MAX = 5
# An office that starts beside the worker, or again, is away for a moment; that is not worth a line.
_PATIENCE_NS = 5 * clock.SECOND

_log = log.get(__name__)


class Shipper:
    """Ships one journal. `through` is how far it may be shipped, `keep_from` what must stay on disk."""

    def __init__(
        self,
        office: Office,
        settings: Settings,
        folder: Path,
        *,
        start: int,
        through: Callable[[], int],
        keep_from: Callable[[], int],
    ) -> None:
        self._office = office
        self._settings = settings
        self._folder = folder
        self._position = start
        self._removed_below = start
        self._through = through
        self._keep_from = keep_from
        self._failures = 0
        self._refusals = 0
        self._failing_since_ns = 0
        self._told = ""

    async def run(self) -> None:
        """Ship what comes, until cancelled."""
        while True:
            if not await self._step(is_final=False) or self._failures:
                await asyncio.sleep(self._pause_s())

    async def finish(self) -> bool:
        """Ship the rest of a journal to which nothing is added any more; whether all of it is posted.

        An office that is away is waited for. A ledger that refuses again and again will not change its mind soon.
        """
        while not await self._step(is_final=True):
            if self._refusals >= _REFUSALS_MAX:
                return False
            if self._failures:
                await asyncio.sleep(self._pause_s())
        return True

    async def _step(self, *, is_final: bool) -> bool:
        """One shipment. Whether it did something, or for the final ones whether all is done."""
        end = self._through()
        if self._position >= end and not is_final:
            return False
        batch = read_frames(self._folder, self._position, self._settings.ship_batch_bytes, end)
        is_last = is_final and batch.to_position >= end
        request = ShipRequest(
            self._folder.name, self._folder.parent.name, batch.from_position, batch.data, final=is_last
        )
        try:
            reply = await self._office.ship(request)
        except BusFault as fault:
            self._failed(str(fault), _PATIENCE_NS)
            return False
        self._position = reply.posted_through
        if reply.fault:
            self._refusals += 1
            self._failed(reply.fault)
            return False
        self._failures, self._refusals, self._told = 0, 0, ""
        self._remove_posted()
        return is_last if is_final else bool(batch.data)

    def _remove_posted(self) -> None:
        """Segments go when all in them is posted and no running request may need them after a crash."""
        below = min(self._position, self._keep_from())
        if below - self._removed_below >= self._settings.journal_segment_bytes:
            self._removed_below = below
            remove_below(self._folder, below)

    def _failed(self, fault: str, patience_ns: int = 0) -> None:
        """Say so once, when it has gone on for longer than patience has."""
        now_ns = clock.boot_ns()
        self._failing_since_ns = self._failing_since_ns if self._failures else now_ns
        self._failures += 1
        if fault != self._told and now_ns - self._failing_since_ns >= patience_ns:
            self._told = fault
            _log.warning("usage waits to be posted", extra={"journal": self._folder.name, "reason": fault})

    def _pause_s(self) -> float:
        """Doubles with each failure in a row."""
        return min(self._settings.ship_interval_ms << min(self._failures, 16), _BACK_OFF_MS_MAX) / 1000
