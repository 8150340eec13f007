"""Checks of metering's invariants, read-only: journals, and records with their lines against the ledger."""

from tokenworks.ledger.seal import Connection
from tokenworks.ledger.verify import Check, Query, run
from tokenworks.meter import usage_hours


async def checks(conn: Connection) -> list[Check]:
    """All invariants of usage; the connection is in one REPEATABLE READ transaction."""
    return await run(conn, QUERIES)


# Transfers of usage postings with the codes of their accounts.
_USAGE_TRANSFERS = """
    SELECT t.posting_id, d.code AS debit, c.code AS credit, t.unit, t.amount
    FROM transfer t JOIN posting p ON p.id = t.posting_id AND p.kind = 'usage_posted'
    JOIN account d ON d.id = t.debit_account_id JOIN account c ON c.id = t.credit_account_id
"""

# Charges and attempts with the posting of their record.
_CHARGES = "SELECT r.posting_id, c.* FROM usage_record r CROSS JOIN unnest(r.charges) c"
_ATTEMPTS = "SELECT r.posting_id, a.* FROM usage_record r CROSS JOIN unnest(r.attempts) a"
_CHARGES_COUNTED = "SELECT coalesce(sum(cardinality(charges)), 0) FROM usage_record"


def _same_sums(lines: str, transfers: str) -> str:
    """Where sums of lines and of transfers differ; both select (posting_id, debit, credit, unit, amount)."""
    return f"""
        SELECT concat_ws(' ', 'posting', posting_id, debit, credit, unit) || ': lines ' || coalesce(l.amount, 0)
            || ', transfers ' || coalesce(t.amount, 0)
        FROM (SELECT posting_id, debit, credit, unit, sum(amount) AS amount FROM ({lines}) x
              GROUP BY posting_id, debit, credit, unit HAVING sum(amount) <> 0) l
        FULL JOIN (SELECT posting_id, debit, credit, unit, sum(amount) AS amount FROM ({transfers}) x
              GROUP BY posting_id, debit, credit, unit) t USING (posting_id, debit, credit, unit)
        WHERE l.amount IS DISTINCT FROM t.amount
    """  # noqa: S608 - queries of ours


