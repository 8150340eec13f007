"""A disk for journal tests that can be full, or dead; otherwise the real one without waiting for the platter."""

import contextlib
import errno
import os

from tokenworks.base.journal import Disk, JournalFault, JournalWriter

SEGMENT_BYTES = 64 << 10
CAPACITY = SEGMENT_BYTES - 64


class FailingDisk:
    """Pass `disk` to a writer; then switch `full` and `dead`."""

    def __init__(self) -> None:
        self.full = False
        self.dead = False
        self.writes = 0
        self.syncs = 0
        self.write_bytes_max = 1 << 30
        self.disk = Disk(self.allocate, self.write, self.sync)

    def allocate(self, descriptor: int, offset: int, size: int) -> None:
        """Refuse when full, else really allocate."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.posix_fallocate(descriptor, offset, size)

    def write(self, descriptor: int, data: bytes | bytearray, offset: int) -> int:
        """Fail when dead, else really write, at most `write_bytes_max` at once."""
        if self.dead:
            raise OSError(errno.EIO, "Input/output error")
        self.writes += 1
        return os.pwrite(descriptor, data[: self.write_bytes_max], offset)

    def sync(self, descriptor: int) -> None:
        """Fail when dead, else only look at the descriptor and count."""
        os.fstat(descriptor)
        if self.dead:
            raise OSError(errno.EIO, "Input/output error")
        self.syncs += 1


def kill(writer: JournalWriter, disk: FailingDisk) -> None:
    """What SIGKILL does: the buffer is lost, files and lock are let go of."""
    disk.dead = True
    with contextlib.suppress(JournalFault):
        writer.close()
    disk.dead = False
