"""Tables of the business: parties, keys, models, endpoints, suppliers, tariffs, offers, orders, bills.

Rows that a charge or a customer may be held to (parties, offers, tariff versions, payments, bills) are sealed and never
change; a trigger refuses it to the program, the seal shows it of anybody else. Billing accounts, orders and keys are
sealed but for their state, which is checked against other rows. Models, endpoints and suppliers are not sealed. The
two `sandbox_` tables belong to the sandbox carrier, which stands for a system of somebody else.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

SEALED_COLUMNS = """
    stream text NOT NULL DEFAULT current_setting('tokenworks.stream'),
    seq bigint NOT NULL DEFAULT current_setting('tokenworks.seq')::bigint
"""

RATE_COLUMNS = """
    input numeric(40, 0) NOT NULL CHECK (input >= 0),
    cached_input numeric(40, 0) NOT NULL CHECK (cached_input >= 0),
    cache_write numeric(40, 0) NOT NULL CHECK (cache_write >= 0),
    output numeric(40, 0) NOT NULL CHECK (output >= 0),
    reasoning numeric(40, 0) NOT NULL CHECK (reasoning >= 0)
"""

# A key or an order of one legal entity for a customer of another cannot even be written down.
OF_ITS_CUSTOMER = """
    FOREIGN KEY (customer_id, legal_entity_id) REFERENCES customer (id, legal_entity_id),
    FOREIGN KEY (billing_account_id, customer_id) REFERENCES billing_account (id, customer_id)
