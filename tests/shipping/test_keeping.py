"""Posted journals stay for a while, and a ledger that went back gets again what it lost."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from stand_in_office import StandInOffice, bucket
from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.base.journal import (
    JournalDamaged,
    JournalWriter,
    finished_journals,
    list_journals,
    oldest_position,
    read_mark,
    write_mark,
)
from tokenworks.core import journal
from tokenworks.core.journal import Checkpoint, Closing, Head, LeaseTaken, Opening
from tokenworks.core.purse import Charge
from tokenworks.core.usage import NONE, Tokens
from tokenworks.shipping.keeping import keep, site_id
from tokenworks.shipping.office import Office
from tokenworks.shipping.shipper import Shipper
from tokenworks.shipping.succession import succeed

SEGMENT_BYTES = 1 << 16
USED = Tokens(10)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Journals below the folder of this test; the ledger is asked all the time."""
    return Settings(
        data_dir=str(tmp_path),
        journal_segment_bytes=SEGMENT_BYTES,
        ship_batch_bytes=SEGMENT_BYTES,
        ship_interval_ms=1,
        ship_confirm_ms=1,
    )


@pytest.fixture
def office() -> StandInOffice:
    """An office with one bucket, of which some leases are out."""
    office = StandInOffice(leased=dict(LEASES), ledger_epoch=1)
    office.buckets["bkt_1"] = (bucket(), 0)
    return office


LEASES = dict.fromkeys(range(1, 6), ("bkt_1", 1000000))


def journal_of(settings: Settings, name: str, requests: int = 3, lease_id: int = 1) -> JournalWriter:
    """A worker's journal with closed requests of 10 tokens each, still open for writing."""
    writer = JournalWriter.create(settings.journal_dir / "gw-0" / name, SEGMENT_BYTES)
    writer.append(journal.encode(Head(name, "gw-0", 1)))
    writer.append(journal.encode(LeaseTaken(lease_id, 1_000_000)))
    request(writer, requests, lease_id)
    return writer


def request(writer: JournalWriter, times: int, lease_id: int = 1) -> None:
    charge = Charge(lease_id, "bkt_1", "personal@1", "token", USED, 10)
    for number in range(times):
        opening = Opening(f"req_{number}", number, "le_1", "ba_1", "key_1", "m", True, 80, 20, ())
        position = writer.append_opening(journal.encode(opening), 1_000)
        assert isinstance(position, int)
        writer.append(journal.encode(Checkpoint(position, NONE, (), ())))
        closing = Closing(position, 9, "finished", "reported", USED, USED, USED, (), (charge,), (), 0)
        writer.append_closing(journal.encode(closing), position)
    writer.flush()
    writer.sync()


def mine(settings: Settings) -> Path:
    return settings.journal_dir / "gw-0" / "mine"


def forget(office: StandInOffice) -> None:
    """The ledger is restored to what it was before any journal."""
    office.ledger_epoch += 1
    office.final.clear()
    office.posted.clear()
    office.leased = dict(LEASES)


@asynccontextmanager
async def shipping(
    office: Office, settings: Settings, writer: JournalWriter, keep_from: Callable[[], int] | None = None
) -> AsyncGenerator[asyncio.Task[None]]:
    """A running worker's shipper; without `keep_from` nothing runs that a successor would need."""
    shipper = Shipper(
        office,
        settings,
        writer.folder,
        start=0,
        through=lambda: writer.synced,
        keep_from=keep_from or (lambda: writer.written),
    )
    task = asyncio.create_task(shipper.run())
    yield task
    task.cancel()
    await asyncio.wait([task])


async def posted(office: StandInOffice, writer: JournalWriter, task: asyncio.Task[None]) -> None:
    """Wait until the ledger has everything, in its epoch."""
    async with asyncio.timeout(5):
        while len(office.posted.get(writer.folder.name, b"")) < writer.synced or not is_marked(office, writer):
            await asyncio.wait([task], timeout=0.001)


def is_marked(office: StandInOffice, writer: JournalWriter) -> bool:
    mark = read_mark(writer.folder)
    return mark is not None and mark.ledger_epoch == office.ledger_epoch


async def test_a_running_worker_ships_again_to_a_ledger_that_went_back(
    settings: Settings, office: StandInOffice
) -> None:
    writer = journal_of(settings, "jrn_1")
    async with shipping(office, settings, writer) as task:
        await posted(office, writer, task)
        before = office.posted["jrn_1"]
        forget(office)
        await posted(office, writer, task)
        assert office.posted["jrn_1"] == before
    writer.close()


