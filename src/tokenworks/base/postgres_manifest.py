"""The manifest of a PostgreSQL backup: which part of the log it needs, and whether its files are as they were copied.

Written here because the wheel's own `pg_verifybackup` cannot be relied on: in the version that we use it does not run.
The log inside the backup is not looked at; a restore goes through it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

MANIFEST = "backup_manifest"
# The server's own files that it lists in no manifest: the log, which the archive and a restore look after.
_UNLISTED = ("pg_wal/",)
_END = b'"Manifest-Checksum"'


class WalRange(msgspec.Struct, frozen=True, rename={"timeline": "Timeline", "start": "Start-LSN"}):
    """The part of the log that the files need to be consistent."""

    timeline: int
    start: str


class _File(msgspec.Struct, frozen=True, rename={"path": "Path", "size": "Size", "checksum": "Checksum"}):
    path: str
    size: int
    checksum: str


class _Manifest(
    msgspec.Struct, frozen=True, rename={"files": "Files", "ranges": "WAL-Ranges", "own": "Manifest-Checksum"}
):
    files: tuple[_File, ...]
    ranges: tuple[WalRange, ...]
    own: str


def wal_of(folder: Path) -> WalRange:
    """Where the log must begin."""
    return _read(folder).ranges[0]


def wrong(folder: Path) -> list[str]:
    """What is not as it was copied, a few words each: files missing, of another size or content, or added."""
    try:
        manifest = _read(folder)
    except (OSError, msgspec.DecodeError) as fault:
        return [f"{MANIFEST} cannot be read: {fault}"]
    data = (folder / MANIFEST).read_bytes()
    if hashlib.sha256(data[: data.rindex(b"\n", 0, data.rindex(_END)) + 1]).hexdigest() != manifest.own:
        return [f"{MANIFEST} was changed"]
    listed = {file.path for file in manifest.files}
    added = [path for path in _paths(folder) if path not in listed and not path.startswith(_UNLISTED)]
    return [
        *filter(None, (_differs(folder, file) for file in manifest.files)),
        *(f"{path} was added" for path in added),
    ]


def _read(folder: Path) -> _Manifest:
    return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=_Manifest)


def _differs(folder: Path, file: _File) -> str:
    path = folder / file.path
    if not path.is_file():
        return f"{file.path} is missing"
    if path.stat().st_size != file.size:
        return f"{file.path} has another size"
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return "" if digest == file.checksum else f"{file.path} has another content"


def _paths(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != MANIFEST:
            yield str(path.relative_to(folder))
