"""Backups of the embedded PostgreSQL: a copy of its files, its write-ahead log as it is written, and the way back.

A folder of backups holds `base-<time>/` with `base-<time>.json` beside it, and `wal-<timeline>/` with the log. A backup
can be restored to any moment between its end and the last byte of the log. Which backup, when, and what the ledger must
do afterwards is decided elsewhere (`tokenworks.app.backups`).
"""

import asyncio
import shlex
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tokenworks.base import clock, postgres_manifest, processes, system_user
from tokenworks.base.postgres import ENVIRON, Postgres, end_orphan, program, reason
from tokenworks.base.processes import Account, Program, StartFault

SLOT = "tokenworks_archive"
_SEGMENT_BYTES = 16 << 20
_LOOK_EVERY_S = 1
_SHOWN_MAX = 3
_UNFINISHED = ".unfinished"


class BackupFault(StartFault):
    """A backup or a restore cannot be made; the text is one sentence that an operator can act on."""


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of the files. `wal_from` names the first log segment that it needs, without its timeline."""

    name: str
    started_at_ns: int
    ended_at_ns: int
    timeline: int
    wal_from: str
    bytes: int


class WalArchive:
    """The log of a running server, copied as it is written: a service, started once there is a backup to go on from."""

    name = "wal-archive"
    stop_signal = signal.SIGINT

    def __init__(self, postgres: Postgres, folder: Path) -> None:
        self._postgres = postgres
        self._folder = folder

    async def spawn(self) -> asyncio.subprocess.Process:
        """Wait for the first backup, then follow the log. Its slot keeps what was not followed yet."""
        while not listed(self._folder):  # noqa: ASYNC110 - there is no event across processes
            await asyncio.sleep(_LOOK_EVERY_S)
        timeline = await _timeline(self._postgres)
        target = self._folder / f"wal-{timeline:08X}"
        system_user.own_folder(target, self._postgres.account)
        await _make_slot(self._postgres)
        return await processes.spawn(
            Program(
                argv=_argv(self._postgres, "pg_receivewal", "-D", str(target), "--synchronous", "--no-loop"),
                environ=ENVIRON,
                output=self._postgres.output.with_name("wal-archive.log"),
                account=self._postgres.account,
                stop_signal=self.stop_signal,
            )
        )

    async def ready(self, process: asyncio.subprocess.Process) -> None:
        """It is there; how far it has come is the slot's affair."""


def listed(folder: Path) -> list[Backup]:
    """All whole backups of a folder, oldest first."""
    found = [msgspec.json.decode(path.read_bytes(), type=Backup) for path in folder.glob("base-*.json")]
    return sorted((each for each in found if (folder / each.name).is_dir()), key=lambda each: each.ended_at_ns)


async def take(postgres: Postgres, folder: Path) -> Backup:
    """Copy the files of a running server, verify the copy, and only then count it as a backup."""
    system_user.own_folder(folder, postgres.account)
    system_user.open_the_way(folder, postgres.account)
    started_at_ns = clock.wall_ns()
    name = f"base-{clock.utc(started_at_ns):%Y%m%dT%H%M%S.%fZ}"
    fresh = folder / f"{name}{_UNFINISHED}"
    # The slot is made first: from here on the server keeps the log until the archive has it.
    await _make_slot(postgres)
    try:
        copying = ("-c", "fast", "-X", "stream", "--manifest-checksums=SHA256")
        await _run(postgres, "pg_basebackup", "-D", str(fresh), *copying, connect=True)
        _verify(fresh)
    except BackupFault:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    wal = postgres_manifest.wal_of(fresh)
    fresh.rename(folder / name)
    backup = Backup(
        name=name,
        started_at_ns=started_at_ns,
        ended_at_ns=clock.wall_ns(),
        timeline=wal.timeline,
        wal_from=segment_of(wal.start),
        bytes=sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file()),
    )
    note = folder / f"{name}.json"
    note.with_suffix(_UNFINISHED).write_bytes(msgspec.json.format(msgspec.json.encode(backup)))
    note.with_suffix(_UNFINISHED).rename(note)
    return backup


def prune(folder: Path, needed_from_ns: int) -> list[Backup]:
    """Remove backups that no moment since then needs, and log that no backup left needs; gives the removed ones.

    The newest backup from before that moment stays: it is how one gets there.
    """
    backups = listed(folder)
    before = [each for each in backups if each.ended_at_ns <= needed_from_ns]
    for old in before[:-1]:
        (folder / f"{old.name}.json").unlink()
        shutil.rmtree(folder / old.name)
    for unfinished in folder.glob(f"base-*{_UNFINISHED}"):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
    oldest = min((each.wal_from for each in listed(folder)), default="")
    for path in _log_files(folder):
        if path.name[8:24] < oldest:
            path.unlink()
    return before[:-1]


