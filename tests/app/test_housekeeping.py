"""Housekeeping: a fault of one chore is tried again; what nobody foresaw ends the process, never the chores alone."""

import asyncio

import psycopg
import pytest

from tokenworks.app import housekeeping
from tokenworks.app.housekeeping import HousekeepingOver


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
