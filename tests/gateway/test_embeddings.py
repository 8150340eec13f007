"""Embeddings through the gateway, with OpenAI's own client: what goes to the endpoint, comes back, and is charged."""

import base64
import struct
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway_bench import Bench, bench, summary
from stand_in_office import SECRET
from supplier import hang_up, ok, raw, status
from tokenworks.core.journal import Opening
from tokenworks.core.usage import Tokens

PATH = "/v1/embeddings"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with bench(tmp_path) as running:
        running.know(apis=("embeddings",))
        yield running


def embedded(*vectors: Any, tokens: Any = 3) -> dict[str, Any]:
    data = [{"object": "embedding", "index": place, "embedding": each} for place, each in enumerate(vectors)]
    usage = {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if tokens is not None else {}
    return {"object": "list", "data": data, "model": "up", **usage}


async def test_a_text(gateway: Bench) -> None:
    gateway.supplier.script(ok(embedded([0.5, -0.25])))
    async with gateway.official as client:
        told = await client.embeddings.with_raw_response.create(
            model="m", input="Hello.", encoding_format="float", dimensions=2, user="u"
        )
    answer = told.parse()
    assert answer.data[0].embedding == [0.5, -0.25]
    assert answer.usage.prompt_tokens == 3
    assert told.headers["x-tokenworks-charged"] == "3 token"
    assert "x-tokenworks-output-limit" not in told.headers
    call = gateway.supplier.calls[0]
    assert (call.path, call.headers["authorization"]) == ("/v1/embeddings", "Bearer up-key")
    assert call.body == {
        "model": "up",
        "input": "Hello.",
        "encoding_format": "float",
        "dimensions": 2,
        "user": "u",
    }
    assert summary(await gateway.closing()) == ("finished", "reported", Tokens(3), 3, ())
    assert gateway.held()[1] == 0


async def test_base64_is_what_the_client_asks_for_by_itself(gateway: Bench) -> None:
    vector = base64.b64encode(struct.pack("<2f", 0.5, -0.25)).decode()
    gateway.supplier.script(ok(embedded(vector)))
    async with gateway.official as client:
        answer = await client.embeddings.create(model="m", input="Hello.")
    assert answer.data[0].embedding == [0.5, -0.25]
    assert gateway.supplier.calls[0].body["encoding_format"] == "base64"


INPUTS: dict[str, tuple[Any, int]] = {
    "a text": ("x" * 98, 40 + 100),
    "texts": (["x" * 10, "y" * 10], 2 * 40 + 27),
    "token ids": ([7] * 30, 40 + 4 * 30),
    "lists of token ids": ([[7] * 30, [8]], 2 * 40 + 4 * 31),
    "more than a window": ("x" * 9_000, 4_096),
    "more than two windows": (["x" * 9_000] * 2, 2 * 4_096),
}


@pytest.mark.parametrize("name", INPUTS)
async def test_the_bound_covers_all_inputs(gateway: Bench, name: str) -> None:
    given, bound = INPUTS[name]
    gateway.supplier.script(ok(embedded([1.0])))
    async with gateway.client as client:
        assert (await client.post(PATH, json={"model": "m", "input": given})).status_code == 200
    assert gateway.supplier.calls[0].body["input"] == given
    (opening,) = [entry for entry in gateway.entries() if isinstance(entry, Opening)]
    assert (opening.input_max, opening.output_max) == (bound, 0)


ANSWERS: dict[str, tuple[dict[str, Any], int, tuple[str, ...]]] = {
    "no usage": (embedded([1.0], tokens=None), 2, ("usage_missing",)),
    "no use": (embedded([1.0], tokens=0), 2, ("usage_zero",)),
    "absurd": (embedded([1.0], tokens=1_000), 2, ("usage_above_reservation",)),
    "negative": (embedded([1.0], tokens=-1), 2, ("usage_malformed",)),
    "a text": (embedded([1.0], tokens="3"), 2, ("usage_malformed",)),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_is_reported_is_believed_only_if_it_can_be(gateway: Bench, name: str) -> None:
    body, tokens, flags = ANSWERS[name]
    gateway.supplier.script(ok(body))
    async with gateway.client as client:
        told = await client.post(PATH, json={"model": "m", "input": "Hello."})
    assert (told.status_code, told.json()) == (200, body)
    assert summary(await gateway.closing()) == ("finished", "counted", Tokens(tokens), tokens, flags)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"{", b'{"data":[]}', b'{"data":3}'])
