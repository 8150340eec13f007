"""Journals reach the ledger, once, also those of workers that died."""

import asyncio
from pathlib import Path

import pytest

from base.journal_disk import FailingDisk
from gateway_bench import Bench, bench
from stand_in_office import StandInOffice, bucket
from supplier import stuck_stream
from tokenworks.base.bus import BusFault
from tokenworks.base.config import Settings
from tokenworks.base.journal import JournalWriter, list_journals
from tokenworks.core import journal
from tokenworks.core.journal import (
    Attempt,
    Checkpoint,
    Closing,
    Entry,
    Head,
    LeaseClose,
    LeaseReturn,
    LeaseTaken,
    Opening,
)
from tokenworks.core.purse import Charge
from tokenworks.core.usage import NONE, Tokens
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.shipping.shipper import Shipper
from tokenworks.shipping.succession import left_open, succeed

USED = Tokens(10, output=5)
CHARGE = Charge(1, "bkt_1", "personal@1", "token", USED, 15)
ATTEMPT = Attempt("ep_1", "sup_1", "purchase@1", "CNY", USED, 6, "orphaned", 1, 2, 3)


def opening(number: int) -> Opening:
    return Opening(f"req_{number}", number, "le_1", "ba_1", "key_1", "m", True, 80, 20, ())


def closing(position: int, charges: tuple[Charge, ...] = ()) -> Closing:
    return Closing(position, 9, "finished", "reported", USED, USED, USED, (), charges, (), 0)


def orphan(position: int, last: Checkpoint | None = None) -> Closing:
    if last is None:
        return Closing(position, 99, "orphaned", "none", NONE, NONE, None, (), (), (), 0)
    return Closing(position, 99, "orphaned", "counted", USED, USED, None, (), last.charges, last.attempts, 2)


EARLY = Checkpoint(10, Tokens(10), (), ())
LATE = Checkpoint(10, USED, (CHARGE,), (ATTEMPT,))

DEAD: dict[str, tuple[list[tuple[int, Entry]], list[Closing | LeaseClose]]] = {
    "nothing": ([(0, Head("j", "gw-0", 1))], []),
    "closed": ([(10, opening(1)), (20, closing(10))], []),
    "open, never sent a token": ([(10, opening(1))], [orphan(10)]),
    "open, with checkpoints": ([(10, opening(1)), (20, EARLY), (30, LATE)], [orphan(10, LATE)]),
    "two open, one closed": (
        [(10, opening(1)), (20, opening(2)), (30, opening(3)), (40, closing(20))],
        [orphan(10), orphan(30)],
    ),
    "a lease unused": ([(5, LeaseTaken(7, 100))], [LeaseClose(7, 100)]),
    "a lease used and closed": (
        [(5, LeaseTaken(1, 100)), (10, opening(1)), (20, closing(10, (CHARGE,))), (30, LeaseClose(1, 85))],
        [],
    ),
    "a part returned": (
        [(5, LeaseTaken(1, 100)), (10, opening(1)), (15, LeaseReturn(1, 30)), (20, closing(10, (CHARGE,)))],
        [LeaseClose(1, 55)],
    ),
    "a lease used": ([(5, LeaseTaken(1, 100)), (10, opening(1)), (20, closing(10, (CHARGE,)))], [LeaseClose(1, 85)]),
    "a lease used by an orphan": (
        [(5, LeaseTaken(1, 100)), (10, opening(1)), (30, LATE)],
        [orphan(10, LATE), LeaseClose(1, 85)],
    ),
}


@pytest.mark.parametrize("name", DEAD)
def test_what_a_dead_worker_owes(name: str) -> None:
    entries, expected = DEAD[name]
    assert list(left_open(entries, 99)) == expected


def kill(gateway: Bench) -> None:
    """The worker dies: its buffers are with the system, its lock is gone."""
    gateway.writer.close()


async def test_a_successor_closes_ships_and_removes(tmp_path: Path) -> None:
    async with bench(tmp_path, checkpoint_tokens=1) as gateway:
        assert (await gateway.ask()).status_code == 200
        gateway.supplier.script(stuck_stream(["a", "b", "c"]))
        reader, writer = await gateway.connect()
        writer.write(gateway.request(stream=True))
        await reader.readuntil(b'"c"')
        gateway.writer.flush()
        kill(gateway)
        office, settings = gateway.office, gateway.settings
        await succeed(office, settings, settings.journal_dir / "gw-0" / "another")
        assert list_journals(settings.journal_dir) == []
        closings = [entry for entry in office.entries("jrn_test") if isinstance(entry, Closing)]
        assert [each.ending for each in closings] == ["finished", "orphaned"]
        charged = sum(charge.amount for each in closings for charge in each.charges)
        assert charged == 17 + closings[1].tokens.total
        assert closings[1].tokens.output >= 2
        assert (office.balance(), set(office.leased.values())) == (1_000_000 - charged, {("bkt_1", 0)})
        assert office.final == {"jrn_test"}


