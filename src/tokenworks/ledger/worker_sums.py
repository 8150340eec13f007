"""What each gateway worker holds of unposted balance, for its cap: never less than it is, and cheap to ask.

A sum over all open leases of a worker takes milliseconds, so it is read seldom: at first, and again where the cap comes
near. What is granted meanwhile is added; what is posted or given back is seen at the next reading. Rejected: a row for
each worker that grants and postings both change, which would make them wait for each other.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from tokenworks.base.clock import SECOND
from tokenworks.ledger import lease_rows
from tokenworks.ledger.seal import Connection

_READ_AGAIN_NS = SECOND


class _Sum(msgspec.Struct):
    """Open leases of one worker at most, by unit."""

    read_ns: int
    units: Counter[str]


class WorkerSums:
    """The sums of all workers that ever asked this office."""

    def __init__(self, caps: Mapping[str, int]) -> None:
        self._caps = caps
        self._sums: dict[str, _Sum] = {}

    async def prepare(self, conn: Connection, workers: Iterable[str], now_ns: int) -> None:
        """Read what must be read before `rooms` of these workers; the lease stream is locked, nobody else grants."""
        for worker in workers:
            known = self._sums.get(worker)
            if known is None or (self._is_near(known) and now_ns - known.read_ns >= _READ_AGAIN_NS):
                self._sums[worker] = _Sum(now_ns, await lease_rows.open_of_worker(conn, worker))

    def rooms(self, worker: str) -> dict[str, int]:
        """What the worker may still lease, by unit."""
        units = self._sums[worker].units
        return {unit: max(0, cap - units[unit]) for unit, cap in self._caps.items()}

    def add(self, worker: str, unit: str, amount: int) -> None:
        """A lease is granted; also where its transaction fails later, until the next reading."""
        self._sums[worker].units[unit] += amount

    def _is_near(self, known: _Sum) -> bool:
        """Whether more than half of a cap is taken."""
        return any(2 * known.units[unit] > cap for unit, cap in self._caps.items())
