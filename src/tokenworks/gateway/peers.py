"""Peers: how many workers there are, so that each takes its part of what an endpoint can serve at once.

Workers say hello over the bus each second, but only where the catalog has an endpoint with a limit. The parts add up to
the limit; every worker has at least one place, and one that has just started, or is cut off, knows of fewer workers
than there are until it has heard them.
"""

from collections.abc import Callable

from tokenworks.base import clock
from tokenworks.base.bus import BusFault
from tokenworks.gateway.flow import Errands
from tokenworks.shipping.office import Office

_AGAIN_NS = clock.SECOND
_FORGET_NS = 5 * clock.SECOND


class Peers:
    """The other workers that were heard lately. `on_change` is called when one comes or goes."""

    def __init__(self, office: Office, errands: Errands, epoch: str, on_change: Callable[[], None]) -> None:
        self._office = office
        self._errands = errands
        self._epoch = epoch
        self._on_change = on_change
        self._heard: dict[str, int] = {}
        self._again_ns = 0
        self.needed = False

    def part(self, limit: int) -> int:
        """This worker's part of a limit."""
        everybody = sorted((*self._heard, self._epoch))
        each, over = divmod(limit, len(everybody))
        return max(1, each + (everybody.index(self._epoch) < over))

    def need(self, *, needed: bool) -> None:
        """Whether there is anything to share. Where it begins, the others hear of it at once."""
        if needed and not self.needed:
            self._again_ns = 0
        self.needed = needed
        self.tick()

    def hear(self, epoch: str) -> None:
        """A worker said hello. One that is new hears of us at once."""
        if epoch == self._epoch:
            return
        is_new = epoch not in self._heard
        self._heard[epoch] = clock.boot_ns()
        if is_new:
            self._again_ns = 0
            self.tick()
            self._on_change()

    def tick(self) -> None:
        """Say hello when it is time, and forget who has not for a while."""
        now_ns = clock.boot_ns()
        if self.needed and now_ns - self._again_ns >= _AGAIN_NS:
            self._again_ns = now_ns
            self._errands.start(self._say())
        gone = [epoch for epoch, heard_ns in self._heard.items() if now_ns - heard_ns > _FORGET_NS]
        for epoch in gone:
            del self._heard[epoch]
        if gone:
            self._on_change()

    async def _say(self) -> None:
        try:
            await self._office.say_hello(self._epoch)
        except BusFault:
            self._again_ns = 0
