"""Housekeeping: a fault of one chore is tried again; what nobody foresaw ends the process, never the chores alone."""

import asyncio

import psycopg
import pytest

from tokenworks.app import housekeeping
from tokenworks.app.housekeeping import HousekeepingOver
from tokenworks.base import clock


class _Unforeseen(Exception):
    pass


async def test_a_chore_that_fails_is_tried_again() -> None:
    rounds = 0
    thrice = asyncio.Event()

    async def failing() -> int:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            thrice.set()
        raise psycopg.OperationalError("the database is away")

    async with housekeeping.kept({"fail": failing}, pause_ms=1):
        await asyncio.wait_for(thrice.wait(), 5)


async def test_what_nobody_foresaw_ends_the_process() -> None:
    async def broken() -> None:
        raise _Unforeseen

    with pytest.raises(HousekeepingOver) as over:
        async with housekeeping.kept({"break": broken}, pause_ms=1):
            await asyncio.wait_for(asyncio.Event().wait(), 5)
    assert isinstance(over.value.__cause__, _Unforeseen)


async def test_a_stop_or_a_fault_from_outside_stays_what_it_is() -> None:
    async def nothing() -> None:
        return None

    async with housekeeping.kept({"rest": nothing}, pause_ms=1):
        pass
    with pytest.raises(_Unforeseen):
        async with housekeeping.kept({"rest": nothing}, pause_ms=1):
            raise _Unforeseen


async def test_a_chore_of_now_and_then_pauses_unless_it_failed() -> None:
    at_ns, done = clock.SECOND, 0

    async def chore() -> None:
        nonlocal done
        done += 1
        if done == 1:
            raise _Unforeseen

    kept = housekeeping.now_and_then(1_000, chore)
    with clock.replaced(lambda: at_ns, lambda: at_ns):
        with pytest.raises(_Unforeseen):
            await kept()
        for waited, count in ((0, 2), (999, 2), (1, 3), (500, 3)):
            at_ns += waited * clock.MS
            await kept()
            assert done == count
