"""Tables of metering: journals and their shipments, openings that wait, usage records with charges and attempts.

Rows are only ever added; the table `journal` is a cache over `shipment`. A request is one row, with its charges and
attempts in it, in the partition of the day on which it was opened; metering makes partitions as it needs them. The big
tables carry no foreign keys, no checks, no index by seal, and records no key of their own: each would cost as much as
half the row, and `tokenworks verify` finds what they would refuse.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

SEALED_COLUMNS = """
    stream text NOT NULL DEFAULT current_setting('tokenworks.stream'),
    seq bigint NOT NULL DEFAULT current_setting('tokenworks.seq')::bigint
"""

OPENING_COLUMNS = """
    request_id text COLLATE "C" NOT NULL,
    opened_at_ns bigint NOT NULL,
    legal_entity_id text NOT NULL,
    billing_account_id text COLLATE "C" NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    streamed boolean NOT NULL,
    input_max bigint NOT NULL,
    output_max bigint NOT NULL,
    reserved reserved_part[] NOT NULL
"""

COUNT_COLUMNS = """
    tokens_input bigint,
    tokens_cached_input bigint,
    tokens_cache_write bigint,
    tokens_output bigint,
    tokens_reasoning bigint
"""


def upgrade() -> None:
    """Create the tables."""
    for statement in (JOURNAL, LINES, OPENING, RECORD):
        op.execute(statement)


JOURNAL = f"""
CREATE TABLE journal (
    id text COLLATE "C" PRIMARY KEY,
    worker text NOT NULL,
    posted_through bigint NOT NULL,
    shipments integer NOT NULL,
    openings bigint NOT NULL,
    closings bigint NOT NULL,
    final boolean NOT NULL
);
CREATE TABLE shipment (
    journal_id text COLLATE "C" NOT NULL,
    ordinal integer NOT NULL,
    worker text NOT NULL,
    from_position bigint NOT NULL,
    through_position bigint NOT NULL,
    openings bigint NOT NULL,
    closings bigint NOT NULL,
    repeats bigint NOT NULL,
    unproven bigint NOT NULL,
    final boolean NOT NULL,
    posted_at_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (journal_id, ordinal)
);
CREATE INDEX shipment_sealed ON shipment (stream, seq);
"""

LINES = f"""
CREATE TYPE reserved_part AS (lease_id bigint, bucket_id text, unit text, amount numeric(40, 0));
CREATE TYPE charge_line AS (
    lease_id bigint,
    bucket_id text,
    tariff text,
    unit text,
    {COUNT_COLUMNS},
    amount numeric(40, 0),
    proven boolean,
    revenue numeric(40, 0),
    currency text
);
CREATE TYPE attempt_line AS (
    endpoint_id text,
    supplier_id text,
    tariff text,
    currency text,
    {COUNT_COLUMNS},
    cost numeric(40, 0),
    outcome text,
    sent_after_ns bigint,
    first_token_after_ns bigint,
    ended_after_ns bigint
);
"""

OPENING = f"""
CREATE TABLE usage_opening (
    journal_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    {OPENING_COLUMNS},
    {SEALED_COLUMNS},
    PRIMARY KEY (journal_id, position)
);
CREATE TABLE usage_extension (
    journal_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    extended_at bigint NOT NULL,
    input_max bigint NOT NULL,
    output_max bigint NOT NULL,
    reserved reserved_part[] NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (journal_id, position, extended_at)
);
"""

RECORD = f"""
CREATE TABLE usage_record (
    id bigint NOT NULL,
    journal_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    closing_position bigint NOT NULL,
    {OPENING_COLUMNS},
    closed_at_ns bigint NOT NULL,
    first_token_after_ns bigint NOT NULL,
    ending text NOT NULL,
    basis text NOT NULL,
    {COUNT_COLUMNS},
    counted bigint[] NOT NULL,
    reported bigint[],
    flags text[] NOT NULL,
    charges charge_line[] NOT NULL,
    attempts attempt_line[] NOT NULL,
    posting_id bigint,
    {SEALED_COLUMNS}
) PARTITION BY RANGE (opened_at_ns);
CREATE INDEX usage_record_id ON usage_record (id);
CREATE INDEX usage_record_billing_account ON usage_record (billing_account_id, id);
CREATE INDEX usage_record_request ON usage_record (request_id);
"""
