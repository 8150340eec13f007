"""Salvage: what a person can see of the journals on a disk, and what is left to do with a damaged one.

`repair` has posted by itself what can be proven. What stays are closings whose opening is gone: they say what was used
and what it cost us, but not whose request it was. `book` writes them into a journal of their own, under no customer's
name: metering books the use as our loss, unproven, and the cost as owed to the supplier. The journal's id is made of
the damaged one's, so doing it twice books it once. It is shipped by the workers of this disk like any other.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tokenworks.base.config import Settings
from tokenworks.base.journal import (
    JournalFault,
    JournalFull,
    JournalWriter,
    is_live,
    oldest_position,
    read_mark,
    size_of,
)
from tokenworks.base.journal_damage import Hole, Remains, remains
from tokenworks.base.journal_folder import DAMAGED, all_journals, read_repair, settle_damage
from tokenworks.core import journal
from tokenworks.core.journal import Closing, Entry, Head, Opening
from tokenworks.core.purse import Charge

SALVAGED_FLAG = "salvaged"
_WORKER = "salvage"

State = Literal["running", "dead", "finished", "damaged", "salvaged"]


class Standing(msgspec.Struct, frozen=True):
    """A journal on this disk. `posted_through` and `ledger_epoch` are what its shipper noted last."""

    journal_id: str
    worker: str
    state: State
    bytes: int
    kept_from: int
    posted_through: int
    ledger_epoch: int


class Unproven(msgspec.Struct, frozen=True):
    """A closing whose opening is gone, at the position it was written at."""

    position: int
    closing: Closing


class Damage(msgspec.Struct, frozen=True):
    """What is wrong with a damaged journal: what cannot be read, and what is read and names nobody."""

    journal_id: str
    worker: str
    frames: int
    holes: tuple[Hole, ...]
    unproven: tuple[Unproven, ...]


def standings(journal_dir: Path) -> list[Standing]:
    """Every journal of this disk, by worker and age."""
    return [_standing(folder) for folder in all_journals(journal_dir)]


def damage(journal_dir: Path, journal_id: str) -> Damage:
    """A damaged journal as it was found."""
    folder = _find(journal_dir, journal_id)
    left = remains(folder)
    return Damage(_stem(folder), folder.parent.name, len(left.frames), left.holes, tuple(_unproven(folder, left)))


def book(settings: Settings, journal_id: str, legal_entity_id: str = "") -> int:
    """Write what is unproven into a journal of its own, to be shipped as our loss; how many requests.

    `legal_entity_id` is who bears it, where nothing that can be read says so. Afterwards the damaged journal is kept
    under another name and counts as settled.
    """
    folder = _find(settings.journal_dir, journal_id)
    left = remains(folder)
    unproven = list(_unproven(folder, left))
    entities = dict(_entities(left))
    entries = [_entries(_stem(folder), each, _entity(each, entities, legal_entity_id)) for each in unproven]
    if entries:
        _write(settings, _own_id(_stem(folder)), entries)
    settle_damage(folder)
    return len(unproven)


def _own_id(stem: str) -> str:
    """`jrn_06h0` → `slv_06h0`; of what was damaged a second time, `jrn_06h0.2` → `sl2_06h0`."""
    name, _, number = stem.partition(".")
    return f"sl{number or 'v'}_{name.partition('_')[2]}"


def _standing(folder: Path) -> Standing:
    mark = read_mark(folder)
    return Standing(
        journal_id=_stem(folder),
        worker=folder.parent.name,
        state=_state(folder, is_final=mark is not None and mark.final),
        bytes=size_of(folder),
        kept_from=oldest_position(folder),
        posted_through=mark.through if mark else 0,
        ledger_epoch=mark.ledger_epoch if mark else 0,
    )


def _state(folder: Path, *, is_final: bool) -> State:
    if folder.suffix:
        return "damaged" if folder.suffix == DAMAGED else "salvaged"
    if is_final:
        return "finished"
    return "running" if is_live(folder) else "dead"


def _find(journal_dir: Path, journal_id: str) -> Path:
    for folder in all_journals(journal_dir):
        if folder.suffix == DAMAGED and _stem(folder) == journal_id:
            return folder
    raise JournalFault(f"there is no damaged journal {journal_id} in {journal_dir}")


def _stem(folder: Path) -> str:
    return folder.stem if folder.suffix else folder.name


def _decoded(left: Remains) -> Iterator[tuple[int, Entry]]:
    for found in left.frames:
        try:
            yield found.position, journal.decode(found.payload)
        except msgspec.DecodeError:
            continue


def _unproven(folder: Path, left: Remains) -> Iterator[Unproven]:
    """Closings that the repair could not place. What the ledger had then is not among them."""
    lost = read_repair(folder)
    for position, entry in _decoded(left):
        if position in lost and isinstance(entry, Closing):
            yield Unproven(position, entry)


def _entities(left: Remains) -> Iterator[tuple[str, str]]:
    """Whose the buckets are, as other requests say."""
    for _, entry in _decoded(left):
        if isinstance(entry, Opening):
            yield "", entry.legal_entity_id
            yield from ((part.bucket_id, entry.legal_entity_id) for part in entry.reserved)


def _entity(unproven: Unproven, entities: dict[str, str], given: str) -> str:
    for charge in unproven.closing.charges:
        if charge.bucket_id in entities:
            return entities[charge.bucket_id]
    entity = given or entities.get("", "")
    if not entity:
        raise JournalFault("nothing that can be read says which legal entity this belongs to; name one")
    return entity


def _entries(journal_id: str, unproven: Unproven, legal_entity_id: str) -> tuple[Opening, Closing]:
    """The request under no customer's name. Its lease is none, so that the ledger cannot confirm it by accident."""
    closing = unproven.closing
    opening = Opening(
        f"{SALVAGED_FLAG}_{journal_id}_{unproven.position}",
        closing.closed_at_ns,
        legal_entity_id,
        "",
        "",
        "",
        False,
        closing.tokens.read,
        closing.tokens.written,
        (),
    )
    flags = (*closing.flags, SALVAGED_FLAG)
    charges = tuple([_of_nobody(charge) for charge in closing.charges])
    return opening, msgspec.structs.replace(closing, flags=flags, charges=charges)


def _of_nobody(charge: Charge) -> Charge:
    return msgspec.structs.replace(charge, lease_id=0)


def _write(settings: Settings, journal_id: str, entries: Iterable[tuple[Opening, Closing]]) -> None:
    """What is written is the same each time, so that the ledger takes it once. Nothing is written a second time."""
    folder = settings.journal_dir / _WORKER / journal_id
    if folder.exists():
        return
    writer = JournalWriter.create(folder, settings.journal_segment_bytes)
    try:
        writer.append(journal.encode(Head(journal_id, _WORKER, 0)))
        for opening, closing in entries:
            position = _added(writer, opening)
            _added(writer, msgspec.structs.replace(closing, opening=position))
    finally:
        writer.close()


def _added(writer: JournalWriter, entry: Entry) -> int:
    position = writer.append(journal.encode(entry))
    if isinstance(position, JournalFull):
        raise JournalFault(f"no space to book what was salvaged: {position.reason}")
    return position
