"""What the office does now and then, without anybody asking. Correctness never waits for it.

Validity is judged when a lease is granted; expiry here only books what that already decided.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg

from tokenworks.app.settling import Settling
from tokenworks.base import clock, log
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.ledger import hours
from tokenworks.ledger.faults import LedgerFault
from tokenworks.meter import lake, partitions, usage_hours
from tokenworks.meter.lake_files import LakeFault
from tokenworks.shop import agreements
from tokenworks.shop.collections import CollectionDesk
from tokenworks.shop.orders import OrderDesk

_log = log.get(__name__)

Chores = dict[str, Callable[[], Awaitable[object]]]


class HousekeepingOver(Exception):
    """Housekeeping ended by itself: the process must not go on without it."""


def rounds(
    pool: Pool,
    settings: Settings,
    settling: Settling,
    orders: OrderDesk,
    publish_pending: Callable[[], Awaitable[None]],
) -> Chores:
    """The chores, by what they do."""
    collections = CollectionDesk(pool, orders.carrier, clock.wall_ns)
    return settling.chores() | {
        "grant the next period of credit": lambda: agreements.open_due(pool, clock.wall_ns()),
        "collect credit": collections.collect_due,
        "finish orders": orders.complete_paid,
        "publish the catalog": publish_pending,
        "fill the lake": lambda: _fill(pool, settings),
        "make partitions": lambda: partitions.make_ahead(pool, clock.wall_ns()),
    }


def sums(pool: Pool) -> Chores:
    """Those that take their time, so apart from the rounds; who reads sums adds what they lack."""
    return {
        "add up hours of accounts": lambda: hours.keep_up(pool),
        "add up hours of usage": lambda: usage_hours.keep_up(pool),
    }


async def _fill(pool: Pool, settings: Settings) -> int:
    return len(await lake.export_due(pool, settings.lake, settings.lake_interval_ms, clock.wall_ns()))


@asynccontextmanager
async def kept(chores: Chores, pause_ms: int) -> AsyncGenerator[None]:
    """Keep house while the body runs; what nobody foresaw cancels the body and comes out as `HousekeepingOver`.

    A chore that ended silently would let leases and buckets lie for ever; a process that ends is started again.
    """
    body = asyncio.current_task()
    keeping = asyncio.create_task(_keep(chores, pause_ms))

    def over(_: asyncio.Task[None]) -> None:
        if body is not None:
            body.cancel()

    keeping.add_done_callback(over)
    try:
        yield
    except asyncio.CancelledError:
        if body is None or not keeping.done():
            raise
        body.uncancel()
        cause = keeping.exception()
        _log.error("housekeeping is over", exc_info=cause)
        raise HousekeepingOver(f"housekeeping ended with {cause!r}") from cause
    finally:
        keeping.remove_done_callback(over)
        keeping.cancel()
        await asyncio.wait({keeping})


async def _keep(chores: Chores, pause_ms: int) -> None:
    """Do every chore, pause, and so on for ever. One that fails is logged and tried again next time."""
    while True:
        for name, chore in chores.items():
            try:
                done = await chore()
            except (psycopg.Error, LedgerFault, LakeFault) as fault:
                _log.error("a chore failed", extra={"chore": name, "reason": str(fault).partition("\n")[0]})
            else:
                if done:
                    _log.info("did a chore", extra={"chore": name, "items": done})
        await asyncio.sleep(pause_ms / 1000)