async def test_a_live_journal_is_left_alone(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        await gateway.ask()
        await succeed(gateway.office, gateway.settings, tmp_path)
        assert gateway.office.posted == {}
        assert list_journals(gateway.settings.journal_dir) == [gateway.writer.folder]


async def test_an_empty_journal_just_goes(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path), journal_segment_bytes=1 << 16)
    JournalWriter.create(settings.journal_dir / "gw-9" / "jrn_1", settings.journal_segment_bytes).close()
    office = StandInOffice()
    await succeed(office, settings, settings.journal_dir / "gw-0" / "mine")
    assert len(list_journals(settings.journal_dir)) == 1, "another worker may just be making it"
    await succeed(office, settings, settings.journal_dir / "gw-9" / "mine")
    assert (office.posted, list_journals(settings.journal_dir)) == ({}, [])


class Stubborn(StandInOffice):
    """An office that loses shipments and replies in turn, and forgets once what it had."""

    shipments = 0

    async def ship(self, request: ShipRequest) -> ShipReply:
        self.shipments += 1
        if self.shipments % 3 == 1:
            raise BusFault("lost on the way there")
        if self.shipments == 5:
            self.posted.clear()
        reply = await super().ship(request)
        if self.shipments % 3 == 2:
            raise BusFault("lost on the way back")
        return reply


class Refusing(StandInOffice):
    """A ledger that does not take one journal."""

    async def ship(self, request: ShipRequest) -> ShipReply:
        if request.journal_id == "jrn_1":
            return ShipReply(0, "not this one")
        return await super().ship(request)


class Silent(StandInOffice):
    """Says how far it has a journal, and never answers a shipment."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = asyncio.Event()

    async def ship(self, request: ShipRequest) -> ShipReply:
        if not request.final:
            return await super().ship(request)
        self.is_asked.set()
        return await asyncio.get_running_loop().create_future()


async def test_a_disk_that_fails_does_not_keep_a_worker_from_ending(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path), journal_segment_bytes=1 << 16)
    dead = JournalWriter.create(settings.journal_dir / "gw-0" / "jrn_1", settings.journal_segment_bytes)
    dead.append(journal.encode(Head("jrn_1", "gw-0", 1)))
    dead.close()
    office, disk = Silent(), FailingDisk()
    settling = asyncio.create_task(succeed(office, settings, settings.journal_dir / "gw-0" / "mine", disk.disk))
    await office.is_asked.wait()
    disk.dead = True
    settling.cancel()
    await asyncio.wait({settling})
    assert settling.cancelled()


async def test_a_journal_that_is_refused_does_not_hold_up_the_others(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path), journal_segment_bytes=1 << 16, ship_interval_ms=1)
    for name in ("jrn_1", "jrn_2"):
        writer = JournalWriter.create(settings.journal_dir / "gw-0" / name, settings.journal_segment_bytes)
        writer.append(journal.encode(Head(name, "gw-0", 1)))
        writer.close()
    office = Refusing()
    for _ in range(2):
        async with asyncio.timeout(5):
            await succeed(office, settings, settings.journal_dir / "gw-0" / "mine")
        assert office.final == {"jrn_2"}
        assert [folder.name for folder in list_journals(settings.journal_dir)] == ["jrn_1"]


async def test_every_byte_arrives_once_whatever_is_lost(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=str(tmp_path), journal_segment_bytes=1 << 16, ship_batch_bytes=1 << 16, ship_interval_ms=1
    )
    writer = JournalWriter.create(settings.journal_dir / "gw-0" / "jrn_1", settings.journal_segment_bytes)
    office = Stubborn()
    office.buckets["bkt_1"] = (bucket(), 0)
    shipper = Shipper(
        office, settings, writer.folder, start=0, through=lambda: writer.synced, keep_from=lambda: 1 << 40
    )
    running = asyncio.create_task(shipper.run())
    entries = [Head("jrn_1", "gw-0", 1), *[opening(number) for number in range(3_000)]]
    for entry in entries:
        writer.append(journal.encode(entry))
    writer.flush()
    writer.sync()
    async with asyncio.timeout(10):
        while len(office.posted.get("jrn_1", b"")) < writer.synced:
            await asyncio.wait([running], timeout=0.001)
        running.cancel()
        await shipper.finish()
    assert office.entries("jrn_1") == entries
    assert office.final == {"jrn_1"}
    assert len(list(writer.folder.glob("*.seg"))) <= 3
    writer.close()
