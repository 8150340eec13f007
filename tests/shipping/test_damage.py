"""A damaged journal of a dead worker: what can be proven is posted once, the original is kept, nobody else waits."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shipping.damaged import GRANTED, SEGMENT_BYTES, USED, Ledger, dead, flip, mine, opened, segments, settings_in
from stand_in_office import StandInOffice
from tokenworks.base.config import Settings
from tokenworks.base.journal import (
    JournalWriter,
    damaged_journals,
    finished_journals,
    list_journals,
    read_frames,
)
from tokenworks.core import journal
from tokenworks.core.journal import Closing, Head, LeaseClose, LeaseTaken, Opening
from tokenworks.core.purse import Charge
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.shipping.succession import succeed


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Journals below the folder of this test."""
    return settings_in(tmp_path)


@pytest.fixture
def office() -> Ledger:
    """An office with one bucket, of which two leases are out."""
    return opened()


def totals(ledger: Ledger, name: str) -> Counter[int]:
    """How many requests were charged how much."""
    return Counter(sum(charge.amount for charge in each.charges) for (each,) in ledger.closings(name).values())


async def test_a_flipped_bit_costs_one_request_and_nothing_else(
    settings: Settings, office: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    folder, positions = dead(settings, "jrn_a", 1, 20)
    left = flip(folder, positions[2])
    dead(settings, "jrn_b", 2, 1)
    await succeed(office, settings, mine(settings))
    (aside,) = damaged_journals(settings.journal_dir)
    assert segments(aside) == left
    assert office.final == {"jrn_a", "jrn_b"}
    assert totals(office, "jrn_a") == {10: 19}
    assert "req_0" not in office.closings("jrn_a")
    assert [record.levelname for record in caplog.records if "damaged" in record.message] == ["ERROR"]
    assert not any(isinstance(entry, LeaseClose) for entry in office.entries("jrn_a")), "nobody knows what it has left"


DAMAGE = {
    "the checkpoint": (3, {10: 20}),
    "the closing: it ends at its checkpoint": (4, {10: 19, 4: 1}),
    "the lease": (1, {10: 20}),
    "the head": (0, {10: 20}),
    "the last closing": (-1, {10: 19, 4: 1}),
}


@pytest.mark.parametrize("what", DAMAGE)
async def test_what_a_flipped_bit_in_it_costs(settings: Settings, what: str) -> None:
    number, expected = DAMAGE[what]
    office = opened()
    folder, positions = dead(settings, "jrn_a", 1, 20)
    flip(folder, positions[number])
    await succeed(office, settings, mine(settings))
    assert totals(office, "jrn_a") == expected
    assert isinstance(office.entries("jrn_a")[0], Head)


async def test_a_request_from_before_the_hole_keeps_its_closing_behind_it(settings: Settings, office: Ledger) -> None:
    writer = JournalWriter.create(settings.journal_dir / "gw-0" / "jrn_a", SEGMENT_BYTES)
    charge = Charge(1, "bkt_1", "personal@1", "token", USED, 10)
    places: list[int] = []
    for entry in (
        Head("jrn_a", "gw-0", 1),
        LeaseTaken(1, GRANTED),
        Opening("req_0", 0, "le_1", "ba_1", "key_1", "m", True, 80, 20, ()),
        Opening("req_1", 0, "le_1", "ba_1", "key_1", "m", True, 80, 20, ()),
        Opening("req_2", 0, "le_1", "ba_1", "key_1", "m", True, 80, 20, ()),
    ):
        position = writer.append(journal.encode(entry))
        assert isinstance(position, int)
        places.append(position)
    for place in (places[2], places[3], places[4]):
        writer.append(journal.encode(Closing(place, 9, "finished", "reported", USED, USED, USED, (), (charge,), (), 0)))
    writer.close()
    flip(writer.folder, places[3])
    await succeed(office, settings, mine(settings))
    assert set(office.closings("jrn_a")) == {"req_0", "req_2"}
    assert totals(office, "jrn_a") == {10: 2}


async def test_a_journal_that_ends_before_what_was_posted(settings: Settings, office: Ledger) -> None:
    """The ledger has more than the disk: a request that is open in it is closed, without a charge."""
    folder, positions = dead(settings, "jrn_a", 1, 3, left_open=1)
    office.posted["jrn_a"] = read_frames(folder, 0, SEGMENT_BYTES).data
    left = flip(folder, positions[-2])
    await succeed(office, settings, mine(settings))
    assert segments(damaged_journals(settings.journal_dir)[0]) == left
    assert (totals(office, "jrn_a"), office.final) == ({10: 2, 0: 1}, {"jrn_a"})


class Unable(StandInOffice):
    """An office whose database is away: it cannot say how far it has a journal."""

    async def ship(self, request: ShipRequest) -> ShipReply:
        return ShipReply(request.from_position, "the ledger cannot post now")


async def test_nothing_is_touched_while_the_ledger_cannot_say_what_it_has(settings: Settings) -> None:
    folder, positions = dead(settings, "jrn_a", 1, 3)
    left = flip(folder, positions[-1])
    await succeed(Unable(), settings, mine(settings))
    assert list_journals(settings.journal_dir) == [folder]
    assert segments(folder) == left


async def test_a_torn_end_that_nobody_posted_is_settled(settings: Settings, office: Ledger) -> None:
    folder, positions = dead(settings, "jrn_a", 1, 3)
    flip(folder, positions[-1])
    await succeed(office, settings, mine(settings))
    assert list_journals(settings.journal_dir) == []
    assert damaged_journals(settings.journal_dir) == []
    assert [one.ending for (one,) in office.closings("jrn_a").values()] == ["finished", "finished", "orphaned"]
    assert office.final == {"jrn_a"}


async def test_the_ledger_went_back_further_than_the_journal_is_kept(settings: Settings, office: Ledger) -> None:
    folder, _ = dead(settings, "jrn_a", 1, 1_000)
    (folder / "00000000.seg").unlink()
    await succeed(office, settings, mine(settings))
    assert office.final == {"jrn_a"}
    assert 0 < totals(office, "jrn_a")[10] < 1_000
    assert len(damaged_journals(settings.journal_dir)) == 1


async def test_a_finished_journal_that_rots_is_repaired_when_it_is_needed_again(
    settings: Settings, office: Ledger
) -> None:
    dead(settings, "jrn_a", 1, 1_000)
    await succeed(office, settings, mine(settings))
    (folder,) = finished_journals(settings.journal_dir)
    for position, size in ((5_000, 300), (90_000, 300)):
        flip(folder, position, size)
    (folder / "posted").unlink()
    again = opened()
    await succeed(again, settings, mine(settings))
    assert again.final == {"jrn_a"}
    assert 980 < totals(again, "jrn_a")[10] < 1_000
    second = opened()
    (folder / "posted").unlink()
    await succeed(second, settings, mine(settings))
    assert second.posted == again.posted, "what was repaired once is whole"
    assert len(damaged_journals(settings.journal_dir)) == 1


async def test_segments_that_need_not_be_read_are_taken_over(settings: Settings, office: Ledger) -> None:
    folder, positions = dead(settings, "jrn_a", 1, 1_500)
    position = positions[-4]
    office.posted["jrn_a"] = read_frames(folder, 0, 1 << 20, position).data
    while more := read_frames(folder, len(office.posted["jrn_a"]), 1 << 20, position).data:
        office.posted["jrn_a"] += more
    before = segments(folder)
    (folder / "posted").write_bytes(
        b'{"ledger_epoch":0,"through":%d,"at_ns":1,"needed_from":%d}' % (position, position)
    )
    flip(folder, positions[-2])
    await succeed(office, settings, mine(settings))
    (repaired,) = finished_journals(settings.journal_dir)
    kept = min(before)
    assert (repaired / kept).stat().st_nlink == 2
    assert segments(damaged_journals(settings.journal_dir)[0])[kept] == before[kept]
    assert totals(office, "jrn_a")[10] >= 1_498
    assert office.final == {"jrn_a"}


@hypothesis_settings(max_examples=60)
@given(
    requests=st.integers(1, 12),
    posted=st.floats(0, 1),
    holes=st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 400)), min_size=1, max_size=4),
)
async def test_whatever_breaks_nothing_is_posted_twice_or_wrongly(
    requests: int, posted: float, holes: list[tuple[int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings, office = settings_in(Path(folder)), opened()
        place, positions = dead(settings, "jrn_a", 1, requests, left_open=1)
        whole = read_frames(place, 0, SEGMENT_BYTES).data
        through = [0, *positions[1:], len(whole)][int(posted * len(positions))]
        if through:
            await office.ship(ShipRequest("jrn_a", "gw-0", 0, whole[:through]))
        for at, size in holes:
            flip(place, at % len(whole), size)
        left = segments(place)
        await succeed(office, settings, mine(settings))
        assert office.final == {"jrn_a"} or not office.posted
        for aside in damaged_journals(settings.journal_dir):
            assert segments(aside) == left
        for name, closings in office.closings("jrn_a").items():
            (only,) = closings
            amount = sum(charge.amount for charge in only.charges)
            assert amount in ({10, 4, 0} if only.ending == "orphaned" else {10}), name
            assert amount < 10 or only.tokens == USED
        assert office.posted.get("jrn_a", b"")[:through] == whole[:through]
