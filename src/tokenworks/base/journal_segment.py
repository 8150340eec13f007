"""Segment files open for writing: allocating their space, writing, clearing a torn tail. No frames, no positions."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenworks.base.journal_folder import UNFINISHED, segment_path, take_lock
from tokenworks.base.journal_frames import SEGMENT_HEADER_BYTES

_BLOCK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Disk:
    """The system calls of the writer that a full or failing disk makes fail, so that tests and simulation can do it.

    `lock` is among them because a process that dies lets go of its lock, and in the simulation none really dies.
    """

    allocate: Callable[[int, int, int], None] = os.posix_fallocate
    write: Callable[[int, bytes | bytearray, int], int] = os.pwrite
    sync: Callable[[int], None] = os.fdatasync
    lock: Callable[[Path], int] = take_lock


@dataclass(frozen=True, slots=True)
class Segment:
    """An open segment file whose space is allocated."""

    number: int
    descriptor: int
    size: int

    @property
    def capacity(self) -> int:
        """Bytes for frames."""
        return self.size - SEGMENT_HEADER_BYTES


def allocate_segment(folder: Path, number: int, size: int, disk: Disk) -> Segment:
    """Create segment `number` with all its space allocated; on `OSError` nothing is left behind."""
    path = segment_path(folder, number)
    unfinished = path.with_suffix(UNFINISHED)
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        disk.allocate(descriptor, 0, size)
        unfinished.rename(path)
    except OSError:
        os.close(descriptor)
        unfinished.unlink()
        raise
    return Segment(number, descriptor, size)


def open_segment(path: Path) -> Segment:
    """Open an existing segment file for writing."""
    descriptor = os.open(path, os.O_RDWR)
    return Segment(int(path.stem), descriptor, os.fstat(descriptor).st_size)


def write_all(segment: Segment, data: bytes | bytearray, offset: int, disk: Disk) -> None:
    """Write every byte, normally with one system call; what cannot be written is an `OSError`."""
    done = disk.write(segment.descriptor, data, offset)
    while done < len(data):
        more = disk.write(segment.descriptor, bytes(data[done:]), offset + done)
        if more == 0:
            raise OSError(errno.EIO, "the disk takes no more bytes")
        done += more


def clear_from(segment: Segment, offset: int, disk: Disk) -> None:
    """Overwrite with zeros what is not zero from `offset` on.

    A crash halfway changes nothing that a reader sees: the frame at `offset` was damaged before, and still is or is
    zeros. Only blocks that need it are written, and all lie in space that the file already has.
    """
    for start in range(offset, segment.size, _BLOCK_BYTES):
        block = os.pread(segment.descriptor, min(_BLOCK_BYTES, segment.size - start), start)
        if block.count(0) < len(block):
            write_all(segment, bytes(len(block)), start, disk)
