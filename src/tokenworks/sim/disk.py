"""A machine's disk: real files in memory, whose unsynced bytes can be lost, and which can be full, slow or broken.

What a writer wrote and did not sync is remembered with the bytes before it. A process that dies loses none of it; a
power failure keeps of it what chance says: the first writes whole, one torn at any byte, the rest not at all.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tokenworks.base.journal import Disk
from tokenworks.base.journal_folder import take_lock
from tokenworks.sim.chance import Chance
from tokenworks.sim.loop import VirtualLoop
from tokenworks.sim.machines import Process

_PAGE_BYTES = 4096


class _Write(msgspec.Struct):
    """Bytes written and not yet synced: when, where, and what stood there before."""

    at_ns: int
    offset: int
    before: bytes


class Loss(msgspec.Struct, frozen=True):
    """What a power failure took from a journal: bytes written from a time on, but none from before it."""

    worker: str
    journal_id: str
    since_ns: int
    writes: int


class SimDisk:
    """The disk of one machine, below one folder. `locks` says who holds which descriptor, for all disks together."""

    def __init__(self, folder: Path, loop: VirtualLoop, locks: dict[int, Process]) -> None:
        self.folder = folder
        self.is_full = False
        self.is_broken = False
        self.sync_ms = 1
        self._loop = loop
        # By inode: the number of a descriptor is used again, that of a file is not while anybody has it open.
        self._unsynced: dict[int, list[_Write]] = {}
        self._locks = locks

    def used_by(self, process: Process) -> Disk:
        """The system calls of one process; none works any more when it is dead."""

        def allocate(descriptor: int, offset: int, size: int) -> None:
            self._check(process)
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            os.posix_fallocate(descriptor, offset, size)

        def write(descriptor: int, data: bytes | bytearray, offset: int) -> int:
            self._check(process)
            before = os.pread(descriptor, len(data), offset)
            writes = self._unsynced.setdefault(os.fstat(descriptor).st_ino, [])
            writes.append(_Write(self._loop.now_ns, offset, before))
            return os.pwrite(descriptor, data, offset)

        def sync(descriptor: int) -> None:
            self._check(process)
            self._unsynced.pop(os.fstat(descriptor).st_ino, None)

        def lock(folder: Path) -> int:
            descriptor = take_lock(folder)
            self._locks[descriptor] = process  # whoever had a lock of this number has let go of it
            return descriptor

        return Disk(allocate, write, sync, lock)

    def unlock(self, process: Process) -> None:
        """A process died. Its descriptors stay open until the run is over, so that no number is used twice."""
        for descriptor in [number for number, holder in self._locks.items() if holder is process]:
            del self._locks[descriptor]
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    def lose_power(self, chance: Chance, *, holes: bool) -> tuple[list[Loss], bool]:
        """Forget unsynced bytes. With `holes` later writes may outlive earlier ones, as with a disk that reorders.

        What was lost, and whether there may be a hole: also where a segment lost what the next one, written before the
        first was synced, still has.
        """
        losses: list[Loss] = []
        has_holes, torn = holes, set[Path]()
        for path in sorted(self.folder.rglob("*.seg")):
            writes = self._unsynced.pop(path.stat().st_ino, [])
            gone = _lose(path, writes, chance, holes=holes)
            has_holes = has_holes or (path.parent in torn and len(gone) < len(writes))
            if gone:
                torn.add(path.parent)
                losses.append(Loss(path.parent.parent.name, path.parent.name, gone[0].at_ns, len(gone)))
        self._unsynced.clear()
        return losses, has_holes

    def _check(self, process: Process) -> None:
        if self.is_broken or not process.is_alive:
            raise OSError(errno.EIO, "Input/output error")


def _lose(path: Path, writes: list[_Write], chance: Chance, *, holes: bool) -> list[_Write]:
    """Undo writes, newest first; gives those of which anything is gone, oldest first."""
    kept = chance.between(0, len(writes))
    gone: list[_Write] = []
    with path.open("r+b") as file:
        for number in range(len(writes) - 1, -1, -1):
            write = writes[number]
            if number < kept and not (holes and chance.hits(300)):
                continue
            from_byte = _torn_at(write, chance) if number == kept else 0
            file.seek(write.offset + from_byte)
            file.write(write.before[from_byte:])
            gone.append(write)
    return gone[::-1]


def _torn_at(write: _Write, chance: Chance) -> int:
    """Where a write was interrupted: at any byte, or at the border of a page."""
    borders = list(_borders(write.offset, len(write.before)))
    if borders and chance.hits(500):
        return chance.pick(borders)
    return chance.below(len(write.before) + 1)


def _borders(offset: int, size: int) -> Iterator[int]:
    place = -offset % _PAGE_BYTES
    while place <= size:
        yield place
        place += _PAGE_BYTES
