"""Group fsync: one thread makes the journal durable for all requests of the event loop.

With durability `interval` nobody waits; the sync follows within `journal_fsync_ms`. With `every` a request waits for
`synced_through` its closing before the last byte goes out, and all that wait at once share one fdatasync.
"""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

from tokenworks.base.journal_frames import JournalFault
from tokenworks.base.journal_writer import JournalWriter


class GroupSync:
    """Syncs one writer, for as long as `run` runs. All methods belong to the event loop of that writer."""

    def __init__(self, writer: JournalWriter, interval_ms: int) -> None:
        self._writer = writer
        self._interval_s = interval_ms / 1000
        self._asked = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._ended = ""

    async def run(self) -> None:
        """Sync until cancelled; a fault of the journal ends it and everyone who waits."""
        # A thread of its own: the loop's shared ones may all be busy looking up names.
        with ThreadPoolExecutor(1, "journal-sync") as thread:
            try:
                while True:
                    await self._pause()
                    await self._sync(thread)
            except JournalFault as fault:
                self._ended = str(fault)
                raise
            finally:
                self._end()

    async def synced_through(self, position: int) -> None:
        """Return when the frame that starts at `position` would outlive a power failure."""
        if self._writer.synced > position:
            return
        if self._ended:
            raise JournalFault(self._ended)
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((position, done))
        self._asked.set()
        await done

    async def _pause(self) -> None:
        """Wait for the interval, or less if somebody asks."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._interval_s):
                await self._asked.wait()
        self._asked.clear()

    async def _sync(self, thread: ThreadPoolExecutor) -> None:
        # Frames appended in this tick may still be in the buffer; whoever asked must not wait another interval.
        self._writer.flush()
        if self._writer.synced < self._writer.written:
            await asyncio.get_running_loop().run_in_executor(thread, self._writer.sync)
        self._wake()

    def _wake(self) -> None:
        synced = self._writer.synced
        still: list[tuple[int, asyncio.Future[None]]] = []
        for position, done in self._waiting:
            if position >= synced:
                still.append((position, done))
            elif not done.done():
                done.set_result(None)
        self._waiting = still

    def _end(self) -> None:
        self._wake()
        self._ended = self._ended or "the journal is no longer synced: this process is stopping"
        for _, done in self._waiting:
            if not done.done():
                done.set_exception(JournalFault(self._ended))
        self._waiting = []
