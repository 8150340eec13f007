"""Checks of the ledger's invariants, read-only. The caller gives a connection in one REPEATABLE READ transaction.

Each check is a query for counterexamples: it is fine when there are none, and names the first few otherwise. Nothing
here shares code with what writes the rows. What the seals cover is checked by `seal_checks`.
"""

import msgspec

from tokenworks.ledger.seal import Connection

EXAMPLES_MAX = 5


class Check(msgspec.Struct, frozen=True):
    """The result of one check; `detail` says what was looked at, or what is wrong."""

    name: str
    ok: bool
    detail: str


class Query(msgspec.Struct, frozen=True):
    """`counterexamples` selects one text column; `population` counts what was looked at."""

    name: str
    population: str
    counterexamples: str


async def checks(conn: Connection) -> list[Check]:
    """All invariants of accounts, postings, buckets and leases."""
    return await run(conn, QUERIES)


async def run(conn: Connection, queries: tuple[Query, ...]) -> list[Check]:
    """Run the queries, in their order."""
    return [await _run(conn, query) for query in queries]


async def _run(conn: Connection, query: Query) -> Check:
    # All counterexamples are looked for before some are shown: to find the first few soon, the planner would go through
    # one table for each row of another, and where there are none that takes minutes.
    limited = f"WITH x AS MATERIALIZED ({query.counterexamples}) SELECT * FROM x LIMIT {EXAMPLES_MAX}"  # noqa: S608 - ours
    found = [str(row[0]) for row in await (await conn.execute(limited.encode())).fetchall()]
    if found:
        return Check(query.name, ok=False, detail="; ".join(found))
    counted = await (await conn.execute(query.population.encode())).fetchone()
    return Check(query.name, ok=True, detail=f"{counted[0] if counted else 0:,} looked at")


def _part(name: str) -> str:
    """SQL of the balance of a bucket's account, zero if it has none."""
    return f"""coalesce((SELECT balance FROM account a WHERE a.code = 'bucket/' || b.id || '/{name}'
        AND a.unit = b.unit AND a.legal_entity_id = b.legal_entity_id), 0)"""  # noqa: S608


# A bucket `b` with its parts and what its leases hold. Leases are summed once: there are far more of them than buckets,
# and a planner without statistics would go through all accounts for each bucket.
_BUCKETS = f"""
    SELECT b.*, {_part("issued")} AS issued, {_part("available")} AS available, {_part("spent")} AS spent,
        {_part("expired")} AS expired, {_part("withdrawn")} AS withdrawn,
        coalesce(held.leased, 0) AS leased,
        coalesce((SELECT balance FROM account a WHERE a.code = 'contract_liability/' || b.id
            AND a.unit = b.currency AND a.legal_entity_id = b.legal_entity_id), 0) AS liability
    FROM bucket b LEFT JOIN (
        SELECT l.bucket_id, sum(a.balance) AS leased FROM lease l JOIN bucket o ON o.id = l.bucket_id
            JOIN account a ON a.code = 'lease/' || l.id AND a.unit = o.unit AND a.legal_entity_id = o.legal_entity_id
        GROUP BY l.bucket_id) held ON held.bucket_id = b.id
"""  # noqa: S608

# What transfers say about leases: granted out of a bucket, given back to it, spent.
_LEASE_BOOK = """
    SELECT l.*, coalesce(g.amount, 0) AS granted, coalesce(r.amount, 0) AS returned, a.balance
    FROM lease l JOIN bucket b ON b.id = l.bucket_id
    LEFT JOIN account a ON a.code = 'lease/' || l.id AND a.unit = b.unit AND a.legal_entity_id = b.legal_entity_id
    LEFT JOIN account v ON v.code = 'bucket/' || b.id || '/available' AND v.unit = b.unit
        AND v.legal_entity_id = b.legal_entity_id
    LEFT JOIN (SELECT debit_account_id, credit_account_id, sum(amount) AS amount FROM transfer GROUP BY 1, 2) g
        ON g.credit_account_id = a.id AND g.debit_account_id = v.id
    LEFT JOIN (SELECT debit_account_id, credit_account_id, sum(amount) AS amount FROM transfer GROUP BY 1, 2) r
        ON r.debit_account_id = a.id AND r.credit_account_id = v.id
"""

# What the payers of credit buckets owe for what was spent, by the bucket's own terms; `net` is without tax.
_SPENT_ON_CREDIT = f"""
    SELECT 'receivable/' || payer AS code, currency AS unit, legal_entity_id, sum(gross) AS gross,
        sum(div(2 * gross * net + net + tax, 2 * (net + tax))) AS net
    FROM (SELECT b.*, div(2 * (net + tax) * spent + granted, 2 * granted) AS gross FROM ({_BUCKETS}) b
          WHERE kind = 'credit') b
    GROUP BY 1, 2, 3 HAVING sum(gross) > 0
"""  # noqa: S608

