"""Limits in use: what a worker counts of each limit of its callers, tells the other workers, and hears from them.

A request is admitted by what is known here at that moment and waits for nobody. Counts that changed are published at
once, or when the named pause since the last time is over: what other workers admit meanwhile is how far a cap that they
share can be passed. What a limit means, and how counts add up, is `core.limits`; who has which is told with the key.
"""

import asyncio
from collections.abc import Iterable

from tokenworks.base import clock, log
from tokenworks.base.bus import BusFault
from tokenworks.base.config import Settings
from tokenworks.core.bounds import NOTHING, Need
from tokenworks.core.limits import Counted, Gauge, Limit, Limits, Seats, least, within
from tokenworks.core.refusals import Refusal
from tokenworks.core.snapshot import Key
from tokenworks.core.wire import LimitCounts
from tokenworks.gateway.flow import Errands
from tokenworks.gateway.grant import Gauges, Grant, gauges_of, refusal_of
from tokenworks.gateway.limit_fields import fields
from tokenworks.shipping.office import Office

# Running requests are told again so often, and forgotten when they were not for so long.
_AGAIN_NS = clock.SECOND
_FORGET_NS = 5 * clock.SECOND
# Unused counts are looked for so often.
_TIDY_NS = 60 * clock.SECOND
_COUNTS_AT_ONCE = 1_000

_log = log.get(__name__)


