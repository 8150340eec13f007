"""The two clocks: wall time for records, and a monotonic clock that counts suspend for durations.

Everything outside `base` takes times as arguments or through these functions, so that the same code runs in virtual
time. All times are integer nanoseconds; wall times are UTC.

Callers read `clock.wall_ns()`, never an imported name: `replaced` rebinds the two functions, which costs nothing while
nobody does it.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

MS = 1_000_000
SECOND = 1_000_000_000


wall_ns: Callable[[], int] = time.time_ns
"""Nanoseconds since 1970, UTC."""

boot_ns: Callable[[], int] = partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
"""Nanoseconds on a clock that never goes back and goes on while the machine is suspended."""


@contextmanager
def replaced(wall: Callable[[], int], boot: Callable[[], int]) -> Generator[None]:
    """Let this process read other clocks: the simulation's, in virtual time."""
    global wall_ns, boot_ns
    before = wall_ns, boot_ns
    wall_ns, boot_ns = wall, boot
    try:
        yield
    finally:
        wall_ns, boot_ns = before


def utc(at_ns: int) -> datetime:
    """The wall time as an aware datetime."""
    return datetime.fromtimestamp(at_ns / SECOND, UTC)


def iso(at_ns: int) -> str:
    """RFC 3339 with milliseconds, as shown to people and in JSON."""
    return utc(at_ns).isoformat(timespec="milliseconds").replace("+00:00", "Z")
