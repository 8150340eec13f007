"""Seals: every writing transaction adds one link to a chain of digests over all rows that it added.

A stream (`lease`, `meter`, `shop`, …) is one chain. The transaction locks the stream's head first, so that `seq` is
the order of commits within the stream and `{stream: seq}` is a consistent cut. Columns are listed explicitly and
writing and verifying take the same ones: a column added later changes no digest. A row carries its stream and seq
through column defaults that read two settings of the transaction, so a row cannot be added unsealed by oversight.

The digest of a table is taken in one of two ways. Rows of most tables are hashed by the database when the transaction
ends. Rows of the numerous ones (`copied`) are hashed here while `copy` sends them, as the text that the database would
give of them: they need no index by seal, and the database need not write their text. A row of such a table added in
any other way is found, because no digest knows it.

What this cannot find is somebody who rewrites the end of a chain completely; for that a digest must be kept elsewhere.
"""

import hashlib
from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import Protocol
from weakref import WeakKeyDictionary

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

Connection = AsyncConnection[TupleRow]

GENESIS = ""
# Rows in one piece of a copy: while the database takes one in, the next is made.
_ROWS_AT_ONCE = 256
# So few are inserted: a copy goes to the database and back twice more.
_ROWS_FEW = 8


class SealedTable(msgspec.Struct, frozen=True):
    """A table whose rows are never edited: the columns under seal, and those that order the rows of one seal.

    Mutable caches and `stream` and `seq` themselves are not listed: a row moved to another seal breaks both. `copied`
    tables are written by `copy` only. `follows_seal`: ordering by the key alone keeps the rows of a seal together.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    copied: bool = False
    follows_seal: bool = False


class Head(msgspec.Struct, frozen=True):
    """The link that the transaction adds to: `seq` is the new one, `previous` the digest before it."""

    stream: str
    seq: int
    previous: str


class _Digest(Protocol):
    """A digest under way."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Sending:
    """A transaction that will end with a seal, and the rows copied in it so far, by table."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.copied: dict[str, _Digest] = {}


# What such a transaction reads and changes it names by keys: nested loops over sorted keys lock rows in that order, and
# old statistics must not make it read whole tables. Whoever adds up tables in one sets these back.
_BEGIN = """
    SELECT seq, digest, set_config('tokenworks.stream', stream, true), set_config('tokenworks.seq', seq::text, true),
        set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
        set_config('enable_seqscan', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)
    FROM (SELECT stream, seq + 1 AS seq, digest FROM seal_stream WHERE stream = %s FOR UPDATE) head
"""
# The link in one statement: digests of tables that the database hashes beside those that were taken here.
_END = """
    WITH part (name, digest) AS (
        {parts} SELECT * FROM unnest(%(names)s::text[], %(digests)s::text[])),
    link AS (
        SELECT encode(sha256(convert_to(concat_ws(E'\\n', %(previous)s::text, %(stream)s::text, %(seq)s, %(at_ns)s,
            string_agg(name || ' ' || digest, E'\\n' ORDER BY name COLLATE "C")), 'UTF8')), 'hex') AS digest
        FROM part HAVING count(*) > 0),
    added AS (
        INSERT INTO seal (stream, seq, previous, digest, at_ns)
        SELECT %(stream)s, %(seq)s, %(previous)s, digest, %(at_ns)s FROM link
        RETURNING stream, seq, digest)
    UPDATE seal_stream s SET seq = added.seq, digest = added.digest FROM added WHERE s.stream = added.stream
"""

_sending: WeakKeyDictionary[Connection, _Sending] = WeakKeyDictionary()


async def begin(conn: Connection, stream: str) -> Head:
    """Lock the stream's head for the rest of the transaction and let added rows take its next seq."""
    row = await _begun(conn, stream)
    if row is None:
        await conn.execute(
            "INSERT INTO seal_stream (stream, seq, digest) VALUES (%s, 0, %s) ON CONFLICT DO NOTHING", (stream, GENESIS)
        )
        row = await _begun(conn, stream)
    if row is None:
        raise LookupError(f"the stream {stream} has no head")
    head = Head(stream, int(row[0]), str(row[1]))
    _sending[conn] = _Sending(head)
    return head


def head_of(conn: Connection) -> Head:
    """The link that the transaction on this connection will add."""
    return _sending[conn].head


async def copy(conn: Connection, table: SealedTable, rows: Iterable[str], into: str = "") -> None:
    """Add rows to a copied table and to the transaction's seal.

    Each row is the text of the table's columns as `ledger.copied` writes them, with tabs between; over all calls of a
    transaction they come in the order of the table's key. Rows are made while the database takes those before. `into`
    is the partition that all of them belong to, where that is known: the database need not look for it row by row.
    """
    sending = _sending[conn]
    prefix = f"{sending.head.stream}\t{sending.head.seq}\t"
    between, rows = f"\n{prefix}", iter(rows)
    piece = list(islice(rows, _ROWS_AT_ONCE))
    if not piece:
        return
    digest = sending.copied.setdefault(table.name, hashlib.sha256())
    place = f"{into or table.name} (stream, seq, {', '.join(table.columns)})"
    if len(piece) <= _ROWS_FEW and "\\" not in "".join(piece):
        digest.update(f"{prefix}{between.join(piece)}\n".encode())
        await _insert(conn, place, [f"{prefix}{row}".split("\t") for row in piece])
        return
    async with conn.cursor() as cursor, cursor.copy(f"COPY {place} FROM STDIN (ENCODING 'UTF8')".encode()) as sent:
        while piece:
            data = f"{prefix}{between.join(piece)}\n".encode()
            digest.update(data)
            await sent.write(data)
            piece = list(islice(rows, _ROWS_AT_ONCE))


async def _insert(conn: Connection, place: str, rows: list[list[str]]) -> None:
    """The same for a few rows, in whose texts nothing is escaped: each value goes as its text."""
    values = ", ".join(f"({', '.join(['%s'] * len(row))})" for row in rows)
    statement = f"INSERT INTO {place} VALUES {values}"  # noqa: S608 - names from the registry
    await conn.execute(statement.encode(), [value for row in rows for value in row])


async def end(conn: Connection, head: Head, at_ns: int, tables: tuple[SealedTable, ...]) -> None:
    """Seal what the transaction added to these tables; if it added nothing there is nothing to seal."""
    copied = _sending.pop(conn).copied
    values = {"stream": head.stream, "seq": head.seq, "previous": head.previous, "at_ns": at_ns}
    digests = {"names": list(copied), "digests": [each.hexdigest() for each in copied.values()]}
    await conn.execute(_end_of(tables), values | digests)


def digest(head: Head, at_ns: int, parts: dict[str, str]) -> str:
    """The digest of one link, as `end` has it: the one before, its place and time, and each table's digest by name."""
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


async def _begun(conn: Connection, stream: str) -> TupleRow | None:
    """The head, locked, with the seq of the seal to come, once settings are made for it; None without a head."""
    return await (await conn.execute(_BEGIN, (stream,))).fetchone()


@cache
def _end_of(tables: tuple[SealedTable, ...]) -> bytes:
    parts = "".join(
        f"SELECT '{table.name}', {rows_digest(table)} FROM {table.name}"  # noqa: S608 - names from the registry
        " WHERE stream = %(stream)s AND seq = %(seq)s HAVING count(*) > 0 UNION ALL "
        for table in tables
        if not table.copied
    )
    return _END.format(parts=parts).encode()
