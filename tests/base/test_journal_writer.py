"""The writer: positions, roll-over, the promise of space for closings, faults, lock, removal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from base.journal_disk import CAPACITY, SEGMENT_BYTES, FailingDisk, kill
from tokenworks.base.journal import (
    FRAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    JournalFault,
    JournalLive,
    JournalWriter,
    is_live,
    list_journals,
    read_frames,
    remove,
    remove_below,
    set_aside,
    split,
    valid_end,
)

BATCH = 1 << 20


@pytest.fixture
def disk() -> FailingDisk:
    """A disk that works until told otherwise."""
    return FailingDisk()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the journal of this test lies."""
    return tmp_path / "journal" / "worker-0" / "jnl_1"


@pytest.fixture
def writer(folder: Path, disk: FailingDisk) -> Iterator[JournalWriter]:
    """A new journal."""
    writer = JournalWriter.create(folder, SEGMENT_BYTES, disk.disk)
    yield writer
    kill(writer, disk)


def payloads(folder: Path, position: int = 0) -> list[bytes]:
    """Everything readable from a position."""
    return [payload for _, payload in split(read_frames(folder, position, BATCH).data)]


def fill(writer: JournalWriter, bytes_left: int) -> None:
    """Append frames to a fresh segment until exactly so many bytes of it are left."""
    rest = CAPACITY - bytes_left
    while rest:
        size = rest if rest <= FRAME_BYTES_MAX else min(FRAME_BYTES_MAX, rest - 9)
        assert isinstance(writer.append(bytes(size - 8)), int)
        rest -= size


def test_bytes_of_a_new_journal(writer: JournalWriter, folder: Path) -> None:
    writer.append(b"hello")
    writer.flush()
    data = (folder / "00000000.seg").read_bytes()
    assert len(data) == SEGMENT_BYTES
    assert data[:12].hex() == "54574a310100000000000000"
    assert data[64:77].hex() == "050000007a00ac5c68656c6c6f"
    assert not any(data[77:])
    assert not any((folder / "00000001.seg").read_bytes())


def test_positions_count_frame_bytes_and_written_follows_flush(writer: JournalWriter, folder: Path) -> None:
    opening = writer.append_opening(b"abc", 50)
    assert isinstance(opening, int)
    assert [opening, writer.append(b"checkpoint"), writer.append_closing(b"closing", opening)] == [0, 11, 29]
    assert (writer.written, payloads(folder)) == (0, [])
    writer.flush()
    assert (writer.written, writer.synced) == (44, 0)
    assert payloads(folder) == [b"abc", b"checkpoint", b"closing"]
    assert payloads(folder, 29) == [b"closing"]
    writer.sync()
    assert writer.synced == 44


def test_one_write_for_all_frames_of_a_flush(writer: JournalWriter, disk: FailingDisk) -> None:
    before = disk.writes
    for _ in range(100):
        writer.append(b"frame")
    writer.flush()
    writer.flush()
    assert disk.writes == before + 1


def test_a_short_write_is_continued(writer: JournalWriter, disk: FailingDisk, folder: Path) -> None:
    disk.write_bytes_max = 7
    writer.append(b"a frame of some length")
    writer.flush()
    assert payloads(folder) == [b"a frame of some length"]


@pytest.mark.parametrize("bytes_left", [0, 1, 3, 4, 5, 8, 9, 19])
def test_a_frame_that_does_not_fit_goes_to_the_next_segment(
    writer: JournalWriter, folder: Path, bytes_left: int
) -> None:
    fill(writer, bytes_left)
    assert writer.append(b"twelve bytes") == CAPACITY - bytes_left
    writer.flush()
    assert payloads(folder)[-1] == b"twelve bytes"
    assert payloads(folder, CAPACITY - bytes_left) == [b"twelve bytes"]
    assert writer.written == valid_end(folder) == CAPACITY - bytes_left + 20
    assert {path.stat().st_size for path in folder.glob("*.seg")} == {SEGMENT_BYTES}


def test_a_batch_holds_whole_frames_within_its_limits(writer: JournalWriter, folder: Path) -> None:
    fill(writer, 0)
    fill(writer, 0)
    writer.flush()
    batch = read_frames(folder, 0, FRAME_BYTES_MAX + 100)
    assert (batch.from_position, batch.to_position) == (0, FRAME_BYTES_MAX) == (0, len(batch.data))
    assert read_frames(folder, 0, BATCH).to_position == 2 * CAPACITY
    assert read_frames(folder, 0, BATCH, through=FRAME_BYTES_MAX).to_position == FRAME_BYTES_MAX
    assert read_frames(folder, 2 * CAPACITY, BATCH).data == b""
    with pytest.raises(ValueError, match="largest frame"):
        read_frames(folder, 0, FRAME_BYTES_MAX - 1)


