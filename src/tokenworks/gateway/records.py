"""The worker's journal as its requests use it: typed entries, and one write for all entries of a loop turn.

A request that must not go on before its entry is with the operating system waits for `written`; all that wait in one
turn of the loop share one write(2). Files, frames and fsync belong to `base.journal`.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from tokenworks.base.journal import GroupSync, JournalFault, JournalFull, JournalWriter
from tokenworks.core import journal
from tokenworks.gateway.flow import Errands, Gate, Wait


class Records:
    """The one writer of this process's journal. A fault of the disk is final; `on_fault` is told of it."""

    def __init__(
        self,
        writer: JournalWriter,
        sync: GroupSync | None,
        errands: Errands,
        on_fault: Callable[[JournalFault], None],
    ) -> None:
        self._writer = writer
        self._sync = sync
        self._errands = errands
        self._on_fault = on_fault
        self._is_due = False
        self._gate = Gate()
        self._open: dict[int, None] = {}
        self._leases: dict[int, int] = {}
        # What ended, by the position that says so: that may be lost in a power failure until it is synced.
        self._ended: deque[tuple[int, dict[int, None] | dict[int, int], int]] = deque()
        self._last = 0

    @property
    def keep_from(self) -> int:
        """Frames from here on are needed after a crash, to close running requests and give leases back."""
        self._forget_ended()
        written = self._writer.written
        return min(next(iter(self._open), written), next(iter(self._leases.values()), written))

    def open(self, opening: journal.Opening, close_bytes_max: int) -> int | JournalFull:
        """Append the opening of a request, with space for its closing; its position names the request from now on."""
        try:
            position = self._writer.append_opening(journal.encode(opening), close_bytes_max)
        except JournalFault as fault:
            self._on_fault(fault)
            raise
        if not isinstance(position, JournalFull):
            self._open[position] = None
            if not self._is_due:
                self._schedule()
        return position

    def extend(self, extension: journal.Extension, close_bytes_max: int) -> bool:
        """Append an extension of a reservation, with space for the closing as it may be now. False as with `append`."""
        try:
            position = self._writer.append_extension(journal.encode(extension), extension.opening, close_bytes_max)
        except JournalFault as fault:
            self._on_fault(fault)
            return False
        if isinstance(position, JournalFull):
            return False
        if not self._is_due:
            self._schedule()
        return True

    def close(self, closing: journal.Closing) -> None:
        """Append the closing of a request."""
        try:
            self._last = self._writer.append_closing(journal.encode(closing), closing.opening)
        except JournalFault as fault:
            self._on_fault(fault)
            raise
        self._ended.append((self._last, self._open, closing.opening))
        if not self._is_due:
            self._schedule()

    def append(self, entry: journal.Checkpoint | journal.LeaseTaken | journal.LeaseClose | journal.LeaseReturn) -> bool:
        """Append another entry. False where it would take space that closings were promised, or the disk failed."""
        try:
            position = self._writer.append(journal.encode(entry))
        except JournalFault as fault:
            self._on_fault(fault)
            return False
        if isinstance(position, JournalFull):
            return False
        if isinstance(entry, journal.LeaseTaken):
            self._leases[entry.lease_id] = position
        elif isinstance(entry, journal.LeaseClose):
            self._ended.append((position, self._leases, entry.lease_id))
        if not self._is_due:
            self._schedule()
        return True

    def written(self) -> Gate:
        """To be waited for: it opens when everything appended so far would outlive this process."""
        gate = self._gate
        if not self._is_due:
            self._schedule()
        return gate

    def durable(self) -> Awaitable[None]:
        """To be waited for: everything appended so far is as durable as the setting `durability` says."""
        if self._sync is None:
            return self.written()
        wait: Wait[None] = Wait()
        self._errands.start(_synced(self._sync, self._last, wait))
        return wait

    def _forget_ended(self) -> None:
        while self._ended and self._ended[0][0] < self._writer.synced:
            _, begun, name = self._ended.popleft()
            begun.pop(name, None)

    def _schedule(self) -> None:
        """Write at the end of this turn of the loop."""
        self._is_due = True
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_due = False
        gate, self._gate = self._gate, Gate()
        try:
            self._writer.flush()
        except JournalFault as fault:
            self._on_fault(fault)
            gate.open(fault)
        else:
            self._forget_ended()
            gate.open()


async def _synced(sync: GroupSync, position: int, wait: Wait[None]) -> None:
    try:
        await sync.synced_through(position)
    except JournalFault as fault:
        wait.fail(fault)
        return
    wait.resolve(None)
