"""The unprivileged user that PostgreSQL runs as when Tokenworks itself runs as root, which PostgreSQL refuses.

As an ordinary user nothing here has an effect. As root, one system user is created once, and folders on the way
to the database are made traversable for it where they are not; nothing becomes readable or writable.
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from tokenworks.base import log
from tokenworks.base.processes import Account, StartFault

NAME = "tokenworks"

_log = log.get(__name__)


def account_for(folder: Path) -> Account | None:
    """Who runs the server whose files are in `folder`: its owner, else the system user; None means ourselves."""
    if os.geteuid() != 0:
        return None
    if folder.exists() and (owner := folder.stat().st_uid) != 0:
        return _account(pwd.getpwuid(owner))
    try:
        return _account(pwd.getpwnam(NAME))
    except KeyError:
        _create()
        return _account(pwd.getpwnam(NAME))


def own_folder(folder: Path, account: Account | None) -> None:
    """Create a folder only its user can enter, if it is missing; somebody else's folder is a fault."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = account.uid if account else os.geteuid()
    found = folder.lstat().st_uid
    if account and found == 0:
        os.chown(folder, account.uid, account.gid)
    elif found != owner:
        raise StartFault(
            f"{folder} belongs to another user (id {found}); run as that user or choose another data folder"
        )


def open_the_way(target: Path, account: Account | None) -> None:
    """Let the user pass through the folders above `target`."""
    if account is None:
        return
    for folder in {*target.absolute().parents, *target.resolve().parents}:
        mode = folder.stat().st_mode
        if not mode & 0o001 and folder.stat().st_uid != account.uid:
            folder.chmod((mode & 0o7777) | 0o001)
            _log.warning(
                "made a folder passable for the database's user", extra={"folder": folder, "user": account.name}
            )


def _create() -> None:
    tool = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if tool is None:
        raise StartFault("PostgreSQL does not run as root and there is no useradd; run Tokenworks as an ordinary user")
    argv = [tool, "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", NAME]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    already_there = 9
    if done.returncode not in (0, already_there):
        raise StartFault(f"the system user {NAME!r} for PostgreSQL could not be created: {done.stderr.strip()}")


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
