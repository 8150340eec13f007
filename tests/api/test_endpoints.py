"""How many requests an endpoint may run at once: said when it is added, changed at any time, and in the catalog."""

from api.offices import Office
from api.test_management import ENDPOINT
from tokenworks.app import catalog


async def test_the_limit_of_an_endpoint(office: Office) -> None:
    await office.post("/suppliers", {"id": "sup", "name": "Works", "currency": "CNY"})
    added = await office.post("/endpoints", ENDPOINT | {"id": "end_1", "concurrency_max": 8})
    assert added["concurrency_max"] == 8
    path = "/api/v1/endpoints/end_1"
    changed = (await office.http.patch(path, json={"concurrency_max": 3})).json()
    assert (changed["concurrency_max"], changed["state"]) == (3, "in_service")
    assert office.told.catalogs == 2
    async with office.context.pool.connection() as connection:
        (endpoint,) = (await catalog.build(connection, 0)).endpoints
    assert endpoint.concurrency_max == 3
    for wrong in (-1, 1_000_001):
        assert (await office.http.patch(path, json={"concurrency_max": wrong})).status_code == 400
        await office.post("/endpoints", ENDPOINT | {"concurrency_max": wrong}, 400)


async def test_workers_with_what_waits_and_rests_in_them(office: Office) -> None:
    tiers = {"free": 0, "medium": 2, "high": 0, "premium": 0, "ultra": 0}
    assert (await office.get("/workers"))["items"] == [
        {"worker": "gw-0", "waiting": {"m": tiers}, "running": {"end": 3}, "resting": ["end"]}
    ]
