"""What a crash leaves behind is read up to its last whole frame, and written on from there; damage is left as it is."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from base.journal_disk import CAPACITY, SEGMENT_BYTES, FailingDisk, kill
from tokenworks.base.journal import (
    PAYLOAD_BYTES_MAX,
    JournalDamaged,
    JournalFull,
    JournalWriter,
    is_live,
    read_frames,
    split,
    valid_end,
)
from tokenworks.base.journal_folder import segments_from

BATCH = 1 << 20
FRAMES = [b"first", b"second", b"the torn one"]
WHOLE = 13 + 14
END = WHOLE + 20


def payloads(folder: Path) -> list[bytes]:
    """Everything readable."""
    return [payload for _, payload in split(read_frames(folder, 0, BATCH).data)]


def files(folder: Path) -> dict[str, bytes]:
    """Everything that lies in a journal."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flip(path: Path, offset: int, size: int = 1) -> None:
    """Change bytes of a file; doing it again changes them back."""
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = bytes(byte ^ 0x55 for byte in data[offset : offset + size])
    path.write_bytes(data)


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """A journal with three frames whose writer is gone."""
    writer = JournalWriter.create(tmp_path / "w" / "jnl_1", SEGMENT_BYTES)
    for payload in FRAMES:
        writer.append(payload)
    writer.close()
    return writer.folder


def test_torn_at_every_byte_of_the_last_frame(dead: Path) -> None:
    segment = dead / "00000000.seg"
    whole = segment.read_bytes()
    for position in range(WHOLE, END):
        at = 64 + position
        for torn in (whole[:at] + bytes(SEGMENT_BYTES - at), whole[:at]):
            segment.write_bytes(torn)
            assert (payloads(dead), valid_end(dead)) == (FRAMES[:2], WHOLE)


@pytest.mark.parametrize("position", range(WHOLE, END))
def test_resume_clears_a_torn_tail_and_goes_on(dead: Path, position: int) -> None:
    with (dead / "00000000.seg").open("r+b") as file:
        file.seek(64 + position)
        file.write(b"\xff" * 300)
    disk = FailingDisk()
    writer = JournalWriter.resume(dead, SEGMENT_BYTES, disk.disk)
    assert (writer.written, writer.synced) == (WHOLE, WHOLE)
    assert not any((dead / "00000000.seg").read_bytes()[64 + WHOLE :])
    assert writer.append(b"!") == WHOLE
    writer.flush()
    kill(writer, disk)
    assert payloads(dead) == [*FRAMES[:2], b"!"]


def test_resume_of_a_whole_journal_loses_nothing(dead: Path) -> None:
    writer = JournalWriter.resume(dead, SEGMENT_BYTES)
    assert writer.append(b"more") == END
    writer.close()
    assert payloads(dead) == [*FRAMES, b"more"]


def test_resume_of_a_journal_without_a_segment_starts_one(dead: Path) -> None:
    for path in dead.glob("*.seg"):
        path.unlink()
    (dead / "00000000.new").write_bytes(b"half allocated")
    writer = JournalWriter.resume(dead, SEGMENT_BYTES)
    assert writer.append(b"x") == 0
    writer.close()
    assert sorted(path.name for path in dead.iterdir()) == ["00000000.seg", "00000001.seg", "lock"]


def test_a_newer_segment_behind_a_hole_is_cleared(tmp_path: Path) -> None:
    writer = JournalWriter.create(tmp_path / "w" / "jnl_1", SEGMENT_BYTES)
    for _ in range(100):
        writer.append(b"o" * 1000)
    writer.close()
    older, newer = writer.folder / "00000000.seg", writer.folder / "00000001.seg"
    older.write_bytes(older.read_bytes()[: 64 + 10 * 1008] + bytes(SEGMENT_BYTES - 64 - 10 * 1008))
    newer.write_bytes(newer.read_bytes()[: 64 + 1007] + bytes(SEGMENT_BYTES - 64 - 1007))
    resumed = JournalWriter.resume(writer.folder, SEGMENT_BYTES)
    assert resumed.written == 10 * 1008
    # The newer segment would line up behind the new frames, if its header were still there.
    for _ in range(60):
        resumed.append(b"n" * 1000)
    resumed.close()
    assert payloads(writer.folder) == [b"o" * 1000] * 10 + [b"n" * 1000] * 60


def test_an_interrupted_removal_is_no_damage(dead: Path) -> None:
    (dead / "00000000.seg").unlink()
    writer = JournalWriter.resume(dead, SEGMENT_BYTES, end_least=END)
    writer.close()
    assert writer.written == 0


