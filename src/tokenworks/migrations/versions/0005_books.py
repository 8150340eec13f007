"""Tables of the books beyond posting: corrections and where they are on bills, sums by hour, what the lake has.

Corrections and what the usage lake has are only ever added, under seal. `account_hour` and `usage_hour`, each with its
cursor, are caches that `tokenworks verify` rebuilds.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

SEALED_COLUMNS = """
    stream text NOT NULL DEFAULT current_setting('tokenworks.stream'),
    seq bigint NOT NULL DEFAULT current_setting('tokenworks.seq')::bigint
"""

FINAL = ("correction", "correction_line", "bill_correction", "lake_export", "lake_file")


def upgrade() -> None:
    """Create the tables."""
    for statement in (CORRECTION, BILLED, HOURS, USAGE_HOURS, LAKE):
        op.execute(statement)
    for table in FINAL:
        op.execute(
            f"CREATE TRIGGER {table}_is_final BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )


CORRECTION = f"""
CREATE TABLE correction (
    id text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('usage_refunded', 'package_withdrawn', 'payment_charged_back',
        'receivable_written_off', 'refund_settled', 'supplier_credited')),
    legal_entity_id text NOT NULL,
    billing_account_id text NOT NULL,
    about text COLLATE "C" NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    reference text NOT NULL,
    used_at_ns bigint NOT NULL,
    at_ns bigint NOT NULL,
    posting_id bigint NOT NULL REFERENCES posting,
    {SEALED_COLUMNS}
);
CREATE INDEX correction_sealed ON correction (stream, seq);
CREATE INDEX correction_about ON correction (about);
CREATE INDEX correction_billing_account ON correction (billing_account_id, id);
CREATE TABLE correction_line (
    correction_id text COLLATE "C" NOT NULL REFERENCES correction,
    ordinal integer NOT NULL,
    bucket_id text COLLATE "C" REFERENCES bucket,
    unit text NOT NULL,
    amount numeric(40, 0) NOT NULL CHECK (amount >= 0),
    currency text NOT NULL,
    revenue numeric(40, 0) NOT NULL CHECK (revenue >= 0),
    net numeric(40, 0) NOT NULL CHECK (net >= 0),
    tax numeric(40, 0) NOT NULL CHECK (tax >= 0),
    due numeric(40, 0) NOT NULL CHECK (due >= 0),
    charge integer,
    replacement_id text COLLATE "C" REFERENCES bucket,
    {SEALED_COLUMNS},
    PRIMARY KEY (correction_id, ordinal)
);
CREATE INDEX correction_line_sealed ON correction_line (stream, seq);
CREATE INDEX correction_line_bucket ON correction_line (bucket_id);
"""

BILLED = f"""
CREATE TABLE bill_correction (
    bill_id text COLLATE "C" NOT NULL REFERENCES bill,
    ordinal integer NOT NULL,
    correction_id text COLLATE "C" NOT NULL REFERENCES correction,
    line integer NOT NULL,
    kind text NOT NULL,
    about text NOT NULL,
    reason text NOT NULL,
    bucket_id text COLLATE "C",
    replacement_id text COLLATE "C",
    unit text NOT NULL,
    amount numeric(40, 0) NOT NULL,
    net numeric(40, 0) NOT NULL,
    tax numeric(40, 0) NOT NULL,
    due numeric(40, 0) NOT NULL,
    used_at_ns bigint NOT NULL,
    at_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (bill_id, ordinal),
    UNIQUE (correction_id, line)
);
CREATE INDEX bill_correction_sealed ON bill_correction (stream, seq);
"""

HOURS = """
CREATE INDEX posting_at ON posting (at_ns);
CREATE INDEX posting_late ON posting (at_ns) WHERE abs(at_ns - used_at_ns) > 3600000000000;
CREATE TABLE account_hour (
    account_id bigint NOT NULL,
    hour_ns bigint NOT NULL,
    debit numeric(40, 0) NOT NULL,
    credit numeric(40, 0) NOT NULL,
    PRIMARY KEY (account_id, hour_ns)
);
CREATE TABLE hours_cursor (
    stream text PRIMARY KEY,
    seq bigint NOT NULL
);
"""

USAGE_HOURS = """
CREATE TABLE usage_hour (
    hour_ns bigint NOT NULL,
    legal_entity_id text COLLATE "C" NOT NULL,
    billing_account_id text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    unit text COLLATE "C" NOT NULL,
    requests bigint NOT NULL,
    tokens_input bigint NOT NULL,
    tokens_cached_input bigint NOT NULL,
    tokens_cache_write bigint NOT NULL,
    tokens_output bigint NOT NULL,
    tokens_reasoning bigint NOT NULL,
    charged numeric(40, 0) NOT NULL,
    unproven numeric(40, 0) NOT NULL,
    revenue numeric(40, 0) NOT NULL,
    cost numeric(40, 0) NOT NULL,
    PRIMARY KEY (hour_ns, legal_entity_id, billing_account_id, model, unit)
);
CREATE INDEX usage_hour_billing_account ON usage_hour (billing_account_id, hour_ns);
CREATE TABLE usage_hour_cursor (
    stream text PRIMARY KEY,
    seq bigint NOT NULL
);
"""

LAKE = f"""
CREATE TABLE lake_export (
    from_seq bigint NOT NULL,
    through_seq bigint PRIMARY KEY,
    at_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    CHECK (from_seq <= through_seq)
);
CREATE INDEX lake_export_sealed ON lake_export (stream, seq);
CREATE TABLE lake_file (
    path text COLLATE "C" PRIMARY KEY,
    day text COLLATE "C" NOT NULL,
    from_seq bigint NOT NULL,
    through_seq bigint NOT NULL REFERENCES lake_export,
    records bigint NOT NULL CHECK (records > 0),
    tokens numeric(40, 0) NOT NULL,
    charged numeric(40, 0) NOT NULL,
    revenue numeric(40, 0) NOT NULL,
    cost numeric(40, 0) NOT NULL,
    {SEALED_COLUMNS},
    UNIQUE (through_seq, day)
);
CREATE INDEX lake_file_sealed ON lake_file (stream, seq);
"""
