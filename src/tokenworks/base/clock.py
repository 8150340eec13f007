"""The two clocks: wall time for records, and a monotonic clock that counts suspend for durations.

Everything outside `base` takes times as arguments or through these functions, so that the same code runs in virtual
time. All times are integer nanoseconds; wall times are UTC.
"""

import time
from datetime import UTC, datetime

MS = 1_000_000
SECOND = 1_000_000_000


def wall_ns() -> int:
    """Nanoseconds since 1970, UTC."""
    return time.time_ns()


def boot_ns() -> int:
    """Nanoseconds on a clock that never goes back and goes on while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def utc(at_ns: int) -> datetime:
    """The wall time as an aware datetime."""
    return datetime.fromtimestamp(at_ns / SECOND, UTC)


def iso(at_ns: int) -> str:
    """RFC 3339 with milliseconds, as shown to people and in JSON."""
    return utc(at_ns).isoformat(timespec="milliseconds").replace("+00:00", "Z")
