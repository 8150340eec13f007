"""Contact: how long metering could be reached, as far as the office knows.

Deadlines after which a worker's balance is taken back, or a ledger's epoch is settled without it, must not run out
while the office, the bus or the database were away: nobody could have shipped then. What was before this process
started is not known, and counts as away.
"""

import psycopg

from tokenworks.base import clock
from tokenworks.base.bus import Bus
from tokenworks.base.clock import MS
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.core.uptime import Uptime

_PATIENCE_S = 2
_ROUNDS_MISSED_MAX = 4


class Contact:
    """Looks now and then, and says how far back enough uptime reaches."""

    def __init__(self, pool: Pool, bus: Bus, settings: Settings) -> None:
        self._pool = pool
        self._bus = bus
        self._longest_ns = settings.request_longest_ms * MS
        self._grace_ns = settings.lease_grace_ms * MS
        self._uptime = Uptime(_ROUNDS_MISSED_MAX * settings.housekeeping_ms * MS)

    @property
    def grace_ns(self) -> int:
        """How long a worker may be silent while it could be heard."""
        return self._grace_ns

    async def look(self, *, is_posting: bool) -> None:
        """Whether metering can be reached now; `is_posting`: somebody is there to post."""
        is_up = is_posting and self._bus.connected and await self._has_database()
        self._uptime.look(clock.boot_ns(), is_up=is_up)

    def silent_since_ns(self) -> int:
        """Leases not to be used since this wall time are lost: their longest request ended, and the time for a late
        journal has passed since, not counting what nobody could ship in. 0 while that is not known of any."""
        age_ns = self._uptime.age_ns(clock.boot_ns(), self._grace_ns)
        return 0 if age_ns is None else max(0, clock.wall_ns() - age_ns - self._longest_ns)

    def has_lasted(self, since_ns: int, wanted_ns: int) -> bool:
        """Whether since that wall time metering could be reached for so long."""
        age_ns = self._uptime.age_ns(clock.boot_ns(), wanted_ns)
        return age_ns is not None and clock.wall_ns() - since_ns >= age_ns

    async def _has_database(self) -> bool:
        try:
            async with self._pool.connection(timeout=_PATIENCE_S) as connection:
                await connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True
