"""An event loop whose time is virtual: where nothing is ready, it goes on to the next timer at once.

Sockets are real: what one end sends on the loopback has arrived at the other before the loop looks.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

from tokenworks.base import clock


class _Selector(selectors.DefaultSelector):
    """Never waits for what a timer will bring; `now_ns` is the time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self.now_ns += max(1, round(timeout * clock.SECOND))
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, selector: _Selector) -> None:
        super().__init__(selector)
        self._virtual = selector

    def time(self) -> float:
        return self._virtual.now_ns / clock.SECOND


def run(main: Coroutine[Any, Any, None], *, at_ns: int = 1_700_000_000 * clock.SECOND) -> None:
    """Run to the end; the product's clocks read virtual time meanwhile."""
    selector = _Selector()
    loop = _Loop(selector)
    try:
        with clock.replaced(lambda: at_ns + selector.now_ns, lambda: clock.SECOND + selector.now_ns):
            loop.run_until_complete(main)
            loop.run_until_complete(_settle())
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _settle() -> None:
    """Connections that were just accepted, or closed, come to their end."""
    for _ in range(20):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for _ in range(20):
        await asyncio.sleep(0)


async def passes(ms: int) -> None:
    """Return after so many virtual milliseconds."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(ms / 1000, done.set)
    await done.wait()
