"""Work behind the scenes in steps, which leaves most of the machine to those who wait for an answer."""

import asyncio
from collections.abc import Awaitable, Callable

from tokenworks.base import clock

# After each step four times as long as it took: a fifth of a core, however much there is to do.
_REST = 4


async def all_of(step: Callable[[], Awaitable[bool]]) -> None:
    """Do step after step, with rests between them, until one says that no more is to be done."""
    began_ns = clock.boot_ns()
    while await step():
        await asyncio.sleep(_REST * (clock.boot_ns() - began_ns) / clock.SECOND)
        began_ns = clock.boot_ns()
