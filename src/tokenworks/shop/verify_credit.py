"""Checks about credit, read-only: agreements and their periods, what was collected and paid, what bills say is owed."""

from tokenworks.ledger.verify import Query

# What was billed of every credit bucket up to each bill, and what all of it costs by the bucket's own terms.
_BILLED = """
    SELECT x.*, div(2 * price * used_so_far + granted, 2 * granted) AS total_due FROM (
        SELECT l.bill_id, l.bucket_id, l.order_id, l.used, b.granted, b.net, b.net + b.tax AS price, b.order_id AS of,
            m.spent - m.refunded AS spent, sum(l.used) OVER w AS used_so_far, sum(l.net) OVER w AS net_so_far,
            sum(l.total) OVER w AS total_so_far
        FROM bill_credit l JOIN bill i ON i.id = l.bill_id
        LEFT JOIN bucket b ON b.id = l.bucket_id AND b.kind = 'credit'
        LEFT JOIN bill_balance m ON (m.bill_id, m.bucket_id) = (l.bill_id, l.bucket_id)
        WINDOW w AS (PARTITION BY l.bucket_id ORDER BY i.ordinal)) x
"""

# Everything that was taken off what is owed under an agreement: by a carrier, by a payment, or because it was given up.
_PAID = """
    SELECT c.order_id, c.amount, u.stream, u.seq FROM collection c
    JOIN collection_outcome u ON u.collection_id = c.id AND u.collected
    UNION ALL
    SELECT substr(payer, 8), amount, stream, seq FROM payment_received WHERE payer LIKE 'credit/%'
    UNION ALL
    SELECT substr(w.about, 8), l.due, w.stream, w.seq FROM correction w JOIN correction_line l ON l.correction_id = w.id
    WHERE w.kind = 'receivable_written_off' AND w.about LIKE 'credit/%'
"""

QUERIES = (
    Query(
        "periods of a credit agreement follow one another and grant its limit",
        "SELECT count(*) FROM bucket WHERE kind = 'credit'",
        """SELECT 'bucket ' || b.id FROM (
               SELECT b.*, lag(b.valid_to_ns, 1, b.valid_from_ns) OVER (PARTITION BY order_id ORDER BY valid_from_ns)
                   AS before_ns FROM bucket b WHERE kind = 'credit') b
           JOIN offer f ON f.id = b.offer_id
           WHERE b.valid_from_ns < b.before_ns OR (b.granted, b.unit) <> (f.granted, f.unit)
           UNION ALL
           SELECT 'agreement ' || order_id || ' ended' FROM credit_end e
           WHERE NOT EXISTS (SELECT FROM bucket b WHERE b.order_id = e.order_id AND b.kind = 'credit')""",
    ),
    Query(
        "what carriers took over and payers paid is posted, once and as it was",
        "SELECT (SELECT count(*) FROM collection_outcome) + (SELECT count(*) FROM payment_received)",
        f"""SELECT coalesce(b.event_id, p.event_id) FROM (
                SELECT 'payment/' || id AS event_id, 'cash/clearing' AS debit, 'receivable/' || payer AS credit,
                    currency AS unit, amount, legal_entity_id FROM payment_received
                UNION ALL
                SELECT 'collection/' || c.id, 'receivable/' || u.payer, 'receivable/credit/' || c.order_id, c.currency,
                    c.amount, o.legal_entity_id
                FROM collection c JOIN collection_outcome u ON u.collection_id = c.id AND u.collected
                JOIN customer_order o ON o.id = c.order_id) b
            FULL JOIN (
                SELECT p.event_id, d.code AS debit, c.code AS credit, t.unit, t.amount, p.legal_entity_id
                FROM posting p JOIN transfer t ON t.posting_id = p.id
                JOIN account d ON d.id = t.debit_account_id JOIN account c ON c.id = t.credit_account_id
                WHERE p.kind IN ('payment_received', 'credit_collected')) p
                USING (event_id, debit, credit, unit, amount, legal_entity_id)
            WHERE b.event_id IS NULL OR p.event_id IS NULL
            UNION ALL
            SELECT 'collection ' || c.id FROM collection c LEFT JOIN bucket b ON b.id = c.bucket_id
            LEFT JOIN customer_order o ON o.id = c.order_id
            WHERE (b.order_id, b.currency, o.phone) IS DISTINCT FROM (c.order_id, c.currency, c.phone)
            UNION ALL
            SELECT 'outcome ' || u.collection_id FROM collection_outcome u
            WHERE NOT EXISTS (SELECT FROM collection c WHERE c.id = u.collection_id)
            UNION ALL
            SELECT 'nobody owes as ' || x.order_id FROM ({_PAID}) x
            WHERE NOT EXISTS (SELECT FROM bucket b WHERE b.order_id = x.order_id AND b.kind = 'credit')""",  # noqa: S608
    ),
    Query(
        "billed use on credit costs what its bucket says, once",
        "SELECT count(*) FROM bill_credit",
        f"""SELECT 'bill ' || bill_id || ' bucket ' || bucket_id FROM ({_BILLED}) l
            WHERE "of" IS DISTINCT FROM order_id OR used IS DISTINCT FROM spent
                OR (total_so_far, net_so_far) IS DISTINCT FROM
                    (total_due, div(2 * total_due * net + price, 2 * price))
            UNION ALL
            SELECT 'bill ' || m.bill_id || ' bucket ' || m.bucket_id FROM bill_balance m
            JOIN bucket b ON b.id = m.bucket_id AND b.kind = 'credit'
            WHERE m.spent <> m.refunded AND NOT EXISTS (
                SELECT FROM bill_credit l WHERE (l.bill_id, l.bucket_id) = (m.bill_id, m.bucket_id))""",  # noqa: S608
    ),
    Query(
        "what bills say is owed follows from use and payments",
        "SELECT count(*) FROM bill_owed",
        f"""SELECT 'bill ' || bill_id || ' agreement ' || order_id FROM (
                SELECT l.*, lag(l.closing, 1, 0::numeric) OVER (PARTITION BY l.order_id ORDER BY b.ordinal) AS before,
                    coalesce((SELECT sum(total) FROM bill_credit c
                        WHERE (c.bill_id, c.order_id) = (l.bill_id, l.order_id)), 0) AS billed,
                    sum(l.paid) OVER (PARTITION BY l.order_id ORDER BY b.ordinal) AS paid_so_far,
                    coalesce((SELECT sum(x.amount) FROM ({_PAID}) x WHERE x.order_id = l.order_id
                        AND x.seq <= coalesce((b.cut ->> x.stream)::bigint, 0)), 0) AS paid_up_to
                FROM bill_owed l JOIN bill b ON b.id = l.bill_id) l
            WHERE opening <> before OR used <> billed OR paid_so_far <> paid_up_to
            UNION ALL
            SELECT 'bill ' || c.bill_id || ' agreement ' || c.order_id FROM bill_credit c
            WHERE NOT EXISTS (
                SELECT FROM bill_owed l WHERE (l.bill_id, l.order_id) = (c.bill_id, c.order_id))""",  # noqa: S608
    ),
)
