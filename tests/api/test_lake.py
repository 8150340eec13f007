"""The usage lake over HTTP: an export now, its files, and a disk that takes nothing."""

from dataclasses import replace
from pathlib import Path

import httpx2

from api.offices import TOKEN, Office
from shop.shopfront import Shop
from tokenworks import api
from tokenworks.base.config import Settings
from tokenworks.core.usage import Tokens
from tokenworks.shop import parties


async def test_an_export_and_its_files(office: Office, tmp_path: Path) -> None:
    customer = await office.furnished()
    await office.post("/orders", {"customer": customer, "offer": "p10"})
    async with office.context.pool.connection() as connection:
        who = await parties.customer(connection, customer)
    await Shop(office.context.pool, office.clock, office.context.orders, who).use(Tokens(input=300))
    folder = tmp_path / "lake"
    context = replace(office.context, settings=Settings(lake_dir=str(folder)))
    transport = httpx2.ASGITransport(app=api.create(context))
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://office/api/v1", headers=headers) as http:
        folder.write_bytes(b"")
        refused = await http.post("/lake/exports")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "lake_unavailable")
        folder.unlink()
        made = (await http.post("/lake/exports")).json()
        assert (made["folder"], made["records"], made["files"][0]["tokens"]) == (str(folder), 1, 300)
        assert (await http.get("/lake/files")).json()["items"] == made["files"]
        assert (await http.post("/lake/exports")).json()["files"] == []
    assert (folder / made["files"][0]["path"]).exists()
