"""Checks of corrections, read-only: posted as their lines say, and out of a bucket no more than its share."""

from tokenworks.ledger.seal import Connection
from tokenworks.ledger.verify import Check, Query, run


async def checks(conn: Connection) -> list[Check]:
    """All invariants of corrections; the connection is in one REPEATABLE READ transaction."""
    return await run(conn, QUERIES)


# What the lines of each kind book, by account codes. `payer/…` stands for what a payer owes, or what it is owed back.
_BOOKED = """
    SELECT c.posting_id, x.debit, x.credit, x.unit, x.amount
    FROM correction c JOIN correction_line l ON l.correction_id = c.id
    LEFT JOIN bucket b ON b.id = l.bucket_id
    CROSS JOIN LATERAL (VALUES
        ('usage_refunded', 'revenue/tokens', CASE b.kind WHEN 'credit' THEN 'payer/' || b.payer
            ELSE 'contract_liability/' || l.bucket_id END, l.currency, l.revenue),
        ('usage_refunded', 'tax/output', CASE b.kind WHEN 'credit' THEN 'payer/' || b.payer END, l.currency, l.tax),
        ('usage_refunded', 'bucket/' || l.bucket_id || '/spent', 'bucket/' || l.bucket_id ||
            CASE WHEN l.replacement_id IS NOT NULL THEN '/withdrawn'
                WHEN b.kind = 'credit' AND c.at_ns >= b.valid_to_ns THEN '/expired' ELSE '/available' END,
            l.unit, l.amount),
        ('usage_refunded', 'bucket/' || l.replacement_id || '/issued', 'bucket/' || l.replacement_id || '/available',
            l.unit, l.amount),
        ('usage_refunded', 'contract_liability/' || l.bucket_id, 'contract_liability/' || l.replacement_id, l.currency,
            l.net),
        ('package_withdrawn', 'bucket/' || l.bucket_id || '/available', 'bucket/' || l.bucket_id || '/withdrawn',
            l.unit, l.amount),
        ('package_withdrawn', 'contract_liability/' || l.bucket_id, 'refund_due/' || b.payer, l.currency, l.net),
        ('package_withdrawn', 'tax/output', 'refund_due/' || b.payer, l.currency, l.tax),
        ('payment_charged_back', 'bucket/' || l.bucket_id || '/available', 'bucket/' || l.bucket_id || '/withdrawn',
            l.unit, l.amount),
        ('payment_charged_back', 'contract_liability/' || l.bucket_id, 'payer/' || b.payer, l.currency, l.net),
        ('payment_charged_back', 'tax/output', 'payer/' || b.payer, l.currency, l.tax),
        ('payment_charged_back', 'receivable/customer/' || c.billing_account_id, 'payer/' || b.payer, l.currency,
            l.due),
        ('receivable_written_off', 'loss/bad_debt', 'receivable/' || c.about, l.currency, l.due),
        ('refund_settled', 'refund_due/' || c.about, 'receivable/' || c.about, l.currency, l.net),
        ('supplier_credited', 'payable/' || c.about, 'cost/tokens/' || c.about, l.currency, l.net)
    ) AS x (kind, debit, credit, unit, amount)
    WHERE x.kind = c.kind AND x.debit IS NOT NULL AND x.credit IS NOT NULL AND x.amount <> 0
"""

_TRANSFERS = """
    SELECT t.posting_id, d.code AS debit, t.unit, t.amount,
        CASE WHEN p.kind IN ('payment_charged_back', 'usage_refunded')
            THEN regexp_replace(k.code, '^(receivable|refund_due)/', 'payer/') ELSE k.code END AS credit
    FROM posting p JOIN transfer t ON t.posting_id = p.id
    JOIN account d ON d.id = t.debit_account_id JOIN account k ON k.id = t.credit_account_id
    WHERE p.event_id LIKE 'correction/%'
"""

# By bucket: what lines took out of it, and the prices they took along.
_TAKEN = """
    SELECT l.bucket_id, sum(l.amount) AS amount, sum(l.net) AS net, sum(l.tax) AS tax
    FROM correction c JOIN correction_line l ON l.correction_id = c.id
    WHERE c.kind IN ('package_withdrawn', 'payment_charged_back') OR l.replacement_id IS NOT NULL GROUP BY l.bucket_id
"""

