"""Amounts that nothing can carry, and a top-up that is repeated to a ledger that lost its newest commits."""

import msgspec

from api.offices import TARIFF, Office
from tokenworks.app import catalog
from tokenworks.base.database import Pool
from tokenworks.ledger import accounts


async def test_a_price_that_the_bus_cannot_carry_is_refused(office: Office, database: Pool) -> None:
    """A version cannot be taken back, and no catalog that holds it can be encoded: nothing is published any more, and
    an office that starts again ends at once (`Publisher.start`).
    """
    typo = TARIFF | {"id": "typo", "rates": {"*/*": {"input": 10**20, "output": 1_000_000}}}
    answer = await office.http.post("/api/v1/tariffs", json=typo)
    async with database.connection() as connection:
        built = await catalog.build(connection, 1)
    assert answer.status_code == 400, answer.text
    msgspec.msgpack.encode(built)


async def _tables(database: Pool) -> list[str]:
    async with database.connection() as connection:
        cursor = await connection.execute(
            """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
               AND NOT relispartition AND relname NOT LIKE 'sandbox%' AND relname <> 'alembic_version'"""
        )
        return [str(row[0]) for row in await cursor.fetchall()]


async def test_a_top_up_repeated_after_a_restore_is_charged_once(office: Office, database: Pool) -> None:
    """The carrier charged; then the database failed over or was restored to just before. The client, whose request
    ended without an answer, sends it again with the same Idempotency-Key.
    """
    customer = await office.furnished()
    tables = await _tables(database)
    async with database.connection() as connection:
        await connection.execute("CREATE SCHEMA backup")
        for table in tables:
            await connection.execute(f"CREATE TABLE backup.{table} AS TABLE public.{table}".encode())
    body = {"customer": customer, "offer": "p10"}
    await office.post("/orders", body, key="top-up-1")
    async with database.connection() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(f"TRUNCATE {', '.join(tables)}".encode())
        for table in tables:
            await connection.execute(
                f"INSERT INTO public.{table} OVERRIDING SYSTEM VALUE TABLE backup.{table}".encode()
            )
    accounts._by_connection.clear()
    accounts._by_database.clear()
    await office.post("/orders", body, key="top-up-1")
    async with database.connection() as connection:
        row = await (await connection.execute("SELECT count(*) FROM sandbox_payment")).fetchone()
        sold = await (await connection.execute("SELECT count(*) FROM bucket")).fetchone()
    assert (row, sold) == ((1,), (1,)), "the phone bill was charged twice for one package"
