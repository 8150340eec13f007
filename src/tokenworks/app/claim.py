"""A data folder in use: one process owns it at a time, keeps its secrets, and tells other commands where things are.

The lock is the kernel's and goes with the process that holds it, so nothing is left to clean up after a crash.
"""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from tokenworks.base import ids
from tokenworks.base.config import Settings
from tokenworks.base.processes import StartFault

_SECRET_SETTINGS = ("nats_token", "admin_token", "engine_api_key", "safety_token")


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What `<data>/run/up.json` holds while a system runs: for people and other commands, without secrets.

    `addresses` has `gateway` and `office`, and `engine`, `nats`, `database` as far as they run or are configured.
    `renewals` counts how often the workers were replaced; `renewal_fault` says why the last time did not succeed.
    """

    pid: int
    started_at_ns: int
    addresses: dict[str, str]
    pids: dict[str, int]
    settings: dict[str, str | int | bool]
    renewals: int = 0
    renewal_fault: str = ""


@contextmanager
def claimed(data: Path) -> Generator[None]:
    """Own the data folder, creating it if it is missing; a fault if another process owns it."""
    # As root, the database's user must be able to pass; it can list and read nothing here.
    data.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            raise StartFault(f"Tokenworks is already running on {data} (process {owner or 'unknown'})") from fault
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def secret(data: Path, name: str) -> str:
    """The secret kept in `<data>/secrets/<name>`; made at the first call. The caller owns the data folder."""
    folder = data / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / name
    if not file.exists():
        _replace(file, ids.secret("tw") + "\n")
    return file.read_text(encoding="utf-8").strip()


def gateway_name(data: Path) -> str:
    """What this machine's workers are called if no setting says so; made at the first call, the same ever after."""
    file = data / "gateway-name"
    if not file.exists():
        _replace(file, f"gw-{ids.new('')[-6:]}\n")
    return file.read_text(encoding="utf-8").strip()


def announce(data: Path, running: Running) -> None:
    """Write `<data>/run/up.json` in one step."""
    (data / "run").mkdir(mode=0o700, exist_ok=True)
    _replace(_state_file(data), msgspec.json.format(msgspec.json.encode(running)).decode() + "\n")


def withdraw(data: Path) -> None:
    """Remove `<data>/run/up.json`."""
    _state_file(data).unlink(missing_ok=True)


def running_on(data: Path) -> Running | None:
    """The system that runs on this folder now; None if there is none, also when one was killed without a goodbye."""
    try:
        running = msgspec.json.decode(_state_file(data).read_bytes(), type=Running)
    except FileNotFoundError:
        return None
    return running if _is_owned(data) else None


def started_on(data: Path) -> Running:
    """What runs on this data folder; a fault where the system that was just started there is gone."""
    running = running_on(data)
    if running is None:
        raise StartFault("The system ended right after its start.")
    return running


def without_secrets(settings: Settings) -> dict[str, str | int | bool]:
    """All settings by name; secret ones are left out, passwords in URLs too."""
    values: dict[str, str | int | bool] = msgspec.to_builtins(settings)
    for name in _SECRET_SETTINGS:
        del values[name]
    return values | {name: without_password(str(values[name])) for name in ("database_url", "nats_url")}


def without_password(url: str) -> str:
    """`postgresql://me:secret@host/db` → `postgresql://me@host/db`."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}@{place}").geturl()


def _is_owned(data: Path) -> bool:
    with (data / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _state_file(data: Path) -> Path:
    return data / "run" / "up.json"


def _replace(file: Path, text: str) -> None:
    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)
