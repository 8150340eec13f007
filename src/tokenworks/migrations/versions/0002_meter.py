"""Tables of metering: journals and their shipments, openings that wait, usage records with charges and attempts.

Rows are only ever added; the table `journal` is a cache over `shipment`. The big tables carry no foreign keys: a row
costs twice as much with them, and `tokenworks verify` checks what they would.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

SEALED_COLUMNS = """
    stream text NOT NULL DEFAULT current_setting('tokenworks.stream'),
    seq bigint NOT NULL DEFAULT current_setting('tokenworks.seq')::bigint
"""

OPENING_COLUMNS = """
    request_id text NOT NULL,
    opened_at_ns bigint NOT NULL,
    legal_entity_id text NOT NULL,
    billing_account_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    streamed boolean NOT NULL,
    input_max bigint NOT NULL,
    output_max bigint NOT NULL,
    reserved jsonb NOT NULL
"""

COUNT_COLUMNS = """
    tokens_input bigint NOT NULL CHECK (tokens_input >= 0),
    tokens_cached_input bigint NOT NULL CHECK (tokens_cached_input >= 0),
    tokens_cache_write bigint NOT NULL CHECK (tokens_cache_write >= 0),
    tokens_output bigint NOT NULL CHECK (tokens_output >= 0),
    tokens_reasoning bigint NOT NULL CHECK (tokens_reasoning >= 0)
"""


def upgrade() -> None:
    """Create the tables."""
    for statement in (JOURNAL, OPENING, RECORD, CHARGE, ATTEMPT):
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

OPENING = f"""
CREATE TABLE usage_opening (
    journal_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    {OPENING_COLUMNS},
    {SEALED_COLUMNS},
    PRIMARY KEY (journal_id, position)
);
CREATE INDEX usage_opening_sealed ON usage_opening (stream, seq);
"""

RECORD = f"""
CREATE TABLE usage_record (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
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
    posting_id bigint,
    {SEALED_COLUMNS},
    UNIQUE (journal_id, position)
);
CREATE INDEX usage_record_sealed ON usage_record (stream, seq);
CREATE INDEX usage_record_billing_account ON usage_record (billing_account_id, id);
CREATE INDEX usage_record_request ON usage_record (request_id);
"""

CHARGE = f"""
CREATE TABLE charge (
    journal_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    ordinal smallint NOT NULL,
    lease_id bigint NOT NULL,
    bucket_id text COLLATE "C" NOT NULL,
    tariff text NOT NULL,
    unit text NOT NULL,
    {COUNT_COLUMNS},
    amount numeric(40, 0) NOT NULL CHECK (amount >= 0),
    proven boolean NOT NULL,
    revenue numeric(40, 0) NOT NULL CHECK (revenue >= 0),
    currency text NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (journal_id, position, ordinal)
);
CREATE INDEX charge_sealed ON charge (stream, seq);
"""

ATTEMPT = f"""
CREATE TABLE attempt (
    journal_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    ordinal smallint NOT NULL,
    endpoint_id text NOT NULL,
    supplier_id text NOT NULL,
    tariff text NOT NULL,
    currency text NOT NULL,
    {COUNT_COLUMNS},
    cost numeric(40, 0) NOT NULL CHECK (cost >= 0),
    outcome text NOT NULL,
    sent_after_ns bigint NOT NULL,
    first_token_after_ns bigint NOT NULL,
    ended_after_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (journal_id, position, ordinal)
);
CREATE INDEX attempt_sealed ON attempt (stream, seq);
"""
