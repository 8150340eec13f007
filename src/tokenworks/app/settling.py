"""Settling: the office's chores about ledger epochs, and what must not be done before an epoch is settled.

Expiry would take away what a lost lease has yet to be charged from; reclaim would end leases whose journals are on
their way.
"""

from collections.abc import Awaitable, Callable

from tokenworks.app.contact import Contact
from tokenworks.base import clock, log
from tokenworks.base.database import Pool
from tokenworks.ledger import buckets, epoch
from tokenworks.ledger.epoch import Epoch, Epochs, Why
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.meter import journals
from tokenworks.meter.service import Metering

_log = log.get(__name__)


class Settling:
    """Opens and settles epochs, and keeps the books' house as far as they are settled."""

    def __init__(self, pool: Pool, epochs: Epochs, contact: Contact, desk: LeaseDesk, metering: Metering) -> None:
        self._pool = pool
        self._epochs = epochs
        self._contact = contact
        self._desk = desk
        self._metering = metering

    def chores(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """By what they do, in their order."""
        return {
            "look at metering": lambda: self._contact.look(is_posting=self._metering.is_ready),
            "begin an epoch": self.notice,
            "settle the epoch": self.settle,
            "expire buckets": self.expire,
            "reclaim leases": self.reclaim,
        }

    async def notice(self, why: Why = "failover") -> int:
        """Begin an epoch if the database is another one than before; how many."""
        return _told("a ledger epoch begins", await self._epochs.notice(clock.wall_ns(), why))

    async def settle(self) -> int:
        """Settle the epoch if it is time; how many."""
        async with self._pool.connection() as conn:
            now = await epoch.current(conn)
        if now is None or now.is_settled:
            return 0
        is_late = self._contact.has_lasted(now.started_at_ns, self._epochs.latest_ns)
        return _told("the ledger epoch is settled", await self._epochs.settle_due(clock.wall_ns(), is_late=is_late))

    async def expire(self) -> int:
        """Book what ran out of validity; how many buckets."""
        return await buckets.expire_due(self._pool, clock.wall_ns()) if await epoch.is_settled(self._pool) else 0

    async def reclaim(self) -> int:
        """Take back what silent workers hold; how many leases."""
        if not await epoch.is_settled(self._pool):
            return 0
        async with self._pool.connection() as conn:
            final = await journals.final_with_leases(conn)
        silent_since_ns = self._contact.silent_since_ns()
        shipping = self._metering.shipping(self._contact.grace_ns)
        return await self._desk.reclaim_due(clock.wall_ns(), silent_since_ns, shipping, final)


def _told(what: str, now: Epoch | None) -> int:
    if now is None:
        return 0
    extra = {"ledger_epoch": now.epoch, "timeline": now.timeline, "why": now.why, "how": now.how or "open"}
    _log.warning(what, extra=extra)
    return 1