@pytest.mark.parametrize(("closing", "openings_expected"), [(892, 130), (9_256, 12), (20_000, 5), (32_760, 2)])
def test_full_disk_refuses_openings_and_takes_every_closing(
    writer: JournalWriter, disk: FailingDisk, closing: int, openings_expected: int
) -> None:
    disk.full = True
    openings: list[int] = []
    while isinstance(position := writer.append_opening(b"o" * 92, closing), int):
        openings.append(position)
    assert position.bytes_needed == 100 + 8 + closing
    assert "No space left" in position.reason
    # Of the two segments that are there, the first may lose one byte less than a closing.
    assert len(openings) == openings_expected == (2 * CAPACITY - (8 + closing - 1)) // (100 + 8 + closing)
    while isinstance(writer.append(b"checkpoint"), int):
        pass
    for opening in openings:
        writer.append_closing(bytes(closing), opening)
    writer.flush()
    assert valid_end(writer.folder) == writer.written


@pytest.mark.parametrize(("first", "more", "longest"), [(100, 80, 900), (892, 4_000, 32_760), (10, 1, 12)])
def test_full_disk_refuses_extensions_and_takes_every_closing_as_long_as_promised(
    writer: JournalWriter, disk: FailingDisk, first: int, more: int, longest: int
) -> None:
    disk.full = True
    promised: dict[int, int] = {}
    while isinstance(position := writer.append_opening(b"o" * 92, first), int):
        promised[position] = first
        for closing in range(first + more, longest + 1, more):
            if not isinstance(writer.append_extension(b"e" * 50, position, closing), int):
                break
            promised[position] = closing
    assert max(promised.values()) > first
    for opening, closing in promised.items():
        writer.append_closing(bytes(closing), opening)
    writer.flush()
    assert valid_end(writer.folder) == writer.written


def test_an_extension_belongs_to_one_opening_and_takes_nothing_away(writer: JournalWriter) -> None:
    opening = writer.append_opening(b"o", 10)
    assert isinstance(opening, int)
    assert isinstance(writer.append_extension(b"e", opening, 5), int)
    assert isinstance(writer.append_extension(b"e", opening, 12), int)
    with pytest.raises(ValueError, match="would not fit a frame"):
        writer.append_extension(b"e", opening, PAYLOAD_BYTES_MAX + 1)
    writer.append_closing(b"c" * 12, opening)
    with pytest.raises(ValueError, match="waits for its closing"):
        writer.append_extension(b"e", opening, 12)


def test_a_disk_with_space_again_takes_openings_again(writer: JournalWriter, disk: FailingDisk) -> None:
    disk.full = True
    while isinstance(writer.append_opening(b"o" * 92, 892), int):
        pass
    disk.full = False
    assert isinstance(writer.append_opening(b"o" * 92, 892), int)


def test_more_promises_than_two_segments_hold_get_more_segments(writer: JournalWriter, folder: Path) -> None:
    openings = [writer.append_opening(b"o", PAYLOAD_BYTES_MAX) for _ in range(20)]
    # Of each segment but the last, half may be lost at its end, less what openings took.
    assert len(list(folder.glob("*.seg"))) > 10
    for opening in openings:
        assert isinstance(opening, int)
        writer.append_closing(bytes(PAYLOAD_BYTES_MAX), opening)
    writer.flush()
    assert len(payloads(folder)) == 40
    assert valid_end(folder) == writer.written


def test_a_closing_belongs_to_one_opening(writer: JournalWriter) -> None:
    opening = writer.append_opening(b"o", 10)
    assert isinstance(opening, int)
    with pytest.raises(ValueError, match="larger than promised"):
        writer.append_closing(b"c" * 11, opening)
    writer.append_closing(b"c" * 10, opening)
    for position in (opening, opening + 1):
        with pytest.raises(ValueError, match="waits for its closing"):
            writer.append_closing(b"c", position)
    with pytest.raises(ValueError, match="would not fit a frame"):
        writer.append_opening(b"o", PAYLOAD_BYTES_MAX + 1)


def test_an_error_of_the_disk_is_final(writer: JournalWriter, disk: FailingDisk) -> None:
    opening = writer.append_opening(b"o", 10)
    assert isinstance(opening, int)
    writer.flush()
    disk.dead = True
    writer.append(b"lost")
    with pytest.raises(JournalFault, match="Input/output error"):
        writer.flush()
    disk.dead = False
    for call in (
        lambda: writer.append_opening(b"o", 10),
        lambda: writer.append_closing(b"c", opening),
        lambda: writer.append(b"x"),
        writer.flush,
        writer.sync,
    ):
        with pytest.raises(JournalFault, match="Input/output error"):
            call()
    assert writer.written == 9


