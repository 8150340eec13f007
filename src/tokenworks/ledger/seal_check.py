"""Checks of the seals: every chain link by link, and every sealed row against its link, read-only.

`tables` must be those of all rooms together: a seal covers whatever its transaction added.
"""

import hashlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable

from tokenworks.ledger import seal
from tokenworks.ledger.seal import Connection, Head, SealedTable
from tokenworks.ledger.verify import EXAMPLES_MAX, Check

Link = tuple[str, int]  # stream, seq

SCATTERED = "scattered"
"""Stands for the digest of rows of one seal that are not beside each other; no digest looks like it."""


async def seal_checks(conn: Connection, tables: Iterable[SealedTable]) -> list[Check]:
    """Whether any sealed row was edited, added or deleted, and whether the chains of seals are whole."""
    parts = await _parts(conn, tables)
    cursor = await conn.execute("SELECT stream, seq, previous, digest, at_ns FROM seal ORDER BY stream, seq")
    links = await cursor.fetchall()
    heads = await (await conn.execute("SELECT stream, seq, digest FROM seal_stream")).fetchall()
    broken: list[str] = []
    chain: dict[str, tuple[int, str]] = {}
    rows: list[str] = []
    for stream, seq, previous, digest, at_ns in links:
        if (seq - 1, previous) != chain.get(stream, (0, seal.GENESIS)):
            broken.append(f"{stream} {seq} does not follow the link before it")
        if seal.digest(Head(stream, seq, previous), at_ns, parts.pop((stream, seq), {})) != digest:
            rows.append(f"rows of {stream} {seq} are not as they were sealed")
        chain[stream] = (seq, digest)
    rows += [f"rows of {stream} {seq} have no seal: {', '.join(found)}" for (stream, seq), found in parts.items()]
    broken += _heads({str(stream): (seq, digest) for stream, seq, digest in heads}, chain)
    counted = f"{len(links):,} looked at"
    return [
        _check("seals form unbroken chains", broken, counted),
        _check("rows are as they were sealed", rows, counted),
    ]


async def _parts(conn: Connection, tables: Iterable[SealedTable]) -> defaultdict[Link, dict[str, str]]:
    parts: defaultdict[Link, dict[str, str]] = defaultdict(dict)
    for table in tables:
        async for link, digest in _copied(conn, table) if table.copied else _aggregated(conn, table):
            # Rows of one seal lie apart where `follows_seal` should keep them together: somebody moved one.
            parts[link][table.name] = SCATTERED if table.name in parts[link] else digest
    return parts


async def _aggregated(conn: Connection, table: SealedTable) -> AsyncGenerator[tuple[Link, str]]:
    """Digests that the database takes of a table's rows."""
    query = f"SELECT stream, seq, {seal.rows_digest(table)} FROM {table.name} GROUP BY stream, seq"  # noqa: S608
    for stream, seq, digest in await (await conn.execute(query.encode())).fetchall():
        yield (stream, seq), digest


async def _copied(conn: Connection, table: SealedTable) -> AsyncGenerator[tuple[Link, str]]:
    """Digests of a copied table's rows as the database gives them, seal by seal."""
    order = table.key if table.follows_seal else ("stream", "seq", *table.key)
    rows = f"SELECT stream, seq, {', '.join(table.columns)} FROM {table.name} ORDER BY {', '.join(order)}"  # noqa: S608
    prefix, digest = b"", hashlib.sha256()
    async with conn.cursor() as cursor, cursor.copy(f"COPY ({rows}) TO STDOUT (ENCODING 'UTF8')".encode()) as copy:
        async for piece in copy:
            row = bytes(piece)
            if not prefix or not row.startswith(prefix):
                if prefix:
                    yield _link(prefix), digest.hexdigest()
                stream, seq, _ = row.split(b"\t", 2)
                prefix, digest = b"%b\t%b\t" % (stream, seq), hashlib.sha256()
            digest.update(row)
    if prefix:
        yield _link(prefix), digest.hexdigest()


def _link(prefix: bytes) -> Link:
    stream, seq, _ = prefix.decode().split("\t")
    return stream, int(seq)


def _heads(heads: dict[str, tuple[int, str]], chain: dict[str, tuple[int, str]]) -> list[str]:
    """A stream that never sealed anything has a head at zero, or none."""
    start = (0, seal.GENESIS)
    return [
        f"the head of {stream} is not at its last link"
        for stream in sorted(heads.keys() | chain.keys())
        if heads.get(stream) != chain.get(stream) and (stream in chain or heads[stream] != start)
    ]


def _check(name: str, wrong: list[str], counted: str) -> Check:
    return Check(name, ok=not wrong, detail="; ".join(wrong[:EXAMPLES_MAX]) or counted)