# The same as the transfers have it, less what is owed back, with what was paid of it or given up.
_BOOKED_ON_CREDIT = """
    SELECT code, unit, legal_entity_id, sum(balance) FILTER (WHERE first) AS balance,
        coalesce(sum(amount) FILTER (WHERE NOT is_payment), 0) AS gross,
        coalesce(sum(amount) FILTER (WHERE other = 'revenue/tokens'), 0) AS net,
        coalesce(-sum(amount) FILTER (WHERE is_payment), 0) AS paid
    FROM (
        SELECT regexp_replace(a.code, '^refund_due/', 'receivable/') AS code, a.unit, a.legal_entity_id,
            CASE WHEN a.debit_normal THEN a.balance ELSE -a.balance END AS balance, o.code AS other, x.amount,
            o.code NOT IN ('revenue/tokens', 'tax/output') AS is_payment,
            row_number() OVER (PARTITION BY a.id) = 1 AS first
        FROM account a JOIN (
            SELECT debit_account_id AS id, credit_account_id AS other_id, amount FROM transfer
            UNION ALL
            SELECT credit_account_id, debit_account_id, -amount FROM transfer) x ON x.id = a.id
        JOIN account o ON o.id = x.other_id
        WHERE a.code LIKE 'receivable/credit/%' OR a.code LIKE 'refund_due/credit/%') legs
    GROUP BY code, unit, legal_entity_id
"""

