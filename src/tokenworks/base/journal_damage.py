"""Reading a damaged journal: every whole frame that is left, with its position, and the holes between them.

Within a segment positions follow from the offset, so a frame behind a hole still has the position it was written at; in
a segment whose header is gone, from the end of the one before. Bytes in a hole are looked at one by one: a frame is
whatever has a length and a checksum that agree. Nothing is changed here.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from tokenworks.base.journal_folder import read_header, segment_paths
from tokenworks.base.journal_frames import (
    FRAME_HEADER_BYTES,
    PAD,
    SEGMENT_HEADER_BYTES,
    frame_size,
    next_frame,
)


class Found(msgspec.Struct, frozen=True, gc=False):
    """A whole frame's payload and position. `end` is the position after it."""

    position: int
    end: int
    payload: bytes


class Hole(msgspec.Struct, frozen=True):
    """Positions that cannot be read, up to the next whole frame."""

    start: int
    end: int


class Remains(msgspec.Struct, frozen=True):
    """What is left of a journal: its frames in their order, and what is missing between them."""

    begin: int
    frames: tuple[Found, ...]
    holes: tuple[Hole, ...]

    @property
    def valid_end(self) -> int:
        """Where the part that is whole from the beginning ends."""
        end = self.begin
        for found in self.frames:
            if found.position != end:
                break
            end = found.end
        return end


def remains(folder: Path, first: int = 0) -> Remains:
    """Everything that can be read of a journal that nobody writes, from segment number `first` on."""
    frames: list[Found] = []
    begin = end = -1
    for path in segment_paths(folder):
        if int(path.stem) < first:
            continue
        header = read_header(path)
        base = header.base if header else end
        if base < 0:
            continue  # neither its own header nor a segment before says where it begins
        begin = base if begin < 0 else begin
        frames += _frames(path.read_bytes(), base)
        end = frames[-1].end if frames else base
    return Remains(max(begin, 0), tuple(frames), tuple(_holes(max(begin, 0), frames)))


def _frames(data: bytes, base: int) -> Iterator[Found]:
    view = memoryview(data)
    offset = SEGMENT_HEADER_BYTES
    while True:
        size = frame_size(view, offset)
        if not size:
            if data[offset : offset + len(PAD)] == PAD and not any(data[offset + len(PAD) :]):
                return
            offset = next_frame(data, offset + 1)
            if offset < 0:
                return
            continue
        position = base + offset - SEGMENT_HEADER_BYTES
        yield Found(position, position + size, data[offset + FRAME_HEADER_BYTES : offset + size])
        offset += size


def _holes(begin: int, frames: list[Found]) -> Iterator[Hole]:
    end = begin
    for found in frames:
        if found.position > end:
            yield Hole(end, found.position)
        end = found.end
