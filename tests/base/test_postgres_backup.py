"""Which backups and which log stay, and what is noticed about a copy that is not whole."""

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from tokenworks.base import postgres_manifest
from tokenworks.base.postgres_backup import Backup, listed, prune, segment_of


@pytest.mark.parametrize(
    ("lsn", "name"),
    [
        ("0/2000028", "0000000000000002"),
        ("0/FFFFFFFF", "00000000000000FF"),
        ("1A/0", "0000001A00000000"),
        ("A/1000000", "0000000A00000001"),
    ],
)
def test_a_position_is_in_a_segment(lsn: str, name: str) -> None:
    assert segment_of(lsn) == name


def backup(folder: Path, ended_at_ns: int, segment: int) -> str:
    name = f"base-{ended_at_ns}"
    (folder / name).mkdir()
    made = Backup(
        name=name,
        started_at_ns=ended_at_ns - 1,
        ended_at_ns=ended_at_ns,
        timeline=1,
        wal_from=f"{0:08X}{segment:08X}",
        bytes=5,
    )
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(made))
    return name


def log_of(folder: Path, timeline: int, *segments: int) -> None:
    place = folder / f"wal-{timeline:08X}"
    place.mkdir()
    for segment in segments:
        (place / f"{timeline:08X}{0:08X}{segment:08X}").touch()
    (place / f"{timeline:08X}.history").touch()


def left(folder: Path) -> list[int]:
    return sorted(int(path.name[16:24], 16) for path in folder.glob("wal-*/*") if path.suffix != ".history")


def test_what_no_moment_needs_any_more_is_removed(tmp_path: Path) -> None:
    names = [backup(tmp_path, ended, segment) for ended, segment in ((10, 2), (20, 5), (30, 8), (40, 9))]
    log_of(tmp_path, 1, 2, 3, 4, 5, 6)
    log_of(tmp_path, 2, 6, 7, 8, 9)
    (tmp_path / "base-50.unfinished").mkdir()
    assert prune(tmp_path, needed_from_ns=9) == []
    assert left(tmp_path) == [2, 3, 4, 5, 6, 6, 7, 8, 9]
    removed = prune(tmp_path, needed_from_ns=25)
    assert [each.name for each in removed] == names[:1]
    assert [each.name for each in listed(tmp_path)] == names[1:], "from the second one gets to 25"
    assert left(tmp_path) == [5, 6, 6, 7, 8, 9]
    assert prune(tmp_path, needed_from_ns=100) != []
    assert [each.name for each in listed(tmp_path)] == names[3:], "the newest stays, however old"
    assert left(tmp_path) == [9]
    assert sorted(path.name for path in tmp_path.glob("wal-*/*.history")) == ["00000001.history", "00000002.history"]
    assert not (tmp_path / "base-50.unfinished").exists()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Files with the manifest that PostgreSQL writes about them."""
    files = {"PG_VERSION": b"18\n", "base/1/112": b"rows", "global/pg_control": b"control"}
    entries: list[dict[str, object]] = []
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        entries.append({"Path": path, "Size": len(content), "Checksum-Algorithm": "SHA256", "Checksum": digest})
    (tmp_path / "pg_wal").mkdir()
    (tmp_path / "pg_wal" / "000000010000000000000002").write_bytes(b"log")
    ranges = [{"Timeline": 3, "Start-LSN": "0/2000028", "End-LSN": "0/2000120"}]
    text = json.dumps({"Files": entries, "WAL-Ranges": ranges})[:-1] + ",\n"
    own = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "backup_manifest").write_text(f'{text}"Manifest-Checksum": "{own}"}}\n')
    return tmp_path


def test_a_whole_copy(copy: Path) -> None:
    assert postgres_manifest.wrong(copy) == []
    assert (postgres_manifest.wal_of(copy).timeline, postgres_manifest.wal_of(copy).start) == (3, "0/2000028")


def test_what_is_noticed(copy: Path) -> None:
    (copy / "PG_VERSION").unlink()
    (copy / "base/1/112").write_bytes(b"rowz")
    (copy / "global/pg_control").write_bytes(b"")
    (copy / "base/1/113").touch()
    assert postgres_manifest.wrong(copy) == [
        "PG_VERSION is missing",
        "base/1/112 has another content",
        "global/pg_control has another size",
        "base/1/113 was added",
    ]
    manifest = copy / "backup_manifest"
    manifest.write_text(manifest.read_text().replace('"Size": 3', '"Size": 4'))
    assert postgres_manifest.wrong(copy) == ["backup_manifest was changed"]
    manifest.write_text("{")
    assert "cannot be read" in postgres_manifest.wrong(copy)[0]
