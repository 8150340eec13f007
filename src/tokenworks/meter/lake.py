"""The usage lake: every usage record once in Parquet files, for programs that count over years.

An export takes the records of the seals since the last one and writes one file for each day on which their requests
were opened, so that late records are a further file of their day and no record is in two. A file counts once the table
`lake_file` names it: it is written unfinished, named under seal, and renamed then; whatever breaks off in between is
made good by the next export. A file that nothing names, after a restore of the database for example, is set aside.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from tokenworks.base import atomic
from tokenworks.base.database import Pool
from tokenworks.ledger.seal import Connection
from tokenworks.ledger.store import transaction
from tokenworks.meter import lake_files
from tokenworks.meter.lake_files import COLUMNS, WORK, LakeFault, LakeFile, Sums
from tokenworks.meter.partitions import OPENED_ON
from tokenworks.meter.tables import LAKE, STREAM, first_id
from tokenworks.meter.usage import seal_through

LAKE_STREAM = "lake"
# How many records one export takes, more or less: the records of a seal stay together.
RECORDS_AT_ONCE = 500_000
_ONE_AT_A_TIME = 5_494_371_069  # any fixed number: the key of the advisory lock that exports share


class Range(msgspec.Struct, frozen=True):
    """Seals of metering from one to another, both included."""

    from_seq: int
    through_seq: int


async def export(pool: Pool, folder: Path, now_ns: int, *, records_at_once: int = RECORDS_AT_ONCE) -> list[LakeFile]:
    """Export what was sealed since the last time; gives the new files. Raises `LakeFault` if it cannot be written."""
    made: list[LakeFile] = []
    while new := await _export_once(pool, folder, now_ns, records_at_once):
        made += new
    return made


async def export_due(pool: Pool, folder: Path, interval_ms: int, now_ns: int) -> list[LakeFile]:
    """Export if records were sealed in an earlier interval than the present one; an interval of 0 never exports."""
    interval_ns = interval_ms * 1_000_000
    if not interval_ns:
        return []
    async with pool.connection() as conn:
        cursor = await conn.execute(
            """SELECT min(at_ns) FROM seal WHERE stream = %s
                   AND seq = (SELECT coalesce(max(through_seq), 0) + 1 FROM lake_export)""",
            (STREAM,),
        )
        row = await cursor.fetchone()
    if row is None or row[0] is None or int(row[0]) // interval_ns >= now_ns // interval_ns:
        return []
    return await export(pool, folder, now_ns)


async def files(conn: Connection) -> list[LakeFile]:
    """The files that count, oldest day first."""
    cursor = await conn.execute(
        """SELECT path, day, from_seq, through_seq, records, tokens, charged, revenue, cost FROM lake_file
           ORDER BY day, from_seq"""
    )
    return [
        LakeFile(row[0], row[1], row[2], row[3], Sums(*(int(number) for number in row[4:])))
        for row in await cursor.fetchall()
    ]


async def _export_once(pool: Pool, folder: Path, now_ns: int, records_at_once: int) -> list[LakeFile]:
    async with _reading(pool) as conn:
        if conn is None:
            return []
        with _told(folder):
            await asyncio.to_thread((folder / WORK).mkdir, parents=True, exist_ok=True)
            await _make_good(conn, folder)
            span = await _next(conn, records_at_once)
            if span is None:
                return []
            made = await _write(conn, folder, span)
            await _name(pool, span, made, now_ns)
            for file in made:
                await asyncio.to_thread(atomic.put, lake_files.unfinished(folder, file.path), folder / file.path)
            async with pool.connection() as fresh:
                await asyncio.to_thread(lake_files.write_manifest, folder, await files(fresh))
    return made


@asynccontextmanager
async def _reading(pool: Pool) -> AsyncGenerator[Connection | None]:
    """One snapshot, and the only export under way; None if another one is."""
    async with pool.connection() as conn:
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor = await conn.execute("SELECT pg_try_advisory_xact_lock(%s)", (_ONE_AT_A_TIME,))
        row = await cursor.fetchone()
        yield conn if row and row[0] else None


async def _next(conn: Connection, records_at_once: int) -> Range | None:
    """The seals to export now."""
    cursor = await conn.execute(
        """SELECT (SELECT coalesce(max(through_seq), 0) FROM lake_export),
               (SELECT coalesce(max(seq), 0) FROM seal_stream WHERE stream = %s)""",
        (STREAM,),
    )
    row = await cursor.fetchone()
    done, head = (int(row[0]), int(row[1])) if row else (0, 0)
    if head <= done:
        return None
    return Range(done + 1, await seal_through(conn, done, head, records_at_once))


async def _write(conn: Connection, folder: Path, span: Range, day: str | None = None) -> list[LakeFile]:
    """Unfinished files of these seals, of all days or of one."""
    rows = folder / WORK / "records.csv"
    try:
        with rows.open("wb") as out:
            async with conn.cursor() as cursor, cursor.copy(_copy(span, day).encode()) as copy:
                async for piece in copy:
                    await asyncio.to_thread(out.write, piece)
        return await asyncio.to_thread(lake_files.write, folder, rows, span.from_seq, span.through_seq)
    finally:
        await asyncio.to_thread(rows.unlink, missing_ok=True)


async def _name(pool: Pool, span: Range, made: list[LakeFile], now_ns: int) -> None:
    async with transaction(pool, LAKE_STREAM, now_ns, LAKE) as conn:
        await conn.execute(
            "INSERT INTO lake_export (from_seq, through_seq, at_ns) VALUES (%s, %s, %s)",
            (span.from_seq, span.through_seq, now_ns),
        )
        async with conn.cursor() as cursor:
            await cursor.executemany(
                """INSERT INTO lake_file (path, day, from_seq, through_seq, records, tokens, charged, revenue, cost)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)""",
                [
                    (file.path, file.day, file.from_seq, file.through_seq, *msgspec.structs.astuple(file.sums))
                    for file in made
                ],
            )


async def _make_good(conn: Connection, folder: Path) -> None:
    """Finish what was broken off, write again what is gone, and set aside what nothing names."""
    named = {file.path: file for file in await files(conn)}
    for file in named.values():
        if (folder / file.path).exists():
            continue
        beside = lake_files.unfinished(folder, file.path)
        if not beside.exists() or await asyncio.to_thread(lake_files.differs, folder, beside, file):
            await _write(conn, folder, Range(file.from_seq, file.through_seq), file.day)
        await asyncio.to_thread(atomic.put, beside, folder / file.path)
    await asyncio.to_thread(lake_files.clear, folder, named.keys())


def _copy(span: Range, day: str | None) -> str:
    within = f"r.id >= {first_id(span.from_seq)} AND r.id < {first_id(span.through_seq + 1)}"
    if day is not None:
        within += f" AND {_EXPRESSIONS['day']} = DATE '{day}'"
    columns = ", ".join(_EXPRESSIONS.get(name, f"r.{name}") for name in COLUMNS)
    return f"COPY (SELECT {columns} FROM usage_record r WHERE {within}) TO STDOUT (FORMAT csv, NULL '\\N')"  # noqa: S608


@contextmanager
def _told(folder: Path) -> Generator[None]:
    """Turn what a disk can do to an export into one sentence."""
    import duckdb  # noqa: PLC0415 - large; only those who use the lake wait for it

    try:
        yield
    except (OSError, duckdb.Error) as fault:
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault).partition("\n")[0]
        raise LakeFault(
            f"The usage lake in {folder} cannot be written: {reason}. Nothing is lost: the records are in the database"
            " and are exported when it can be written again."
        ) from fault


def _lines(name: str, amounts: tuple[str, ...]) -> str:
    """Lines as JSON whose amounts are text: numbers of JSON do not keep all their digits everywhere."""
    exact = ", ".join(f"'{each}', l.{each}::text" for each in amounts)
    return f"""(SELECT coalesce(jsonb_agg(to_jsonb(l) || jsonb_build_object({exact}) ORDER BY l.ordinality), '[]')
        FROM unnest(r.{name}) WITH ORDINALITY l)"""  # noqa: S608 - names of ours


_EXPRESSIONS = {
    "day": OPENED_ON,
    "counted": "to_json(r.counted)",
    "reported": "to_json(r.reported)",
    "flags": "to_json(r.flags)",
    "charges": _lines("charges", ("amount", "revenue")),
    "attempts": _lines("attempts", ("cost",)),
}
