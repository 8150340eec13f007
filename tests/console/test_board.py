"""The board: who is told what, how often the books are read, and who is sent away."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from console.canned import CannedOffice
from tokenworks.console.board import Board
from tokenworks.console.view import Record


@asynccontextmanager
async def following(board: Board) -> AsyncGenerator[None]:
    task = asyncio.create_task(board.follow())
    await asyncio.sleep(0)
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def heard(stream: AsyncIterator[bytes], *events: str) -> None:
    """Read on until each of these events has come."""
    missing = set(events)
    while missing:
        message = await asyncio.wait_for(anext(stream), 5)
        missing.discard(message.split(b"\n")[0].removeprefix(b"event: ").decode())


def record(number: int, stage: str = "opened") -> Record:
    return Record(f"req_{number}", stage, "m", "2026-01-01T00:00:00.000Z")


async def test_a_viewer_gets_state_and_verification_and_then_each_move() -> None:
    office = CannedOffice()
    board = Board(office.context())
    async with following(board):
        stream = board.watch()
        await heard(stream, "state", "verifying", "verified")
        office.tell(record(1))
        await heard(stream, "record", "state")
        office.tell(record(1, "posted"))
        await heard(stream, "record", "state", "verified")


async def test_nothing_is_read_while_nobody_looks() -> None:
    office = CannedOffice()
    board = Board(office.context())
    async with following(board):
        for number in range(100):
            office.tell(record(number, "posted"))
        stream = board.watch()
        await heard(stream, "verified")
    assert office.reads <= 2


async def test_many_postings_are_read_once_a_pause() -> None:
    office = CannedOffice()
    board = Board(office.context())
    async with following(board):
        stream = board.watch()
        await heard(stream, "state", "verified")
        before = office.reads
        for number in range(100):
            office.tell(record(number, "posted"))
        for _ in range(100):
            await heard(stream, "record")
        await heard(stream, "state")
    assert office.reads - before <= 3


async def test_a_viewer_that_falls_behind_is_sent_away() -> None:
    office = CannedOffice()
    board = Board(office.context(live_queue_max=4))
    async with following(board):
        slow = board.watch()
        await heard(slow, "state")
        for number in range(10):
            office.tell(record(number))
        quick = board.watch()
        await heard(quick, "state")
        with pytest.raises(StopAsyncIteration):
            await heard(slow, "nothing of the kind")


async def test_there_is_room_for_so_many_viewers() -> None:
    office = CannedOffice()
    board = Board(office.context(live_viewers_max=1))
    assert not board.open
    async with following(board):
        assert board.open
        stream = board.watch()
        await heard(stream, "state")
        assert not board.open
        board.end()
        with pytest.raises(StopAsyncIteration):
            await heard(stream, "nothing of the kind")
        assert board.open


async def test_a_broken_board_keeps_no_viewers() -> None:
    office = CannedOffice()
    board = Board(office.context())
    task = asyncio.create_task(board.follow())
    stream = board.watch()
    await heard(stream, "state")
    office.tell(None)
    with pytest.raises(StopAsyncIteration):
        await heard(stream, "nothing of the kind")
    with pytest.raises(ExceptionGroup):
        await task
    assert not board.open
