"""What the office does now and then, without anybody asking. Correctness never waits for it.

Validity is judged when a lease is granted; expiry here only books what that already decided.
"""

import asyncio
from collections.abc import Awaitable, Callable

import psycopg

from tokenworks.base import clock, log
from tokenworks.base.database import Pool
from tokenworks.ledger import buckets
from tokenworks.ledger.faults import LedgerFault
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.shop.orders import OrderDesk

_log = log.get(__name__)


def rounds(
    pool: Pool, desk: LeaseDesk, orders: OrderDesk, publish_pending: Callable[[], Awaitable[None]]
) -> dict[str, Callable[[], Awaitable[object]]]:
    """The chores, by what they do."""
    return {
        "expire buckets": lambda: buckets.expire_due(pool, clock.wall_ns()),
        "reclaim leases": lambda: desk.reclaim_due(clock.wall_ns()),
        "finish orders": orders.complete_paid,
        "publish the catalog": publish_pending,
    }


async def keep_house(chores: dict[str, Callable[[], Awaitable[object]]], pause_ms: int) -> None:
    """Do every chore, pause, and so on for ever. One that fails is logged and tried again next time."""
    while True:
        for name, chore in chores.items():
            try:
                done = await chore()
            except (psycopg.Error, LedgerFault) as fault:
                _log.error("a chore failed", extra={"chore": name, "reason": str(fault).partition("\n")[0]})
            else:
                if done:
                    _log.info("did a chore", extra={"chore": name, "items": done})
        await asyncio.sleep(pause_ms / 1000)
