"""Responses through the gateway: what is translated and refused, and that the money is that of a chat completion."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.test_messages import ACTS
from gateway_bench import BODY, COUNTED_INPUT, INPUT_MAX, Bench, bench, charged_alike, summary
from supplier import DONE, STREAM_HEAD, Act, chunk, event, raw, stuck_stream
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.usage import Tokens
from tokenworks.dialects.responses_request import Read, parse

PATH = "/v1/responses"
ASK: dict[str, Any] = {"model": "m", "input": "Say hello.", "max_output_tokens": 20}


async def create(gateway: Bench, **fields: Any) -> httpx2.Response:
    """One response of the test's customer."""
    async with gateway.client as client:
        return await client.post(PATH, json=ASK | fields)


def events_of(told: httpx2.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in told.text.split("\n") if line.startswith("data: ")]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("name", ACTS)
async def test_the_money_is_that_of_the_chat_completion(tmp_path: Path, name: str, is_stream: bool) -> None:
    async with bench(tmp_path) as gateway:
        chat, told, tokens = await charged_alike(gateway, ACTS[name], create, is_stream=is_stream)
        assert told.status_code == chat.status_code
        assert gateway.held()[1] == 0
        if told.status_code == 200:
            _told_as_charged(told, is_stream, tokens)


def _told_as_charged(told: httpx2.Response, is_stream: bool, tokens: Tokens) -> None:
    """Events are numbered without a gap, and what is told of use is what is charged for."""
    if not is_stream:
        assert told.json()["usage"]["total_tokens"] == tokens.total
        return
    events = events_of(told)
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    if events[-1]["type"] != "error":
        used = events[-1]["response"]["usage"]
        assert (used["input_tokens"], used["output_tokens"]) == (tokens.read, tokens.written)
        assert events[-1]["response"]["output"] == [
            each["item"] | {"status": events[-1]["response"]["output"][each["output_index"]]["status"]}
            for each in sorted(events, key=lambda each: each.get("output_index", 0))
            if each["type"] == "response.output_item.done"
        ]


async def test_a_balance_that_is_used_up_leaves_it_incomplete(tmp_path: Path) -> None:
    paid = 30
    steps = {"lease_likely_tokens": 8, "lease_step_tokens": 4, "lease_wait_ms": 5_000}
    async with bench(tmp_path, balance=INPUT_MAX + paid, **steps) as gateway:
        gateway.supplier.script(stuck_stream([f"w{place}" for place in range(40)]))
        told = await create(gateway, stream=True, max_output_tokens=100)
        last = events_of(told)[-1]
        assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")
        assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
        assert last["response"]["tokenworks"] == {
            "code": "balance_used_up",
            "charged": [{"amount": "40", "unit": "token", "bucket": "bkt_1"}],
        }
        assert "[DONE]" not in told.text
        assert summary(await gateway.closing())[2] == Tokens(COUNTED_INPUT, output=paid)


def piece(*events: bytes) -> Act:
    return raw(STREAM_HEAD + b"".join(chunk(each) for each in [*events, DONE]) + b"0\r\n\r\n", keep=True)


async def test_what_the_model_will_not_answer_and_what_keeps_alive(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(piece(b": here\n\n", event({"refusal": "No."}), event({}, "stop")))
        told = await create(gateway, stream=True)
        assert ": alive" in told.text
        kinds = [each["type"] for each in events_of(told)]
        assert kinds[4:6] == ["response.refusal.delta", "response.refusal.done"]
        assert events_of(told)[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]


async def test_logprobs_are_told_where_they_were_asked_for(tmp_path: Path) -> None:
    logprob = {"token": "Hi", "logprob": -0.5, "bytes": [72], "top_logprobs": []}
    choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [logprob]}, "finish_reason": "stop"}
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(piece(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode()))
        told = await create(gateway, stream=True, include=["message.output_text.logprobs"], top_logprobs=2)
        assert events_of(told)[-1]["response"]["output"][0]["content"][0]["logprobs"] == [logprob]
        assert gateway.supplier.calls[0].body["logprobs"] is True
        assert gateway.supplier.calls[0].body["top_logprobs"] == 2


def read(**fields: Any) -> Read | Refusal:
    return parse(json.dumps(ASK | fields).encode())


def sent(**fields: Any) -> dict[str, Any]:
    found = read(**fields)
    assert isinstance(found, Read), found
    return {name: json.loads(bytes(raw)) for name, raw in found.request.fields.items()}


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


