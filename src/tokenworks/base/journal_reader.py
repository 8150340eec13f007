"""Reading a journal: batches of whole frames from a position, and the position where the valid bytes end.

Works on a live journal of this process and on a dead one after a crash. It does not know what frames mean, and it
never changes a file: `JournalWriter.resume` clears a torn tail, once `check_tail` has found that it is one.

A position counts frame bytes since the journal's start; headers of segments and padding do not count. So the bytes
that are shipped are contiguous, and position p lies at `SEGMENT_HEADER_BYTES + p - base` of its segment.
"""

import os
from pathlib import Path

import msgspec

from tokenworks.base.journal_folder import (
    oldest_position,
    read_header,
    segment_paths,
    segments_from,
    segments_in_use,
)
from tokenworks.base.journal_frames import (
    FRAME_BYTES_MAX,
    PAD,
    SEGMENT_HEADER_BYTES,
    JournalDamaged,
    has_frame,
    whole_frames,
)

_SCAN_BYTES = 1 << 20
_BLOCK_BYTES = 64 << 10


class Batch(msgspec.Struct, frozen=True):
    """Whole frames, headers included, as they stand in the journal from `from_position` up to `to_position`."""

    from_position: int
    to_position: int
    data: bytes


def read_frames(folder: Path, from_position: int, bytes_max: int, through: int | None = None) -> Batch:
    """As many whole, undamaged frames as fit `bytes_max`, from a frame's start; empty at the end or at a torn tail.

    `through` is where to stop. A shipper of a live journal passes `JournalWriter.synced`: bytes that the ledger has
    posted must still be here after a power failure, or a resumed journal would use their positions again. A dead
    journal is resumed first, for the same reason. A position whose segment was deleted is a `JournalFault`.
    """
    if bytes_max < FRAME_BYTES_MAX:
        raise ValueError(f"a batch must have room for the largest frame, {FRAME_BYTES_MAX} bytes, not {bytes_max}")
    end_max = from_position + bytes_max if through is None else min(from_position + bytes_max, through)
    parts: list[memoryview] = []
    position = from_position
    for index, (path, header) in enumerate(segments_from(folder, from_position)):
        # After a power failure a newer segment may be there while the end of an older one is not.
        if index and header.base != position:
            break
        frames, is_segment_end = _read_segment(path, SEGMENT_HEADER_BYTES + position - header.base, end_max - position)
        parts.append(frames)
        position += len(frames)
        if not is_segment_end:
            break
    return Batch(from_position, position, b"".join(parts))


def valid_end(folder: Path, start: int = 0) -> int:
    """The position after the last frame that can be read: where a dead journal ends and a torn tail begins.

    `start` is a frame's position before which nothing is looked at; where it is gone, the oldest kept.
    """
    position = max(start, oldest_position(folder))
    while (end := read_frames(folder, position, _SCAN_BYTES).to_position) > position:
        position = end
    return position


def check_tail(folder: Path, end: int, end_least: int) -> None:
    """`JournalDamaged` where the bytes behind the valid end are more than what a crash tore.

    A process that dies leaves a part of a frame, and behind it nothing that is whole. After a power failure whole
    frames may follow a hole; those may have been answered, so they are not thrown away either. `end_least` is a
    position that somebody knows to have been durable once: a journal that ends before it has lost bytes. Only one
    without any segment in use has not: a crash interrupted its removal.
    """
    if end < end_least and any(True for _ in segments_in_use(folder)):
        raise JournalDamaged(f"journal {folder} can be read up to {end}, and once held {end_least}")
    for path in segment_paths(folder):
        header = read_header(path)
        offset = SEGMENT_HEADER_BYTES + end - header.base if header else 0
        if _has_frame_from(path, max(offset, 0)):
            raise JournalDamaged(f"journal {folder} can be read up to {end}, and whole frames follow in {path.name}")


def _has_frame_from(path: Path, offset: int) -> bool:
    """Whether a whole frame begins in a segment at any byte from a file offset on."""
    with path.open("rb", buffering=0) as file:
        for start in range(offset, os.fstat(file.fileno()).st_size, _BLOCK_BYTES):
            block = os.pread(file.fileno(), _BLOCK_BYTES + FRAME_BYTES_MAX, start)
            if block.count(0) < len(block) and has_frame(block, _BLOCK_BYTES):
                return True
    return False


def _read_segment(path: Path, offset: int, bytes_max: int) -> tuple[memoryview, bool]:
    """Whole frames from a file offset, and whether the journal goes on in the next segment."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(descriptor, max(bytes_max, 0), offset)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    count = whole_frames(memoryview(data))
    is_segment_end = data[count : count + len(PAD)] == PAD or offset + count + len(PAD) > size
    return memoryview(data)[:count], is_segment_end
