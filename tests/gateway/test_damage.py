"""A damaged journal of a dead worker is kept as it is, and keeps nobody else waiting."""

from pathlib import Path

import pytest

from stand_in_office import StandInOffice, bucket
from tokenworks.base.config import Settings
from tokenworks.base.journal import JournalWriter, list_journals, read_frames
from tokenworks.core import journal
from tokenworks.core.journal import Closing, Entry, Head, LeaseTaken, Opening
from tokenworks.core.purse import Charge
from tokenworks.core.usage import Tokens
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.gateway.succession import succeed

SEGMENT_BYTES = 1 << 16
USED = Tokens(10)
GRANTED = 1_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Journals below the folder of this test."""
    return Settings(data_dir=str(tmp_path), journal_segment_bytes=SEGMENT_BYTES)


@pytest.fixture
def office() -> StandInOffice:
    """An office with one bucket, of which two leases are out."""
    office = StandInOffice(leased={1: ("bkt_1", GRANTED), 2: ("bkt_1", GRANTED)})
    office.buckets["bkt_1"] = (bucket(), 0)
    return office


def dead(settings: Settings, name: str, lease_id: int, requests: int) -> tuple[Path, list[int]]:
    """A dead worker's journal with closed requests of 10 tokens each; its segment, and the positions of its frames."""
    writer = JournalWriter.create(settings.journal_dir / "gw-0" / name, SEGMENT_BYTES)
    positions: list[int] = []

    def add(entry: Entry) -> int:
        position = writer.append(journal.encode(entry))
        assert isinstance(position, int)
        positions.append(position)
        return position

    add(Head(name, "gw-0", 1))
    add(LeaseTaken(lease_id, GRANTED))
    charge = Charge(lease_id, "bkt_1", "personal@1", "token", USED, 10)
    for number in range(requests):
        opening = add(Opening(f"req_{number}", number, "le_1", "ba_1", "key_1", "m", True, 80, 20, ()))
        add(Closing(opening, 9, "finished", "reported", USED, USED, USED, (), (charge,), (), 0))
    writer.close()
    return writer.folder / "00000000.seg", positions


def flip(segment: Path, position: int) -> bytes:
    """Change one bit in the payload of the frame at a position; the bytes of the segment then."""
    data = bytearray(segment.read_bytes())
    data[64 + position + 12] ^= 1
    segment.write_bytes(data)
    return bytes(data)


async def test_a_flipped_bit_erases_no_usage(
    settings: Settings, office: StandInOffice, caplog: pytest.LogCaptureFixture
) -> None:
    segment, positions = dead(settings, "jrn_a", 1, 20)
    left = flip(segment, positions[2])
    dead(settings, "jrn_b", 2, 1)
    await succeed(office, settings, settings.journal_dir / "gw-0" / "mine")
    assert list_journals(settings.journal_dir) == []
    assert (segment.parent.with_name("jrn_a.damaged") / segment.name).read_bytes() == left
    assert (office.final, set(office.posted)) == ({"jrn_b"}, {"jrn_b"})
    assert office.leased == {1: ("bkt_1", GRANTED), 2: ("bkt_1", 0)}
    assert [record.levelname for record in caplog.records if "damaged" in record.message] == ["ERROR"]


async def test_a_journal_that_ends_before_what_was_posted_is_kept(settings: Settings, office: StandInOffice) -> None:
    segment, positions = dead(settings, "jrn_a", 1, 3)
    office.posted["jrn_a"] = read_frames(segment.parent, 0, SEGMENT_BYTES).data
    left = flip(segment, positions[-1])
    await succeed(office, settings, settings.journal_dir / "gw-0" / "mine")
    assert (segment.parent.with_name("jrn_a.damaged") / segment.name).read_bytes() == left
    assert (office.final, office.leased[1]) == (set(), ("bkt_1", GRANTED))


class Unable(StandInOffice):
    """An office whose database is away: it cannot say how far it has a journal."""

    async def ship(self, request: ShipRequest) -> ShipReply:
        return ShipReply(request.from_position, "the ledger cannot post now")


async def test_nothing_is_touched_while_the_ledger_cannot_say_what_it_has(settings: Settings) -> None:
    segment, positions = dead(settings, "jrn_a", 1, 3)
    left = flip(segment, positions[-1])
    await succeed(Unable(), settings, settings.journal_dir / "gw-0" / "mine")
    assert list_journals(settings.journal_dir) == [segment.parent]
    assert segment.read_bytes() == left


async def test_a_torn_end_that_nobody_posted_is_settled(settings: Settings, office: StandInOffice) -> None:
    segment, positions = dead(settings, "jrn_a", 1, 3)
    flip(segment, positions[-1])
    await succeed(office, settings, settings.journal_dir / "gw-0" / "mine")
    assert list_journals(settings.journal_dir) == []
    endings = [entry.ending for entry in office.entries("jrn_a") if isinstance(entry, Closing)]
    assert endings == ["finished", "finished", "orphaned"]
    assert office.final == {"jrn_a"}
