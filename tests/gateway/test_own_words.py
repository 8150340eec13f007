"""What a customer says beside the texts that everybody knows is bounded and judged like these."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.test_anthropic_endpoint import know, message
from gateway_bench import Bench, bench
from supplier import Call, answer, ok, usage
from tokenworks.core.journal import Opening

MUCH = "word " * 600
SOURCE = {"type": "text", "media_type": "text/plain", "data": "a"}
DOCUMENT = {"type": "document", "source": SOURCE, "title": "t", "context": MUCH}
THINKING = {"type": "thinking", "thinking": MUCH, "signature": "s"}
TOOL = {"name": "f", "input_schema": {"type": "object"}}
HIDDEN: dict[str, dict[str, Any]] = {
    "context of a document": {"messages": [{"role": "user", "content": [DOCUMENT]}]},
    "title of a document": {"messages": [{"role": "user", "content": [DOCUMENT | {"title": MUCH, "context": None}]}]},
    "examples of a tool": {
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [TOOL | {"input_examples": [{"a": MUCH}]}],
    },
    "what nobody knows in a block": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a", "new": MUCH}]}]
    },
    "earlier thinking where none is asked for": {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [THINKING, {"type": "text", "text": "a"}]},
            {"role": "user", "content": "Hi"},
        ]
    },
}


async def created(gateway: Bench, **fields: Any) -> Any:
    async with gateway.client as client:
        return await client.post("/v1/messages", json={"model": "m", "max_tokens": 20} | fields)


@pytest.mark.parametrize("name", HIDDEN)
async def test_what_the_endpoint_gets_is_bounded(tmp_path: Path, name: str) -> None:
    async with bench(tmp_path) as gateway:
        know(gateway)

        async def act(call: Call) -> bool:
            # An honest endpoint: about four bytes a token of what it was sent.
            read = len(json.dumps(call.body["messages"])) // 4 + len(json.dumps(call.body.get("tools", []))) // 4
            used = {"input_tokens": read, "output_tokens": 2}
            await call.send(answer(200, json.dumps(message("Hi.", usage=used)).encode()))
            return True

        gateway.supplier.script(act)
        told = await created(gateway, **HIDDEN[name])
        if told.status_code == 400:
            return  # refused is fine
        sent = json.dumps(gateway.supplier.calls[0].body)
        opening = next(entry for entry in gateway.entries() if isinstance(entry, Opening))
        closing = await gateway.closing()
        assert MUCH not in sent or opening.input_max >= len(MUCH)
        assert closing.basis == "reported"


@pytest.mark.parametrize("name", HIDDEN)
async def test_what_the_endpoint_gets_is_judged(tmp_path: Path, name: str) -> None:
    (tmp_path / "words").write_text("word word")
    async with bench(tmp_path, safety_keywords_file=str(tmp_path / "words")) as gateway:
        know(gateway)
        gateway.supplier.script(ok(message("Hi.")))
        told = await created(gateway, **HIDDEN[name])
        assert told.status_code == 400 or MUCH not in json.dumps(gateway.supplier.calls[0].body)


JUDGED: dict[str, tuple[dict[str, Any], str]] = {
    "a key of a schema": (
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "f", "parameters": {"type": "object", "properties": {"bad thing": {}}}},
                }
            ]
        },
        "bad thing",
    ),
    "a key nobody knows": ({"unknown": {"bad thing": 1}}, "bad thing"),
    "escaped arguments": (
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "t",
                            "type": "function",
                            "function": {"name": "f", "arguments": json.dumps({"a": "坏事"})},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "t", "content": "x"},
            ]
        },
        "坏事",
    ),
}


@pytest.mark.parametrize("name", JUDGED)
async def test_what_becomes_part_of_a_prompt_is_judged(tmp_path: Path, name: str) -> None:
    fields, listed = JUDGED[name]
    (tmp_path / "words").write_text(listed)
    async with bench(tmp_path, safety_keywords_file=str(tmp_path / "words")) as gateway:
        assert (await gateway.ask(**fields)).status_code == 400


async def test_token_ids_are_not_a_way_around_the_judges(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("bad thing")
    async with bench(tmp_path, safety_keywords_file=str(tmp_path / "words")) as gateway:
        gateway.know(apis=("chat", "completions"))
        gateway.supplier.default = ok(
            {"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}], "usage": usage(5, 1)}
        )
        async with gateway.client as client:
            told = await client.post("/v1/completions", json={"model": "m", "prompt": [14773, 3245]})
        assert told.status_code == 400


@pytest.mark.parametrize("escaped", [False, True])
async def test_escapes_in_arguments_are_no_way_around_the_judges(tmp_path: Path, escaped: bool) -> None:
    (tmp_path / "words").write_text("坏事")
    async with bench(tmp_path, safety_keywords_file=str(tmp_path / "words")) as gateway:
        arguments = json.dumps({"a": "坏事"}, ensure_ascii=escaped)
        call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}
        choice = {"index": 0, "message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}
        gateway.supplier.script(ok({"choices": [choice], "usage": usage(12, 9)}))
        told = (await gateway.ask()).json()
        assert told["choices"][0]["finish_reason"] == "content_filter"
