"""Repair: what can be proven of a damaged journal, put together so that it can be posted.

The part that is whole from the beginning stays as it is. Of what can be read behind a hole, requests that have their
opening there follow it, renumbered: their frames carry checksums like all others, and nobody but the journal's writer
wrote there. A closing of a request from before the hole is taken as it is. So nothing is posted twice: what the ledger
has keeps its positions, what it never had gets new ones. A closing whose opening is gone names nobody who could be
charged; it stays with the damaged journal for a person, see `salvage`.

An extension that the hole took is made good from what follows it: what was charged had been reserved. After a hole
nobody knows what a lease has left, so none is given back by name: the ledger ends them with the journal.
"""

import os
import shutil
from collections import Counter
from pathlib import Path

import msgspec

from tokenworks.base.journal import Disk, JournalFault, JournalFull, JournalWriter
from tokenworks.base.journal_damage import Found, Hole, Remains, remains
from tokenworks.base.journal_folder import (
    first_from,
    is_repaired,
    note_repair,
    oldest_position,
    put_back,
    read_header,
    segment_paths,
    set_aside,
    sync_folder,
)
from tokenworks.base.journal_frames import FRAME_HEADER_BYTES
from tokenworks.core import journal
from tokenworks.core.journal import (
    Checkpoint,
    Closing,
    Entry,
    Extension,
    Head,
    LeaseClose,
    LeaseReturn,
    Opening,
    Reserved,
)

_WORK = ".repair"


class Proven(msgspec.Struct, frozen=True):
    """What a repaired journal holds: `whole` frames as they were, from `start` on `moved` ones. `lost` cannot be
    placed: entries that name an opening which is gone, by the position they were written at."""

    start: int
    whole: tuple[Found, ...]
    moved: tuple[bytes, ...]
    lost: tuple[tuple[int, Entry], ...]
    holes: tuple[Hole, ...]


def put_back_all(journal_dir: Path) -> None:
    """Finish repairs that a crash interrupted after the damaged journal was set aside: nothing else would."""
    for work in sorted((journal_dir / _WORK).glob("*/*")):
        folder = journal_dir / work.parent.name / work.name
        if not folder.exists() and is_repaired(work):
            put_back(work, folder)


def repair(
    folder: Path, inode: int, posted_through: int, needed_from: int, segment_bytes: int, disk: Disk
) -> tuple[Path, Proven]:
    """Put a repaired journal in the damaged one's place, which is set aside as it is; where it lies, and what it is.

    Doing it again after a crash halfway begins anew, or finds the repaired journal in its place. `inode` is that of the
    folder in which damage was found: another worker of this disk may have repaired it since.
    """
    lock = disk.lock(folder)
    try:
        if folder.stat().st_ino != inode:
            raise JournalFault(f"journal {folder} was repaired by another worker")
        return _repair(folder, posted_through, needed_from, segment_bytes, disk)
    finally:
        os.close(lock)


def _repair(folder: Path, posted_through: int, needed_from: int, segment_bytes: int, disk: Disk) -> tuple[Path, Proven]:
    oldest = oldest_position(folder)
    is_joined = oldest <= posted_through
    first = first_from(folder, min(posted_through, needed_from)) or 0 if is_joined else 0
    work = folder.parent.parent / _WORK / folder.parent.name / folder.name
    while True:
        left = remains(folder, first)
        head = Head(folder.name, folder.parent.name, 0)
        proven = prove(left, posted_through, head, is_joined=is_joined)
        shutil.rmtree(work, ignore_errors=True)
        writer = _writer(folder, work, segment_bytes, disk, first if is_joined else 0, proven)
        if not proven.whole or writer.written == proven.whole[0].position:
            break
        writer.close()
        first = 0  # what was to be taken over unseen is damaged too
    _write(writer, proven)
    lost = [position for position, _ in proven.lost]
    note_repair(work, lost)
    note_repair(folder, lost)
    aside = set_aside(folder)
    put_back(work, folder)
    return aside, proven


