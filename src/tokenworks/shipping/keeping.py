"""Keeping: what a worker does with the journals on its disk that are posted to their end.

They stay for a named time. When the ledger has a new epoch, because it was restored or failed over and may have lost
what it had, they are shipped again. The office is told which journals of this disk the epoch does not have yet, so that
it knows when no lease can come out of the past any more. Journals of running workers are their shippers' affair, those
of dead ones `succession`'s.
"""

import os
from contextlib import suppress
from pathlib import Path

from tokenworks.base import clock, ids, log
from tokenworks.base.config import Settings
from tokenworks.base.journal import (
    Disk,
    JournalDamaged,
    JournalFault,
    JournalLive,
    damaged_journals,
    finished_journals,
    list_journals,
    read_mark,
    remove,
    size_of,
    unmark,
    write_mark,
)
from tokenworks.core.wire import SiteReport
from tokenworks.shipping.office import Office
from tokenworks.shipping.shipper import Shipper, finished, probe

_SITE = "site"
_DISK = Disk()

_log = log.get(__name__)


async def keep(office: Office, settings: Settings, own: Path, disk: Disk = _DISK) -> bool:
    """One round; whether the ledger's epoch has every journal of this disk. Raises `BusFault`."""
    epoch = (await probe(office, own)).ledger_epoch
    for folder in finished_journals(settings.journal_dir):
        try:
            await _ship_again(office, settings, folder, epoch, disk)
        except JournalLive:
            continue
        except (JournalFault, OSError) as fault:
            extra = {"journal": folder.name, "reason": str(fault)}
            _log.warning("a finished journal cannot be shipped again", extra=extra)
    _remove_old(settings)
    journals = [*list_journals(settings.journal_dir), *finished_journals(settings.journal_dir)]
    waiting = tuple(folder.name for folder in journals if not _is_in(folder, epoch))
    damaged = tuple(folder.stem for folder in damaged_journals(settings.journal_dir))
    answer = await office.report(SiteReport(site_id(settings.journal_dir), epoch, waiting, damaged))
    return not waiting and answer.ledger_epoch == epoch


def site_id(journal_dir: Path) -> str:
    """The name of this folder of journals, made at the first call; whoever is first makes it for all."""
    path = journal_dir / _SITE
    with suppress(FileNotFoundError):
        return path.read_text("ascii")
    fresh = path.with_name(ids.new(_SITE))
    fresh.write_text(ids.new("site"), "ascii")
    with suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()
    return path.read_text("ascii")


async def _ship_again(office: Office, settings: Settings, folder: Path, epoch: int, disk: Disk) -> None:
    mark = read_mark(folder)
    if mark is None or mark.ledger_epoch == epoch:
        return
    lock = disk.lock(folder)
    try:
        through = mark.through
        # From its end: a ledger that has all of it says so at once, another one says where to begin.
        shipper = Shipper(office, settings, folder, start=through, through=lambda: through, keep_from=lambda: through)
        if await shipper.finish():
            write_mark(folder, finished(shipper.reply))
    except JournalDamaged:
        # It is whole no more: as a dead worker's journal it is read as far as it can be.
        unmark(folder)
        raise
    finally:
        os.close(lock)


def _is_in(folder: Path, epoch: int) -> bool:
    mark = read_mark(folder)
    return mark is not None and mark.ledger_epoch == epoch


def _remove_old(settings: Settings) -> None:
    """Of each worker the oldest beyond the time and the bytes that are kept."""
    now_ns = clock.wall_ns()
    kept: dict[Path, int] = {}
    for folder in reversed(finished_journals(settings.journal_dir)):
        mark = read_mark(folder)
        if mark is None:
            continue
        with suppress(JournalLive, FileNotFoundError):
            kept[folder.parent] = kept.get(folder.parent, 0) + size_of(folder)
            is_old = now_ns - mark.at_ns >= settings.journal_keep_ms * clock.MS
            if is_old or kept[folder.parent] > settings.journal_keep_bytes:
                remove(folder)