"""

FINAL = (
    *("legal_entity", "customer", "purchase_tariff", "tariff", "tariff_rate", "offer", "order_failure", "payment"),
    *("bill", "bill_line", "bill_usage", "bill_balance"),
)
WITH_STATE = ("billing_account", "access_key", "customer_order")


def upgrade() -> None:
    """Create the tables."""
    for statement in (PARTIES, KEYS, PURCHASE, PLANT, TARIFFS, OFFERS, ORDERS, BILLS, COMMANDS, SANDBOX, REFUSE):
        op.execute(statement)
    for table in FINAL:
        op.execute(
            f"CREATE TRIGGER {table}_is_final BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
    for table in WITH_STATE:
        op.execute(
            f"CREATE TRIGGER {table}_stays BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )


PARTIES = f"""
CREATE TABLE legal_entity (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    country text NOT NULL,
    currency text NOT NULL,
    tax_basis_points integer NOT NULL CHECK (tax_basis_points BETWEEN 0 AND 10000),
    timezone text NOT NULL,
    created_at_ns bigint NOT NULL,
    {SEALED_COLUMNS}
);
CREATE INDEX legal_entity_sealed ON legal_entity (stream, seq);
CREATE TABLE customer (
    id text COLLATE "C" PRIMARY KEY,
    legal_entity_id text COLLATE "C" NOT NULL REFERENCES legal_entity,
    kind text NOT NULL CHECK (kind IN ('individual', 'enterprise')),
    name text NOT NULL,
    phone text NOT NULL,
    created_at_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    UNIQUE (id, legal_entity_id)
);
CREATE INDEX customer_sealed ON customer (stream, seq);
CREATE TABLE billing_account (
    id text COLLATE "C" PRIMARY KEY,
    customer_id text COLLATE "C" NOT NULL UNIQUE REFERENCES customer,
    state text NOT NULL CHECK (state IN ('active', 'suspended')),
    {SEALED_COLUMNS},
    UNIQUE (id, customer_id)
);
CREATE INDEX billing_account_sealed ON billing_account (stream, seq);
"""

KEYS = f"""
CREATE TABLE access_key (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    hint text NOT NULL,
    legal_entity_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    billing_account_id text COLLATE "C" NOT NULL,
    state text NOT NULL CHECK (state IN ('active', 'suspended', 'revoked')),
    digest bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    created_at_ns bigint NOT NULL,
    revoked_at_ns bigint CHECK ((revoked_at_ns IS NOT NULL) = (state = 'revoked')),
    {SEALED_COLUMNS},
    {OF_ITS_CUSTOMER}
);
CREATE INDEX access_key_sealed ON access_key (stream, seq);
CREATE INDEX access_key_customer ON access_key (customer_id, id);
CREATE INDEX access_key_billing_account ON access_key (billing_account_id);
"""

PURCHASE = f"""
CREATE TABLE supplier (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    currency text NOT NULL,
    created_at_ns bigint NOT NULL
);
CREATE TABLE purchase_tariff (
    id text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    supplier_id text COLLATE "C" NOT NULL REFERENCES supplier,
    currency text NOT NULL,
    rounding text NOT NULL CHECK (rounding IN ('up', 'half_up')),
    {RATE_COLUMNS},
    published_at_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (id, version)
);
CREATE INDEX purchase_tariff_sealed ON purchase_tariff (stream, seq);
"""

PLANT = """
CREATE TABLE model (
    id text COLLATE "C" PRIMARY KEY,
    owned_by text NOT NULL,
    context_window bigint NOT NULL CHECK (context_window > 0),
    output_max bigint NOT NULL CHECK (output_max > 0),
    bytes_per_token integer NOT NULL CHECK (bytes_per_token > 0),
    hidden_reasoning boolean NOT NULL,
    apis text[] NOT NULL CHECK (cardinality(apis) > 0),
    image_tokens_max integer NOT NULL CHECK (image_tokens_max >= 0),
    image_tokens_low integer NOT NULL CHECK (image_tokens_low >= 0),
    image_tile_pixels integer NOT NULL CHECK (image_tile_pixels >= 0),
    image_tokens_per_tile integer NOT NULL CHECK (image_tokens_per_tile >= 0),
    image_tokens_base integer NOT NULL CHECK (image_tokens_base >= 0),
    image_urls boolean NOT NULL,
    thinking text NOT NULL CHECK (thinking IN ('none', 'effort', 'template', 'budget')),
    tokens_per_request integer NOT NULL CHECK (tokens_per_request >= 0),
    tokens_per_message integer NOT NULL CHECK (tokens_per_message >= 0),
    tokens_per_tool integer NOT NULL CHECK (tokens_per_tool >= 0),
    tokens_per_1000_bytes integer NOT NULL CHECK (tokens_per_1000_bytes > 0),
    created_at_ns bigint NOT NULL
);
CREATE TABLE endpoint (
    id text COLLATE "C" PRIMARY KEY,
    site text NOT NULL,
    supplier_id text COLLATE "C" NOT NULL REFERENCES supplier,
    model_id text COLLATE "C" NOT NULL REFERENCES model,
    base_url text NOT NULL,
    upstream_model text NOT NULL,
    sealed_key text NOT NULL CHECK (sealed_key = '' OR sealed_key LIKE 'sealed:v1:%'),
    purchase_tariff_id text COLLATE "C" NOT NULL,
    disconnect text NOT NULL CHECK (disconnect IN ('stop', 'drain')),
    dialect text NOT NULL CHECK (dialect IN ('openai', 'anthropic', 'responses')),
    state text NOT NULL CHECK (state IN ('in_service', 'out_of_service')),
    created_at_ns bigint NOT NULL
);
CREATE SEQUENCE catalog_version;
"""

TARIFFS = f"""
CREATE TABLE tariff (
    id text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    unit text NOT NULL,
    rounding text NOT NULL CHECK (rounding IN ('up', 'half_up')),
    stopped text NOT NULL CHECK (stopped IN ('nothing', 'passed', 'generated')),
    published_at_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (id, version)
);
CREATE INDEX tariff_sealed ON tariff (stream, seq);
CREATE TABLE tariff_rate (
    tariff_id text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    selector text COLLATE "C" NOT NULL,
    {RATE_COLUMNS},
    {SEALED_COLUMNS},
    PRIMARY KEY (tariff_id, version, selector),
    FOREIGN KEY (tariff_id, version) REFERENCES tariff
);
CREATE INDEX tariff_rate_sealed ON tariff_rate (stream, seq);
"""

OFFERS = f"""
CREATE TABLE offer (
    id text COLLATE "C" PRIMARY KEY,
    legal_entity_id text COLLATE "C" NOT NULL REFERENCES legal_entity,
    name text NOT NULL,
    seller text NOT NULL,
    source text NOT NULL,
    price numeric(40, 0) NOT NULL CHECK (price > 0),
    currency text NOT NULL,
    granted numeric(40, 0) NOT NULL CHECK (granted > 0),
    unit text NOT NULL,
    validity text NOT NULL,
    tariff_id text COLLATE "C" NOT NULL,
    tier text NOT NULL,
    models text[] NOT NULL,
    priority integer NOT NULL,
    created_at_ns bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('prepaid', 'credit')),
    payer text NOT NULL CHECK (payer = 'carrier' OR (payer = 'customer' AND kind = 'credit')),
    {SEALED_COLUMNS},
    UNIQUE (id, legal_entity_id)
);
CREATE INDEX offer_sealed ON offer (stream, seq);
"""

ORDERS = f"""
CREATE TABLE customer_order (
    id text COLLATE "C" PRIMARY KEY,
    customer_id text COLLATE "C" NOT NULL,
    billing_account_id text COLLATE "C" NOT NULL,
    legal_entity_id text COLLATE "C" NOT NULL,
    offer_id text COLLATE "C" NOT NULL,
    phone text NOT NULL,
    price numeric(40, 0) NOT NULL CHECK (price > 0),
    net numeric(40, 0) NOT NULL CHECK (net >= 0),
    tax numeric(40, 0) NOT NULL CHECK (tax >= 0),
    tax_basis_points integer NOT NULL,
    currency text NOT NULL,
    state text NOT NULL CHECK (state IN ('accepted', 'completed', 'failed')),
    bucket_id text COLLATE "C" REFERENCES bucket,
    placed_at_ns bigint NOT NULL,
    charged_since_ns bigint NOT NULL CHECK (charged_since_ns >= placed_at_ns),
    {SEALED_COLUMNS},
    {OF_ITS_CUSTOMER},
    FOREIGN KEY (offer_id, legal_entity_id) REFERENCES offer (id, legal_entity_id),
    CHECK (net + tax = price),
    CHECK ((bucket_id IS NOT NULL) = (state = 'completed'))
);
CREATE INDEX customer_order_sealed ON customer_order (stream, seq);
CREATE INDEX customer_order_customer ON customer_order (customer_id, id);
CREATE INDEX customer_order_accepted ON customer_order (placed_at_ns) WHERE state = 'accepted';
CREATE TABLE order_failure (
    order_id text COLLATE "C" PRIMARY KEY REFERENCES customer_order,
    code text NOT NULL,
    message text NOT NULL,
    failed_at_ns bigint NOT NULL,
    {SEALED_COLUMNS}
);
CREATE INDEX order_failure_sealed ON order_failure (stream, seq);
CREATE TABLE payment (
    order_id text COLLATE "C" PRIMARY KEY REFERENCES customer_order,
    method text NOT NULL CHECK (method = 'carrier'),
    payer text NOT NULL,
    reference text NOT NULL,
    amount numeric(40, 0) NOT NULL CHECK (amount > 0),
    currency text NOT NULL,
    paid_at_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    UNIQUE (payer, reference)
);
CREATE INDEX payment_sealed ON payment (stream, seq);
"""

BILLS = f"""
CREATE TABLE bill (
    id text COLLATE "C" PRIMARY KEY,
    legal_entity_id text COLLATE "C" NOT NULL REFERENCES legal_entity,
    serial bigint NOT NULL CHECK (serial > 0),
    number text NOT NULL,
    customer_id text COLLATE "C" NOT NULL REFERENCES customer,
    billing_account_id text COLLATE "C" NOT NULL REFERENCES billing_account,
    ordinal integer NOT NULL CHECK (ordinal > 0),
    from_ns bigint NOT NULL,
    to_ns bigint NOT NULL,
    cut jsonb NOT NULL,
    currency text NOT NULL,
    net numeric(40, 0) NOT NULL,
    tax numeric(40, 0) NOT NULL,
    total numeric(40, 0) NOT NULL,
    {SEALED_COLUMNS},
    UNIQUE (legal_entity_id, serial),
    UNIQUE (billing_account_id, ordinal),
    CHECK (from_ns <= to_ns),
    CHECK (net + tax = total)
);
CREATE INDEX bill_sealed ON bill (stream, seq);
CREATE TABLE bill_line (
    bill_id text COLLATE "C" NOT NULL REFERENCES bill,
    ordinal integer NOT NULL,
    order_id text COLLATE "C" NOT NULL UNIQUE REFERENCES customer_order,
    offer_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    bucket_id text COLLATE "C" NOT NULL,
    granted numeric(40, 0) NOT NULL,
    unit text NOT NULL,
    tax_basis_points integer NOT NULL,
    net numeric(40, 0) NOT NULL,
    tax numeric(40, 0) NOT NULL,
    total numeric(40, 0) NOT NULL,
    sold_at_ns bigint NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (bill_id, ordinal),
    CHECK (net + tax = total)
);
CREATE INDEX bill_line_sealed ON bill_line (stream, seq);
CREATE TABLE bill_usage (
    bill_id text COLLATE "C" NOT NULL REFERENCES bill,
    ordinal integer NOT NULL,
    bucket_id text COLLATE "C" NOT NULL,
    model text NOT NULL,
    tariff text NOT NULL,
    records bigint NOT NULL,
    tokens_input bigint NOT NULL,
    tokens_cached_input bigint NOT NULL,
    tokens_cache_write bigint NOT NULL,
    tokens_output bigint NOT NULL,
    tokens_reasoning bigint NOT NULL,
    unit text NOT NULL,
    amount numeric(40, 0) NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (bill_id, ordinal)
);
CREATE INDEX bill_usage_sealed ON bill_usage (stream, seq);
CREATE TABLE bill_balance (
    bill_id text COLLATE "C" NOT NULL REFERENCES bill,
    bucket_id text COLLATE "C" NOT NULL,
    unit text NOT NULL,
    valid_to_ns bigint NOT NULL,
    opening numeric(40, 0) NOT NULL,
    granted numeric(40, 0) NOT NULL,
    refunded numeric(40, 0) NOT NULL,
    spent numeric(40, 0) NOT NULL,
    expired numeric(40, 0) NOT NULL,
    withdrawn numeric(40, 0) NOT NULL,
    closing numeric(40, 0) NOT NULL,
    {SEALED_COLUMNS},
    PRIMARY KEY (bill_id, bucket_id),
    CHECK (opening + granted + refunded = spent + expired + withdrawn + closing)
);
CREATE INDEX bill_balance_sealed ON bill_balance (stream, seq);
"""

COMMANDS = """
CREATE TABLE command_answer (
    command_key bytea PRIMARY KEY,
    body_digest bytea NOT NULL,
    answer jsonb NOT NULL,
    at_ns bigint NOT NULL
);
"""

SANDBOX = """
CREATE TABLE sandbox_line (
    phone text PRIMARY KEY,
    monthly_limit numeric(40, 0) NOT NULL CHECK (monthly_limit >= 0)
);
CREATE TABLE sandbox_payment (
    id text COLLATE "C" PRIMARY KEY,
    correlator text NOT NULL UNIQUE,
    reference_code text NOT NULL,
    phone text NOT NULL REFERENCES sandbox_line,
    amount numeric(40, 0) NOT NULL CHECK (amount > 0),
    currency text NOT NULL,
    month text NOT NULL,
    at_ns bigint NOT NULL
);
CREATE INDEX sandbox_payment_month ON sandbox_payment (phone, month);
"""

REFUSE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are final', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
"""
