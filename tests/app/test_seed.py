"""The demonstration operator: complete at the first start, brought up to date at the next, never in somebody's way."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from shop.shopfront import Clock, faults, opened
from tokenworks.access import keys
from tokenworks.api import sandbox_carrier
from tokenworks.app import catalog, ladders, seed
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.vault import Vault
from tokenworks.core.amounts import MILLION, exact, parse
from tokenworks.core.commands import CommandRefused
from tokenworks.ledger import balance
from tokenworks.plant import registry
from tokenworks.shop import offers
from tokenworks.shop.orders import OrderDesk

PRICE_PER_MILLION = {
    "ct-personal-10m": "0.99",
    "ct-personal-40m": "0.7475",
    "ct-personal-80m": "0.62375",
    "ct-developer-15m": "2.66",
    "ct-developer-70m": "2.284285714",
    "ct-developer-150m": "1.999333333",
    "sm-any-400k": "2.5",
    "cu-personal-6m": "2.5",
    "cu-personal-12m": "2.5",
    "cu-personal-18m": "2.5",
}


@pytest.mark.parametrize("step", ladders.OFFERS, ids=lambda step: step.id)
def test_the_ladders_cost_what_the_sellers_ask(step: ladders.Step) -> None:
    nano = parse(step.price, "CNY") * MILLION // step.granted
    assert exact(nano, "CNY") == PRICE_PER_MILLION[step.id]


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_two_starts(database: Pool, tmp_path: Path) -> None:
    clock = Clock()
    desk = OrderDesk(database, sandbox_carrier.carrier(database, clock), clock)
    settings = Settings(data_dir=str(tmp_path), engine_port=5001, engine_api_key="one")
    first = await seed.seed(database, settings, desk, clock)
    assert first is not None
    file = tmp_path / "secrets" / "demo-key"
    assert (file.read_text().strip(), file.stat().st_mode & 0o777) == (first.key, 0o600)
    async with database.connection() as connection:
        await registry.set_state(connection, seed.ENDPOINT, "out_of_service")
    moved = replace(settings, engine_port=5002, engine_api_key="two")
    assert await seed.seed(database, moved, desk, clock) == first
    async with database.connection() as connection:
        [bucket] = await balance.wallet(connection, first.billing_account_id)
        endpoint = await registry.get(connection, seed.ENDPOINT)
        assert len(await offers.listed(connection, 100, "")) == len(ladders.OFFERS) + len([ladders.CREDIT])
        built = await catalog.build(connection, clock.now_ns)
        again = await catalog.build(connection, clock.now_ns)
    assert (bucket.offer_id, bucket.available) == ("ct-personal-10m", 10 * MILLION)
    assert (endpoint.base_url, Vault(settings.master_keys).open(endpoint.sealed_key, endpoint.id), endpoint.state) == (
        "http://127.0.0.1:5002/v1",
        "two",
        "out_of_service",
    )
    assert (built.endpoints, set(built.models), built.version < again.version) == ((), {"smollm2-135m"}, True)
    metered = built.tariffs["pay-as-you-go"].rate("smollm2-135m", "medium")
    assert metered is not None
    assert exact(metered.output, "CNY") == PRICE_PER_MILLION["sm-any-400k"]
    rate = built.tariffs["personal"].rate("smollm2-135m", "medium")
    assert rate is not None
    assert rate.input == MILLION
    assert await faults(database) == []


async def test_a_lost_or_revoked_key_is_replaced(database: Pool, tmp_path: Path) -> None:
    clock = Clock()
    desk = OrderDesk(database, sandbox_carrier.carrier(database, clock), clock)
    settings = Settings(data_dir=str(tmp_path), embedded_engine=False)
    found = [await seed.seed(database, settings, desk, clock)]
    shutil.rmtree(tmp_path / "secrets")
    found.append(await seed.seed(database, settings, desk, clock))
    async with database.connection() as connection:
        known = await keys.find(connection, keys.digest(found[1].key if found[1] else ""))
        assert known is not None
        await keys.revoke(connection, known.key_id, 1)
    found.append(await seed.seed(database, settings, desk, clock))
    assert len({one.key for one in found if one}) == 3
    async with database.connection() as connection:
        assert (await catalog.build(connection, 1)).endpoints == ()
        with pytest.raises(CommandRefused):
            await registry.get(connection, seed.ENDPOINT)


async def test_another_operators_database_is_left_alone(database: Pool, tmp_path: Path) -> None:
    shop = await opened(database)
    assert await seed.seed(database, Settings(data_dir=str(tmp_path)), shop.desk, shop.clock) is None
    assert files(tmp_path) == []
