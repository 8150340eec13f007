"""Ledger epochs: spans of the ledger's life in which no commit is lost.

A failover or a restore may lose the newest commits, among them grants of leases that workers go on spending from. So
a new epoch begins, and until it is settled nothing is granted, expired or reclaimed: first the workers ship their
journals again, which registers lost leases and posts lost usage. The epoch is settled when every site of gateways that
the ledger knows has shipped all it has, when nobody may come any more, or when an operator says so.

A new database is noticed by its system identifier and its WAL timeline. An epoch is named by the millisecond it began
in, so that no restored ledger gives a name again that a lost one gave.
"""

from typing import Literal

import msgspec

from tokenworks.base.clock import MS
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.core.leasing import first_lease_id
from tokenworks.core.refusals import Code, Refusal
from tokenworks.ledger import registration
from tokenworks.ledger.faults import EpochUnknown
from tokenworks.ledger.seal import Connection
from tokenworks.ledger.store import transaction

STREAM = "epoch"
Why = Literal["created", "failover", "restore"]
How = Literal["created", "shipped", "deadline", "operator"]

_RETRY_AFTER_MS = 5_000

_DATABASE = """
    SELECT system_identifier::text AS cluster, left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline
    FROM pg_control_system()
"""
_COLUMNS = "e.epoch, e.timeline, e.why, e.started_at_ns, e.settle_until_ns, s.how, s.settled_at_ns"
_NOW = f"""
    SELECT {_COLUMNS}, (e.cluster, e.timeline) = (d.cluster, d.timeline)
    FROM ledger_epoch e JOIN ({_DATABASE}) d ON true LEFT JOIN ledger_epoch_end s USING (epoch)
    ORDER BY e.epoch DESC LIMIT 1
"""  # noqa: S608 - texts of ours


class Epoch(msgspec.Struct, frozen=True):
    """One epoch. `settle_until_ns` is when it is settled at the latest, if metering can be reached all the time."""

    epoch: int
    timeline: str
    why: Why
    started_at_ns: int
    settle_until_ns: int
    how: How | None
    settled_at_ns: int | None

    @property
    def is_settled(self) -> bool:
        """Whether leases may be granted."""
        return self.how is not None


async def current(conn: Connection) -> Epoch | None:
    """The newest epoch; None where none was ever opened. Raises `EpochUnknown` on a database it was not opened on."""
    row = await (await conn.execute(_NOW.encode())).fetchone()
    if row is None:
        return None
    if not row[7]:
        raise EpochUnknown
    return Epoch(*row[:7])


async def number(conn: Connection) -> int:
    """The newest epoch's name; 0 where none was ever opened."""
    epoch = await current(conn)
    return epoch.epoch if epoch else 0


async def refusal(conn: Connection, *, standby_required: bool) -> Refusal | None:
    """Why no lease may be granted now, if so."""
    epoch = await current(conn)
    if epoch is not None and not epoch.is_settled:
        text = f"After a {epoch.why} the ledger waits for what its gateways have in their journals. Retry shortly."
        return Refusal(Code.LEASE_UNAVAILABLE, text, retry_after_ms=_RETRY_AFTER_MS)
    if standby_required and not await _has_standby(conn):
        text = "No synchronous standby of the ledger's database is attached; nothing is reserved until one is."
        return Refusal(Code.LEASE_UNAVAILABLE, text, retry_after_ms=_RETRY_AFTER_MS)
    return None


