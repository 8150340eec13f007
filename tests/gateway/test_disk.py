"""A worker on a disk that is full, and one whose journal is damaged under its hands."""

import asyncio
from pathlib import Path

import openai
import pytest

from base.journal_disk import FailingDisk
from gateway.workers import MESSAGES, Running, worker
from supplier import held, usage, whole
from tokenworks.base.bus import Bus
from tokenworks.base.config import Settings
from tokenworks.base.journal import JournalDamaged, damaged_journals, list_journals
from tokenworks.core.journal import Closing, Opening
from tokenworks.shipping.succession import succeed

REQUESTS_MAX = 2_000


async def served(running: Running) -> bool:
    """One request; whether it was answered. The only refusal is that its use could not be recorded."""
    try:
        answer = await running.client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=20)
    except openai.InternalServerError as refusal:
        if refusal.code != "journal_full":
            raise
        return False
    assert answer.usage is not None
    return True


async def test_a_full_disk_refuses_new_requests_and_loses_none(services: Settings, bus: Bus, tmp_path: Path) -> None:
    disk, release = FailingDisk(), asyncio.Event()
    async with worker(services, bus, tmp_path, disk.disk, journal_segment_bytes=1 << 16) as running:
        running.supplier.script(held(release, whole("late", usage(10, 5))))
        early = asyncio.create_task(served(running))
        await running.supplier.call(0)
        disk.full = True
        answered = 1
        while await served(running):
            answered += 1
            assert answered < REQUESTS_MAX
        assert not await served(running)
        release.set()
        assert await early, "its space was there since it began"
        disk.full = False
        assert await served(running), "nobody had to start it again"
        answered += 1
        await running.end()
        (journal_id,) = running.office.final
        entries = running.office.entries(journal_id)
        assert sum(isinstance(entry, Closing) for entry in entries) == answered
        assert sum(isinstance(entry, Opening) for entry in entries) == answered


async def test_a_worker_whose_journal_is_damaged_makes_room_and_its_requests_are_saved(
    services: Settings, bus: Bus, tmp_path: Path
) -> None:
    async with worker(services, bus, tmp_path) as running:
        office, settings = running.office, running.settings
        assert await served(running)
        (folder,) = list_journals(settings.journal_dir)
        async with asyncio.timeout(5):
            while not any(isinstance(entry, Closing) for entry in entries(running, folder.name)):
                await asyncio.wait([running.task], timeout=0.005)
        posted = len(office.posted[folder.name])
        office.is_deaf = True
        for _ in range(3):
            assert await served(running)
        segment = folder / "00000000.seg"
        with segment.open("r+b") as file:
            file.seek(64 + posted + 20)
            byte = file.read(1)
            file.seek(64 + posted + 20)
            file.write(bytes([byte[0] ^ 1]))
        # Deaf until then: a shipment that was read before the damage may still be on its way.
        with pytest.raises(JournalDamaged, match="cannot be read"):
            await asyncio.wait_for(running.task, 10)
        office.is_deaf = False
        await succeed(office, settings, settings.journal_dir / "gw-0" / "next")
        assert office.final == {folder.name}
        closings = [entry for entry in entries(running, folder.name) if isinstance(entry, Closing)]
        assert len(closings) >= 3
        assert len(damaged_journals(settings.journal_dir)) == 1


def entries(running: Running, name: str) -> list[object]:
    return [*running.office.entries(name)] if name in running.office.posted else []