QUERIES = (
    Query(
        "corrections have their posting",
        "SELECT count(*) FROM correction",
        """SELECT 'correction ' || coalesce(c.id, p.event_id) FROM correction c
           FULL JOIN (SELECT * FROM posting WHERE event_id LIKE 'correction/%') p ON p.id = c.posting_id
           WHERE (p.event_id, p.kind, p.legal_entity_id, p.used_at_ns, p.at_ns, p.stream, p.seq) IS DISTINCT FROM
               ('correction/' || c.id, c.kind, c.legal_entity_id, c.used_at_ns, c.at_ns, c.stream, c.seq)""",
    ),
    Query(
        "corrections are posted as their lines say",
        "SELECT count(*) FROM correction_line",
        f"""SELECT concat_ws(' ', 'posting', posting_id, debit, credit, unit) || ': lines ' || coalesce(l.amount, 0)
                || ', transfers ' || coalesce(t.amount, 0)
            FROM (SELECT posting_id, debit, credit, unit, sum(amount) AS amount FROM ({_BOOKED}) x
                GROUP BY 1, 2, 3, 4) l
            FULL JOIN (SELECT posting_id, debit, credit, unit, sum(amount) AS amount FROM ({_TRANSFERS}) x
                GROUP BY 1, 2, 3, 4) t USING (posting_id, debit, credit, unit)
            WHERE l.amount IS DISTINCT FROM t.amount""",  # noqa: S608 - queries of ours
    ),
    Query(
        "what was withdrawn took its share of price and tax along",
        "SELECT count(*) FROM correction_line",
        f"""SELECT 'bucket ' || b.id FROM bucket b LEFT JOIN ({_TAKEN}) t ON t.bucket_id = b.id
            LEFT JOIN account w ON w.code = 'bucket/' || b.id || '/withdrawn' AND w.unit = b.unit
                AND w.legal_entity_id = b.legal_entity_id
            WHERE coalesce(w.balance, 0) <> coalesce(t.amount, 0)
                OR b.kind = 'credit' AND (t.net <> 0 OR t.tax <> 0)
                OR b.kind = 'prepaid' AND (
                    b.net - coalesce(t.net, 0) <> div(2 * b.net * (b.granted - coalesce(t.amount, 0)) + b.granted,
                        2 * b.granted)
                    OR b.tax - coalesce(t.tax, 0) <> div(2 * b.tax * (b.granted - coalesce(t.amount, 0)) + b.granted,
                        2 * b.granted))""",  # noqa: S608 - queries of ours
    ),
    Query(
        "replacements are as what they replace",
        "SELECT count(*) FROM correction_line WHERE replacement_id IS NOT NULL",
        """SELECT 'bucket ' || l.replacement_id FROM (
               SELECT replacement_id, min(bucket_id) AS bucket_id, count(DISTINCT bucket_id) AS buckets,
                   sum(amount) AS amount, sum(net) AS net, sum(tax) AS tax, min(correction_id) AS correction_id
               FROM correction_line WHERE replacement_id IS NOT NULL GROUP BY replacement_id) l
           LEFT JOIN bucket o ON o.id = l.bucket_id LEFT JOIN bucket n ON n.id = l.replacement_id
           LEFT JOIN correction c ON c.id = l.correction_id
           WHERE buckets <> 1 OR (n.billing_account_id, n.legal_entity_id, n.unit, n.tariff_id, n.priority, n.tier,
                   n.models, n.currency, n.kind, n.payer, n.offer_id, n.order_id, n.granted, n.net, n.tax, n.sold_at_ns,
                   n.valid_from_ns) IS DISTINCT FROM
               (o.billing_account_id, o.legal_entity_id, o.unit, o.tariff_id, o.priority, o.tier, o.models, o.currency,
                   o.kind, o.payer, o.offer_id, o.order_id, l.amount, l.net, l.tax, c.at_ns, c.at_ns)""",
    ),
    Query(
        "lines belong to a correction, and a payment is charged back once",
        "SELECT count(*) FROM correction",
        """SELECT 'correction ' || l.correction_id FROM correction_line l
           LEFT JOIN correction c ON c.id = l.correction_id
           WHERE (l.stream, l.seq) IS DISTINCT FROM (c.stream, c.seq)
           UNION ALL
           SELECT 'correction ' || c.id || ' has no lines' FROM correction c
           WHERE NOT EXISTS (SELECT FROM correction_line l WHERE l.correction_id = c.id)
           UNION ALL
           SELECT 'order ' || about FROM correction WHERE kind = 'payment_charged_back' GROUP BY about
               HAVING count(*) > 1""",
    ),
)
