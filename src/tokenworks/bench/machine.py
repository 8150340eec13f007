"""The machine as a measurement needs it: CPU time and memory of a process, what the processor and the disk are.

Read from Linux's /proc; times of a process include all its threads and none of its children.
"""

import os
import resource
import tempfile
from contextlib import suppress
from pathlib import Path
from statistics import median

from tokenworks.base import clock

_TICK_NS = clock.SECOND // os.sysconf("SC_CLK_TCK")
_SYNCS = 21
_BLOCK = bytes(4096)


def cpu_ns(pid: int) -> int:
    """CPU time of a process so far, user and system together."""
    # The name in brackets may hold anything; utime and stime are the 12th and 13th fields after it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_NS


def family_cpu_ns(pid: int) -> int:
    """CPU time so far of a process, of its children, and of those that it has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    spent_ns = sum(int(ticks) for ticks in fields[11:15]) * _TICK_NS
    for child in children:
        # One that has ended meanwhile is counted with its parent's next time.
        with suppress(FileNotFoundError, ProcessLookupError):
            spent_ns += cpu_ns(int(child))
    return spent_ns


def rss_bytes(pid: int) -> int:
    """Memory of a process that is in use now."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def threads(pid: int) -> int:
    """Threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descendants(pid: int) -> list[int]:
    """A process and all that come from it, parents before their children."""
    found = [pid]
    for each in found:
        found += [int(child) for child in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
    return found


def allow_descriptors() -> int:
    """Let this process have as many descriptors as the machine allows, and say how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def processor() -> str:
    """The processor's name, as its maker writes it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return os.uname().machine


def fdatasync_us(folder: Path) -> int:
    """How long the disk takes to make four kilobytes safe, the median of several tries."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return int(median(_sync_ns(file.fileno()) for _ in range(_SYNCS)) // 1_000)


def _sync_ns(descriptor: int) -> int:
    os.write(descriptor, _BLOCK)
    began_ns = clock.boot_ns()
    os.fdatasync(descriptor)
    return clock.boot_ns() - began_ns
