"""Renewal: the workers of a running system are replaced by fresh ones, one after the other, and no request fails.

`tokenworks restart workers` asks for it with SIGUSR2 to the parent, which keeps the listening socket. How a worker that
was replaced ends is its own affair (`gateway.worker`); how its process is seen off is `children`'s.
"""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tokenworks.app import claim
from tokenworks.app.children import Child
from tokenworks.app.claim import Running
from tokenworks.app.spares import Spares
from tokenworks.base import clock, log
from tokenworks.base.config import Settings
from tokenworks.base.processes import StartFault

SIGNAL = signal.SIGUSR2
_LOOK_EVERY_S = 0.05

_log = log.get(__name__)


class Renewed(msgspec.Struct, frozen=True, kw_only=True):
    """What a renewal changed: for each worker the process before and the one that serves now."""

    workers: dict[str, tuple[int, int]]
    took_ms: int


class Renewal:
    """Replaces these children when it is asked to. `rounds` and `fault` tell how the last time ended."""

    def __init__(self, children: Sequence[Child], changed: Callable[[], None], spares: Spares | None = None) -> None:
        self.rounds = 0
        self.fault = ""
        self._children = children
        self._changed = changed
        self._spares = spares
        self._asked = asyncio.Event()

    @asynccontextmanager
    async def offered(self) -> AsyncGenerator[None]:
        """Within this context the signal is listened to."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(SIGNAL, self._asked.set)
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            loop.remove_signal_handler(SIGNAL)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self._replace_each()
            except (StartFault, OSError) as fault:
                self.fault = str(fault)
                _log.error("the workers were not all replaced: %s", fault)
            else:
                self.fault = ""
            self.rounds += 1
            self._changed()

    async def _replace_each(self) -> None:
        """One at a time: a version that does not start costs nobody a worker. A spare has loaded the former version."""
        if self._spares:
            await self._spares.stop()
        for child in self._children:
            await child.replace()
            _log.info("a worker is replaced", extra={"child": child.name, "pid": child.pid})
            self._changed()


async def renew(settings: Settings) -> Renewed:
    """Have the workers of the system on this data folder replaced; returns when the new ones serve."""
    before = claim.running_on(settings.data)
    if before is None:
        raise StartFault(f"no system runs on {settings.data}")
    began_ns = clock.boot_ns()
    os.kill(before.pid, SIGNAL)
    # Each worker may take the time that a start may take, and be waited for a moment before.
    patience_ms = (len(_workers(before)) + 1) * settings.start_timeout_ms
    try:
        async with asyncio.timeout(patience_ms / 1000):
            now = before
            while now.renewals == before.renewals:
                await asyncio.sleep(_LOOK_EVERY_S)
                now = _running(settings.data)
    except TimeoutError as fault:
        raise StartFault(f"the workers were not replaced within {patience_ms} ms; the log says why") from fault
    if now.renewal_fault:
        raise StartFault(now.renewal_fault)
    old, new = _workers(before), _workers(now)
    took_ms = (clock.boot_ns() - began_ns) // clock.MS
    return Renewed(workers={name: (old.get(name, 0), pid) for name, pid in new.items()}, took_ms=took_ms)


def _running(data: Path) -> Running:
    running = claim.running_on(data)
    if running is None:
        raise StartFault("the system was stopped meanwhile")
    return running


def _workers(running: Running) -> dict[str, int]:
    return {name: pid for name, pid in running.pids.items() if name.startswith("worker-")}
