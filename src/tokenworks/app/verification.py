"""All checks of the books together, on a running system, a stopped data folder, or a database by URL; read-only.

What must hold is said by the rooms that own the tables; this module only finds the database and asks each of them.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from psycopg import IsolationLevel

from tokenworks.access import sealed as access_sealed
from tokenworks.app import claim
from tokenworks.app.services import services
from tokenworks.base import clock, database
from tokenworks.base.config import Settings
from tokenworks.ledger import tables as ledger_tables
from tokenworks.ledger import verify as ledger_verify
from tokenworks.ledger import verify_corrections
from tokenworks.ledger.seal import Connection
from tokenworks.ledger.seal_check import seal_checks
from tokenworks.ledger.verify import Check
from tokenworks.meter import lake_verify
from tokenworks.meter import tables as meter_tables
from tokenworks.meter import verify as meter_verify
from tokenworks.shop import sealed as shop_sealed
from tokenworks.shop import verify as shop_verify
from tokenworks.supply import sealed as supply_sealed

SEALED = (
    *ledger_tables.SEALED,
    *ledger_tables.CORRECTIONS,
    *meter_tables.SEALED,
    *meter_tables.LAKE,
    *access_sealed.SEALED,
    *supply_sealed.SEALED,
    *shop_sealed.SEALED,
)
"""Every sealed table of every room: a seal covers whatever its transaction added, wherever."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All checks of one moment. `database` is the URL without its password."""

    ok: bool
    database: str
    checked_at: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """What does not hold, and why."""
        return failed(self.checks)


def failed(checks: Iterable[Check]) -> tuple[str, ...]:
    """Checks that do not hold, each with its reason."""
    return tuple([f"{check.name}: {check.detail}" for check in checks if not check.ok])


class NothingToVerify(Exception):
    """There is no database of Tokenworks where one was looked for; the text is one sentence."""


async def _seals(connection: Connection) -> list[Check]:
    return await seal_checks(connection, SEALED)


# Checks go through whole tables. Where these have grown since the database last counted their rows, it would expect few
# and go through the one table for each row of the other: minutes instead of seconds.
_WHOLE_TABLES = "SELECT set_config('enable_nestloop', 'off', true), set_config('work_mem', '64MB', true)"

CHECKS = (
    *(ledger_verify.checks, verify_corrections.checks, meter_verify.checks, lake_verify.checks, shop_verify.checks),
    _seals,
)
"""Every check of every room, to be run one after another in one REPEATABLE READ transaction."""


async def of_database(url: str, lake: Path | None = None) -> Report:
    """Check a database that can be reached, and the files of its usage lake if the folder is given."""
    revision, newest = await database.check(url), database.newest_revision()
    if revision != newest:
        raise NothingToVerify(
            f"The database at {database.shown(url)} has schema {revision or 'none'}, this program checks {newest}."
        )
    async with await Connection.connect(url) as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        await connection.execute(_WHOLE_TABLES)
        found = [check for checks in CHECKS for check in await checks(connection)]
        if lake is not None:
            found += await lake_verify.file_checks(connection, lake)
    return Report(
        ok=all(check.ok for check in found),
        database=database.shown(url),
        checked_at=clock.iso(clock.wall_ns()),
        checks=tuple(found),
    )


async def of_data_folder(settings: Settings) -> Report:
    """Check a data folder: through its running system, or with its database started for as long as it takes."""
    if settings.database_url:
        return await of_database(settings.database_url, settings.lake)
    running = claim.running_on(settings.data)
    if running and "database" in running.addresses:
        return await of_database(running.addresses["database"], settings.lake)
    if not (settings.data / "postgres").is_dir():
        raise NothingToVerify(f"There is no database of Tokenworks in {settings.data}.")
    async with services(settings, bus=False) as ready:
        return await of_database(ready.database_url, settings.lake)