async def restore(postgres: Postgres, folder: Path, backup: Backup, to_ns: int | None) -> Path | None:
    """Put the server's files back to a moment, or to the end of the log; where the files of before lie, if there were.

    The server must not run. It is brought to the moment beside its place, and takes it only when it has arrived.
    """
    await end_orphan(postgres.files)
    fresh = postgres.files.with_name("postgres.restoring")
    shutil.rmtree(fresh, ignore_errors=True)
    _verify(folder / backup.name)
    shutil.copytree(folder / backup.name, fresh, symlinks=True)
    _give(fresh, postgres.account)
    settings = fresh / "postgresql.auto.conf"
    kept = settings.read_text("utf-8")
    settings.write_text(kept + "\n".join(_recovery(folder, to_ns)) + "\n", "utf-8")
    (fresh / "recovery.signal").touch()
    _give(fresh / "recovery.signal", postgres.account)
    await _recover(postgres, fresh)
    settings.write_text(kept, "utf-8")
    return _swap(postgres.files, fresh)


def _verify(copy: Path) -> None:
    if found := postgres_manifest.wrong(copy):
        raise BackupFault(f"the backup {copy.name} is not whole: {', '.join(found[:_SHOWN_MAX])}")


def segment_of(lsn: str) -> str:
    """`0/2000028` → `0000000000000002`: the name of its log segment, without the timeline."""
    high, _, low = lsn.partition("/")
    return f"{int(high, 16):08X}{int(low, 16) // _SEGMENT_BYTES:08X}"


def _recovery(folder: Path, to_ns: int | None) -> Iterator[str]:
    """A segment may be in any of the archive's folders, and the newest is not complete."""
    places = shlex.quote(str(folder)).replace("%", "%%") + "/wal-*"
    tries = [
        f'for d in {places}; do if [ -f "$d/%f{end}" ]; then exec cp "$d/%f{end}" "%p"; fi; done'
        for end in ("", ".partial")
    ]
    command = "; ".join([*tries, "exit 1"]).replace("'", "''")
    yield f"restore_command = '{command}'"
    yield "hot_standby = off"
    if to_ns is not None:
        yield f"recovery_target_time = '{clock.utc(to_ns):%Y-%m-%d %H:%M:%S.%f}+00'"
        yield "recovery_target_action = promote"


async def _recover(postgres: Postgres, fresh: Path) -> None:
    """Let a server go through the log in these files until it would accept connections, and end it."""
    server = Postgres(postgres.data, files=fresh)
    process = await server.spawn()
    try:
        await server.ready(process)
    except StartFault as fault:
        shutil.rmtree(fresh, ignore_errors=True)
        raise BackupFault(_why(str(fault))) from fault
    process.send_signal(server.stop_signal)
    await process.wait()


def _why(fault: str) -> str:
    if "before configured recovery target was reached" in fault:
        return "the log that was kept ends before that time; restore to `latest` instead"
    return f"the backup could not be brought to that time: {fault}"


def _swap(files: Path, fresh: Path) -> Path | None:
    aside = None
    if files.exists():
        aside = files.with_name(f"postgres.before-{clock.utc(clock.wall_ns()):%Y%m%dT%H%M%SZ}")
        files.rename(aside)
    fresh.rename(files)
    return aside


def _log_files(folder: Path) -> Iterator[Path]:
    for path in folder.glob("wal-*/*"):
        if len(path.name) == 24 or path.name.endswith(".partial"):
            yield path


def _give(place: Path, account: Account | None) -> None:
    """As root the copy is made by us and read by the server's user."""
    if account is None:
        return
    for path in [place, *place.rglob("*")]:
        shutil.chown(path, account.uid, account.gid)


async def _make_slot(postgres: Postgres) -> None:
    await _run(postgres, "pg_receivewal", "--create-slot", "--if-not-exists", connect=True)


async def _timeline(postgres: Postgres) -> int:
    said = await _run(postgres, "pg_controldata", "-D", str(postgres.files))
    for line in said.splitlines():
        name, _, value = line.partition(":")
        if name == "Latest checkpoint's TimeLineID":
            return int(value)
    raise BackupFault("pg_controldata does not say which timeline the database is on")


def _argv(postgres: Postgres, tool: str, *arguments: str) -> tuple[str, ...]:
    connection = ("-h", str(postgres.sockets), "-U", "postgres", "--no-password")
    slot = ("--slot", SLOT) if tool == "pg_receivewal" else ()
    return (str(program(tool)), *connection, *slot, *arguments)


async def _run(postgres: Postgres, tool: str, *arguments: str, connect: bool = False) -> str:
    argv = _argv(postgres, tool, *arguments) if connect else (str(program(tool)), *arguments)
    code, said = await processes.run(Program(argv=argv, environ=ENVIRON, account=postgres.account))
    if code != 0:
        raise BackupFault(f"{tool} failed: {reason(said, postgres.files)}")
    return said
