"""What every measurement says of its conditions: the machine, the programs, and that nothing of the database is off."""

import os
import platform
from pathlib import Path

import msgspec

import tokenworks
from tokenworks.base.database import Pool
from tokenworks.bench import machine

_PERSISTENCE = ("fsync", "synchronous_commit", "full_page_writes", "server_version")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the programs. `fdatasync_us`: how long the disk takes to make four kilobytes safe."""

    database: dict[str, str]
    fdatasync_us: int
    cores: int
    processor: str
    python: str
    tokenworks: str


async def of_machine(folder: Path, pool: Pool) -> Machine:
    """What is found out in the folder of the measured system, and of its database."""
    return Machine(
        database=await of_database(pool),
        fdatasync_us=machine.fdatasync_us(folder),
        cores=os.cpu_count() or 1,
        processor=machine.processor(),
        python=platform.python_version(),
        tokenworks=tokenworks.__version__,
    )


async def of_database(pool: Pool) -> dict[str, str]:
    """The settings that decide whether what was committed is on disk, and the version."""
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", (list(_PERSISTENCE),)
        )
        return {str(name): str(value) for name, value in await cursor.fetchall()}
