"""How Alembic runs the files in `versions`: all that are missing, in one transaction, one process at a time.

Each file is named `NNNN_what_it_does.py`, has `revision = "NNNN"` and the `down_revision` before it, and runs raw SQL
through `op.execute` (write `\\:` for a colon that is followed by a word). There is no way back to an older schema:
an operator restores a backup.
"""

import psycopg
from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

_ONE_AT_A_TIME = 5_494_371_068  # any fixed number: the key of the advisory lock that migrations share


def _run() -> None:
    url: str = context.config.attributes["url"]
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_AT_A_TIME})
            context.run_migrations()


_run()
