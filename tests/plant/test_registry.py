"""Models and endpoints: addresses in one form, states, what the catalog sees."""

from pathlib import Path

import msgspec
import psycopg
import pytest

from tokenworks.base.database import Pool
from tokenworks.base.vault import Vault
from tokenworks.core.bounds import ImageBound, InputBound
from tokenworks.core.commands import CommandCode, CommandRefused
from tokenworks.core.networks import parse_networks
from tokenworks.core.snapshot import Model
from tokenworks.plant import models, reach, registry
from tokenworks.plant.addresses import base_url
from tokenworks.plant.registry import EndpointRecord
from tokenworks.supply import suppliers
from tokenworks.supply.suppliers import Supplier

MODEL = Model(
    "Org/m-1",
    4096,
    1024,
    "Org",
    1_700_000_000,
    InputBound(1, 2, 3, 400),
    3,
    apis=("chat", "completions"),
    image=ImageBound(1_445, 85, 512, 170, 85, urls=True),
    thinking="budget",
)
ENDPOINT = EndpointRecord(
    id="e1",
    site="main",
    supplier_id="sup",
    model_id=MODEL.id,
    base_url="https://engine.example/v1/",
    upstream_model="m-1",
    sealed_key="",
    purchase_tariff_id="e1",
    disconnect="drain",
    dialect="anthropic",
    state="in_service",
    created_at_ns=5,
)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://127.0.0.1:8702/v1", "http://127.0.0.1:8702/v1"),
        ("HTTPS://Engine.Example/v1/", "https://engine.example/v1"),
        ("https://engine.example", "https://engine.example"),
        ("http://[::1]:80/a/b//", "http://[::1]:80/a/b"),
    ],
)
def test_a_base_url_is_brought_to_one_form(given: str, kept: str) -> None:
    assert base_url(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        "",
        "engine.example/v1",
        "ftp://engine.example",
        "http://",
        "http:///v1",
        "https://user:pass@engine.example/v1",
        "https://engine.example/v1?key=1",
        "https://engine.example/v1#x",
        "https://engine.example/v1/chat/completions",
        "https://engine.example/v1/chat/completions/",
        "https://engine.example:99999/v1",
        "https://engine.example /v1",
        " https://engine.example/v1",
        "https://engine.example/v1\r\nHost: other",
        "http://[::1/v1",
        "https://éngine.example/v1",
    ],
)
def test_a_base_url_that_cannot_be_called_is_refused(given: str) -> None:
    with pytest.raises(CommandRefused) as refused:
        base_url(given)
    assert refused.value.field == "base_url"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    made = Vault(tmp_path / "master-keys")
    made.ready()
    return made


async def test_the_life_of_an_endpoint(database: Pool, vault: Vault) -> None:
    async with database.connection() as connection:
        await suppliers.add(connection, Supplier(id="sup", name="S", currency="CNY", created_at_ns=1))
        assert await models.add(connection, MODEL) == MODEL
        added = await registry.add(connection, vault, ENDPOINT, "secret")
        assert added == msgspec.structs.replace(
            ENDPOINT, base_url="https://engine.example/v1", sealed_key=added.sealed_key
        )
        assert "secret" not in added.sealed_key
        assert vault.open(added.sealed_key, "e1") == "secret"
        assert await models.everything(connection) == [MODEL]
        assert await registry.in_service(connection) == [added]
        out = await registry.set_state(connection, "e1", "out_of_service")
        assert out.state == "out_of_service"
        assert await registry.in_service(connection) == []
        assert await registry.listed(connection, 10, "") == [out]
        moved = await registry.move(connection, vault, "e1", "http://127.0.0.1:9", "other")
        assert (moved.base_url, moved.state) == ("http://127.0.0.1:9", "out_of_service")
        assert vault.open(moved.sealed_key, "e1") == "other"