class LimitsInUse:
    """The gauges of a worker, by limit, and by key as they apply to it. The only writer of them, with its grants."""

    def __init__(self, office: Office, errands: Errands, settings: Settings, epoch: str) -> None:
        self._office = office
        self._errands = errands
        self._epoch = epoch
        self._pause_ns = settings.limit_share_ms * clock.MS
        self._stale_ns = settings.key_stale_ms * clock.MS
        self._likely = settings.lease_likely_tokens
        self._of_keys: dict[str, tuple[Limits, Gauges]] = {}
        self._gauges: dict[str, Gauge] = {}
        self._seats: dict[str, Seats] = {}
        self._changed: dict[tuple[str, int], None] = {}
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._telling = 0
        self._told_ns = self._again_ns = self._tidied_ns = 0

    def know(self, key: Key) -> None:
        """The office told of a key: from now on what others count of its limits is heard."""
        if key.limits is not None:
            self._gauges_of(key.key_id, key.limits)

    def admit(self, caller: Key, limits: Limits, bound: Need, choices: int) -> Grant | Refusal:
        """Count a request in if all limits of its key let it in; the grant says how much of the bound they do.

        One that is bound to `NOTHING` costs no tokens, and no limit on them looks at it.
        """
        now_ns = clock.wall_ns()
        gauges = self._gauges_of(caller.key_id, limits)
        for seats in gauges.seats:
            if seats.left() < 1:
                return refusal_of(seats.limit, 1, 0)
        for gauge in gauges.requests:
            if gauge.left(now_ns) < 1:
                return refusal_of(gauge.limit, 1, gauge.wait_ns(1, now_ns))
        for gauge in gauges.tokens if bound is not NOTHING else ():
            left = gauge.left(now_ns)
            wanted = least(bound, choices, self._likely, gauge.limit.amount)
            if wanted > left:
                return refusal_of(gauge.limit, wanted, gauge.wait_ns(wanted, now_ns))
            bound = within(bound, left)
        return Grant(gauges, bound, limits.weight, now_ns, self.touch)

    def fields(self, caller: Key, limits: Limits, *, anthropic: bool = False) -> bytes:
        """The header lines that tell the caller where its limits stand."""
        return fields(self._gauges_of(caller.key_id, limits), clock.wall_ns(), anthropic=anthropic)

    def touch(self, limit_id: str, cell_ns: int) -> None:
        """A count changed: others are to know, soon."""
        self._changed[limit_id, cell_ns] = None
        if self._timer is None:
            loop = asyncio.get_running_loop()
            since_ns = clock.boot_ns() - self._told_ns
            if since_ns >= self._pause_ns:
                self._timer = loop.call_soon(self._tell)
            else:
                self._timer = loop.call_later((self._pause_ns - since_ns) / clock.SECOND, self._tell)

    @property
    def is_telling(self) -> bool:
        """Whether there is something that others have not been told."""
        return self._timer is not None or self._telling > 0

    def hear(self, counts: LimitCounts) -> None:
        """What another worker has counted. What is of no limit known here comes with the key that makes it known."""
        if counts.epoch != self._epoch:
            self._take_in(counts.counts)

    def tell_all(self) -> None:
        """Others may have missed what was told: tell them everything that still counts."""
        for gauge in self._gauges.values():
            for cell_ns, _ in gauge.own():
                self.touch(gauge.limit.id, cell_ns)
        self._tell_running()

    def tick(self) -> None:
        """From time to time: say again what runs, forget who says nothing, and what nobody counts any more."""
        now_ns = clock.boot_ns()
        if now_ns - self._again_ns >= _AGAIN_NS:
            self._again_ns = now_ns
            self._tell_running()
            for seats in self._seats.values():
                seats.forget(now_ns - _FORGET_NS)
        if now_ns - self._tidied_ns >= _TIDY_NS:
            self._tidied_ns = now_ns
            self._tidy()

    def _gauges_of(self, key_id: str, limits: Limits) -> Gauges:
        known = self._of_keys.get(key_id)
        if known is not None and known[0] is limits:
            known[1].used_ns = clock.boot_ns()
            return known[1]
        gauges = gauges_of(
            [self._gauge(limit) for limit in limits.each if limit.window],
            [self._seat(limit) for limit in limits.each if limit.metric == "concurrency"],
        )
        gauges.used_ns = clock.boot_ns()
        self._of_keys[key_id] = (limits, gauges)
        self._take_in(each for each in limits.counts if each.epoch != self._epoch)
        return gauges

    def _gauge(self, limit: Limit) -> Gauge:
        """The gauge of a limit. Another amount goes on with its count; another kind of window begins anew."""
        known = self._gauges.get(limit.id)
        if known is None or (known.limit.rolling, known.limit.timezone) != (limit.rolling, limit.timezone):
            known = self._gauges[limit.id] = Gauge(limit)
        known.limit = limit
        return known

    def _seat(self, limit: Limit) -> Seats:
        known = self._seats.get(limit.id)
        if known is None:
            known = self._seats[limit.id] = Seats(limit)
        known.limit = limit
        return known

    def _take_in(self, counts: Iterable[Counted]) -> None:
        wall_ns, boot_ns = clock.wall_ns(), clock.boot_ns()
        for each in counts:
            if not each.cell_ns:
                seats = self._seats.get(each.limit_id)
                if seats is not None:
                    seats.hear(each.epoch, each.used, boot_ns)
            elif (gauge := self._gauges.get(each.limit_id)) is not None:
                gauge.hear(each.epoch, each.cell_ns, each.used, wall_ns)

    def _tell_running(self) -> None:
        for seats in self._seats.values():
            if seats.own:
                self.touch(seats.limit.id, 0)

    def _tell(self) -> None:
        self._timer = None
        self._told_ns = clock.boot_ns()
        changed = list(self._changed)[:_COUNTS_AT_ONCE]
        for each in changed:
            del self._changed[each]
        counts = tuple(self._told(limit_id, cell_ns) for limit_id, cell_ns in changed)
        if counts:
            self._telling += 1
            self._errands.start(self._publish(LimitCounts(self._epoch, counts)))
        for limit_id, cell_ns in list(self._changed)[:1]:
            self.touch(limit_id, cell_ns)

    def _told(self, limit_id: str, cell_ns: int) -> Counted:
        if cell_ns and (gauge := self._gauges.get(limit_id)) is not None:
            return gauge.told(self._epoch, cell_ns)
        seats = self._seats.get(limit_id)
        return Counted(limit_id, self._epoch, cell_ns, seats.own if seats else 0)

    async def _publish(self, counts: LimitCounts) -> None:
        try:
            await self._office.tell_counts(counts)
        except BusFault as fault:
            # Everything is told again when the bus is back.
            _log.warning("counts of limits are not told", extra={"reason": str(fault)})
        finally:
            self._telling -= 1

    def _tidy(self) -> None:
        """Forget what is counted of nothing here, once its key is forgotten too: one that comes again is asked for
        again, and brings the others' counts with it."""
        now_ns, before_ns = clock.wall_ns(), clock.boot_ns() - self._stale_ns
        idle = {name for name, gauge in self._gauges.items() if gauge.is_empty(now_ns)}
        idle |= {name for name, seats in self._seats.items() if seats.is_empty}
        for key_id, (limits, gauges) in list(self._of_keys.items()):
            if gauges.used_ns < before_ns and all(limit.id in idle for limit in limits.each):
                del self._of_keys[key_id]
        used = {limit.id for limits, _ in self._of_keys.values() for limit in limits.each}
        for name in idle - used:
            self._gauges.pop(name, None)
            self._seats.pop(name, None)
