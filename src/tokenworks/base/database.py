"""PostgreSQL for the rooms that own tables: a pool of connections, and migrations to the newest schema.

SQL is written in those rooms; this module knows none of their tables. Only the embedded or the operator's
PostgreSQL from version 14 on is supported, in tests too.
"""

import logging
import select
from importlib.resources import files
from pathlib import Path

import psycopg
from psycopg import AsyncConnection, conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from psycopg_pool.base import AttemptWithBackoff

from tokenworks.base import log

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]

_CONNECT_TIMEOUT_S = 5
_VERSION_LEAST = 140000
# Whoever asks over the bus waits for five seconds: it is to hear of a database that is away before it gives up.
_WAIT_S = 4
_TRY_AGAIN_S = 0.05
_TRY_AGAIN_S_MAX = 1.0

_log = log.get(__name__)


class DatabaseFault(Exception):
    """The database cannot be used; the text is one sentence that an operator can act on."""


class _Soon(AttemptWithBackoff):
    """Pauses between attempts to connect: a killed server is back within a second, and the library's begin with one."""

    INITIAL_DELAY = _TRY_AGAIN_S
    DELAY_BACKOFF = 1.5

    def update_delay(self, now: float) -> None:
        """The next pause."""
        super().update_delay(now)
        self.delay = min(self.delay, _TRY_AGAIN_S_MAX)


class _Reconnecting(AsyncConnectionPool[AsyncConnection[TupleRow]]):
    """The library's pool with our pauses, and without connections that a restart of the server has broken.

    The library's own check of connections pauses for seconds when it finds several broken ones in a row.
    """

    async def getconn(self, timeout: float | None = None) -> AsyncConnection[TupleRow]:  # noqa: ASYNC109 - the library's
        """A connection that was not closed by the server."""
        while True:
            connection = await super().getconn(timeout)
            if not _is_broken(connection):
                return connection
            await connection.close()
            await self.putconn(connection)

    async def _add_connection(self, attempt: AttemptWithBackoff | None, growing: bool = False) -> None:
        await super()._add_connection(attempt or _Soon(timeout=self.reconnect_timeout), growing)


async def open_pool(url: str, *, min_size: int = 1, max_size: int = 8) -> Pool:
    """Connections that begin a transaction with their first statement; `async with pool.connection()` commits it.

    A commit is answered when it is durable, on the synchronous standby too if there is one, whatever the server's
    default is. A transaction for which less is enough says so itself.

    Connections that a restart of the server has broken are replaced before anybody gets them. Where the server stays
    away, `psycopg.OperationalError` comes after some seconds.
    """
    await check(url)
    # Each connection of the pool would tell of each attempt; whoever needs the database says that it is away.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    pool = _Reconnecting(
        url, min_size=min_size, max_size=max_size, open=False, timeout=_WAIT_S, configure=_make_durable
    )
    try:
        await pool.open(wait=True, timeout=_CONNECT_TIMEOUT_S)
    except PoolTimeout as fault:
        await pool.close()
        raise DatabaseFault(f"the database at {shown(url)} did not accept {min_size} connections") from fault
    return pool


async def _make_durable(connection: AsyncConnection[TupleRow]) -> None:
    await connection.execute(
        """
        SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
        """
    )
    await connection.commit()


async def check(url: str) -> str:
    """Connect once; gives the revision of the schema, empty if there is none."""
    try:
        async with await AsyncConnection[TupleRow].connect(url, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
            if connection.info.server_version < _VERSION_LEAST:
                raise DatabaseFault(f"the database at {shown(url)} is older than PostgreSQL 14")
            found = await (await connection.execute("SELECT to_regclass('alembic_version')::text")).fetchone()
            if found is None or found[0] is None:
                return ""
            revision = await (await connection.execute("SELECT version_num FROM alembic_version")).fetchone()
            return str(revision[0]) if revision else ""
    except psycopg.Error as fault:
        first_line = str(fault).strip().partition("\n")[0]
        raise DatabaseFault(f"the database at {shown(url)} cannot be used: {first_line}") from fault


async def migrate(url: str) -> bool:
    """Bring the schema to the newest version, in one transaction; True if there was anything to do.

    Alembic takes a second to import, so it is asked only when the schema is not at its newest version.
    """
    revision, newest = await check(url), newest_revision()
    if revision == newest:
        return False
    if revision > newest:
        raise DatabaseFault(f"the database at {shown(url)} has schema {revision}, newer than this program's {newest}")
    _upgrade(url)
    _log.info("migrated the database", extra={"from": revision or "empty", "to": newest})
    return True


def _is_broken(connection: AsyncConnection[TupleRow]) -> bool:
    """A server says nothing on an idle connection, except that it is gone. This looks without asking it."""
    look = select.poll()
    look.register(connection.fileno(), select.POLLIN)
    return bool(look.poll(0))


def newest_revision() -> str:
    """The number that the last file in `migrations/versions` starts with; empty if there is none."""
    names = sorted(path.name for path in (_migrations() / "versions").glob("[0-9]*.py"))
    return names[-1].partition("_")[0] if names else ""


def shown(url: str) -> str:
    """The URL without its password, for messages and logs."""
    try:
        parts = {name: str(value) for name, value in conninfo.conninfo_to_dict(url).items() if name != "password"}
    except psycopg.ProgrammingError:
        return "the configured URL"
    host, port = parts.get("host", "localhost"), parts.get("port", "5432")
    return f"{host}:{port}/{parts.get('dbname', '')}"


def _upgrade(url: str) -> None:
    """Blocks its caller: it runs while a process starts and has nothing else to do."""
    # Alembic's lines about each step, and about its import, would drown the log's own.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic import command  # noqa: PLC0415 - slow to import, see `migrate`
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    config = Config(attributes={"url": url})
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except (psycopg.Error, DBAPIError) as fault:
        first_line = str(fault).strip().partition("\n")[0]
        raise DatabaseFault(f"the database at {shown(url)} cannot be migrated: {first_line}") from fault


def _migrations() -> Path:
    return Path(str(files("tokenworks") / "migrations"))