async def epochs(conn: Connection) -> list[Epoch]:
    """All epochs, newest first."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM ledger_epoch e LEFT JOIN ledger_epoch_end s USING (epoch) ORDER BY epoch DESC".encode()  # noqa: S608
    )
    return [Epoch(*row) for row in await cursor.fetchall()]


async def sites(conn: Connection, epoch: int) -> list[str]:
    """Which sites have shipped everything in an epoch."""
    cursor = await conn.execute("SELECT site_id FROM ledger_epoch_site WHERE epoch = %s ORDER BY site_id", (epoch,))
    return [str(row[0]) for row in await cursor.fetchall()]


class Epochs:
    """Opens and settles epochs; one of it runs, in the office."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._earliest_ns = settings.bus_timeout_ms * MS
        self._latest_ns = (settings.lease_use_ms + settings.request_longest_ms + settings.lease_grace_ms) * MS

    @property
    def latest_ns(self) -> int:
        """After so much time in which journals could be shipped nothing old can come any more."""
        return self._latest_ns

    async def notice(self, now_ns: int, why: Why = "failover") -> Epoch | None:
        """Open an epoch if this database has none of its own; `why` unless it is the ledger's first. The new one."""
        async with self._pool.connection() as conn:
            try:
                if await current(conn) is not None:
                    return None
            except EpochUnknown:
                return await self.begin(now_ns, why)
        return await self.begin(now_ns, "restore" if why == "restore" else "created")

    async def begin(self, now_ns: int, why: Why) -> Epoch:
        """Open an epoch; the ledger's first is settled, for nothing can have been lost before it."""
        async with transaction(self._pool, STREAM, now_ns) as conn:
            row = await (await conn.execute("SELECT max(epoch) FROM ledger_epoch")).fetchone()
            before = row[0] if row and row[0] is not None else 0
            epoch = max(now_ns // MS, before + 1)
            await conn.execute(
                f"""
                INSERT INTO ledger_epoch (epoch, cluster, timeline, why, started_at_ns, settle_until_ns)
                SELECT %s, cluster, timeline, %s, %s, %s FROM ({_DATABASE}) d
                """.encode(),  # noqa: S608
                (epoch, why, now_ns, now_ns + self._latest_ns),
            )
            await conn.execute(
                """
                SELECT setval(ids, greatest(%s, nextval(ids))) FROM pg_get_serial_sequence('lease', 'id') AS ids
                WHERE %s <> 'created'
                """,
                (first_lease_id(epoch), why),
            )
            if why == "created":
                await _end(conn, epoch, "created", now_ns)
            opened = await current(conn)
        if opened is None:
            raise EpochUnknown
        return opened

    async def site_shipped(self, epoch: int, site_id: str, now_ns: int) -> None:
        """All journals of this site are posted in this epoch. Saying it again changes nothing."""
        async with transaction(self._pool, STREAM, now_ns) as conn:
            await conn.execute(
                """
                INSERT INTO ledger_epoch_site (epoch, site_id, shipped_at_ns)
                SELECT epoch, %s, %s FROM ledger_epoch WHERE epoch = %s ON CONFLICT DO NOTHING
                """,
                (site_id, now_ns, epoch),
            )

    async def settle_due(self, now_ns: int, *, is_late: bool) -> Epoch | None:
        """Settle the epoch if all known sites have shipped, or if it `is_late`; the epoch if that was done.

        A grant may still be on its way to a worker when its ledger is lost: an answer's time is waited at least.
        """
        async with transaction(self._pool, STREAM, now_ns) as conn:
            epoch = await current(conn)
            if epoch is None or epoch.is_settled:
                return None
            if now_ns - epoch.started_at_ns >= self._earliest_ns and await _have_shipped(conn, epoch.epoch):
                return await _end(conn, epoch.epoch, "shipped", now_ns)
            if is_late:
                return await _end(conn, epoch.epoch, "deadline", now_ns)
            return None

    async def settle(self, now_ns: int) -> Epoch | None:
        """An operator knows that no journal comes any more; the epoch, or None if it was settled before."""
        async with transaction(self._pool, STREAM, now_ns) as conn:
            epoch = await current(conn)
            if epoch is None or epoch.is_settled:
                return None
            return await _end(conn, epoch.epoch, "operator", now_ns)


async def is_settled(pool: Pool) -> bool:
    """Whether the books of this database may go on as usual."""
    async with pool.connection() as conn:
        epoch = await current(conn)
    return epoch is None or epoch.is_settled


async def _end(conn: Connection, epoch: int, how: How, now_ns: int) -> Epoch | None:
    await registration.hold_open(conn, epoch, now_ns)
    await conn.execute(
        "INSERT INTO ledger_epoch_end (epoch, how, settled_at_ns) VALUES (%s, %s, %s)", (epoch, how, now_ns)
    )
    return await current(conn)


async def _have_shipped(conn: Connection, epoch: int) -> bool:
    """Whether every site that ever reported has reported in this epoch, and at least one has."""
    row = await (
        await conn.execute(
            """
            SELECT bool_and(EXISTS (SELECT FROM ledger_epoch_site n WHERE (n.epoch, n.site_id) = (%s, k.site_id)))
            FROM (SELECT DISTINCT site_id FROM ledger_epoch_site) k
            """,
            (epoch,),
        )
    ).fetchone()
    return row is not None and row[0] is True


async def _has_standby(conn: Connection) -> bool:
    """Needs to see the state of others: a superuser, or a member of `pg_monitor`."""
    row = await (
        await conn.execute("SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))")
    ).fetchone()
    return row is not None and row[0] is True
