"""The shipper: journal bytes to the ledger, in order, until it says that they are posted.

The reply of each shipment says how far the ledger has come; that decides what is sent next. There is no other memory of
it, so shipping again after a crash of either side changes nothing. A ledger that went back, restored or failed over,
says so in its next reply, and gets again what it lost: posted bytes stay on disk for a named time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from tokenworks.base import clock, log
from tokenworks.base.bus import BusFault
from tokenworks.base.config import Settings
from tokenworks.base.journal import JournalDamaged, Mark, read_frames, remove_below, write_mark
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.shipping.office import Office

_BACK_OFF_MS_MAX = 1_000
# How often in a row the ledger may say no to the rest of a journal before it is left for later.
_REFUSALS_MAX = 5
# An office that starts beside the worker, or again, is away for a moment; that is not worth a line.
_PATIENCE_NS = 5 * clock.SECOND
# Into so many parts the time that posted bytes stay is divided: they may stay longer by one of them.
_AGES = 32

_log = log.get(__name__)


class Shipper:
    """Ships one journal. `through` is how far it may be shipped, `keep_from` what a successor would need."""

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
        self._through = through
        self._keep_from = keep_from
        self._mark = Mark(0, 0, 0)
        self._aged: deque[tuple[int, int]] = deque()
        self._removed_below = start
        self._asked_ns = 0
        self._failures = 0
        self._refusals = 0
        self._failing_since_ns = 0
        self._told = ""
        self.reply = ShipReply(start)
        """The last one that was no fault of the bus."""

    async def run(self) -> None:
        """Ship what comes, until cancelled. Raises `JournalDamaged` where bytes that are to be shipped are no more.

        Who ships all there is waits for more to come: many small shipments cost the office several times as much.
        """
        while True:
            if not await self._step(is_final=False) or self._failures:
                await asyncio.sleep(self._pause_s())

    async def finish(self) -> bool:
        """Ship the rest of a journal to which nothing is added any more; whether all of it is posted.

        An office that is away is waited for. A ledger that refuses again and again will not change its mind soon.
        """
        while not await self._step(is_final=True):
            if self._refusals >= _REFUSALS_MAX or self.reply.waiting:
                return False
            if self._failures:
                await asyncio.sleep(self._pause_s())
        return True

    async def _step(self, *, is_final: bool) -> bool:
        """One shipment. Whether more is left to be shipped, or for the final ones whether all is done."""
        end = self._through()
        if self._position >= end and not is_final and not self._is_time_to_ask():
            return False
        batch = read_frames(self._folder, self._position, self._settings.ship_batch_bytes, end)
        if self._position < end and not batch.data:
            raise JournalDamaged(f"journal {self._folder} cannot be read at {self._position}, before its end at {end}")
        is_last = is_final and batch.to_position >= end
        request = ShipRequest(
            self._folder.name,
            self._folder.parent.name,
            batch.from_position,
            batch.data,
            final=is_last,
            bytes_behind=max(0, end - batch.to_position),
        )
        try:
            reply = await self._office.ship(request)
        except BusFault as fault:
            self._failed(str(fault), _PATIENCE_NS)
            return False
        if not self._accept(reply):
            return False
        if is_final:
            return is_last
        if self._position >= end:
            self._posted_all()
        return batch.to_position < end

    def _is_time_to_ask(self) -> bool:
        """A ledger that went back says so only when it is asked."""
        return clock.boot_ns() - self._asked_ns >= self._settings.ship_confirm_ms * clock.MS

    def _accept(self, reply: ShipReply) -> bool:
        """Go on where the ledger says. False where it refused, or is to be told again what it lost."""
        self.reply = reply
        self._asked_ns = clock.boot_ns()
        lost = self._position - reply.posted_through
        self._position = reply.posted_through
        if lost > 0:
            extra = {"journal": self._folder.name, "bytes": lost, "ledger_epoch": reply.ledger_epoch}
            _log.warning("the ledger went back, shipping again", extra=extra)
            self._aged.clear()
            self._failures, self._refusals = 0, 0
            return False
        if reply.fault:
            self._refusals += 1
            self._failed(reply.fault)
            return False
        self._failures, self._refusals, self._told = 0, 0, ""
        return True

    def _posted_all(self) -> None:
        """Remember beside the journal that this epoch has it, and let go of what was posted long enough ago."""
        mark = Mark(self.reply.ledger_epoch, self._position, clock.wall_ns(), min(self._position, self._keep_from()))
        is_far = mark.needed_from - self._mark.needed_from >= self._settings.journal_segment_bytes
        if is_far or self._mark.at_ns == 0 or mark.ledger_epoch != self._mark.ledger_epoch:
            write_mark(self._folder, mark)
            self._mark = mark
        self._remove_old(mark)

    def _remove_old(self, mark: Mark) -> None:
        """Segments go when no running request may need them after a crash, and no ledger that went back."""
        keep_ns = self._settings.journal_keep_ms * clock.MS
        if not self._aged or mark.at_ns - self._aged[-1][0] >= keep_ns // _AGES:
            self._aged.append((mark.at_ns, mark.through))
        old = mark.through - self._settings.journal_keep_bytes
        while self._aged and mark.at_ns - self._aged[0][0] >= keep_ns:
            old = max(old, self._aged.popleft()[1])
        below = min(old, mark.needed_from)
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


async def probe(office: Office, folder: Path) -> ShipReply:
    """How far the ledger has a journal: a shipment without frames posts nothing and is told."""
    return await office.ship(ShipRequest(folder.name, folder.parent.name, 0, b""))


def finished(shipper_reply: ShipReply) -> Mark:
    """The mark of a journal that is posted to its end."""
    return msgspec.structs.replace(
        Mark(shipper_reply.ledger_epoch, shipper_reply.posted_through, clock.wall_ns()), final=True
    )