async def test_what_is_no_embedding_is_not_charged(gateway: Bench, body: bytes) -> None:
    gateway.supplier.script(raw(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body), keep=True))
    async with gateway.official as client:
        with pytest.raises(openai.InternalServerError) as refused:
            await client.embeddings.create(model="m", input="Hello.")
    assert (refused.value.status_code, refused.value.code) == (502, "endpoint_broken")
    assert summary(await gateway.closing())[:4] == ("endpoint_broken", "none", Tokens(), 0)


async def test_the_endpoint_s_error_is_passed_on(gateway: Bench) -> None:
    gateway.supplier.script(status(400, {"error": {"message": "Too long.", "code": "context_length_exceeded"}}))
    async with gateway.official as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.embeddings.create(model="m", input="Hello.")
    assert (refused.value.code, refused.value.body) == (
        "context_length_exceeded",
        {"message": "Too long.", "type": "invalid_request_error", "param": None, "code": "context_length_exceeded"},
    )
    assert summary(await gateway.closing())[:4] == ("refused", "none", Tokens(), 0)


REFUSED: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "no input": ({"input": None}, 400, "invalid_value", "input"),
    "a number": ({"input": 3}, 400, "invalid_value", "input"),
    "nothing": ({"input": []}, 400, "invalid_value", "input"),
    "an empty list of ids": ({"input": [[]]}, 400, "invalid_value", "input"),
    "a mixture": ({"input": ["x", 3]}, 400, "invalid_value", "input"),
    "too many": ({"input": ["x"] * 2_049}, 400, "invalid_value", "input"),
    "another encoding": ({"encoding_format": "hex"}, 400, "invalid_value", "encoding_format"),
    "no dimensions": ({"dimensions": 0}, 400, "invalid_value", "dimensions"),
    "a conversation": ({"messages": [{"role": "user"}]}, 400, "field_not_supported", "messages"),
    "a stream": ({"stream": True}, 400, "field_not_supported", "stream"),
    "capitals": ({"Input": "x"}, 400, "field_not_supported", "Input"),
    "another model": ({"model": "gpt-9"}, 404, "model_not_found", "model"),
    "a model that chats": ({"model": "lonely"}, 400, "model_not_supported", "model"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(gateway: Bench, name: str) -> None:
    fields, code, reason, field = REFUSED[name]
    async with gateway.client as client:
        told = await client.post(PATH, json={"model": "m", "input": "Hello."} | fields)
    error = told.json()["error"]
    assert (told.status_code, error["code"], error["param"]) == (code, reason, field)
    assert gateway.closings() == []


async def test_a_model_that_embeds_does_not_chat(gateway: Bench) -> None:
    told = await gateway.ask()
    assert (told.status_code, told.json()["error"]["code"]) == (400, "model_not_supported")
    assert "not offered for chat, but for embeddings" in told.json()["error"]["message"]


async def test_without_a_key_or_a_balance(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=10) as gateway:
        gateway.know(apis=("chat", "embeddings"))
        async with gateway.official as client:
            with pytest.raises(openai.AuthenticationError):
                await client.with_options(api_key="sk-tw-no").embeddings.create(model="m", input="Hello.")
            with pytest.raises(openai.APIStatusError) as refused:
                await client.embeddings.create(model="m", input="Hello.")
        assert (refused.value.status_code, refused.value.code) == (402, "balance_used_up")


async def test_another_endpoint_is_tried_before_the_first_byte_and_the_client_retries_too(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2, attempts_max=2) as gateway:
        gateway.know(apis=("embeddings",))
        first, second = gateway.suppliers
        first.script(hang_up(), hang_up(), ok(embedded([1.0])))
        second.script(status(500), ok(embedded([1.0])))
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=SECRET, max_retries=2) as client:
            answer = await client.embeddings.create(model="m", input="Hello.", encoding_format="float")
        assert answer.usage.prompt_tokens == 3
        closings = gateway.closings()
        assert sum(charge.amount for closing in closings for charge in closing.charges) == 3
        assert len({closing.opening for closing in closings}) == len(closings) == 2
