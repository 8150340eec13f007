"""Sums of every account's transfers by the hour of posting, so that a balance of long ago need not add up the past.

The table `account_hour` is a cache: it covers, of each stream, the seals up to `hours_cursor`, whatever their times: a
posting that carries an earlier time than one already covered only adds to an earlier hour. Who reads it adds what lies
beyond the cursor (`ledger.history`). `verify` rebuilds it from the transfers. It is kept up behind the scenes and not
by the transactions that post, which would pay for it with every batch.
"""

from tokenworks.base import steps
from tokenworks.base.database import Pool
from tokenworks.ledger.seal import Connection

HOUR_NS = 3_600_000_000_000
# How many seals of a stream one step covers at most: some seconds of live usage, some tenths of a second of work.
SEALS_AT_ONCE = 250


async def keep_up(pool: Pool) -> None:
    """Cover everything that was sealed before."""
    await steps.all_of(lambda: add_up(pool))


async def add_up(pool: Pool) -> bool:
    """Cover some of what was sealed since the last time, of every stream; whether there is more."""
    async with pool.connection() as conn:
        cursor = await conn.execute(
            "SELECT stream FROM seal_stream s WHERE EXISTS (SELECT FROM posting p WHERE p.stream = s.stream)"
        )
        streams = [row[0] for row in await cursor.fetchall()]
    return any([await _add_up(pool, stream) for stream in sorted(streams)])


async def _add_up(pool: Pool, stream: str) -> bool:
    async with pool.connection() as conn:
        done = await _lock_cursor(conn, stream)
        head = await (await conn.execute("SELECT seq FROM seal_stream WHERE stream = %s", (stream,))).fetchone()
        last = int(head[0]) if head else 0
        upto = min(last, done + SEALS_AT_ONCE)
        if upto <= done:
            return False
        # The planner cannot know how much is joined, and to go through all postings for each transfer takes minutes.
        await conn.execute("SET LOCAL enable_nestloop = off")
        await conn.execute(_ADD, {"stream": stream, "done": done, "upto": upto, "hour": HOUR_NS})
        await conn.execute("UPDATE hours_cursor SET seq = %s WHERE stream = %s", (upto, stream))
        return upto < last


async def _lock_cursor(conn: Connection, stream: str) -> int:
    await conn.execute("INSERT INTO hours_cursor (stream, seq) VALUES (%s, 0) ON CONFLICT DO NOTHING", (stream,))
    cursor = await conn.execute("SELECT seq FROM hours_cursor WHERE stream = %s FOR UPDATE", (stream,))
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


# A posting's transfers lie together, and so do those of consecutive postings: a range of ids is read, not each id.
_ADD = """
    WITH posted AS MATERIALIZED (
        SELECT id, at_ns - at_ns %% %(hour)s AS hour_ns FROM posting
        WHERE stream = %(stream)s AND seq > %(done)s AND seq <= %(upto)s),
    moved AS MATERIALIZED (
        SELECT p.hour_ns, t.debit_account_id, t.credit_account_id, t.amount
        FROM transfer t JOIN posted p ON p.id = t.posting_id
        WHERE t.posting_id BETWEEN (SELECT min(id) FROM posted) AND (SELECT max(id) FROM posted))
    INSERT INTO account_hour AS h (account_id, hour_ns, debit, credit)
    SELECT account_id, hour_ns, sum(debit), sum(credit) FROM (
        SELECT debit_account_id AS account_id, hour_ns, amount AS debit, 0 AS credit FROM moved
        UNION ALL
        SELECT credit_account_id, hour_ns, 0, amount FROM moved) legs
    GROUP BY account_id, hour_ns ORDER BY account_id, hour_ns
    ON CONFLICT (account_id, hour_ns)
        DO UPDATE SET debit = h.debit + excluded.debit, credit = h.credit + excluded.credit
"""
