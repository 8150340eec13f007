"""Tables of credit: agreements that ended, collections onto phone bills, payments received, and what bills say of them.

All are sealed and none ever changes: how a collection went is a row of its own. An agreement is an order, its periods
are buckets; both have their tables already.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

SEALED_COLUMNS = """
    stream text NOT NULL DEFAULT current_setting('tokenworks.stream'),
    seq bigint NOT NULL DEFAULT current_setting('tokenworks.seq')::bigint
"""

FINAL = ("credit_end", "collection", "collection_outcome", "payment_received", "bill_credit", "bill_owed")


def upgrade() -> None:
    """Create the tables."""
    for statement in (CREDIT, BILLED_CREDIT):
        op.execute(statement)
    for table in FINAL:
        op.execute(
            f"CREATE TRIGGER {table}_is_final BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )


CREDIT = f"""
CREATE TABLE credit_end (
    order_id text COLLATE "C" PRIMARY KEY REFERENCES customer_order,
    ended_at_ns bigint NOT NULL,
    {SEALED_COLUMNS}
);
CREATE INDEX credit_end_sealed ON credit_end (stream, seq);
CREATE TABLE collection (
    id text COLLATE "C" PRIMARY KEY,
    order_id text COLLATE "C" NOT NULL REFERENCES customer_order,
    bucket_id text COLLATE "C" NOT NULL UNIQUE REFERENCES bucket,
    phone text NOT NULL,
    amount numeric(40, 0) NOT NULL CHECK (amount > 0),
    currency text NOT NULL,
    description text NOT NULL,
    placed_at_ns bigint NOT NULL,
    {SEALED_COLUMNS}
);
CREATE INDEX collection_sealed ON collection (stream, seq);
CREATE INDEX collection_order ON collection (order_id);
CREATE TABLE collection_outcome (
    collection_id text COLLATE "C" PRIMARY KEY REFERENCES collection,
    collected boolean NOT NULL,
    payer text NOT NULL,
    reference text NOT NULL,
    code text NOT NULL,
    message text NOT NULL,
    at_ns bigint NOT NULL,
    {SEALED_COLUMNS}
);
CREATE INDEX collection_outcome_sealed ON collection_outcome (stream, seq);
CREATE TABLE payment_received (
    id text COLLATE "C" PRIMARY KEY,
    legal_entity_id text COLLATE "C" NOT NULL REFERENCES legal_entity,
    payer text COLLATE "C" NOT NULL,
    amount numeric(40, 0) NOT NULL CHECK (amount > 0),
    currency text NOT NULL,
    reference text NOT NULL,
    received_at_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    UNIQUE (legal_entity_id, payer, reference)
);
CREATE INDEX payment_received_sealed ON payment_received (stream, seq);
"""

BILLED_CREDIT = f"""
CREATE TABLE bill_credit (
    bill_id text COLLATE "C" NOT NULL REFERENCES bill,
    ordinal integer NOT NULL,
    order_id text COLLATE "C" NOT NULL REFERENCES customer_order,
    offer_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    bucket_id text COLLATE "C" NOT NULL,
    unit text NOT NULL,
    used numeric(40, 0) NOT NULL CHECK (used <> 0),
    tax_basis_points integer NOT NULL,
    net numeric(40, 0) NOT NULL,
    tax numeric(40, 0) NOT NULL,
    total numeric(40, 0) NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (bill_id, ordinal),
    CHECK (net + tax = total)
);
CREATE INDEX bill_credit_sealed ON bill_credit (stream, seq);
CREATE TABLE bill_owed (
    bill_id text COLLATE "C" NOT NULL REFERENCES bill,
    order_id text COLLATE "C" NOT NULL REFERENCES customer_order,
    opening numeric(40, 0) NOT NULL,
    used numeric(40, 0) NOT NULL,
    paid numeric(40, 0) NOT NULL,
    closing numeric(40, 0) NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (bill_id, order_id),
    CHECK (opening + used = paid + closing)
);
CREATE INDEX bill_owed_sealed ON bill_owed (stream, seq);
"""