def prove(left: Remains, posted_through: int, head: Head, *, is_joined: bool) -> Proven:
    """What of the remains can be posted after what the ledger has. `is_joined`: they reach back to that.

    `head` stands for one that is gone: every journal begins with one.
    """
    whole_end = left.valid_end if is_joined else posted_through
    start = max(whole_end, posted_through)
    is_whole_kept = is_joined and whole_end >= posted_through
    whole = tuple([found for found in left.frames if found.end <= whole_end]) if is_whole_kept else ()
    moved = [] if start else [journal.encode(head)]
    lost: list[tuple[int, Entry]] = []
    places: dict[int, int] = {}
    reserved: dict[int, Opening | Extension] = {}
    end = start + sum(FRAME_HEADER_BYTES + len(payload) for payload in moved)
    for found in left.frames:
        entry = _decoded(found)
        if entry is None:
            continue
        if found.position < start:
            _remember(reserved, found.position, entry)
            continue
        placed = _placed(entry, start, places)
        if placed is None:
            lost.append((found.position, entry))
            continue
        if isinstance(placed, Head | LeaseClose | LeaseReturn):
            continue
        if isinstance(placed, Opening):
            places[found.position] = end
        _remember(reserved, end, placed)
        grown = _grown(placed, reserved)
        for each in (placed,) if grown is None else (grown, placed):
            moved.append(journal.encode(each))
            end += FRAME_HEADER_BYTES + len(moved[-1])
    return Proven(start, whole, tuple(moved), tuple(lost), left.holes)


def _decoded(found: Found) -> Entry | None:
    """A frame that a later program wrote is evidence, and no more."""
    try:
        return journal.decode(found.payload)
    except msgspec.DecodeError:
        return None


def _placed(entry: Entry, start: int, places: dict[int, int]) -> Entry | None:
    """The entry as it is to be written behind the whole part; None if the opening that it names is gone."""
    if not isinstance(entry, Closing | Checkpoint | Extension) or entry.opening < start:
        return entry
    place = places.get(entry.opening)
    return None if place is None else msgspec.structs.replace(entry, opening=place)


def _remember(reserved: dict[int, Opening | Extension], position: int, entry: Entry) -> None:
    """What a request has reserved, by its opening."""
    if isinstance(entry, Opening):
        reserved[position] = entry
    elif isinstance(entry, Extension):
        reserved[entry.opening] = entry


def _grown(entry: Entry, reserved: dict[int, Opening | Extension]) -> Extension | None:
    """The extension that the hole took, as far as a closing or a checkpoint tells of it: no worker charges more than it
    has reserved.
    """
    if not isinstance(entry, Closing | Checkpoint) or (known := reserved.get(entry.opening)) is None:
        return None
    held, charged = Counter[int](), Counter[int]()
    for part in known.reserved:
        held[part.lease_id] += part.amount
    for charge in entry.charges:
        charged[charge.lease_id] += charge.amount
    more = charged - held
    tokens = entry.tokens if isinstance(entry, Closing) else entry.counted
    if not more and tokens.read <= known.input_max and tokens.written <= known.output_max:
        return None
    of = {charge.lease_id: charge for charge in entry.charges}
    parts = tuple([Reserved(lease, of[lease].bucket_id, of[lease].unit, amount) for lease, amount in more.items()])
    input_max, output_max = max(known.input_max, tokens.read), max(known.output_max, tokens.written)
    grown = reserved[entry.opening] = Extension(entry.opening, input_max, output_max, known.reserved + parts)
    return grown


def _writer(folder: Path, work: Path, segment_bytes: int, disk: Disk, first: int, proven: Proven) -> JournalWriter:
    """A writer behind the segments before `first`, which are taken over as they are; the last of them is written on,
    so it is copied."""
    older = [path for path in segment_paths(folder) if int(path.stem) < first]
    if not older or not proven.whole:
        base = proven.whole[0].position if proven.whole else proven.start
        return JournalWriter.create(work, segment_bytes, disk, base=base)
    work.mkdir(parents=True, mode=0o700)
    for path in older[:-1]:
        os.link(path, work / path.name)
    shutil.copyfile(older[-1], work / older[-1].name)
    sync_folder(work)
    header = read_header(older[-1])
    return JournalWriter.resume(work, segment_bytes, disk, start=header.base if header else 0)


def _write(writer: JournalWriter, proven: Proven) -> None:
    try:
        for payload in (*(found.payload for found in proven.whole), *proven.moved):
            if isinstance(full := writer.append(payload), JournalFull):
                raise JournalFault(f"no space to repair journal {writer.folder.name}: {full.reason}")
    finally:
        writer.close()
