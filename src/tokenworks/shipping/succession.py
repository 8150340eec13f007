"""Succession: what a worker does with the journals of workers that died.

Requests without a closing are closed at their last checkpoint, leases are given back, everything is shipped, and the
journal is finished. Doing it twice changes nothing: a closing names its opening, and the ledger takes one.

A damaged journal is repaired first: what can be proven is posted, and the original is kept for a person.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from tokenworks.base import clock, log
from tokenworks.base.bus import BusFault
from tokenworks.base.config import Settings
from tokenworks.base.journal import (
    Disk,
    JournalDamaged,
    JournalFault,
    JournalFull,
    JournalLive,
    JournalWriter,
    finish,
    is_live,
    is_repaired,
    list_journals,
    oldest_position,
    read_frames,
    read_mark,
    remove,
    split,
)
from tokenworks.core import journal
from tokenworks.core.journal import Checkpoint, Closing, Entry, LeaseClose, LeaseReturn, LeaseTaken, Opening
from tokenworks.core.usage import NONE
from tokenworks.core.wire import ShipReply
from tokenworks.shipping.office import Office
from tokenworks.shipping.repair import put_back_all, repair
from tokenworks.shipping.shipper import Shipper, finished, probe

_READ_BYTES = 1 << 20
# A journal is not locked in the instant in which it is made; another worker's is left alone for so long.
_YOUNG_NS = 5 * clock.SECOND
_ASK_AGAIN_S = 1
_DISK = Disk()

_log = log.get(__name__)


async def succeed(office: Office, settings: Settings, own: Path, disk: Disk = _DISK) -> None:
    """Settle every journal that nobody writes; those of this worker's own name at once.

    One that the ledger refuses is left for the next round, so that it does not keep the others from being settled.
    """
    with suppress(OSError):  # another worker may be doing the same
        put_back_all(settings.journal_dir)
    for folder in list_journals(settings.journal_dir):
        try:
            if folder == own or (folder.parent != own.parent and _is_young(folder)):
                continue
            await _settle(office, settings, folder, disk)
        except JournalLive:
            continue
        except (JournalFault, OSError, msgspec.DecodeError) as fault:
            # Another worker may just have finished it. Else it is tried again; nothing is lost meanwhile.
            _log.warning("a dead worker's journal stays", extra={"journal": folder.name, "reason": str(fault)})


def _is_young(folder: Path) -> bool:
    return clock.wall_ns() - folder.stat().st_mtime_ns < _YOUNG_NS


def _inode(folder: Path) -> int:
    return folder.stat().st_ino


async def _settle(office: Office, settings: Settings, folder: Path, disk: Disk, *, may_repair: bool = True) -> None:
    if is_live(folder):
        return
    inode = _inode(folder)
    posted_through = await _posted_through(office, folder)
    mark = read_mark(folder)
    needed_from = max(mark.needed_from if mark else 0, oldest_position(folder))
    try:
        writer = JournalWriter.resume(
            folder, settings.journal_segment_bytes, disk, start=needed_from, end_least=posted_through
        )
        try:
            reply = await _finish(office, settings, writer, needed_from, posted_through)
        finally:
            # All of it is synced. A disk that fails now must not hide why this ends: perhaps it is cancelled.
            with suppress(JournalFault):
                writer.close()
    except JournalDamaged as damage:
        if not may_repair:
            raise
        _repair(folder, inode, posted_through, needed_from, settings, disk, damage)
        await _settle(office, settings, folder, disk, may_repair=False)
        return
    if reply is None:
        remove(folder)
    elif not reply.fault:
        finish(folder, finished(reply))


def _repair(
    folder: Path,
    inode: int,
    posted_through: int,
    needed_from: int,
    settings: Settings,
    disk: Disk,
    damage: JournalDamaged,
) -> None:
    aside, proven = repair(folder, inode, posted_through, needed_from, settings.journal_segment_bytes, disk)
    _log.error(
        "a damaged journal is repaired, the original kept for a person",
        extra={
            "journal": aside.name,
            "reason": str(damage),
            "saved": len(proven.moved),
            "unproven": len(proven.lost),
        },
    )


async def _finish(
    office: Office, settings: Settings, writer: JournalWriter, needed_from: int, posted_through: int
) -> ShipReply | None:
    """Add what is missing and ship the rest; the last reply, or None for a journal with nothing in it."""
    if not writer.written:
        return None
    missing = list(left_open(_entries(writer.folder, needed_from), clock.wall_ns()))
    if is_repaired(writer.folder):
        missing = [entry for entry in missing if isinstance(entry, Closing)]
    _append(writer, missing)
    _log.info(
        "settling a dead worker's journal",
        extra={"journal": writer.folder.name, "closed": sum(isinstance(entry, Closing) for entry in missing)},
    )
    # The lock is held until all is posted, so that no other worker does the same.
    shipper = Shipper(
        office,
        settings,
        writer.folder,
        start=posted_through,
        through=lambda: writer.synced,
        keep_from=lambda: needed_from,
    )
    while not await shipper.finish() and shipper.reply.waiting:
        # Openings that only the ledger still has; how far their requests came is lost.
        _append(writer, [_orphan(position, None, clock.wall_ns()) for position in shipper.reply.waiting])
    return shipper.reply  # where it is refused, the shipper has said why


async def _posted_through(office: Office, folder: Path) -> int:
    """How far the ledger has the journal. An office that is away is waited for."""
    while True:
        try:
            reply = await probe(office, folder)
        except BusFault:
            await asyncio.sleep(_ASK_AGAIN_S)
            continue
        if reply.fault:
            raise JournalFault(reply.fault)
        return reply.posted_through


def left_open(entries: Iterable[tuple[int, Entry]], now_ns: int) -> Iterator[Closing | LeaseClose]:
    """The entries that a dead worker owes: closings of its requests, then its leases with what is left of them."""
    openings: dict[int, Opening] = {}
    checkpoints: dict[int, Checkpoint] = {}
    leases: dict[int, int] = {}
    for position, entry in entries:
        if isinstance(entry, Opening):
            openings[position] = entry
        elif isinstance(entry, Checkpoint):
            checkpoints[entry.opening] = entry
        elif isinstance(entry, Closing):
            openings.pop(entry.opening, None)
            _subtract(leases, entry)
        elif isinstance(entry, LeaseTaken):
            leases[entry.lease_id] = entry.amount
        elif isinstance(entry, LeaseReturn) and entry.lease_id in leases:
            leases[entry.lease_id] -= entry.amount
        elif isinstance(entry, LeaseClose):
            leases.pop(entry.lease_id, None)
    for position in openings:
        closing = _orphan(position, checkpoints.get(position), now_ns)
        _subtract(leases, closing)
        yield closing
    for lease_id, remainder in leases.items():
        yield LeaseClose(lease_id, remainder)


def _subtract(leases: dict[int, int], closing: Closing) -> None:
    for charge in closing.charges:
        if charge.lease_id in leases:
            leases[charge.lease_id] -= charge.amount


def _orphan(position: int, last: Checkpoint | None, now_ns: int) -> Closing:
    """Closed as far as it is known to have come; without a checkpoint nothing is charged."""
    if last is None:
        return Closing(position, now_ns, "orphaned", "none", NONE, NONE, None, (), (), (), 0)
    return Closing(
        position,
        now_ns,
        "orphaned",
        "counted",
        last.counted,
        last.counted,
        None,
        (),
        last.charges,
        last.attempts,
        last.attempts[-1].first_token_after_ns if last.attempts else 0,
    )


def _entries(folder: Path, start: int) -> Iterator[tuple[int, Entry]]:
    position = start
    while (batch := read_frames(folder, position, _READ_BYTES)).data:
        for offset, payload in split(batch.data):
            yield batch.from_position + offset, journal.decode(payload)
        position = batch.to_position


def _append(writer: JournalWriter, missing: Sequence[Closing | LeaseClose]) -> None:
    for entry in missing:
        full = writer.append(journal.encode(entry))
        if isinstance(full, JournalFull):
            raise JournalFault(f"no space to close the requests of a dead worker: {full.reason}")
    writer.flush()
    writer.sync()
