"""Endpoints' keys and addresses through the API: sealed, rotated, judged, and never shown."""

from psycopg import sql

from api.conftest import Office
from api.offices import running
from tokenworks.base.database import Pool

ENDPOINT = {
    "id": "e1",
    "supplier": "sup",
    "model": {"id": "m", "context_window": 2048},
    "base_url": "http://127.0.0.1:9/v1",
    "purchase": {"input": "0.3", "output": "0.6"},
    "api_key": "upstream-secret",
}


async def everything(office: Office) -> str:
    """Every row of every table, as text."""
    async with office.context.pool.connection() as connection:
        cursor = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        queries = [
            sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(row[0])) for row in await cursor.fetchall()
        ]
        return str([await (await connection.execute(query)).fetchall() for query in queries])


async def with_endpoint(office: Office) -> None:
    await office.post("/suppliers", {"id": "sup", "name": "Works", "currency": "CNY"})
    await office.post("/endpoints", ENDPOINT, key="e")


async def test_no_table_has_the_key_in_clear(office: Office) -> None:
    await with_endpoint(office)
    await office.http.patch(
        "/api/v1/endpoints/e1", json={"api_key": "another-secret"}, headers={"idempotency-key": "p"}
    )
    rows = await everything(office)
    assert "sealed:v1:" in rows
    assert "upstream-secret" not in rows
    assert "another-secret" not in rows


async def test_master_keys_are_rotated(office: Office) -> None:
    await with_endpoint(office)
    (first,) = (await office.get("/secrets"))["items"]
    assert (first["seals"], first["sealed_endpoints"], first["missing"]) == (True, 1, False)
    second = await office.post("/secrets/keys", {})
    assert await office.post("/secrets/reseal", {}, status=200) == {"sealed_again": 1, "with_key": second["id"]}
    assert office.told.catalogs == 2
    old, new = (await office.get("/secrets"))["items"]
    assert [(each["id"], each["sealed_endpoints"]) for each in (old, new)] == [(first["id"], 0), (second["id"], 1)]


async def test_a_missing_master_key_is_told_and_the_key_can_be_given_anew(office: Office) -> None:
    await with_endpoint(office)
    file = office.context.settings.master_keys
    file.unlink()
    refused = await office.post("/secrets/reseal", {}, status=503)
    assert (refused["error"]["code"], "is missing" in refused["error"]["message"]) == ("secrets_unavailable", True)
    office.context.vault.ready()
    refused = await office.post("/secrets/reseal", {}, status=503)
    assert "that sealed the secret of e1 is not in" in refused["error"]["message"]
    assert [each["missing"] for each in (await office.get("/secrets"))["items"]] == [False, True]
    await office.http.patch("/api/v1/endpoints/e1", json={"api_key": "given-anew"})
    assert [each["missing"] for each in (await office.get("/secrets"))["items"]] == [False]


async def test_addresses_are_judged_by_the_setting(database: Pool) -> None:
    async with running(database, endpoint_networks="10.0.0.0/8") as office:
        await office.post("/suppliers", {"id": "sup", "name": "Works", "currency": "CNY"})
        for url in ("http://127.0.0.1:9/v1", "http://169.254.169.254/latest", "http://[::ffff:192.168.0.1]/v1"):
            refused = (await office.post("/endpoints", ENDPOINT | {"base_url": url}, 400))["error"]
            assert (refused["code"], refused["field"]) == ("invalid_value", "base_url")
        assert (await office.post("/endpoints", ENDPOINT | {"base_url": "http://10.0.0.9/v1"}))["id"] == "e1"
