"""The folder of a journal: its segment files, its lock, its mark, its removal. Frames are read and written elsewhere.

A journal is `<journal_dir>/<worker>/<journal_id>/` with `00000000.seg`, `00000001.seg`, … and a file `lock` that its
writer keeps locked. A segment whose header is not complete is allocated but not in use. A file `posted` is the mark:
what its shipper knows of the ledger. A journal whose mark says `final` is finished: whole, posted, and kept only for a
ledger that may go back.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from tokenworks.base import atomic
from tokenworks.base.journal_frames import (
    SEGMENT_HEADER_BYTES,
    JournalDamaged,
    JournalFault,
    SegmentHeader,
    unpack_header,
)

SUFFIX = ".seg"
# A segment is renamed from this once its space is allocated, so that a file with the final name is never too short.
UNFINISHED = ".new"
LOCK = "lock"
MARK = "posted"
REPAIRED = "repaired"
# No journal id ends like these.
DAMAGED = ".damaged"
SALVAGED = ".salvaged"


class JournalLive(JournalFault):
    """Another writer holds this journal."""


class Mark(msgspec.Struct, frozen=True):
    """What a shipper knows: in `ledger_epoch` everything below `through` was posted, at `at_ns`.

    Nothing below `needed_from` matters to a successor. Only a hint: without it, or with an older one, everything is
    shipped again, and the ledger skips what it has.
    """

    ledger_epoch: int
    through: int
    at_ns: int
    needed_from: int = 0
    final: bool = False


def segment_path(folder: Path, number: int) -> Path:
    """Where segment `number` of the journal lies."""
    return folder / f"{number:08d}{SUFFIX}"


def segment_paths(folder: Path) -> list[Path]:
    """All segment files, lowest number first, in use or not."""
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)


def read_header(path: Path) -> SegmentHeader | None:
    """The header of a segment in use; None for one that is only allocated."""
    with path.open("rb", buffering=0) as file:
        header = unpack_header(file.read(SEGMENT_HEADER_BYTES))
    journal_id = path.parent.name.partition(".")[0]  # what is set aside has a suffix
    if header is not None and (header.number, header.journal_id) != (int(path.stem), journal_id):
        raise JournalFault(f"{path} holds segment {header.number} of journal {header.journal_id}")
    return header


def segments_in_use(folder: Path) -> Iterator[tuple[Path, SegmentHeader]]:
    """Segments with a header, lowest number first."""
    for path in segment_paths(folder):
        if (header := read_header(path)) is not None:
            yield path, header


def segments_from(folder: Path, position: int) -> list[tuple[Path, SegmentHeader]]:
    """The segment that holds `position`, and all in use after it.

    Looks from the newest backwards: a reader that keeps up opens two files, however many are kept.
    """
    found: list[tuple[Path, SegmentHeader]] = []
    for path in reversed(segment_paths(folder)):
        if (header := read_header(path)) is None:
            continue
        found.insert(0, (path, header))
        if header.base <= position:
            return found
    if found or position:
        oldest = found[0][1].base if found else None
        raise JournalDamaged(f"position {position} of journal {folder} is gone; the oldest kept is {oldest}")
    return found


def first_from(folder: Path, position: int) -> int | None:
    """The number of the segment in use that holds `position`, or of the oldest where that one is gone."""
    found = None
    for path in reversed(segment_paths(folder)):
        if (header := read_header(path)) is not None:
            found = header.number
            if header.base <= position:
                break
    return found


def oldest_position(folder: Path) -> int:
    """Where the bytes that are kept begin; 0 for a journal without any."""
    return next((header.base for _, header in segments_in_use(folder)), 0)


def take_lock(folder: Path) -> int:
    """Lock the journal for one writer; the descriptor that holds the lock. Held elsewhere is `JournalLive`."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise JournalLive(f"journal {folder} is being written by another process") from error
    return lock


def is_live(folder: Path) -> bool:
    """Whether a writer holds the journal now. The question takes the lock for an instant, so ask from one place."""
    try:
        os.close(take_lock(folder))
    except JournalLive:
        return True
    return False


def list_journals(journal_dir: Path) -> list[Path]:
    """The folders of all journals of all workers: by worker, then by id, which for ids made by `ids.new` is by age.

    Journals that are finished or set aside are not among them.
    """
    return [folder for folder in all_journals(journal_dir) if not folder.suffix and not _is_finished(folder)]


