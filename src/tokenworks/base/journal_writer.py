"""Writing a journal: frames into a buffer, one write per flush, a sync in a thread, and space promised for closings.

One writer per journal, in one thread, except `sync`, which is made for another. It does not know what frames mean; it
knows that an opening must be followed by a closing, and it takes no opening whose closing might find no space.
"""

import os
from collections import deque
from pathlib import Path
from threading import Lock
from typing import Self

import msgspec

from tokenworks.base.journal_folder import (
    first_from,
    read_header,
    remove,
    remove_unfinished,
    segment_paths,
    sync_folder,
)
from tokenworks.base.journal_frames import (
    FRAME_BYTES_MAX,
    FRAME_HEADER_BYTES,
    PAD,
    SEGMENT_HEADER_BYTES,
    JournalFault,
    SegmentHeader,
    frame,
    pack_header,
)
from tokenworks.base.journal_reader import check_tail, valid_end
from tokenworks.base.journal_segment import (
    Disk,
    Segment,
    allocate_segment,
    clear_from,
    open_segment,
    write_all,
)

_DISK = Disk()


class JournalFull(msgspec.Struct, frozen=True):
    """No: the frame would take space that is promised to closings, and no more could be had. Nothing was written."""

    bytes_needed: int
    reason: str


class JournalWriter:
    """The only writer of one journal. Made by `create` or `resume`.

    `written` is the position up to which bytes are with the operating system, so that they outlive this process;
    `synced` the position up to which they outlive a power failure. Any error of the disk while writing or syncing is
    final: it raises `JournalFault`, and so does every later call, because nobody can say what reached the disk.
    """

    def __init__(self, folder: Path, lock: int, segment_bytes: int, disk: Disk) -> None:
        self.folder = folder
        self.written = 0
        self.synced = 0
        self._lock = lock
        self._segment_bytes = segment_bytes
        self._disk = disk
        # A text, not an exception: one that is raised again and again collects tracebacks.
        self._fault = ""
        self._buffer = bytearray()
        self._offset = 0
        self._room = 0
        self._end = 0
        self._segments: list[Segment] = []
        self._spares: deque[Segment] = deque()
        self._next_number = 0
        self._promises: dict[int, int] = {}
        self._promised = 0
        self._close_largest = 1
        self._unsynced_spares: list[Segment] = []
        # The sync thread reads and shortens the two lists of segments while the loop may lengthen them.
        self._segments_guard = Lock()
        self._sync_guard = Lock()

    @classmethod
    def create(cls, folder: Path, segment_bytes: int, disk: Disk = _DISK, *, base: int = 0) -> Self:
        """Start the journal `<journal_dir>/<worker>/<journal_id>` with two segments; no space is a `JournalFault`.

        `base` is its first position: above 0 for what is left of a journal whose beginning the ledger has.
        """
        _check(segment_bytes)
        try:
            folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise JournalFault(f"journal {folder} cannot be created: {error}") from error
        try:
            writer = cls(folder, disk.lock(folder), segment_bytes, disk)
            writer._open(0, 0, base)
        except JournalFault:
            remove(folder)
            raise
        for parent in (folder.parent, folder.parent.parent):
            sync_folder(parent)
        return writer

    @classmethod
    def resume(
        cls, folder: Path, segment_bytes: int, disk: Disk = _DISK, *, start: int = 0, end_least: int = 0
    ) -> Self:
        """Go on where a dead journal's valid bytes end; one that is still written is `JournalLive`.

        A torn tail is overwritten with zeros, in the space it has, so that promised closings find theirs on a full
        disk too. What cannot be a torn tail is `JournalDamaged`, and not a byte is changed: whole frames behind the
        end, or an end before `end_least`, which was durable once. Nothing is looked at before the segment that holds
        `start`, which is a frame's: what lies there is durable and only kept.
        """
        _check(segment_bytes)
        writer = cls(folder, disk.lock(folder), segment_bytes, disk)
        writer._open(start, end_least, 0)
        return writer

    def append_opening(self, payload: bytes, close_bytes_max: int) -> int | JournalFull:
        """Append an opening and promise space for a closing of at most `close_bytes_max`; the opening's position."""
        closing = FRAME_HEADER_BYTES + close_bytes_max
        if closing > FRAME_BYTES_MAX:
            raise ValueError(f"a closing of {close_bytes_max} bytes would not fit a frame")
        data = frame(payload)
        self._close_largest = max(self._close_largest, closing)
        is_at_hand = len(data) + self._promised + closing <= self._room and not self._fault
        if not is_at_hand and (full := self._take(len(data), closing)) is not None:
            return full
        position = self._put(data)
        self._promises[position] = closing
        self._promised += closing
        return position

    def append_closing(self, payload: bytes, opening: int) -> int:
        """Append the closing of the opening at that position; its space was promised, so it is never refused."""
        if self._fault:
            raise JournalFault(self._fault)
        promise = self._promises.pop(opening, None)
        if promise is None:
            raise ValueError(f"no opening at position {opening} waits for its closing")
        data = frame(payload)
        if len(data) > promise:
            self._promises[opening] = promise
            raise ValueError(f"a closing of {len(payload)} bytes is larger than promised by its opening at {opening}")
        self._promised -= promise
        return self._put(data)

    def append_extension(self, payload: bytes, opening: int, close_bytes_max: int) -> int | JournalFull:
        """Append a frame by which the closing of that opening may grow, and promise space for so much."""
        if self._fault:
            raise JournalFault(self._fault)
        promise = self._promises.get(opening)
        if promise is None:
            raise ValueError(f"no opening at position {opening} waits for its closing")
        closing = max(promise, FRAME_HEADER_BYTES + close_bytes_max)
        if closing > FRAME_BYTES_MAX:
            raise ValueError(f"a closing of {close_bytes_max} bytes would not fit a frame")
        data = frame(payload)
        self._close_largest = max(self._close_largest, closing)
        if (full := self._take(len(data), closing - promise)) is not None:
            return full
        position = self._put(data)
        self._promises[opening] = closing
        self._promised += closing - promise
        return position

    def append(self, payload: bytes) -> int | JournalFull:
        """Append any other frame, a checkpoint for example, if it takes no promised space.

        A resumed journal knows no promises of the dead writer: closings of orphans come this way and may use all.
        """
        data = frame(payload)
        if (full := self._take(len(data), 0)) is not None:
            return full
        return self._put(data)

    def flush(self) -> None:
        """Hand everything appended to the operating system with one write. Meant for once per tick of the loop."""
        if self._fault:
            raise JournalFault(self._fault)
        if not self._buffer:
            return
        self._write(self._buffer, self._offset)
        self._offset += len(self._buffer)
        self._buffer.clear()
        self.written = self._end

    def sync(self) -> None:
        """Make everything written so far durable. Blocks: for a thread beside the one that appends and flushes."""
        with self._sync_guard:
            if self._fault:
                raise JournalFault(self._fault)
            # First the position, then the segments: whatever lies below it is in one of them.
            through = self.written
            with self._segments_guard:
                segments = list(self._segments)
                spares = list(self._unsynced_spares)
            try:
                for segment in (*segments, *spares):
                    self._disk.sync(segment.descriptor)
                if spares:
                    sync_folder(self.folder)
            except OSError as error:
                raise self._fail(error) from error
            self._retire(len(segments) - 1, len(spares))
            self.synced = through

    def close(self) -> None:
        """Flush, sync and let go of the lock. Doing it again, or after a fault, only lets go."""
        try:
            if not self._fault:
                self.flush()
                self.sync()
        finally:
            self._abandon(f"journal {self.folder} is closed")

    def _take(self, size: int, closing: int) -> JournalFull | None:
        """Make sure that a frame of `size` leaves room for all closings promised, and for one more of `closing`."""
        if self._fault:
            raise JournalFault(self._fault)
        promised = self._promised + closing
        if size + promised <= self._room:
            return None
        while not self._fits(size, promised):
            if (error := self._allocate()) is not None:
                return JournalFull(bytes_needed=size + closing, reason=str(error))
        return None

    def _fits(self, size: int, promised: int) -> bool:
        """Whether after a frame of `size` the allocated segments surely hold closings of `promised` bytes in sum.

        A closing that does not fit a segment's rest goes to the next. So each segment but the last may lose up to one
        byte less than the largest closing.
        """
        rooms = [self._room, *(spare.capacity for spare in self._spares)]
        if size > rooms[0]:
            rooms.pop(0)
        if not rooms:
            return False
        rooms[0] -= size
        lost = self._close_largest - 1
        return promised <= sum(max(0, room - lost) for room in rooms[:-1]) + rooms[-1]

    def _put(self, data: bytes) -> int:
        size = len(data)
        if size > self._room:
            self._roll()
        position = self._end
        self._buffer += data
        self._room -= size
        self._end = position + size
        return position

    def _roll(self) -> None:
        """Finish the current segment and go on in the next."""
        if self._room >= len(PAD):
            self._buffer += PAD
        self.flush()
        self._begin(self._spares.popleft())
        self._keep_spare()

    def _begin(self, segment: Segment) -> None:
        """Put an allocated segment into use."""
        with self._segments_guard:
            self._segments.append(segment)
        self._write(pack_header(SegmentHeader(segment.number, self.folder.name, self._end)), 0)
        self._offset = SEGMENT_HEADER_BYTES
        self._room = segment.capacity

    def _keep_spare(self) -> None:
        """Have the next segment allocated. On a full disk go on without: openings ask again when they need it."""
        if not self._spares:
            self._allocate()

    def _allocate(self) -> OSError | None:
        """One more spare segment, or why not; that harms nothing already promised, so it is no fault."""
        try:
            segment = allocate_segment(self.folder, self._next_number, self._segment_bytes, self._disk)
        except OSError as error:
            return error
        self._next_number += 1
        self._add_spare(segment)
        return None

    def _add_spare(self, segment: Segment) -> None:
        self._spares.append(segment)
        with self._segments_guard:
            self._unsynced_spares.append(segment)

    def _write(self, data: bytes | bytearray, offset: int) -> None:
        try:
            write_all(self._segments[-1], data, offset, self._disk)
        except OSError as error:
            raise self._fail(error) from error

    def _fail(self, error: OSError) -> JournalFault:
        self._fault = f"journal {self.folder} can no longer be written: {error}"
        return JournalFault(self._fault)

    def _retire(self, finished: int, spares: int) -> None:
        """Close segments that are full and synced; the newest stays."""
        with self._segments_guard:
            done = self._segments[:finished]
            del self._segments[:finished]
            del self._unsynced_spares[:spares]
        for segment in done:
            os.close(segment.descriptor)

    def _abandon(self, fault: str) -> None:
        """Close all files and refuse everything from now on."""
        with self._sync_guard:
            self._fault = self._fault or fault
            for segment in (*self._segments, *self._spares):
                os.close(segment.descriptor)
            self._segments.clear()
            self._spares.clear()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _open(self, start: int, end_least: int, base: int) -> None:
        try:
            self._find_segments(start, end_least, base)
            self._keep_spare()
            self.sync()
        except OSError as error:
            self._abandon(f"journal {self.folder} cannot be opened for writing: {error}")
            raise JournalFault(self._fault) from error
        except JournalFault as fault:
            self._abandon(str(fault))
            raise

    def _find_segments(self, start: int, end_least: int, base: int) -> None:
        """Take up the files of a dead journal, or start the first segment of a new one."""
        self._end = self.written = max(valid_end(self.folder, start), base)
        check_tail(self.folder, self._end, end_least)
        remove_unfinished(self.folder)
        held = first_from(self.folder, start)
        for path in segment_paths(self.folder):
            header = read_header(path)
            self._next_number = int(path.stem) + 1
            if header is not None and held is not None and header.number < held:
                continue
            segment = open_segment(path)
            if header is not None and header.base <= self._end:
                self._segments.append(segment)
                self._offset = SEGMENT_HEADER_BYTES + self._end - header.base
            else:
                self._add_spare(segment)
                clear_from(segment, 0, self._disk)
        if self._segments:
            clear_from(self._segments[-1], self._offset, self._disk)
            self._room = self._segments[-1].size - self._offset
            return
        if not self._spares and (error := self._allocate()) is not None:
            raise error
        self._begin(self._spares.popleft())


def _check(segment_bytes: int) -> None:
    if segment_bytes < SEGMENT_HEADER_BYTES + FRAME_BYTES_MAX:
        raise ValueError(f"a segment of {segment_bytes} bytes cannot hold the largest frame")
