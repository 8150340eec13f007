"""What a crash leaves behind is read up to its last whole frame, and written on from there."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from base.journal_disk import CAPACITY, SEGMENT_BYTES, FailingDisk, kill
from tokenworks.base.journal import PAYLOAD_BYTES_MAX, JournalFull, JournalWriter, read_frames, split, valid_end
from tokenworks.base.journal_folder import segments_from

BATCH = 1 << 20
FRAMES = [b"first", b"second", b"the torn one"]
WHOLE = 13 + 14
END = WHOLE + 20


def payloads(folder: Path) -> list[bytes]:
    """Everything readable."""
    return [payload for _, payload in split(read_frames(folder, 0, BATCH).data)]


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
    assert writer.torn_bytes > 0
    assert (writer.written, writer.synced) == (WHOLE, WHOLE)
    assert not any((dead / "00000000.seg").read_bytes()[64 + WHOLE :])
    assert writer.append(b"!") == WHOLE
    writer.flush()
    kill(writer, disk)
    assert payloads(dead) == [*FRAMES[:2], b"!"]


def test_resume_of_a_whole_journal_loses_nothing(dead: Path) -> None:
    writer = JournalWriter.resume(dead, SEGMENT_BYTES)
    assert (writer.torn_bytes, writer.append(b"more")) == (0, END)
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
        writer.append(bytes(1000))
    writer.close()
    with (writer.folder / "00000000.seg").open("r+b") as file:
        file.seek(64 + 10 * 1008)
        file.write(bytes(1008))
    resumed = JournalWriter.resume(writer.folder, SEGMENT_BYTES)
    assert resumed.written == 10 * 1008
    # The old frames of both segments would line up behind the new ones, if they were still there.
    for _ in range(60):
        resumed.append(b"n" * 1000)
    resumed.close()
    assert payloads(writer.folder) == [bytes(1000)] * 10 + [b"n" * 1000] * 60


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
            end = self.damage(data.draw(st.integers(self.writer.synced, end - 1)))
        self.writer = JournalWriter.resume(self.writer.folder, SEGMENT_BYTES, self.disk.disk)
        assert self.writer.written == self.writer.synced == end
        self.appended = [(position, payload) for position, payload in self.appended if position < end]
        self.check(end)
        self.close_orphans(end)

    def damage(self, position: int) -> int:
        """Change a byte that was never synced; the start of the frame that holds it."""
        path, header = segments_from(self.writer.folder, position)[0]
        with path.open("r+b") as file:
            file.seek(64 + position - header.base)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 0x55]))
        return max(start for start, _ in self.appended if start <= position)

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