async def test_keys_are_sealed_again_with_a_new_master_key(database: Pool, vault: Vault) -> None:
    async with database.connection() as connection:
        await suppliers.add(connection, Supplier(id="sup", name="S", currency="CNY", created_at_ns=1))
        await models.add(connection, MODEL)
        await registry.add(connection, vault, ENDPOINT, "one")
        await registry.add(connection, vault, msgspec.structs.replace(ENDPOINT, id="e2"), "")
        (old,) = vault.key_ids
        assert await registry.sealed_with(connection) == {old: 1}
        new = vault.add_key()
        assert await registry.seal_again(connection, vault) == 1
        assert await registry.seal_again(connection, vault) == 0
        assert await registry.sealed_with(connection) == {new: 1}
        assert vault.open((await registry.get(connection, "e1")).sealed_key, "e1") == "one"


async def test_the_database_takes_no_key_in_clear(database: Pool, vault: Vault) -> None:
    async with database.connection() as connection:
        await suppliers.add(connection, Supplier(id="sup", name="S", currency="CNY", created_at_ns=1))
        await models.add(connection, MODEL)
        await registry.add(connection, vault, ENDPOINT, "one")
        with pytest.raises(psycopg.errors.CheckViolation):
            await connection.execute("UPDATE endpoint SET sealed_key = 'sk-in-clear'")


async def test_what_is_refused(database: Pool, vault: Vault) -> None:
    changed = msgspec.structs.replace
    async with database.connection() as connection:
        await suppliers.add(connection, Supplier(id="sup", name="S", currency="CNY", created_at_ns=1))
        await models.add(connection, MODEL)
        await registry.add(connection, vault, ENDPOINT, "")
        for wrong, key, field in (
            (changed(ENDPOINT, id="E 1"), "", "id"),
            (changed(ENDPOINT, site=""), "", "site"),
            (changed(ENDPOINT, upstream_model=""), "", "upstream_model"),
            (ENDPOINT, "line\nbreak", "api_key"),
        ):
            with pytest.raises(CommandRefused) as refused:
                await registry.add(connection, vault, wrong, key)
            assert refused.value.field == field
        for model in (
            changed(MODEL, id="a b"),
            changed(MODEL, id="n", context_window=0),
            changed(MODEL, output_max=5000),
            changed(MODEL, apis=()),
            changed(MODEL, apis=("chat", "chat")),
            changed(MODEL, image=ImageBound(0)),
            changed(MODEL, image=ImageBound(9, tokens_low=-1)),
        ):
            with pytest.raises(CommandRefused) as refused:
                await models.add(connection, model)
            assert refused.value.code is CommandCode.INVALID
        for again in (registry.add(connection, vault, ENDPOINT, ""), models.add(connection, MODEL)):
            with pytest.raises(CommandRefused) as refused:
                await again
            assert refused.value.code is CommandCode.CONFLICT
        for missing in (
            registry.get(connection, "e2"),
            models.get(connection, "m"),
            registry.set_state(connection, "e2", "in_service"),
        ):
            with pytest.raises(CommandRefused) as refused:
                await missing
            assert refused.value.code is CommandCode.NOT_FOUND


@pytest.mark.parametrize("url", ["http://10.1.2.3/v1", "http://[fe80::1]/v1", "http://localhost:80", "http://0/v1"])
async def test_an_address_that_endpoints_may_not_have_is_refused(url: str) -> None:
    with pytest.raises(CommandRefused) as refused:
        await reach.check(url, ())
    assert (refused.value.field, "TOKENWORKS_ENDPOINT_NETWORKS" in refused.value.message) == ("base_url", True)


async def test_public_and_allowed_addresses_and_names_without_one_pass() -> None:
    await reach.check("http://1.1.1.1/v1", ())
    await reach.check("http://localhost/v1", parse_networks("127.0.0.0/8 ::1"))
    await reach.check("http://10.1.2.3/v1", parse_networks("10.0.0.0/8"))
    await reach.check("https://no-such-host.invalid/v1", ())
