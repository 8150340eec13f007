"""Moderations through the gateway: forwarded to a model that judges, charged by the tariff, refused without one."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway_bench import Bench, bench, summary
from supplier import ok, status
from tokenworks.core.tariff import Tariff, flat
from tokenworks.core.usage import Tokens

JUDGED = {"id": "modr-1", "model": "up", "results": [{"flagged": True, "categories": {}, "category_scores": {}}]}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with bench(tmp_path) as running:
        running.know(apis=("chat", "moderations"))
        yield running


@pytest.mark.parametrize("named", [{"model": "m"}, {}])
async def test_a_text_is_judged_by_the_model_that_is_named_or_offered(gateway: Bench, named: dict[str, str]) -> None:
    gateway.supplier.script(ok(JUDGED))
    async with gateway.official as client:
        told = await client.moderations.with_raw_response.create(input="I hate it.", **named)
    assert told.parse().results[0].flagged
    assert told.headers["x-tokenworks-charged"] == "3 token"
    call = gateway.supplier.calls[0]
    assert (call.path, call.body) == ("/v1/moderations", {"input": "I hate it.", "model": "up"})
    assert summary(await gateway.closing()) == ("finished", "counted", Tokens(3), 3, ("usage_missing",))


async def test_usage_is_believed_where_there_is_some(gateway: Bench) -> None:
    gateway.supplier.script(ok(JUDGED | {"usage": {"prompt_tokens": 5, "total_tokens": 5}}))
    async with gateway.official as client:
        await client.moderations.create(input=["a", "b"])
    assert summary(await gateway.closing()) == ("finished", "reported", Tokens(5), 5, ())


async def test_a_free_model_costs_nothing(gateway: Bench) -> None:
    used = gateway.gateway.catalog.tariffs
    used["personal"] = Tariff("personal", 2, "token", {"*/*": flat(0)})
    gateway.office.tariffs = used
    gateway.supplier.script(ok(JUDGED))
    async with gateway.official as client:
        told = await client.moderations.with_raw_response.create(input="I hate it.")
    assert told.headers["x-tokenworks-charged"] == "0 token"
    assert summary(await gateway.closing())[:4] == ("finished", "counted", Tokens(3), 0)


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({"input": []}, "invalid_value", "input"),
    "no input": ({"input": None}, "invalid_value", "input"),
    "an image": ({"input": [{"type": "image_url", "image_url": {"url": "x"}}]}, "field_not_supported", "input[0].type"),
    "another model": ({"model": "gpt-9"}, "model_not_found", "model"),
    "a model that only chats": ({"model": "lonely"}, "model_not_supported", "model"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(gateway: Bench, name: str) -> None:
    fields, code, field = REFUSED[name]
    async with gateway.client as client:
        told = await client.post("/v1/moderations", json={"input": "x"} | fields)
    assert (told.json()["error"]["code"], told.json()["error"]["param"]) == (code, field)
    assert gateway.closings() == []


async def test_without_a_model_that_judges_it_is_said_plainly(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway, gateway.official as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.moderations.create(input="x")
        assert (refused.value.code, refused.value.param) == ("model_not_supported", "model")
        assert "No model is offered for moderations here." in refused.value.message


async def test_an_endpoint_s_refusal_is_passed_on_and_costs_nothing(gateway: Bench) -> None:
    gateway.supplier.script(status(404, {"error": {"message": "Not here."}}))
    async with gateway.official as client:
        with pytest.raises(openai.NotFoundError):
            await client.moderations.create(input="x")
    assert summary(await gateway.closing())[:4] == ("refused", "none", Tokens(), 0)
