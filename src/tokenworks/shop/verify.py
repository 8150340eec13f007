"""Checks of the shop's invariants, read-only.

Parties, keys and usage name the same account; orders, payments and buckets agree; bills add up and join. Those about
credit are in `verify_credit`.
"""

from tokenworks.ledger.seal import Connection
from tokenworks.ledger.verify import Check, Query, run
from tokenworks.shop import verify_credit


async def checks(connection: Connection) -> list[Check]:
    """All invariants of the shop; the connection is in one REPEATABLE READ transaction."""
    return await run(connection, QUERIES + verify_credit.QUERIES)


QUERIES = (
    Query(
        "orders and keys are of their customer's account and seller",
        "SELECT (SELECT count(*) FROM customer_order) + (SELECT count(*) FROM access_key)",
        """SELECT x.what || ' ' || x.id FROM (
               SELECT 'order' AS what, id, customer_id, billing_account_id, legal_entity_id FROM customer_order
               UNION ALL
               SELECT 'key', id, customer_id, billing_account_id, legal_entity_id FROM access_key) x
           LEFT JOIN customer c ON c.id = x.customer_id LEFT JOIN billing_account b ON b.customer_id = c.id
           WHERE (x.billing_account_id, x.legal_entity_id) IS DISTINCT FROM (b.id, c.legal_entity_id)""",
    ),
    Query(
        "keys that are not revoked are in the state of their account",
        "SELECT count(*) FROM access_key",
        """SELECT 'key ' || k.id FROM access_key k LEFT JOIN billing_account b ON b.id = k.billing_account_id
           WHERE (k.state <> 'revoked' AND k.state IS DISTINCT FROM b.state)
               OR (k.revoked_at_ns IS NOT NULL) <> (k.state = 'revoked')""",
    ),
    Query(
        "offers and orders are of one seller",
        "SELECT count(*) FROM customer_order",
        """SELECT 'order ' || o.id FROM customer_order o LEFT JOIN offer f ON f.id = o.offer_id
           WHERE f.legal_entity_id IS DISTINCT FROM o.legal_entity_id""",
    ),
    Query(
        "usage is of its key's account and seller",
        "SELECT (SELECT count(*) FROM usage_record) + (SELECT count(*) FROM usage_opening)",
        """SELECT 'request ' || r.request_id FROM (
               SELECT request_id, opened_at_ns, key_id, billing_account_id, legal_entity_id FROM usage_record
               UNION ALL
               SELECT request_id, opened_at_ns, key_id, billing_account_id, legal_entity_id FROM usage_opening) r
           LEFT JOIN access_key k ON k.id = r.key_id
           WHERE (r.billing_account_id, r.legal_entity_id)
               IS DISTINCT FROM (k.billing_account_id, k.legal_entity_id)
               AND NOT (k.id IS NULL AND EXISTS (SELECT FROM ledger_epoch e
                    WHERE e.why <> 'created' AND r.opened_at_ns < e.started_at_ns))
               AND (r.key_id, r.billing_account_id) <> ('', '')""",
    ),
    Query(
        "orders are in the state that their payment or failure says",
        "SELECT count(*) FROM customer_order",
        """SELECT 'order ' || o.id FROM customer_order o
           LEFT JOIN offer s ON s.id = o.offer_id
           LEFT JOIN payment p ON p.order_id = o.id LEFT JOIN order_failure f ON f.order_id = o.id
           WHERE o.state IS DISTINCT FROM CASE WHEN s.kind = 'credit' OR p.order_id IS NOT NULL THEN 'completed'
                   WHEN f.order_id IS NOT NULL THEN 'failed' ELSE 'accepted' END
               OR (o.bucket_id IS NOT NULL) <> (o.state = 'completed')
               OR (s.kind = 'credit' AND (p.order_id IS NOT NULL OR f.order_id IS NOT NULL))""",
    ),
    Query(
        "completed orders have their payment and bucket",
        "SELECT count(*) FROM customer_order WHERE state = 'completed'",
        """SELECT 'order ' || o.id FROM customer_order o
           LEFT JOIN offer s ON s.id = o.offer_id
           LEFT JOIN payment p ON p.order_id = o.id LEFT JOIN bucket b ON b.id = o.bucket_id
           WHERE o.state = 'completed' AND (
               (s.kind = 'prepaid' AND (p.amount, p.currency) IS DISTINCT FROM (o.price, o.currency))
               OR b.order_id IS DISTINCT FROM o.id
               OR (s.kind = 'prepaid' AND b.payer IS DISTINCT FROM p.payer))""",
    ),
    Query(
        "payments and buckets belong to completed orders",
        "SELECT (SELECT count(*) FROM payment) + (SELECT count(*) FROM bucket)",
        """SELECT 'payment of order ' || p.order_id FROM payment p LEFT JOIN customer_order o ON o.id = p.order_id
           WHERE o.state IS DISTINCT FROM 'completed'
           UNION ALL
           SELECT 'bucket ' || b.id FROM bucket b
           LEFT JOIN customer_order o ON o.id = b.order_id LEFT JOIN offer s ON s.id = o.offer_id
           WHERE o.state IS DISTINCT FROM 'completed'
               OR (b.billing_account_id, b.legal_entity_id, b.offer_id, b.currency, b.kind)
                   IS DISTINCT FROM (o.billing_account_id, o.legal_entity_id, o.offer_id, o.currency, s.kind)
               OR (b.kind = 'credit' AND b.payer <> 'credit/' || o.id)
               OR (NOT EXISTS (SELECT FROM correction_line l WHERE l.replacement_id = b.id)
                   AND ((b.net, b.tax) IS DISTINCT FROM (o.net, o.tax)
                       OR (b.kind = 'prepaid' AND o.bucket_id IS DISTINCT FROM b.id)))""",
    ),
    Query(
        "a bill is the sum of its lines",
        "SELECT count(*) FROM bill",
        """SELECT 'bill ' || b.id FROM bill b LEFT JOIN (
               SELECT bill_id, sum(net) AS net, sum(tax) AS tax, sum(total) AS total FROM (
                   SELECT bill_id, net, tax, total FROM bill_line
                   UNION ALL SELECT bill_id, net, tax, total FROM bill_credit) x GROUP BY bill_id) l
               ON l.bill_id = b.id
           LEFT JOIN (SELECT bill_id, sum(net) AS net, sum(tax) AS tax FROM bill_correction GROUP BY bill_id) c
               ON c.bill_id = b.id
           WHERE (b.net, b.tax) IS DISTINCT FROM
                   (coalesce(l.net, 0) - coalesce(c.net, 0), coalesce(l.tax, 0) - coalesce(c.tax, 0))
               OR b.total <> b.net + b.tax""",
    ),
    Query(
        "billed corrections are all up to the last bill, as they were made",
        "SELECT count(*) FROM bill_correction",
        """SELECT 'correction ' || coalesce(l.correction_id, m.id) FROM (
               SELECT b.billing_account_id AS account, l.* FROM bill b JOIN bill_correction l ON l.bill_id = b.id) l
           FULL JOIN (
               SELECT c.id, x.ordinal, c.billing_account_id AS account, c.kind, c.about, c.reason, x.bucket_id,
                   x.replacement_id, x.unit, x.amount, CASE c.kind WHEN 'usage_refunded' THEN 0 ELSE x.net END AS net,
                   CASE c.kind WHEN 'usage_refunded' THEN 0 ELSE x.tax END AS tax, x.due, c.used_at_ns, c.at_ns
               FROM correction c JOIN correction_line x ON x.correction_id = c.id
               JOIN LATERAL (SELECT cut FROM bill b WHERE b.billing_account_id = c.billing_account_id
                   ORDER BY ordinal DESC LIMIT 1) last ON c.seq <= coalesce((last.cut ->> c.stream)::bigint, 0)) m
               ON (m.id, m.ordinal) = (l.correction_id, l.line)
           WHERE (l.account, l.kind, l.about, l.reason, l.bucket_id, l.replacement_id, l.unit, l.amount, l.net, l.tax,
                   l.due, l.used_at_ns, l.at_ns) IS DISTINCT FROM
               (m.account, m.kind, m.about, m.reason, m.bucket_id, m.replacement_id, m.unit, m.amount, m.net, m.tax,
                   m.due, m.used_at_ns, m.at_ns)""",
    ),
    Query(
        "bill lines are as their buckets were sold",
        "SELECT count(*) FROM bill_line",
        """SELECT 'bill ' || l.bill_id || ' line ' || l.ordinal
           FROM bill_line l LEFT JOIN bucket b ON b.id = l.bucket_id
           WHERE (l.order_id, l.granted, l.unit, l.net, l.tax, l.sold_at_ns)
               IS DISTINCT FROM (b.order_id, b.granted, b.unit, b.net, b.tax, b.sold_at_ns)""",
    ),
    Query(
        "bills are numbered without a gap and follow each other",
        "SELECT count(*) FROM bill",
        """SELECT 'bill ' || id FROM (
               SELECT *, row_number() OVER (PARTITION BY legal_entity_id ORDER BY serial) AS place,
                   row_number() OVER w AS turn, lag(to_ns) OVER w AS before_ns
               FROM bill WINDOW w AS (PARTITION BY billing_account_id ORDER BY ordinal)) b
           WHERE serial <> place OR ordinal <> turn OR from_ns <> coalesce(before_ns, from_ns)""",
    ),
    Query(
        "billed balances follow each other and the bill's use and corrections",
        "SELECT count(*) FROM bill_balance",
        """SELECT 'bill ' || id || ' bucket ' || bucket_id FROM (
               SELECT b.id, l.bucket_id, l.opening, l.spent, l.refunded, l.withdrawn, lag(l.closing, 1, 0::numeric)
                       OVER (PARTITION BY l.bucket_id ORDER BY b.ordinal) AS before,
                   coalesce((SELECT sum(amount) FROM bill_correction c WHERE c.bill_id = b.id
                       AND c.bucket_id = l.bucket_id AND c.kind = 'usage_refunded'), 0) AS given_back,
                   coalesce((SELECT sum(amount) FROM bill_correction c WHERE c.bill_id = b.id
                       AND c.bucket_id = l.bucket_id AND (c.kind <> 'usage_refunded' OR c.replacement_id IS NOT NULL)),
                       0) AS taken,
                   coalesce((SELECT sum(amount) FROM bill_usage u
                       WHERE u.bill_id = b.id AND u.bucket_id = l.bucket_id), 0) AS used
               FROM bill b JOIN bill_balance l ON l.bill_id = b.id) x
           WHERE opening <> before OR spent <> used OR refunded <> given_back OR withdrawn <> taken""",
    ),
    Query(
        "billed use is every proven charge up to the last bill, once",
        "SELECT count(*) FROM bill_usage",
        """SELECT 'billing account ' || billing_account_id || ' bucket ' || bucket_id FROM (
               SELECT b.billing_account_id, u.bucket_id, sum(u.amount) AS billed
               FROM bill b JOIN bill_usage u ON u.bill_id = b.id GROUP BY 1, 2) billed
           FULL JOIN (
               SELECT r.billing_account_id, c.bucket_id, sum(c.amount) AS charged
               FROM usage_record r CROSS JOIN unnest(r.charges) c
               JOIN LATERAL (SELECT cut FROM bill b WHERE b.billing_account_id = r.billing_account_id
                   ORDER BY ordinal DESC LIMIT 1) last ON r.seq <= coalesce((last.cut ->> r.stream)::bigint, 0)
               WHERE c.proven GROUP BY 1, 2) charged USING (billing_account_id, bucket_id)
           WHERE billed IS DISTINCT FROM charged""",
    ),
)