def finished_journals(journal_dir: Path) -> list[Path]:
    """The folders of journals that are posted to their end and kept for a ledger that may go back; in that order."""
    return [folder for folder in all_journals(journal_dir) if not folder.suffix and _is_finished(folder)]


def damaged_journals(journal_dir: Path) -> list[Path]:
    """The folders of journals that were set aside for a person."""
    return [folder for folder in all_journals(journal_dir) if folder.suffix == DAMAGED]


def read_mark(folder: Path) -> Mark | None:
    """The mark, if there is a readable one."""
    try:
        return msgspec.json.decode((folder / MARK).read_bytes(), type=Mark)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write_mark(folder: Path, mark: Mark) -> None:
    """Write the mark in one step. It need not outlive a power failure: it only spares work."""
    fresh = folder / f"{MARK}{UNFINISHED}"
    fresh.write_bytes(msgspec.json.encode(mark))
    fresh.rename(folder / MARK)


def unmark(folder: Path) -> None:
    """Forget the mark: the journal is to be looked at again from its beginning."""
    (folder / MARK).unlink(missing_ok=True)


def note_repair(folder: Path, lost: Iterable[int]) -> None:
    """Say in a journal and in its repaired copy which entries of it could not be placed, by position."""
    with atomic.replacing(folder / REPAIRED) as note:
        note.write(" ".join(map(str, lost)).encode())


def read_repair(folder: Path) -> frozenset[int]:
    """The positions of entries that the repair could not place."""
    return frozenset(map(int, (folder / REPAIRED).read_text("ascii").split()))


def settle_damage(folder: Path) -> Path:
    """A person has looked: the journal is kept on, and no longer counts as damaged."""
    return folder.rename(folder.with_suffix(SALVAGED))


def is_repaired(folder: Path) -> bool:
    """Whether something of the journal was lost."""
    return (folder / REPAIRED).exists()


def finish(folder: Path, mark: Mark) -> None:
    """Mark a journal as finished and give the space back that it allocated and did not use. Nobody writes it."""
    newest: tuple[Path, SegmentHeader] | None = None
    for path in segment_paths(folder):
        if (header := read_header(path)) is None:
            path.unlink()
        else:
            newest = path, header
    if newest is not None:
        path, header = newest
        os.truncate(path, SEGMENT_HEADER_BYTES + mark.through - header.base)
    write_mark(folder, mark)


def size_of(folder: Path) -> int:
    """Bytes of all its files."""
    return sum(path.stat().st_size for path in folder.iterdir())


def all_journals(journal_dir: Path) -> list[Path]:
    """The folders of all journals, whatever their state, by worker and by name."""
    if not journal_dir.is_dir():
        return []
    workers = [worker for worker in journal_dir.iterdir() if worker.is_dir() and worker.name[0] != "."]
    return sorted(folder for worker in workers for folder in worker.iterdir() if folder.is_dir())


def _is_finished(folder: Path) -> bool:
    mark = read_mark(folder)
    return mark is not None and mark.final


def set_aside(folder: Path) -> Path:
    """Keep a damaged journal under another name, for a person to look at; where it lies then."""
    aside = folder.with_name(folder.name + DAMAGED)
    number = 1
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{folder.name}.{number}{DAMAGED}")
    folder.rename(aside)
    sync_folder(folder.parent)
    return aside


def put_back(repaired: Path, folder: Path) -> None:
    """Let a repaired journal take the place of one that was set aside."""
    repaired.rename(folder)
    sync_folder(folder.parent)


def remove_below(folder: Path, position: int) -> int:
    """Delete the segments whose bytes all lie below `position`; the number deleted. The newest in use always stays."""
    removed = 0
    before: Path | None = None
    for path, header in segments_in_use(folder):
        if header.base > position:
            break
        if before is not None:
            before.unlink()
            removed += 1
        before = path
    return removed


def remove(folder: Path) -> None:
    """Delete a journal that nobody writes and whose every byte is posted. Repeating it after a crash finishes it."""
    lock = take_lock(folder)
    try:
        # Lowest first: what a crash leaves behind is the end of the journal, not one with a hole.
        for path in segment_paths(folder):
            path.unlink()
        remove_unfinished(folder)
        unmark(folder)
        (folder / REPAIRED).unlink(missing_ok=True)
        (folder / LOCK).unlink()
        folder.rmdir()
    finally:
        os.close(lock)


def remove_unfinished(folder: Path) -> None:
    """Delete what a crash left of an allocation that was under way."""
    for path in folder.glob(f"*{UNFINISHED}"):
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
