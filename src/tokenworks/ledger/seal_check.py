"""Checks of the seals: every chain link by link, and every sealed row against its link, read-only.

`tables` must be those of all rooms together: a seal covers whatever its transaction added.
"""

from collections import defaultdict
from collections.abc import Iterable

from tokenworks.ledger import seal
from tokenworks.ledger.seal import Connection, Head, SealedTable
from tokenworks.ledger.verify import EXAMPLES_MAX, Check

Link = tuple[str, int]  # stream, seq


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
        query = f"SELECT stream, seq, {seal.rows_digest(table)} FROM {table.name} GROUP BY stream, seq"  # noqa: S608
        for stream, seq, digest in await (await conn.execute(query.encode())).fetchall():
            parts[stream, seq][table.name] = digest
    return parts


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
