"""Seals: every writing transaction adds one link to a chain of digests over all rows that it added.

A stream (`lease`, `meter`, `shop`, …) is one chain. The transaction locks the stream's head first, so that `seq` is
the order of commits within the stream and `{stream: seq}` is a consistent cut. Columns are listed explicitly and the
same expression serves writing and verifying: a column added later changes no digest. A row carries its stream and seq
through column defaults that read two settings of the transaction, so a row cannot be added unsealed by oversight.

What this cannot find is somebody who rewrites the end of a chain completely; for that a digest must be kept elsewhere.
"""

import hashlib

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

Connection = AsyncConnection[TupleRow]

GENESIS = ""


class SealedTable(msgspec.Struct, frozen=True):
    """A table whose rows are never edited: the columns under seal, and those that order its rows.

    Mutable caches and `stream` and `seq` themselves are not listed: a row moved to another seal breaks both.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


class Head(msgspec.Struct, frozen=True):
    """The link that the transaction adds to: `seq` is the new one, `previous` the digest before it."""

    stream: str
    seq: int
    previous: str


async def begin(conn: Connection, stream: str) -> Head:
    """Lock the stream's head for the rest of the transaction and let added rows take its next seq."""
    row = await _locked_head(conn, stream)
    if row is None:
        await conn.execute(
            "INSERT INTO seal_stream (stream, seq, digest) VALUES (%s, 0, %s) ON CONFLICT DO NOTHING", (stream, GENESIS)
        )
        row = await _locked_head(conn, stream)
    if row is None:
        raise LookupError(f"the stream {stream} has no head")
    head = Head(stream, int(row[0]) + 1, str(row[1]))
    await conn.execute(
        "SELECT set_config('tokenworks.stream', %s, true), set_config('tokenworks.seq', %s, true)",
        (stream, str(head.seq)),
    )
    return head


async def end(conn: Connection, head: Head, at_ns: int, tables: tuple[SealedTable, ...]) -> None:
    """Seal what the transaction added to these tables; if it added nothing there is nothing to seal."""
    parts = await _parts(conn, head, tables)
    if not parts:
        return
    sealed = digest(head, at_ns, parts)
    await conn.execute(
        "INSERT INTO seal (stream, seq, previous, digest, at_ns) VALUES (%s, %s, %s, %s, %s)",
        (head.stream, head.seq, head.previous, sealed, at_ns),
    )
    await conn.execute(
        "UPDATE seal_stream SET seq = %s, digest = %s WHERE stream = %s", (head.seq, sealed, head.stream)
    )


def digest(head: Head, at_ns: int, parts: dict[str, str]) -> str:
    """The digest of one link: the one before, its place and time, and each table's digest by table name."""
    lines = [
        head.previous,
        head.stream,
        str(head.seq),
        str(at_ns),
        *(f"{name} {parts[name]}" for name in sorted(parts)),
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def rows_digest(table: SealedTable) -> str:
    """The SQL aggregate over a table's rows. A row's text quotes its values, so two different rows never look alike."""
    row = f"ROW({', '.join(table.columns)})::text"
    joined = f"string_agg({row}, E'\\n' ORDER BY {', '.join(table.key)})"
    return f"encode(sha256(convert_to({joined}, 'UTF8')), 'hex')"


async def _locked_head(conn: Connection, stream: str) -> TupleRow | None:
    cursor = await conn.execute("SELECT seq, digest FROM seal_stream WHERE stream = %s FOR UPDATE", (stream,))
    return await cursor.fetchone()


async def _parts(conn: Connection, head: Head, tables: tuple[SealedTable, ...]) -> dict[str, str]:
    """Digests of the added rows, by table; a table without any is left out."""
    selects = [
        f"SELECT '{table.name}', {rows_digest(table)} FROM {table.name}"  # noqa: S608 - names from the registry
        f" WHERE stream = %(stream)s AND seq = %(seq)s HAVING count(*) > 0"
        for table in tables
    ]
    cursor = await conn.execute(" UNION ALL ".join(selects).encode(), {"stream": head.stream, "seq": head.seq})
    return {str(name): str(part) for name, part in await cursor.fetchall()}
