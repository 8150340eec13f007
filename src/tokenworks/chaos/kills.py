"""Killing the parts in turn: one SIGKILL at even distances, and a look at how long each part was away.

A part is not killed again before it is back. One that does not come back within a named time is a finding of its own.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

import msgspec

from tokenworks.base import clock
from tokenworks.chaos import parts
from tokenworks.chaos.parts import BACKEND, Part

BACK_WITHIN_MS = 30_000
_LOOK_EVERY_S = 0.05

Killed = Callable[[str, int], None]
"""Called with the part that was killed and how many were so far."""


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """One kill. `back_ms` is how long the part was away, None if it did not come back in time."""

    part: str
    kind: str
    at_ns: int
    back_ms: int | None


class Killer:
    """Carries out the kills of a run. `kills` is what was done so far, in the order of the parts' return."""

    def __init__(self, in_turn: list[Part], database_url: str, killed: Killed) -> None:
        self.kills: list[Kill] = []
        self._parts = in_turn
        self._database_url = database_url
        self._killed = killed
        self._returns: dict[str, asyncio.Task[None]] = {}

    async def run(self, count: int, duration_ms: int) -> None:
        """So many kills over the time, the first after half a distance; returns when every part is back."""
        began_ns = clock.boot_ns()
        distance_ns = duration_ms * clock.MS // count
        for number in range(count):
            due_ns = began_ns + number * distance_ns + distance_ns // 2
            await asyncio.sleep(max(0, due_ns - clock.boot_ns()) / clock.SECOND)
            part = self._parts[number % len(self._parts)]
            await self._kill(part)
            self._killed(part.name, number + 1)
        await asyncio.gather(*self._returns.values())

    def by_kind(self) -> dict[str, int]:
        """How often each kind of part was killed."""
        return dict(Counter(kill.kind for kill in self.kills))

    async def _kill(self, part: Part) -> None:
        if earlier := self._returns.get(part.name):
            await earlier
        give_up_ns = clock.boot_ns() + BACK_WITHIN_MS * clock.MS
        while not parts.kill(pid := part.pid()):
            if clock.boot_ns() > give_up_ns:
                self.kills.append(Kill(part=part.name, kind=part.kind, at_ns=clock.wall_ns(), back_ms=None))
                return
            await asyncio.sleep(_LOOK_EVERY_S)
        self._returns[part.name] = asyncio.create_task(self._watch(part, pid))

    async def _watch(self, part: Part, killed: int) -> None:
        at_ns, began_ns = clock.wall_ns(), clock.boot_ns()
        back_ms: int | None = None
        while back_ms is None and clock.boot_ns() - began_ns < BACK_WITHIN_MS * clock.MS:
            await asyncio.sleep(_LOOK_EVERY_S)
            if await self._is_back(part, killed):
                back_ms = (clock.boot_ns() - began_ns) // clock.MS
        self.kills.append(Kill(part=part.name, kind=part.kind, at_ns=at_ns, back_ms=back_ms))

    async def _is_back(self, part: Part, killed: int) -> bool:
        if part.kind == BACKEND:
            return await parts.answers(self._database_url)
        return part.pid() not in {0, killed}
