"""The yardstick of the ledger: one transaction for each charge, which locks the account's row, reads and changes it.

It is given every advantage: two tables made for nothing else, no seal, no second entry, prepared statements, and
PostgreSQL's own `pgbench` as the client, which costs less than ours.
"""

import re
from pathlib import Path

from tokenworks.base import postgres, processes
from tokenworks.base.database import Pool
from tokenworks.base.processes import Program
from tokenworks.bench.load import LoadFault

# The least exponent that pgbench knows of Zipf's law.
EXPONENT = "1.001"

_TABLES = """
    CREATE TABLE baseline_account (id bigint PRIMARY KEY, balance numeric(40, 0) NOT NULL CHECK (balance >= 0))
        WITH (fillfactor = 70);
    CREATE TABLE baseline_charge (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id bigint NOT NULL,
        amount numeric(40, 0) NOT NULL, charged_at timestamptz NOT NULL);
"""
_SCRIPT = r"""\set account random_zipfian(1, {accounts}, {exponent})
\set amount random(1, 1000)
BEGIN;
SELECT balance FROM baseline_account WHERE id = :account FOR UPDATE;
UPDATE baseline_account SET balance = balance - :amount WHERE id = :account;
INSERT INTO baseline_charge (account_id, amount, charged_at) VALUES (:account, :amount, clock_timestamp());
COMMIT;
"""
_RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


async def prepare(pool: Pool, accounts: int) -> None:
    """Make the tables and so many accounts."""
    async with pool.connection() as conn:
        await conn.execute(_TABLES)
        await conn.execute(
            "INSERT INTO baseline_account SELECT id, 1000000000000 FROM generate_series(1, %s) AS id", (accounts,)
        )


async def charges_per_s(url: str, folder: Path, accounts: int, connections: int, seconds: int) -> int:
    """Charges in a second over so many connections at once."""
    script = folder / "baseline.sql"
    script.write_text(_SCRIPT.format(accounts=accounts, exponent=EXPONENT))
    counts = ("-c", str(connections), "-j", str(min(connections, 2)), "-T", str(seconds))
    argv = (str(postgres.program("pgbench")), "-n", "-M", "prepared", *counts, "-f", str(script), url)
    code, said = await processes.run(Program(argv=argv, environ={}))
    rate = _RATE.search(said)
    if code != 0 or rate is None:
        raise LoadFault(f"pgbench ended with {processes.how_it_ended(code)}: {said.strip().rpartition(chr(10))[2]}")
    return round(float(rate[1]))
