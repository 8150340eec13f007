"""Counts of limits: what workers say they have used, remembered for workers that start later.

The office listens to what the workers tell each other. A worker that asks for a key gets what all of them have counted;
one that has died is remembered until its windows are over. Counts of windows longer than a minute outlive the office.
"""

import asyncio
from collections.abc import Iterable

import msgspec
import psycopg

from tokenworks.base import clock, log
from tokenworks.base.bus import Bus, Served
from tokenworks.base.database import Pool
from tokenworks.core.limits import Counted, Limit, Limits
from tokenworks.core.wire import LIMIT_COUNTS, LimitCounts

_KEEP_PAUSE_S = 1
_FORGET_EVERY = 60
# A window of a minute, and what is counted in it at most, is over before an office is back.
_KEPT_FROM_NS = 150 * clock.SECOND

_log = log.get(__name__)
_decode = msgspec.msgpack.Decoder(LimitCounts).decode

_Name = tuple[str, int, str]


class CountDesk:
    """Everything that was counted and still counts. `start` and `stop` frame its life."""

    def __init__(self, pool: Pool, bus: Bus) -> None:
        self._pool = pool
        self._bus = bus
        self._counts: dict[str, dict[tuple[int, str], Counted]] = {}
        self._unkept: dict[_Name, Counted] = {}
        self._served: Served | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._rounds = 0

    async def start(self) -> None:
        """Remember what was kept, and listen."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT limit_id, epoch, cell_ns, used, until_ns FROM limit_use WHERE until_ns > %s", (clock.wall_ns(),)
            )
            for limit_id, epoch, cell_ns, used, until_ns in await cursor.fetchall():
                self._note(Counted(limit_id, epoch, cell_ns, used, until_ns))
        self._served = await self._bus.subscribe(LIMIT_COUNTS, self._on_counts)
        self._keeping = asyncio.create_task(self._keep_on())

    async def stop(self) -> None:
        """Listen no more, and keep what was heard."""
        if self._served is not None:
            await self._served.unsubscribe()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        await self.keep()

    def counts(self, limits: Limits) -> Limits:
        """The limits with all that was counted of them."""
        now_ns = clock.wall_ns()
        found = (each for limit in limits.each for each in self._counts.get(limit.id, {}).values())
        return msgspec.structs.replace(limits, counts=tuple(each for each in found if each.until_ns > now_ns))

    def used(self, limits: Iterable[Limit]) -> dict[str, int]:
        """How much of each limit is used now, as far as it was told."""
        now_ns = clock.wall_ns()
        return {
            limit.id: sum(
                each.used for each in self._counts.get(limit.id, {}).values() if each.cell_ns <= now_ns < each.until_ns
            )
            for limit in limits
        }

    async def keep(self) -> None:
        """Write down what was heard since the last time; where that cannot be done it is done the next time."""
        unkept, self._unkept = self._unkept, {}
        try:
            if unkept:
                await self._write(list(unkept.values()))
            self._rounds += 1
            if self._rounds % _FORGET_EVERY == 0:
                await self._forget()
        except psycopg.Error as fault:
            self._unkept = unkept | self._unkept
            _log.warning("counts of limits are not kept yet", extra={"reason": str(fault).partition("\n")[0]})

    async def _keep_on(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_PAUSE_S)
            await self.keep()

    async def _on_counts(self, _subject: str, payload: bytes) -> None:
        for each in _decode(payload).counts:
            if each.cell_ns:
                self._note(each)
                if each.until_ns - each.cell_ns > _KEPT_FROM_NS:
                    self._unkept[each.limit_id, each.cell_ns, each.epoch] = each

    def _note(self, counted: Counted) -> None:
        self._counts.setdefault(counted.limit_id, {})[counted.cell_ns, counted.epoch] = counted

    async def _write(self, counts: list[Counted]) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(
                """INSERT INTO limit_use (limit_id, cell_ns, epoch, used, until_ns)
                   SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[])
                   ON CONFLICT (limit_id, cell_ns, epoch) DO UPDATE SET used = excluded.used""",
                (
                    [each.limit_id for each in counts],
                    [each.cell_ns for each in counts],
                    [each.epoch for each in counts],
                    [each.used for each in counts],
                    [each.until_ns for each in counts],
                ),
            )

    async def _forget(self) -> None:
        now_ns = clock.wall_ns()
        for limit_id, cells in list(self._counts.items()):
            for name in [name for name, each in cells.items() if each.until_ns <= now_ns]:
                del cells[name]
            if not cells:
                del self._counts[limit_id]
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM limit_use WHERE until_ns <= %s", (now_ns,))
