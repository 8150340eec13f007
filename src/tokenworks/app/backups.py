"""Backups of the whole system: when and where, and what a restore needs around it.

The database is what is backed up; journals stay on the workers' disks, past the time that one can go back, and bring
what the database lost. Files and log are `base.postgres_backup`'s; the ledger's part begins with the next start, see
`app.settling`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tokenworks.app import claim
from tokenworks.app.services import services
from tokenworks.base import clock, postgres_backup
from tokenworks.base.clock import MS, SECOND
from tokenworks.base.config import Settings
from tokenworks.base.postgres import Postgres
from tokenworks.base.postgres_backup import Backup, BackupFault
from tokenworks.ledger.epoch import Why

LATEST = "latest"
_NOTE = "restored"

Say = Callable[[str], None]


async def take(settings: Settings, to: Path | None, say: Say) -> Backup:
    """Back up the database, running or not, and remove what is too old; `say` is told what is being done."""
    _check_ours(settings)
    folder = _folder(settings, to)
    if claim.running_on(settings.data):
        return await _take(settings, folder, say)
    if not (settings.data / "postgres").is_dir():
        raise BackupFault(f"there is no database of Tokenworks in {settings.data}")
    say("Nothing runs on this data folder: starting its database for the backup.")
    async with services(settings, bus=False):
        return await _take(settings, folder, say)


def listed(settings: Settings, where: Path | None) -> list[Backup]:
    """All backups, oldest first."""
    return postgres_backup.listed(_folder(settings, where))


async def restore(settings: Settings, to: str, where: Path | None, say: Say) -> Path | None:
    """Put the database back to a time, `2026-11-22T09:30:00Z` for example, or to `latest`, on a stopped system.

    Gives where the files of before lie. The next start begins a ledger epoch, in which the workers ship again.
    """
    _check_ours(settings)
    folder = _folder(settings, where)
    to_ns = None if to == LATEST else _time(to)
    with claim.claimed(settings.data):
        backup = _before(postgres_backup.listed(folder), to_ns, folder)
        _warn_of_journals(settings, to_ns, say)
        say(f"Restoring {backup.name} ({backup.bytes >> 20:,} MB) and the log after it.")
        aside = await postgres_backup.restore(Postgres(settings.data), folder, backup, to_ns)
        (settings.data / _NOTE).touch(mode=0o600)
    if aside:
        say(f"The files of before are kept in {aside}; remove them when the books are as they should be.")
    return aside


def why(settings: Settings) -> Why:
    """Why the next ledger epoch begins, if one does."""
    return "restore" if (settings.data / _NOTE).exists() else "failover"


def begun(settings: Settings) -> None:
    """The epoch after a restore has begun."""
    (settings.data / _NOTE).unlink(missing_ok=True)


async def _take(settings: Settings, folder: Path, say: Say) -> Backup:
    say(f"Copying and verifying the database into {folder}.")
    backup = await postgres_backup.take(Postgres(settings.data), folder)
    for old in postgres_backup.prune(folder, clock.wall_ns() - settings.backup_keep_ms * MS):
        say(f"Removed {old.name}, which is older than what is kept.")
    if settings.journal_keep_ms < settings.backup_keep_ms:
        say("TOKENWORKS_JOURNAL_KEEP_MS is shorter than TOKENWORKS_BACKUP_KEEP_MS: usage would be lost in a restore.")
    return backup


def _check_ours(settings: Settings) -> None:
    if settings.database_url:
        raise BackupFault(
            "this database is not the embedded one; back it up and restore it with its own tools (docs/operations.md)"
        )


def _folder(settings: Settings, where: Path | None) -> Path:
    return where.expanduser().absolute() if where else settings.backups


def _time(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as fault:
        raise BackupFault(f"{text!r} is no time; write 2026-11-22T09:30:00Z, or latest") from fault
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * SECOND + moment.microsecond * 1_000


def _before(backups: list[Backup], to_ns: int | None, folder: Path) -> Backup:
    """The newest from which one can get there."""
    found = [each for each in backups if to_ns is None or each.ended_at_ns <= to_ns]
    if not backups:
        raise BackupFault(f"there is no backup in {folder}")
    if not found:
        raise BackupFault(f"the oldest backup ended at {clock.iso(backups[0].ended_at_ns)}; one cannot go further back")
    return found[-1]


def _warn_of_journals(settings: Settings, to_ns: int | None, say: Say) -> None:
    if to_ns is not None and clock.wall_ns() - to_ns > settings.journal_keep_ms * MS:
        say("Journals are not kept since that time: what was used between then and the oldest of them is lost.")
