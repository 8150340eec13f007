"""A backup of a database alone, and a restore that keeps what was there until it has succeeded."""

from pathlib import Path

import pytest
from msgspec.structs import replace
from psycopg import AsyncConnection

from tokenworks.app import backups
from tokenworks.app.services import services
from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.base.postgres_backup import BackupFault


async def noted(url: str, *texts: str) -> list[str]:
    """What is noted in the database, with these added."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS note (text text)")
        for text in texts:
            await connection.execute("INSERT INTO note VALUES (%s)", (text,))
        return [str(row[0]) for row in await (await connection.execute("SELECT text FROM note")).fetchall()]


async def test_back_and_what_was_before_is_kept(scratch: Path) -> None:
    settings = Settings(data_dir=str(scratch / "backed up"), backup_dir=str(scratch / "it's 100 % safe"))
    told: list[str] = []
    async with services(settings, bus=False, durable=False) as running:
        await noted(running.database_url, "kept")
    taken = await backups.take(settings, None, told.append)
    assert "Nothing runs on this data folder" in told[0]
    assert backups.listed(settings, None) == [taken]
    async with services(settings, bus=False, durable=False) as running:
        assert await noted(running.database_url, "lost") == ["kept", "lost"]
        with pytest.raises(Exception, match="already running"):
            await backups.restore(settings, "latest", None, told.append)
    later = clock.iso(clock.wall_ns() + 3_600 * clock.SECOND)
    with pytest.raises(BackupFault, match="ends before that time"):
        await backups.restore(settings, later, None, told.append)
    assert backups.why(settings) == "failover"
    async with services(settings, bus=False, durable=False) as running:
        assert await noted(running.database_url) == ["kept", "lost"], "nothing was changed"
    aside = await backups.restore(settings, "latest", None, told.append)
    assert aside is not None
    assert (aside / "PG_VERSION").exists()
    assert not (settings.data / "postgres" / "recovery.signal").exists()
    assert backups.why(settings) == "restore"
    async with services(settings, bus=False, durable=False) as running:
        assert await noted(running.database_url) == ["kept"], "without a log there is only the copy"
    backups.begun(settings)
    assert backups.why(settings) == "failover"
    (settings.backups / taken.name / "PG_VERSION").write_text("17\n")
    with pytest.raises(BackupFault, match="PG_VERSION has another content"):
        await backups.restore(settings, "latest", None, told.append)


async def test_what_cannot_be_backed_up_or_restored_is_said(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path))
    for call in (backups.take(settings, None, print), backups.restore(settings, "latest", None, print)):
        with pytest.raises(BackupFault, match="there is no"):
            await call
    with pytest.raises(BackupFault, match="no time"):
        await backups.restore(settings, "yesterday", None, print)
    external = replace(settings, database_url="postgresql://there/x")
    for call in (backups.take(external, None, print), backups.restore(external, "latest", None, print)):
        with pytest.raises(BackupFault, match="not the embedded one"):
            await call
