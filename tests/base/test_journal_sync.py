"""Group fsync: who waits is woken by one sync for all; a fault and a stop wake everyone too."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from base.journal_disk import SEGMENT_BYTES, FailingDisk, kill
from tokenworks.base.journal import GroupSync, JournalFault, JournalWriter

HOUR_MS = 3_600_000


@pytest.fixture
def disk() -> FailingDisk:
    """A disk that works until told otherwise."""
    return FailingDisk()


@pytest.fixture
async def writer(tmp_path: Path, disk: FailingDisk) -> AsyncIterator[JournalWriter]:
    """A new journal."""
    writer = JournalWriter.create(tmp_path / "w" / "jnl_1", SEGMENT_BYTES, disk.disk)
    yield writer
    kill(writer, disk)


async def stop(running: asyncio.Task[None]) -> None:
    """Cancel and wait for the end."""
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def position_of(writer: JournalWriter, payload: bytes) -> int:
    """Append and insist that there was space."""
    position = writer.append(payload)
    assert isinstance(position, int)
    return position


async def test_who_asks_does_not_wait_for_the_interval(writer: JournalWriter, disk: FailingDisk) -> None:
    group = GroupSync(writer, HOUR_MS)
    running = asyncio.create_task(group.run())
    positions = [position_of(writer, b"closing") for _ in range(50)]
    before = disk.syncs
    await asyncio.gather(*(group.synced_through(position) for position in positions))
    assert disk.syncs == before + 1
    assert writer.synced == writer.written == 50 * 15
    await group.synced_through(positions[0])
    await stop(running)


async def test_the_interval_syncs_what_nobody_asked_for(writer: JournalWriter) -> None:
    running = asyncio.create_task(GroupSync(writer, 1).run())
    position_of(writer, b"closing")
    while writer.synced == 0:
        await asyncio.to_thread(writer.folder.stat)
    await stop(running)


async def test_a_fault_reaches_everyone_and_ends_the_run(writer: JournalWriter, disk: FailingDisk) -> None:
    group = GroupSync(writer, HOUR_MS)
    running = asyncio.create_task(group.run())
    position = position_of(writer, b"closing")
    writer.flush()
    disk.dead = True
    answers = await asyncio.gather(
        group.synced_through(position), group.synced_through(position), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [JournalFault, JournalFault]
    with pytest.raises(JournalFault, match="Input/output error"):
        await running
    with pytest.raises(JournalFault, match="Input/output error"):
        await group.synced_through(position)


async def test_a_stop_leaves_nobody_waiting(writer: JournalWriter) -> None:
    group = GroupSync(writer, HOUR_MS)
    running = asyncio.create_task(group.run())
    never_appended = asyncio.create_task(group.synced_through(15))
    await group.synced_through(position_of(writer, b"closing"))
    await stop(running)
    with pytest.raises(JournalFault, match="stopping"):
        await never_appended


async def test_who_gives_up_waiting_harms_nobody(writer: JournalWriter) -> None:
    group = GroupSync(writer, HOUR_MS)
    gone = asyncio.create_task(group.synced_through(position_of(writer, b"first")))
    stays = asyncio.create_task(group.synced_through(position_of(writer, b"second")))
    await group_waits(gone, stays)
    gone.cancel()
    running = asyncio.create_task(group.run())
    await stays
    assert gone.cancelled()
    await stop(running)


async def group_waits(*tasks: asyncio.Task[None]) -> None:
    """Let the tasks run to where they wait."""
    await asyncio.wait(tasks, timeout=0)