TRANSLATED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the developer comes first": (
        {"instructions": "A", "input": [said("developer", "B"), said("system", "C"), said("user", "D")]},
        {"messages": [said("system", "A\n\nB\n\nC"), said("user", "D")]},
    ),
    "parts": (
        {"input": [said("user", [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}])]},
        {"messages": [said("user", "a\nb")]},
    ),
    "earlier turns": (
        {
            "input": [
                said("assistant", [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}]),
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "x"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "r"}]},
            ]
        },
        {
            "messages": [
                said("assistant", "a\nb")
                | {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "c", "content": "r"},
            ]
        },
    ),
    "a function": (
        {"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "function", "name": "f"}},
        {
            "messages": BODY["messages"],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
    ),
    "an object": (
        {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
        {"messages": BODY["messages"], "response_format": {"type": "json_object"}, "verbosity": "low"},
    ),
    "a tier of ours": (
        {"service_tier": "premium"},
        {"messages": BODY["messages"], "service_tier": "premium"},
    ),
    "what shapes it": (
        {"temperature": 0.5, "top_p": 0.9, "user": "u", "store": False, "truncation": "auto", "metadata": {"a": "b"}},
        {"messages": BODY["messages"], "temperature": 0.5, "top_p": 0.9, "user": "u"},
    ),
    "what nobody knows, and knobs": (
        {"unknown": "x", "seed": 3, "logit_bias": {"1": 2}, "absent": None},
        {"messages": BODY["messages"], "unknown": "x", "seed": 3, "logit_bias": {"1": 2}},
    ),
    "what chat completions have for something else": (
        {"n": 3, "messages": [], "Seed": 3, "max_tokens": 999, "plugins": [1], "stop": "x", "Max_Output_Tokens": 9},
        {"messages": BODY["messages"]},
    ),
}


@pytest.mark.parametrize("name", TRANSLATED)
def test_translated(name: str) -> None:
    fields, expected = TRANSLATED[name]
    assert sent(**fields) == {"model": "m", "max_tokens": 20} | expected


REFUSED: list[tuple[dict[str, Any], Code, str]] = [
    ({"input": None}, Code.INVALID_VALUE, "input"),
    ({"input": []}, Code.INVALID_VALUE, "input"),
    ({"input": [said("tool", "x")]}, Code.INVALID_VALUE, "input[0].role"),
    ({"input": [{"role": "user"}]}, Code.INVALID_VALUE, "input[0].content"),
    ({"input": [said("user", [{"type": "input_text"}])]}, Code.INVALID_VALUE, "input[0].content[0].text"),
    ({"input": [said("user", [{"type": "input_file"}])]}, Code.FIELD_NOT_SUPPORTED, "input[0].content[0].type"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, Code.FIELD_NOT_SUPPORTED, "input[0].type"),
    ({"input": [{"type": "web_search_call"}]}, Code.FIELD_NOT_SUPPORTED, "input[0].type"),
    ({"input": [{"type": "function_call", "call_id": "c"}]}, Code.INVALID_VALUE, "input[0].name"),
    ({"input": [{"type": "function_call_output", "call_id": "c"}]}, Code.INVALID_VALUE, "input[0].output"),
    ({"max_output_tokens": 0}, Code.INVALID_VALUE, "max_output_tokens"),
    ({"tools": [{"type": "web_search"}]}, Code.FIELD_NOT_SUPPORTED, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, Code.INVALID_VALUE, "tools[0].name"),
    ({"tool_choice": {"type": "web_search"}}, Code.FIELD_NOT_SUPPORTED, "tool_choice.type"),
    ({"text": {"format": {"type": "grammar"}}}, Code.INVALID_VALUE, "text.format.type"),
    ({"conversation": "conv_1"}, Code.FIELD_NOT_SUPPORTED, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, Code.FIELD_NOT_SUPPORTED, "prompt"),
    ({"service_tier": "priority"}, Code.FIELD_NOT_SUPPORTED, "service_tier"),
]


@pytest.mark.parametrize(("fields", "code", "field"), REFUSED)
def test_refused(fields: dict[str, Any], code: Code, field: str) -> None:
    refusal = read(**fields)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.field) == (code, field)


FIELDS = ["type", "role", "content", "text", "input", "tools", "name", "call_id", "output", "format", "tool_choice"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["message", "function", "user"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "stream", "reasoning"]), json_values, max_size=5))
def test_anything_is_read_or_refused(fields: dict[str, Any]) -> None:
    assert isinstance(read(**fields), Read | Refusal)
