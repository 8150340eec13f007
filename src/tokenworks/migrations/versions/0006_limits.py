"""Limits of keys and customers, in all their versions and under seal, and what workers counted of them.

`limit_use` is what the office remembers for workers that start: counts that workers tell again, no record of the
business, so it is not sealed. An endpoint may have a limit of requests that run there at once.
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the tables."""
    for statement in (LIMIT, USE, CONCURRENCY):
        op.execute(statement)
    op.execute(
        "CREATE TRIGGER usage_limit_is_final BEFORE UPDATE OR DELETE ON usage_limit"
        " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )


LIMIT = """
CREATE TABLE usage_limit (
    id text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    customer_id text COLLATE "C" NOT NULL REFERENCES customer,
    key_id text COLLATE "C" REFERENCES access_key,
    metric text NOT NULL CHECK (metric IN ('requests', 'tokens', 'concurrency', 'spend', 'weight')),
    unit text NOT NULL CHECK ((unit <> '') = (metric = 'spend')),
    within text NOT NULL CHECK (within IN ('', 'minute', 'day', 'month')),
    rolling boolean NOT NULL,
    amount bigint CHECK (amount >= 0),
    timezone text NOT NULL,
    set_at_ns bigint NOT NULL,
    stream text NOT NULL DEFAULT current_setting('tokenworks.stream'),
    seq bigint NOT NULL DEFAULT current_setting('tokenworks.seq')::bigint,
    PRIMARY KEY (id, version),
    CHECK ((within = '') = (metric IN ('concurrency', 'weight'))),
    CHECK (metric <> 'weight' OR (key_id IS NULL AND (amount IS NULL OR amount > 0)))
);
CREATE INDEX usage_limit_sealed ON usage_limit (stream, seq);
CREATE INDEX usage_limit_customer ON usage_limit (customer_id, id);
"""

CONCURRENCY = """
ALTER TABLE endpoint ADD COLUMN concurrency_max integer NOT NULL DEFAULT 0 CHECK (concurrency_max >= 0);
"""

USE = """
CREATE TABLE limit_use (
    limit_id text COLLATE "C" NOT NULL,
    cell_ns bigint NOT NULL,
    epoch text COLLATE "C" NOT NULL,
    used bigint NOT NULL,
    until_ns bigint NOT NULL,
    PRIMARY KEY (limit_id, cell_ns, epoch)
);
CREATE INDEX limit_use_until ON limit_use (until_ns);
"""
