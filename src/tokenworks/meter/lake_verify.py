"""Checks of the usage lake, read-only: the manifest against the records, and the files against the manifest."""

import asyncio
from pathlib import Path

from tokenworks.ledger.seal import Connection
from tokenworks.ledger.verify import EXAMPLES_MAX, Check, Query, run
from tokenworks.meter import lake, lake_files
from tokenworks.meter.lake_files import LakeFile
from tokenworks.meter.partitions import OPENED_ON
from tokenworks.meter.tables import TOKEN_COLUMNS, first_id

_RECORDS = f"""
    SELECT e.from_seq, e.through_seq, ({OPENED_ON})::text AS day,
        count(*) AS records, sum({" + ".join(f"r.{name}" for name in TOKEN_COLUMNS)}) AS tokens,
        coalesce(sum(c.charged), 0) AS charged, coalesce(sum(c.revenue), 0) AS revenue, coalesce(sum(a.cost), 0) AS cost
    FROM lake_export e JOIN usage_record r
        ON r.id >= e.from_seq * {first_id(1)} AND r.id < (e.through_seq + 1) * {first_id(1)}
    CROSS JOIN LATERAL (SELECT sum(amount) FILTER (WHERE proven) AS charged, sum(revenue) AS revenue
        FROM unnest(r.charges)) c
    CROSS JOIN LATERAL (SELECT sum(cost) AS cost FROM unnest(r.attempts)) a
    GROUP BY 1, 2, 3
"""  # noqa: S608 - names of ours

QUERIES = (
    Query(
        "the lake names every exported record once",
        "SELECT count(*) FROM lake_file",
        f"""SELECT concat_ws(' ', 'day', day, 'seals', from_seq, through_seq) FROM lake_file f
            FULL JOIN ({_RECORDS}) r USING (day, from_seq, through_seq)
            WHERE (f.records, f.tokens, f.charged, f.revenue, f.cost)
                IS DISTINCT FROM (r.records, r.tokens, r.charged, r.revenue, r.cost)
            UNION ALL
            SELECT 'the export of seals from ' || from_seq FROM (
                SELECT *, lag(through_seq, 1, 0::bigint) OVER (ORDER BY through_seq) AS before FROM lake_export) e
            WHERE from_seq <> before + 1 OR through_seq > (SELECT coalesce(max(seq), 0) FROM seal_stream
                WHERE stream = 'meter')
            UNION ALL
            SELECT 'file ' || path FROM lake_file
            WHERE path <> 'usage/day=' || day || '/records-' || lpad(from_seq::text, 12, '0') || '-'
                || lpad(through_seq::text, 12, '0') || '.parquet'""",  # noqa: S608 - names of ours
    ),
)


async def checks(conn: Connection) -> list[Check]:
    """The manifest in the database; the connection is in one REPEATABLE READ transaction."""
    return await run(conn, QUERIES)


async def file_checks(conn: Connection, folder: Path) -> list[Check]:
    """The files below `folder`, one by one, against what the database says of them."""
    named = await lake.files(conn)
    wrong = await asyncio.to_thread(_wrong, folder, named)
    detail = "; ".join(wrong[:EXAMPLES_MAX]) or f"{len(named):,} looked at"
    return [Check("files of the lake are as they were written", ok=not wrong, detail=detail)]


def _wrong(folder: Path, named: list[LakeFile]) -> list[str]:
    wrong: list[str] = []
    for file in named:
        place = folder / file.path
        if not place.exists():
            # Named and not yet renamed, or gone: the next export puts either right.
            if not lake_files.unfinished(folder, file.path).exists():
                wrong.append(f"{file.path} is missing")
        elif lake_files.differs(folder, place, file):
            wrong.append(f"{file.path} is not as it was written")
    return wrong