def test_a_failed_sync_is_final(writer: JournalWriter, disk: FailingDisk) -> None:
    writer.append(b"x")
    writer.flush()
    disk.dead = True
    with pytest.raises(JournalFault):
        writer.sync()
    disk.dead = False
    with pytest.raises(JournalFault):
        writer.append(b"y")
    assert writer.synced == 0


def test_sync_covers_segments_left_behind_and_lets_go_of_them(writer: JournalWriter, disk: FailingDisk) -> None:
    fill(writer, 0)
    fill(writer, 0)
    writer.append(b"third segment")
    writer.flush()
    before = disk.syncs
    writer.sync()
    # Three segments with frames, and the three allocated since the last sync, two of which are in use already.
    assert disk.syncs == before + 5
    writer.sync()
    assert disk.syncs == before + 6
    assert writer.synced == writer.written


def test_create_on_a_full_disk_leaves_nothing(folder: Path, disk: FailingDisk) -> None:
    disk.full = True
    with pytest.raises(JournalFault, match="No space left"):
        JournalWriter.create(folder, SEGMENT_BYTES, disk.disk)
    assert list_journals(folder.parent.parent) == []


def test_create_twice_is_a_fault(writer: JournalWriter) -> None:
    with pytest.raises(JournalFault, match="cannot be created"):
        JournalWriter.create(writer.folder, SEGMENT_BYTES)


def test_segments_too_small_for_a_frame_are_refused(folder: Path) -> None:
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match="largest frame"):
        JournalWriter.resume(folder, FRAME_BYTES_MAX)


def test_a_live_journal_is_neither_resumed_nor_removed(writer: JournalWriter) -> None:
    assert is_live(writer.folder)
    with pytest.raises(JournalLive):
        JournalWriter.resume(writer.folder, SEGMENT_BYTES)
    with pytest.raises(JournalLive):
        remove(writer.folder)
    writer.close()
    writer.close()
    assert not is_live(writer.folder)
    with pytest.raises(JournalFault, match="is closed"):
        writer.append(b"x")


def test_close_flushes_and_syncs(writer: JournalWriter) -> None:
    writer.append(b"last")
    writer.close()
    assert payloads(writer.folder) == [b"last"]
    assert writer.synced == writer.written == 12


def test_a_missing_segment_ends_the_reading(writer: JournalWriter, folder: Path) -> None:
    fill(writer, 0)
    fill(writer, 0)
    writer.append(b"third segment")
    writer.flush()
    (folder / "00000001.seg").unlink()
    assert read_frames(folder, 0, BATCH).to_position == CAPACITY
    assert read_frames(folder, CAPACITY, BATCH).data == b""


def test_segments_below_a_position_are_removed(writer: JournalWriter, folder: Path) -> None:
    for _ in range(3):
        fill(writer, 0)
    writer.append(b"x")
    writer.flush()
    assert remove_below(folder, CAPACITY - 1) == 0
    assert remove_below(folder, 2 * CAPACITY) == 2
    assert remove_below(folder, 2 * CAPACITY) == 0
    assert read_frames(folder, 2 * CAPACITY, BATCH).to_position == 3 * CAPACITY + 9
    with pytest.raises(JournalFault, match="is gone; the oldest kept is 130944"):
        read_frames(folder, 0, BATCH)
    writer.close()
    assert remove_below(folder, writer.written) == 1
    resumed = JournalWriter.resume(folder, SEGMENT_BYTES)
    assert resumed.append(b"y") == 3 * CAPACITY + 9
    resumed.close()


def test_journals_are_listed_and_removed(tmp_path: Path) -> None:
    assert list_journals(tmp_path / "none") == []
    folders = [tmp_path / "worker-0" / "jnl_1", tmp_path / "worker-0" / "jnl_2", tmp_path / "worker-1" / "jnl_0"]
    for folder in reversed(folders):
        JournalWriter.create(folder, SEGMENT_BYTES).close()
    assert list_journals(tmp_path) == folders
    remove(folders[0])
    assert list_journals(tmp_path) == folders[1:]


def test_a_journal_set_aside_is_kept_and_not_listed(tmp_path: Path) -> None:
    folders = [tmp_path / "worker-0" / name for name in ("jnl_1", "jnl_2")]
    for folder in folders:
        JournalWriter.create(folder, SEGMENT_BYTES).close()
    names = sorted(path.name for path in folders[0].iterdir())
    aside = set_aside(folders[0])
    assert aside == tmp_path / "worker-0" / "jnl_1.damaged"
    assert sorted(path.name for path in aside.iterdir()) == names
    assert list_journals(tmp_path) == folders[1:]


def test_a_segment_of_another_journal_is_a_fault(writer: JournalWriter, folder: Path) -> None:
    writer.close()
    folder.rename(folder.with_name("jnl_2"))
    with pytest.raises(JournalFault, match="journal jnl_1"):
        valid_end(folder.with_name("jnl_2"))