QUERIES = (
    Query(
        "journals are posted without a gap",
        "SELECT count(*) FROM shipment",
        """SELECT 'journal ' || journal_id || ' at ' || from_position FROM (
               SELECT *, lag(through_position, 1, 0::bigint) OVER w AS before, row_number() OVER w AS place,
                   first_value(worker) OVER w AS first_worker
               FROM shipment WINDOW w AS (PARTITION BY journal_id ORDER BY ordinal)) s
           WHERE from_position <> before OR ordinal <> place OR through_position < from_position
               OR worker <> first_worker""",
    ),
    Query(
        "journal cursors are at their last shipment",
        "SELECT count(*) FROM journal",
        """SELECT 'journal ' || coalesce(j.id, s.journal_id) FROM journal j FULL JOIN (
               SELECT journal_id, min(worker) AS worker, max(through_position) AS posted_through, count(*) AS shipments,
                   sum(openings) AS openings, sum(closings) AS closings, bool_or(final) AS final
               FROM shipment GROUP BY journal_id) s ON s.journal_id = j.id
           WHERE (j.worker, j.posted_through, j.shipments, j.openings, j.closings, j.final) IS DISTINCT FROM
               (s.worker, s.posted_through, s.shipments, s.openings, s.closings, s.final)""",
    ),
    Query(
        "openings = closings + requests still open",
        "SELECT count(*) FROM usage_opening",
        """SELECT 'journal ' || journal_id || ': ' || concat_ws(', ', openings, closings, records, waiting) FROM (
               SELECT journal_id, sum(openings) AS openings, sum(closings) AS closings FROM shipment
               GROUP BY journal_id) s
           LEFT JOIN (SELECT journal_id, count(*) AS records FROM usage_record GROUP BY journal_id) r USING (journal_id)
           LEFT JOIN (SELECT journal_id, count(*) AS waiting FROM usage_opening o
               WHERE NOT EXISTS (SELECT FROM usage_record r
                   WHERE (r.journal_id, r.position) = (o.journal_id, o.position))
               GROUP BY journal_id) o USING (journal_id)
           WHERE closings <> coalesce(records, 0) OR openings <> coalesce(records, 0) + coalesce(waiting, 0)
           UNION ALL
           SELECT 'journal ' || journal_id || ' has no shipment' FROM (
               SELECT journal_id FROM usage_record UNION SELECT journal_id FROM usage_opening) x
           WHERE journal_id NOT IN (SELECT journal_id FROM shipment)""",
    ),
    Query(
        "a request is recorded once",
        "SELECT count(*) FROM usage_record",
        "SELECT request_id FROM usage_record GROUP BY request_id HAVING count(*) > 1",
    ),
    Query(
        "a record has one place in its journal and one in the order of posting",
        "SELECT count(*) FROM usage_record",
        """SELECT journal_id || ' at ' || position FROM usage_record GROUP BY journal_id, position HAVING count(*) > 1
           UNION ALL
           SELECT 'record ' || id FROM usage_record GROUP BY id HAVING count(*) > 1""",
    ),
    Query(
        "charged tokens are the record's tokens, and no count is below zero",
        "SELECT count(*) FROM usage_record",
        """SELECT r.request_id FROM usage_record r CROSS JOIN LATERAL (
               SELECT coalesce(sum(tokens_input), 0) AS tokens_input,
                   coalesce(sum(tokens_cached_input), 0) AS tokens_cached_input,
                   coalesce(sum(tokens_cache_write), 0) AS tokens_cache_write,
                   coalesce(sum(tokens_output), 0) AS tokens_output,
                   coalesce(sum(tokens_reasoning), 0) AS tokens_reasoning,
                   min(least(tokens_input, tokens_cached_input, tokens_cache_write, tokens_output, tokens_reasoning,
                       amount, revenue)) AS lowest
               FROM unnest(r.charges)) c
           WHERE (r.tokens_input, r.tokens_cached_input, r.tokens_cache_write, r.tokens_output, r.tokens_reasoning) <>
               (c.tokens_input, c.tokens_cached_input, c.tokens_cache_write, c.tokens_output, c.tokens_reasoning)
               OR c.lowest < 0""",
    ),
    Query(
        "charges name a lease and bucket of the record's account",
        _CHARGES_COUNTED,
        """SELECT r.request_id || ' lease ' || c.lease_id || ' bucket ' || c.bucket_id
           FROM usage_record r CROSS JOIN unnest(r.charges) c
           LEFT JOIN lease l ON l.id = c.lease_id LEFT JOIN bucket b ON b.id = c.bucket_id
           WHERE c.proven AND (l.id IS NULL OR b.id IS NULL OR l.bucket_id <> b.id OR b.unit <> c.unit
               OR b.currency <> c.currency OR b.billing_account_id <> r.billing_account_id
               OR b.legal_entity_id <> r.legal_entity_id OR split_part(c.tariff, '@', 1) <> b.tariff_id)
              OR (NOT c.proven AND (c.revenue <> 0 OR NOT r.flags @> ARRAY['unproven']))""",
    ),
    Query(
        "no charge is above what was reserved for its request",
        _CHARGES_COUNTED,
        """SELECT r.request_id || ' lease ' || c.lease_id || ': ' || c.amount || ' of ' || coalesce(v.amount, 0)
           FROM usage_record r
           CROSS JOIN LATERAL (
               SELECT lease_id, sum(amount) AS amount FROM unnest(r.charges) WHERE proven GROUP BY lease_id) c
           LEFT JOIN LATERAL (SELECT lease_id, sum(amount) AS amount FROM unnest(r.reserved) GROUP BY lease_id) v
               USING (lease_id)
           WHERE c.amount > coalesce(v.amount, 0)
           UNION ALL
           SELECT request_id || ': more tokens than its bound' FROM usage_record
           WHERE tokens_input + tokens_cached_input + tokens_cache_write > input_max
               OR tokens_output + tokens_reasoning > output_max""",
    ),
    Query(
        "extensions have their opening, and reservations only grow",
        "SELECT count(*) FROM usage_extension",
        """SELECT concat_ws(' ', 'extension', journal_id, 'at', extended_at) FROM (
               SELECT e.*, coalesce(lag(e.output_max) OVER w, o.output_max) AS output_before,
                   coalesce(lag(e.input_max) OVER w, o.input_max) AS input_before
               FROM usage_extension e LEFT JOIN usage_opening o USING (journal_id, position)
               WINDOW w AS (PARTITION BY e.journal_id, e.position ORDER BY e.extended_at)) x
           WHERE output_before IS NULL OR output_max < output_before OR input_max < input_before
               OR extended_at <= position
           UNION ALL
           SELECT r.request_id FROM usage_record r JOIN (
               SELECT journal_id, position, max(output_max) AS output_max FROM usage_extension
               GROUP BY journal_id, position) e USING (journal_id, position)
           WHERE r.output_max < e.output_max""",
    ),
    Query(
        "charges sum to what was spent, per posting",
        _CHARGES_COUNTED,
        _same_sums(
            f"""SELECT posting_id, 'lease/' || lease_id AS debit, 'bucket/' || bucket_id || '/spent' AS credit, unit,
                amount FROM ({_CHARGES}) c WHERE proven""",  # noqa: S608
            f"SELECT * FROM ({_USAGE_TRANSFERS}) t WHERE credit LIKE 'bucket/%/spent'",  # noqa: S608
        ),
    ),
    Query(
        "revenue of charges sums to what was recognised, per posting",
        _CHARGES_COUNTED,
        _same_sums(
            f"""SELECT posting_id, CASE b.kind WHEN 'credit' THEN 'receivable/' || b.payer
                    ELSE 'contract_liability/' || bucket_id END AS debit, 'revenue/tokens' AS credit,
                c.currency AS unit, revenue AS amount
                FROM ({_CHARGES}) c LEFT JOIN bucket b ON b.id = c.bucket_id WHERE proven""",  # noqa: S608
            f"SELECT * FROM ({_USAGE_TRANSFERS}) t WHERE credit = 'revenue/tokens'",  # noqa: S608
        ),
    ),
    Query(
        "unproven charges sum to the loss, per posting",
        f"SELECT count(*) FROM ({_CHARGES}) c WHERE NOT proven",  # noqa: S608
        _same_sums(
            f"""SELECT posting_id, 'loss/unproven' AS debit, 'unproven/delivered' AS credit, unit, amount
                FROM ({_CHARGES}) c WHERE NOT proven""",  # noqa: S608
            f"SELECT * FROM ({_USAGE_TRANSFERS}) t WHERE debit = 'loss/unproven'",  # noqa: S608
        ),
    ),
    Query(
        "attempts sum to cost and payable, per posting",
        "SELECT coalesce(sum(cardinality(attempts)), 0) FROM usage_record",
        _same_sums(
            f"""SELECT posting_id, 'cost/tokens/' || supplier_id AS debit, 'payable/' || supplier_id AS credit,
                currency AS unit, cost AS amount FROM ({_ATTEMPTS}) a""",  # noqa: S608
            f"SELECT * FROM ({_USAGE_TRANSFERS}) t WHERE debit LIKE 'cost/tokens/%'",  # noqa: S608
        ),
    ),
    Query(
        "no charge is refunded beyond its amount",
        "SELECT count(*) FROM correction_line WHERE charge IS NOT NULL",
        """SELECT concat_ws(' ', 'request', x.about, 'charge', x.charge) FROM (
               SELECT c.about, c.billing_account_id, l.charge, l.bucket_id, l.unit, sum(l.amount) AS amount,
                   min(c.used_at_ns) AS used_at_ns, max(c.used_at_ns) AS used_last_ns
               FROM correction c JOIN correction_line l ON l.correction_id = c.id WHERE c.kind = 'usage_refunded'
               GROUP BY 1, 2, 3, 4, 5) x
           LEFT JOIN usage_record r ON r.request_id = x.about
           LEFT JOIN LATERAL unnest(r.charges[x.charge + 1 : x.charge + 1]) h ON true
           WHERE h.proven IS NOT TRUE OR h.amount < x.amount OR (h.bucket_id, h.unit, r.billing_account_id,
                   r.closed_at_ns, r.closed_at_ns) IS DISTINCT FROM
               (x.bucket_id, x.unit, x.billing_account_id, x.used_at_ns, x.used_last_ns)""",
    ),
    Query(
        "usage by hour is what the records say",
        "SELECT count(*) FROM usage_hour",
        f"""SELECT concat_ws(' ', 'hour', hour_ns, billing_account_id, model, unit) FROM ({usage_hours.KEPT}) h
            FULL JOIN ({usage_hours.TRUE}) r USING (hour_ns, legal_entity_id, billing_account_id, model, unit)
            WHERE ROW(h.*)::text IS DISTINCT FROM ROW(r.*)::text
            UNION ALL
            SELECT 'the cursor of ' || c.stream FROM usage_hour_cursor c LEFT JOIN seal_stream s USING (stream)
            WHERE c.seq > coalesce(s.seq, 0) OR c.stream <> 'meter'""",  # noqa: S608 - queries of ours
    ),
)