QUERIES = (
    Query(
        "debits equal credits",
        "SELECT count(*) FROM account",
        """SELECT legal_entity_id || ' ' || unit || ': debits exceed credits by ' || sum(signed)
           FROM (SELECT legal_entity_id, unit, CASE WHEN debit_normal THEN balance ELSE -balance END AS signed
                 FROM account) s
           GROUP BY legal_entity_id, unit HAVING sum(signed) <> 0""",
    ),
    Query(
        "no account is below zero",
        "SELECT count(*) FROM account",
        "SELECT code || ' of ' || legal_entity_id || ': ' || balance FROM account WHERE balance < 0",
    ),
    Query(
        "balances rebuilt from transfers",
        "SELECT count(*) FROM account",
        """SELECT concat(a.code, ' of ', a.legal_entity_id, ': ', a.balance, ', transfers say ', coalesce(r.balance, 0))
           FROM account a LEFT JOIN (
                SELECT id, sum(amount) AS balance FROM (
                    SELECT a.id, CASE WHEN a.debit_normal THEN t.amount ELSE -t.amount END AS amount
                    FROM transfer t JOIN account a ON a.id = t.debit_account_id
                    UNION ALL
                    SELECT a.id, CASE WHEN a.debit_normal THEN -t.amount ELSE t.amount END
                    FROM transfer t JOIN account a ON a.id = t.credit_account_id) legs
                GROUP BY id) r ON r.id = a.id
           WHERE a.balance <> coalesce(r.balance, 0)""",
    ),
    Query(
        "sums by hour rebuilt from transfers",
        "SELECT count(*) FROM account_hour",
        """SELECT 'account ' || account_id || ' hour ' || hour_ns FROM account_hour h
           FULL JOIN (
               SELECT account_id, hour_ns, sum(debit) AS debit, sum(credit) AS credit FROM (
                   SELECT p.at_ns - p.at_ns % 3600000000000 AS hour_ns, l.account_id, l.debit, l.credit
                   FROM posting p JOIN hours_cursor c ON c.stream = p.stream AND p.seq <= c.seq
                   JOIN transfer t ON t.posting_id = p.id
                   CROSS JOIN LATERAL (VALUES (t.debit_account_id, t.amount, 0), (t.credit_account_id, 0, t.amount))
                       AS l (account_id, debit, credit)) legs
               GROUP BY account_id, hour_ns) r USING (account_id, hour_ns)
           WHERE (h.debit, h.credit) IS DISTINCT FROM (r.debit, r.credit)
           UNION ALL
           SELECT 'hours of ' || c.stream FROM hours_cursor c LEFT JOIN seal_stream s USING (stream)
           WHERE c.seq > coalesce(s.seq, 0)""",
    ),
    Query(
        "transfers belong to their posting",
        "SELECT count(*) FROM transfer",
        """SELECT 'transfer ' || t.posting_id || '/' || t.ordinal FROM transfer t
           LEFT JOIN posting p ON p.id = t.posting_id
           LEFT JOIN account d ON d.id = t.debit_account_id
           LEFT JOIN account c ON c.id = t.credit_account_id
           WHERE p.id IS NULL OR d.id IS NULL OR c.id IS NULL OR d.unit <> t.unit OR c.unit <> t.unit
               OR d.legal_entity_id <> p.legal_entity_id OR c.legal_entity_id <> p.legal_entity_id
               OR (t.stream, t.seq) <> (p.stream, p.seq)""",
    ),
    Query(
        "postings have transfers",
        "SELECT count(*) FROM posting",
        """SELECT 'posting ' || p.id || ' ' || p.event_id FROM posting p
           WHERE NOT EXISTS (SELECT FROM transfer t WHERE t.posting_id = p.id)""",
    ),
    Query(
        "a posting's transfers are numbered",
        "SELECT count(*) FROM transfer",
        """SELECT 'posting ' || posting_id FROM transfer GROUP BY posting_id
           HAVING (min(ordinal), max(ordinal), count(DISTINCT ordinal)) <> (0, count(*) - 1, count(*))""",
    ),
    Query(
        "an event is posted once",
        "SELECT count(*) FROM posting",
        "SELECT event_id FROM posting GROUP BY event_id HAVING count(*) > 1",
    ),
    Query(
        "buckets: issued = available + leased + spent + expired + withdrawn",
        "SELECT count(*) FROM bucket",
        f"""SELECT id || ': ' || issued || ' <> ' || concat_ws(' + ', available, leased, spent, expired, withdrawn)
            FROM ({_BUCKETS}) b
            WHERE issued <> available + leased + spent + expired + withdrawn OR issued <> granted""",  # noqa: S608
    ),
    Query(
        "contract liability = net price not withdrawn - revenue recognised",
        "SELECT count(*) FROM bucket",
        f"""SELECT id || ': liability ' || liability || ' of net ' || net FROM ({_BUCKETS}) b
            WHERE liability <> CASE kind WHEN 'prepaid'
                    THEN div(2 * net * (granted - withdrawn) + granted, 2 * granted)
                        - div(2 * net * (spent + expired) + granted, 2 * granted) ELSE 0 END
                OR (available = 0 AND leased = 0 AND liability <> 0)""",  # noqa: S608
    ),
    Query(
        "a credit agreement's receivable is the price of what was spent less what was paid",
        "SELECT count(*) FROM bucket WHERE kind = 'credit'",
        f"""SELECT coalesce(s.code, r.code) || ': spent for ' || coalesce(s.gross, 0) || ' (net ' || coalesce(s.net, 0)
                || '), booked ' || coalesce(r.gross, 0) || ' (net ' || coalesce(r.net, 0) || ')'
            FROM ({_SPENT_ON_CREDIT}) s FULL JOIN ({_BOOKED_ON_CREDIT}) r USING (code, unit, legal_entity_id)
            WHERE (coalesce(s.gross, 0), coalesce(s.net, 0)) <> (coalesce(r.gross, 0), coalesce(r.net, 0))
                OR r.balance <> r.gross - r.paid""",  # noqa: S608
    ),
    Query(
        "buckets have their sale or grant, or replace one that has",
        "SELECT count(*) FROM bucket",
        """SELECT b.id FROM bucket b WHERE NOT EXISTS (
               SELECT FROM posting p WHERE p.legal_entity_id = b.legal_entity_id
                   AND p.kind = CASE b.kind WHEN 'prepaid' THEN 'package_sold' ELSE 'credit_granted' END
                   AND p.event_id = CASE b.kind WHEN 'prepaid' THEN 'order/' || b.order_id ELSE 'credit/' || b.id END)
           UNION ALL
           SELECT b.id FROM bucket b WHERE NOT EXISTS (
               SELECT FROM account a JOIN transfer t ON t.debit_account_id = a.id
               WHERE a.code = 'bucket/' || b.id || '/issued' AND a.legal_entity_id = b.legal_entity_id
                   AND t.amount = b.granted)
           UNION ALL
           SELECT a.code FROM account a WHERE a.code LIKE 'bucket/%'
               AND NOT EXISTS (SELECT FROM bucket b WHERE b.id = split_part(a.code, '/', 2))""",
    ),
    Query(
        "a billing account is served by one legal entity",
        "SELECT count(DISTINCT billing_account_id) FROM bucket",
        """SELECT billing_account_id FROM bucket GROUP BY billing_account_id
           HAVING count(DISTINCT legal_entity_id) > 1""",
    ),
    Query(
        "leases: granted, returned and ended as the book says",
        "SELECT count(*) FROM lease",
        f"""SELECT 'lease ' || l.id FROM ({_LEASE_BOOK}) l LEFT JOIN lease_end e ON e.lease_id = l.id
            LEFT JOIN (SELECT lease_id, sum(amount) AS amount, sum(claimed) AS claimed FROM lease_return
                GROUP BY lease_id) p ON p.lease_id = l.id
            WHERE l.granted > l.amount OR (l.request_digest <> '' AND (l.balance IS NULL OR l.granted <> l.amount
                    OR p.claimed <> p.amount))
                OR l.open <> (e.lease_id IS NULL)
                OR l.returned <> coalesce(e.remainder, 0) + coalesce(p.amount, 0)
                OR (e.lease_id IS NOT NULL AND l.balance <> 0)
                OR e.claimed <> e.remainder""",  # noqa: S608
    ),
    Query(
        "lease accounts, returns and ends have their lease",
        "SELECT count(*) FROM lease_end",
        """SELECT code FROM account a WHERE code LIKE 'lease/%'
               AND NOT EXISTS (SELECT FROM lease l WHERE 'lease/' || l.id = a.code)
           UNION ALL
           SELECT 'a return of lease ' || lease_id FROM lease_return r
               WHERE NOT EXISTS (SELECT FROM lease l WHERE l.id = r.lease_id)
           UNION ALL
           SELECT 'the end of lease ' || lease_id FROM lease_end e
               WHERE NOT EXISTS (SELECT FROM lease l WHERE l.id = e.lease_id)""",
    ),
)
