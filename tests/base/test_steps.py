"""Work in steps leaves most of the time to others."""

import asyncio

from tokenworks.base import clock, steps
from virtual_time import run


def test_it_rests_after_each_step_as_long_as_it_may() -> None:
    began: list[int] = []

    async def step() -> bool:
        began.append(clock.boot_ns() // clock.MS)
        await asyncio.sleep(0.01 * len(began))
        return len(began) < 3

    async def work() -> None:
        await steps.all_of(step)
        began.append(clock.boot_ns() // clock.MS)

    run(work())
    assert [at - began[0] for at in began] == [0, 50, 150, 180]
