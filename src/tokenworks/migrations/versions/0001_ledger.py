"""Tables of the ledger: seals, accounts, postings, transfers, buckets, leases, epochs.

Rows are only ever added, except for caches that `tokenworks verify` rebuilds: `seal_stream`, `account.balance` and
`lease.open`. Transfers, the most numerous rows, have no key, no foreign keys and no index by seal: each would cost more
than the row. The checks find what they would have refused, and a posting's transfers lie together. The columns `stream`
and `seq` of an added row come from the sealed transaction that adds it; outside of one the default has no value and the
row is refused.
"""

from alembic import op

revision = "0001"
down_revision = None

SEALED_COLUMNS = """
    stream text NOT NULL DEFAULT current_setting('tokenworks.stream'),
    seq bigint NOT NULL DEFAULT current_setting('tokenworks.seq')::bigint
"""


def upgrade() -> None:
    """Create the tables."""
    for statement in (SEAL, ACCOUNT, POSTING, BUCKET, LEASE, EPOCH):
        op.execute(statement)


SEAL = """
CREATE TABLE seal_stream (
    stream text PRIMARY KEY,
    seq bigint NOT NULL,
    digest text NOT NULL
);
CREATE TABLE seal (
    stream text NOT NULL,
    seq bigint NOT NULL CHECK (seq > 0),
    previous text NOT NULL,
    digest text NOT NULL,
    at_ns bigint NOT NULL,
    PRIMARY KEY (stream, seq)
);
"""

ACCOUNT = f"""
CREATE TABLE account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    legal_entity_id text NOT NULL,
    code text COLLATE "C" NOT NULL,
    unit text NOT NULL,
    debit_normal boolean NOT NULL,
    balance numeric(40, 0) NOT NULL DEFAULT 0 CHECK (balance >= 0),
    {SEALED_COLUMNS},
    UNIQUE (code, unit, legal_entity_id)
) WITH (fillfactor = 70);
CREATE INDEX account_sealed ON account (stream, seq);
"""

POSTING = f"""
CREATE TABLE posting (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    event_id text COLLATE "C" NOT NULL UNIQUE,
    body_digest text NOT NULL,
    legal_entity_id text NOT NULL,
    at_ns bigint NOT NULL,
    used_at_ns bigint NOT NULL,
    detail jsonb NOT NULL,
    {SEALED_COLUMNS}
);
CREATE INDEX posting_sealed ON posting (stream, seq);
CREATE TABLE transfer (
    posting_id bigint NOT NULL,
    ordinal integer NOT NULL,
    debit_account_id bigint NOT NULL,
    credit_account_id bigint NOT NULL,
    unit text NOT NULL,
    amount numeric(40, 0) NOT NULL CHECK (amount > 0),
    {SEALED_COLUMNS},
    CHECK (debit_account_id <> credit_account_id)
);
CREATE INDEX transfer_posting ON transfer USING brin (posting_id) WITH (pages_per_range = 16);
"""

BUCKET = f"""
CREATE TABLE bucket (
    id text COLLATE "C" PRIMARY KEY,
    billing_account_id text NOT NULL,
    legal_entity_id text NOT NULL,
    unit text NOT NULL,
    tariff_id text NOT NULL,
    valid_from_ns bigint NOT NULL,
    valid_to_ns bigint NOT NULL,
    priority integer NOT NULL,
    tier text NOT NULL,
    models text[] NOT NULL,
    granted numeric(40, 0) NOT NULL CHECK (granted > 0),
    net numeric(40, 0) NOT NULL CHECK (net >= 0),
    tax numeric(40, 0) NOT NULL CHECK (tax >= 0),
    currency text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('prepaid', 'credit')),
    payer text NOT NULL,
    offer_id text NOT NULL,
    order_id text NOT NULL,
    sold_at_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    CHECK (valid_from_ns < valid_to_ns)
);
CREATE INDEX bucket_sealed ON bucket (stream, seq);
CREATE INDEX bucket_billing_account ON bucket (billing_account_id, valid_to_ns);
CREATE INDEX bucket_order ON bucket (order_id);
CREATE INDEX bucket_valid_to ON bucket (valid_to_ns);
"""

LEASE = f"""
CREATE TABLE lease (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    worker text NOT NULL,
    epoch text NOT NULL,
    sequence bigint NOT NULL,
    ordinal integer NOT NULL,
    request_digest text NOT NULL,
    bucket_id text COLLATE "C" NOT NULL REFERENCES bucket,
    amount numeric(40, 0) NOT NULL CHECK (amount > 0),
    granted_at_ns bigint NOT NULL,
    use_until_ns bigint NOT NULL,
    linger boolean NOT NULL,
    open boolean NOT NULL DEFAULT true,
    {SEALED_COLUMNS},
    UNIQUE (worker, epoch, sequence, ordinal)
);
CREATE INDEX lease_sealed ON lease (stream, seq);
CREATE INDEX lease_open_by_bucket ON lease (bucket_id) WHERE open;
CREATE INDEX lease_open_by_worker ON lease (worker) WHERE open;
CREATE INDEX lease_open_by_deadline ON lease (use_until_ns) WHERE open;
CREATE TABLE lease_return (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lease_id bigint NOT NULL REFERENCES lease,
    amount numeric(40, 0) NOT NULL CHECK (amount >= 0),
    claimed numeric(40, 0) NOT NULL,
    returned_at_ns bigint NOT NULL,
    posting_id bigint REFERENCES posting,
    {SEALED_COLUMNS}
);
CREATE INDEX lease_return_sealed ON lease_return (stream, seq);
CREATE INDEX lease_return_lease ON lease_return (lease_id);
CREATE TABLE lease_end (
    lease_id bigint PRIMARY KEY REFERENCES lease,
    how text NOT NULL CHECK (how IN ('closed', 'reclaimed')),
    remainder numeric(40, 0) NOT NULL CHECK (remainder >= 0),
    claimed numeric(40, 0),
    ended_at_ns bigint NOT NULL,
    posting_id bigint REFERENCES posting,
    {SEALED_COLUMNS}
);
CREATE INDEX lease_end_sealed ON lease_end (stream, seq);
"""

EPOCH = f"""
CREATE TABLE ledger_epoch (
    epoch bigint PRIMARY KEY CHECK (epoch > 0),
    cluster text NOT NULL,
    timeline text NOT NULL,
    why text NOT NULL CHECK (why IN ('created', 'failover', 'restore')),
    started_at_ns bigint NOT NULL,
    settle_until_ns bigint NOT NULL,
    {SEALED_COLUMNS}
);
CREATE INDEX ledger_epoch_sealed ON ledger_epoch (stream, seq);
CREATE TABLE ledger_epoch_site (
    epoch bigint NOT NULL REFERENCES ledger_epoch,
    site_id text COLLATE "C" NOT NULL,
    shipped_at_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (epoch, site_id)
);
CREATE INDEX ledger_epoch_site_sealed ON ledger_epoch_site (stream, seq);
CREATE TABLE ledger_epoch_end (
    epoch bigint PRIMARY KEY REFERENCES ledger_epoch,
    how text NOT NULL CHECK (how IN ('created', 'shipped', 'deadline', 'operator')),
    settled_at_ns bigint NOT NULL,
    {SEALED_COLUMNS}
);
CREATE INDEX ledger_epoch_end_sealed ON ledger_epoch_end (stream, seq);
"""