async def test_posted_segments_go_when_they_are_old_and_many_go_earlier(
    settings: Settings, office: StandInOffice
) -> None:
    for keep_ms, keep_bytes, is_kept in ((1 << 40, 1 << 30, True), (0, 1 << 30, False), (1 << 40, 1 << 17, False)):
        name = f"jrn_{keep_ms % 7}_{keep_bytes % 5}"
        chosen = msgspec.structs.replace(settings, journal_keep_ms=keep_ms, journal_keep_bytes=keep_bytes)
        writer = journal_of(settings, name)
        async with shipping(office, chosen, writer) as task:
            for _ in range(8):
                request(writer, 300)
                async with asyncio.timeout(5):
                    while len(office.posted.get(name, b"")) < writer.synced:
                        await asyncio.wait([task], timeout=0.001)
            if not is_kept:
                async with asyncio.timeout(5):
                    while writer.synced - oldest_position(writer.folder) > (1 << 17) + 2 * SEGMENT_BYTES:
                        await asyncio.wait([task], timeout=0.001)
            assert (oldest_position(writer.folder) == 0) is is_kept, (keep_ms, keep_bytes)
        writer.close()


async def test_a_shipper_whose_bytes_are_gone_says_so(settings: Settings, office: StandInOffice) -> None:
    chosen = msgspec.structs.replace(settings, journal_keep_ms=0)
    writer = journal_of(settings, "jrn_1", 1_000)
    async with shipping(office, chosen, writer) as task:
        async with asyncio.timeout(5):
            while oldest_position(writer.folder) == 0:
                await asyncio.wait([task], timeout=0.001)
        forget(office)
        with pytest.raises(JournalDamaged, match="is gone"):
            await asyncio.wait_for(task, 5)
    writer.close()


async def test_a_dead_workers_journal_is_finished_small_and_shipped_again_in_each_epoch(
    settings: Settings, office: StandInOffice
) -> None:
    writer = journal_of(settings, "jrn_1")
    through = writer.synced
    writer.close()
    await succeed(office, settings, mine(settings))
    (folder,) = finished_journals(settings.journal_dir)
    assert (folder, list_journals(settings.journal_dir)) == (writer.folder, [])
    assert [path.stat().st_size > through for path in folder.glob("*.seg")] == [True]
    assert sum(path.stat().st_size for path in folder.iterdir()) < through + 300
    before = office.posted["jrn_1"]
    for _ in range(2):
        forget(office)
        assert await keep(office, settings, mine(settings))
        assert (office.posted["jrn_1"], office.final) == (before, {"jrn_1"})
        assert (office.reports[-1].ledger_epoch, office.reports[-1].waiting) == (office.ledger_epoch, ())
    office.posted.clear()
    assert await keep(office, settings, mine(settings)), "the same epoch is not asked twice"
    assert "jrn_1" not in office.posted


async def test_what_the_ledger_does_not_have_is_reported(settings: Settings, office: StandInOffice) -> None:
    dead = journal_of(settings, "jrn_1")
    dead.close()
    (settings.journal_dir / "gw-1" / "jrn_0.damaged").mkdir(parents=True)
    assert not await keep(office, settings, mine(settings))
    (report,) = office.reports
    assert (report.waiting, report.damaged, report.ledger_epoch) == (("jrn_1",), ("jrn_0",), 1)
    assert report.site_id == site_id(settings.journal_dir)
    assert [path.name for path in settings.journal_dir.iterdir() if path.is_file()] == ["site"]


async def test_finished_journals_go_when_they_are_old_or_too_many(settings: Settings, office: StandInOffice) -> None:
    for number in range(4):
        journal_of(settings, f"jrn_{number}", lease_id=number + 1).close()
    await succeed(office, settings, mine(settings))
    sizes = [
        sum(path.stat().st_size for path in folder.iterdir()) for folder in finished_journals(settings.journal_dir)
    ]
    chosen = msgspec.structs.replace(settings, journal_keep_bytes=sizes[3] + sizes[2] + sizes[1])
    await keep(office, chosen, mine(settings))
    assert [folder.name for folder in finished_journals(settings.journal_dir)] == ["jrn_1", "jrn_2", "jrn_3"]
    old = finished_journals(settings.journal_dir)[1]
    mark = read_mark(old)
    assert mark is not None
    write_mark(old, msgspec.structs.replace(mark, at_ns=mark.at_ns - settings.journal_keep_ms * clock.MS))
    await keep(office, settings, mine(settings))
    assert [folder.name for folder in finished_journals(settings.journal_dir)] == ["jrn_1", "jrn_3"]
    assert not old.exists()


async def test_a_successor_reads_only_what_may_matter(settings: Settings, office: StandInOffice) -> None:
    """Posted bytes stay for days; reading all of them again would take longer than a worker's start may."""
    writer = journal_of(settings, "jrn_1", 1_000)
    async with shipping(office, settings, writer) as task:
        await posted(office, writer, task)
    mark = read_mark(writer.folder)
    assert mark is not None
    assert mark.needed_from == writer.synced
    writer.close()
    # A bit that flipped in the part that is only kept harms nobody now.
    first = writer.folder / "00000000.seg"
    data = bytearray(first.read_bytes())
    data[100] ^= 1
    first.write_bytes(data)
    await succeed(office, settings, mine(settings))
    assert office.final == {"jrn_1"}