# File, offset, and how many bytes are changed there; whole frames follow each.
DAMAGE = {
    "a bit of the first frame": ("00000000.seg", 64 + 10, 1),
    "its length": ("00000000.seg", 64, 1),
    "two frames": ("00000000.seg", 64 + 1008, 2016),
    "the end of the first segment": ("00000000.seg", 64 + 63 * 1008, 1008),
    "the header of the first segment": ("00000000.seg", 20, 1),
    "the header of the second": ("00000001.seg", 20, 1),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_before_whole_frames_is_told_and_nothing_is_cleared(tmp_path: Path, name: str) -> None:
    writer = JournalWriter.create(tmp_path / "w" / "jnl_1", SEGMENT_BYTES)
    for _ in range(100):
        writer.append(b"f" * 1000)
    writer.close()
    file, offset, size = DAMAGE[name]
    flip(writer.folder / file, offset, size)
    left = files(writer.folder)
    with pytest.raises(JournalDamaged, match="whole frames follow"):
        JournalWriter.resume(writer.folder, SEGMENT_BYTES)
    assert files(writer.folder) == left
    assert not is_live(writer.folder)


def test_an_end_before_what_was_durable_is_damage(dead: Path) -> None:
    flip(dead / "00000000.seg", 64 + WHOLE + 10)
    left = files(dead)
    with pytest.raises(JournalDamaged, match="up to 27, and once held 47"):
        JournalWriter.resume(dead, SEGMENT_BYTES, end_least=END)
    assert files(dead) == left
    writer = JournalWriter.resume(dead, SEGMENT_BYTES, end_least=WHOLE)
    writer.close()
    assert writer.written == WHOLE


class JournalMachine(RuleBasedStateMachine):
    """Any life of a journal against a list of frames: what is read was written, and every closing finds space."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.disk = FailingDisk()
        self.appended: list[tuple[int, bytes]] = []
        self.open: dict[int, int] = {}
        self.promised: dict[int, int] = {}
        self.closed_by: dict[int, int] = {}
        self.letter = 0

    @initialize()
    def create(self) -> None:
        self.writer = JournalWriter.create(self.root / "w" / "jnl_1", SEGMENT_BYTES, self.disk.disk)

    def payload(self, size: int) -> bytes:
        self.letter = self.letter % 255 + 1
        return bytes([self.letter]) * size

    def note(self, position: int, payload: bytes) -> None:
        assert position == sum(8 + len(earlier) for _, earlier in self.appended)
        self.appended.append((position, payload))

    @rule(size=st.integers(1, PAYLOAD_BYTES_MAX), closing=st.integers(1, PAYLOAD_BYTES_MAX))
    def opening(self, size: int, closing: int) -> None:
        payload = self.payload(size)
        position = self.writer.append_opening(payload, closing)
        if isinstance(position, JournalFull):
            assert self.disk.full
            return
        self.note(position, payload)
        self.open[position] = self.promised[position] = closing

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def closing(self, data: st.DataObject) -> None:
        opening = data.draw(st.sampled_from(sorted(self.open)))
        payload = self.payload(data.draw(st.integers(1, self.open.pop(opening))))
        position = self.writer.append_closing(payload, opening)
        self.closed_by[opening] = position
        self.note(position, payload)

    @rule(size=st.integers(1, PAYLOAD_BYTES_MAX))
    def checkpoint(self, size: int) -> None:
        payload = self.payload(size)
        position = self.writer.append(payload)
        if isinstance(position, JournalFull):
            assert self.disk.full
            return
        self.note(position, payload)

    @rule()
    def flush(self) -> None:
        self.writer.flush()
        assert self.writer.written == sum(8 + len(payload) for _, payload in self.appended)

    @rule()
    def sync(self) -> None:
        self.writer.sync()
        assert self.writer.synced == self.writer.written

    @rule(full=st.booleans())
    def disk_space(self, full: bool) -> None:
        self.disk.full = full

    @rule()
    def read(self) -> None:
        self.check(self.writer.written)

    @rule(data=st.data())
    def die_and_resume(self, data: st.DataObject) -> None:
        end = self.writer.written
        kill(self.writer, self.disk)
        if self.writer.synced < end and data.draw(st.booleans(), label="power failure"):
            end = self.damage(data.draw(st.integers(self.writer.synced, end - 1)), end, data.draw(st.booleans()))
        self.writer = JournalWriter.resume(self.writer.folder, SEGMENT_BYTES, self.disk.disk)
        assert self.writer.written == self.writer.synced == end
        self.appended = [(position, payload) for position, payload in self.appended if position < end]
        self.check(end)
        self.close_orphans(end)

    def damage(self, position: int, end: int, is_tail_lost: bool) -> int:
        """Change a byte that was never synced, or lose all from it on; where the journal ends then."""
        torn = max(start for start, _ in self.appended if start <= position)
        (path, header), *newer = segments_from(self.writer.folder, position)
        offset = 64 + position - header.base
        if is_tail_lost:
            path.write_bytes(path.read_bytes()[:offset].ljust(SEGMENT_BYTES, b"\0"))
            for later, _ in newer:
                later.write_bytes(bytes(SEGMENT_BYTES))
            return torn
        flip(path, offset)
        if not any(torn < start < end for start, _ in self.appended):
            return torn
        with pytest.raises(JournalDamaged):
            JournalWriter.resume(self.writer.folder, SEGMENT_BYTES, self.disk.disk)
        flip(path, offset)
        return end

    def close_orphans(self, end: int) -> None:
        """Openings that survived their closing get one of the full size, however full the disk is."""
        for opening, closing in self.promised.items():
            if opening < end and self.closed_by.get(opening, end) >= end:
                payload = self.payload(closing)
                position = self.writer.append(payload)
                assert isinstance(position, int)
                self.note(position, payload)
        self.open, self.promised, self.closed_by = {}, {}, {}

    def check(self, end: int) -> None:
        data = bytearray()
        while (batch := read_frames(self.writer.folder, len(data), 2 * CAPACITY, self.writer.written)).data:
            data += batch.data
        assert len(data) == end
        expected = [payload for position, payload in self.appended if position < end]
        assert [payload for _, payload in split(bytes(data))] == expected

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()
            self.check(self.writer.written)
        shutil.rmtree(self.root)


JournalMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestJournalMachine = JournalMachine.TestCase
