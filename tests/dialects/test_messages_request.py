"""What is read of a message to be created, what is refused, and the chat completion that it becomes."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.refusals import Code, Refusal
from tokenworks.dialects import messages_request
from tokenworks.dialects.chat import ChatRequest, upstream_body

HI = [{"role": "user", "content": "hi"}]
PNG = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
PNG_URL = "data:image/png;base64,AAAA"
SHOWN = {"type": "image", "source": PNG}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "Says it.", "input_schema": SCHEMA}


def read(**fields: Any) -> ChatRequest | Refusal:
    body = {"model": "m", "messages": HI, "max_tokens": 9} | fields
    return messages_request.parse(msgspec.json.encode({name: value for name, value in body.items() if value != "-"}))


def sent(**fields: Any) -> dict[str, Any]:
    """What the endpoint gets, without what every request has."""
    request = read(**fields)
    assert isinstance(request, ChatRequest), request
    body = json.loads(upstream_body(request, "up", 7))
    assert (body.pop("model"), body.pop("max_tokens")) == ("up", 7)
    if "messages" not in fields:
        assert body.pop("messages") == HI
    return body


def says(*blocks: dict[str, Any], role: str = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": list(blocks)}]


def text(content: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": content, **more}


CACHED = {"cache_control": {"type": "ephemeral"}}
CALL = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bonn"}}
CHAT_CALL = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bonn"}'}}
TURNS: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    (HI, HI),
    (says(text("hi", **CACHED)), HI),
    (says(text("a"), text("b")), [{"role": "user", "content": [text("a"), text("b")]}]),
    (says(), [{"role": "user", "content": []}]),
    (
        says({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "doc"}}),
        [{"role": "user", "content": "doc"}],
    ),
    ([{"role": "assistant", "content": "so"}], [{"role": "assistant", "content": "so"}]),
    (says(text("a"), text("b"), role="assistant"), [{"role": "assistant", "content": "ab"}]),
    (
        says({"type": "thinking", "thinking": "hm", "signature": "x"}, text("a"), CALL, role="assistant"),
        [{"role": "assistant", "content": "a", "tool_calls": [CHAT_CALL]}],
    ),
    (says(CALL, role="assistant"), [{"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}]),
    (
        says({"type": "tool_result", "tool_use_id": "t1", "content": "rain"}),
        [{"role": "tool", "tool_call_id": "t1", "content": "rain"}],
    ),
    (
        says(
            {"type": "tool_result", "tool_use_id": "t1", "content": [text("rain"), text("wind")]},
            {"type": "tool_result", "tool_use_id": "t2", "is_error": True, "content": "no such city"},
            {"type": "tool_result", "tool_use_id": "t3"},
            text("And now?"),
        ),
        [
            {"role": "tool", "tool_call_id": "t1", "content": "rain\nwind"},
            {"role": "tool", "tool_call_id": "t2", "content": "Error: no such city"},
            {"role": "tool", "tool_call_id": "t3", "content": ""},
            {"role": "user", "content": "And now?"},
        ],
    ),
    (
        says({"type": "tool_result", "tool_use_id": "t1", "content": [text("seen"), SHOWN]}, text("What is it?")),
        [
            {"role": "tool", "tool_call_id": "t1", "content": "seen"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG_URL}}, text("What is it?")]},
        ],
    ),
]


@pytest.mark.parametrize(("given_turns", "expected"), TURNS)
def test_turns(given_turns: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert sent(messages=given_turns)["messages"] == expected


FUNCTION = {"type": "function", "function": {"name": "weather", "description": "Says it.", "parameters": SCHEMA}}
FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"temperature": 0.5, "top_p": 0.9, "top_k": 40}, {"temperature": 0.5, "top_p": 0.9, "top_k": 40}),
    ({"temperature": 0}, {"temperature": 0.0}),
    ({"temperature": None, "system": None, "tools": None}, {}),
    ({"stop_sequences": ["END", "."]}, {"stop": ["END", "."]}),
    ({"stop_sequences": []}, {}),
    ({"metadata": {"user_id": "u1"}}, {"user": "u1"}),
    ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    ({"tools": [WEATHER | CACHED]}, {"tools": [FUNCTION]}),
    ({"tools": [WEATHER], "tool_choice": {"type": "auto"}}, {"tools": [FUNCTION], "tool_choice": "auto"}),
    ({"tools": [WEATHER], "tool_choice": {"type": "none"}}, {"tools": [FUNCTION], "tool_choice": "none"}),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        {"tools": [FUNCTION], "tool_choice": "required", "parallel_tool_calls": False},
    ),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "weather"}},
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    ),
    ({"tool_choice": {"type": "auto"}}, {}),
    (
        {"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
            }
        },
    ),
    ({"thinking": {"type": "disabled"}, "service_tier": "auto", "speed": None, "mcp_servers": []}, {}),
    ({"n": 5, "plugins": ["x"], "best_of": 3, "max_completion_tokens": 999, "Max_Tokens": 999, "stop": "x"}, {}),
    ({"cache_control": {"type": "ephemeral"}, "context_management": {"edits": []}, "inference_geo": "us"}, {}),
    ({"unknown": {"x": 1}, "absent": None}, {"unknown": {"x": 1}}),
    ({"seed": 3, "logit_bias": {"1": 2}, "Seed": 4, "user": "u"}, {"seed": 3, "logit_bias": {"1": 2}, "user": "u"}),
    ({"user": "u", "metadata": {"user_id": "u1"}}, {"user": "u1"}),
]


@pytest.mark.parametrize(("fields", "expected"), FIELDS)
def test_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(**fields) == expected


@pytest.mark.parametrize("system", ["Be brief.", [text("Be "), text("brief.", **CACHED)]])
def test_the_system_prompt_comes_first(system: Any) -> None:
    content = system if isinstance(system, str) else "Be \n\nbrief."
    assert sent(system=system, messages=HI)["messages"] == [{"role": "system", "content": content}, *HI]


HOUR = {"type": "ephemeral", "ttl": "1h"}
REFUSED: list[tuple[dict[str, Any], Code, str]] = [
    ({"model": "-"}, Code.INVALID_VALUE, "model"),
    ({"messages": "-"}, Code.INVALID_VALUE, "messages"),
    ({"messages": []}, Code.INVALID_VALUE, "messages"),
    ({"max_tokens": "-"}, Code.INVALID_VALUE, "max_tokens"),
    ({"max_tokens": None}, Code.INVALID_VALUE, "max_tokens"),
    ({"max_tokens": 0}, Code.INVALID_VALUE, "max_tokens"),
    ({"max_tokens": "9"}, Code.INVALID_VALUE, "max_tokens"),
    ({"temperature": "hot"}, Code.INVALID_VALUE, "temperature"),
    ({"stop_sequences": "END"}, Code.INVALID_VALUE, "stop_sequences"),
    ({"messages": [{"role": "system", "content": "hi"}]}, Code.INVALID_VALUE, "messages[0].role"),
    ({"messages": [*HI, {"role": "user", "content": 3}]}, Code.INVALID_VALUE, "messages[1].content"),
    ({"messages": says({"type": "text"})}, Code.INVALID_VALUE, "messages[0].content[0].text"),
    ({"messages": says({"type": "tool_result"})}, Code.INVALID_VALUE, "messages[0].content[0].tool_use_id"),
    ({"messages": says(CALL)}, Code.FIELD_NOT_SUPPORTED, "messages[0].content[0].type"),
    ({"messages": says(CALL | {"id": None}, role="assistant")}, Code.INVALID_VALUE, "messages[0].content[0].id"),
    ({"messages": says(CALL | {"input": []}, role="assistant")}, Code.INVALID_VALUE, "messages[0].content[0].input"),
    (
        {"system": "x", "messages": says(text("a"), {"type": "image", "source": {"type": "file"}})},
        Code.FIELD_NOT_SUPPORTED,
        "messages[0].content[1].type",
    ),
    (
        {"messages": says({"type": "document", "source": PNG | {"media_type": "application/pdf"}})},
        Code.FIELD_NOT_SUPPORTED,
        "messages[0].content[0].type",
    ),
    (
        {"messages": says({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_use"}]})},
        Code.FIELD_NOT_SUPPORTED,
        "messages[0].content[0].content[0].type",
    ),
    ({"system": [text("a") | {"cache_control": HOUR}]}, Code.FIELD_NOT_SUPPORTED, "system[0].cache_control.ttl"),
    (
        {"messages": says(text("a") | {"cache_control": HOUR})},
        Code.FIELD_NOT_SUPPORTED,
        "messages[0].content[0].cache_control.ttl",
    ),
    ({"tools": [WEATHER | {"cache_control": HOUR}]}, Code.FIELD_NOT_SUPPORTED, "tools[0].cache_control.ttl"),
    ({"cache_control": HOUR}, Code.FIELD_NOT_SUPPORTED, "cache_control.ttl"),
    ({"messages": says({"type": "container_upload"})}, Code.FIELD_NOT_SUPPORTED, "messages[0].content[0].type"),
    ({"system": [{"type": "image", "source": PNG}]}, Code.FIELD_NOT_SUPPORTED, "system[0].type"),
    ({"system": [{"type": "text"}]}, Code.INVALID_VALUE, "system[0].text"),
    ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, Code.FIELD_NOT_SUPPORTED, "tools[0].type"),
    ({"tools": [WEATHER, {"name": "w"}]}, Code.INVALID_VALUE, "tools[1].input_schema"),
    ({"tools": [{"input_schema": {}}]}, Code.INVALID_VALUE, "tools[0].name"),
    ({"tool_choice": {"type": "all"}}, Code.INVALID_VALUE, "tool_choice.type"),
    ({"output_config": {"format": {"type": "xml"}}}, Code.INVALID_VALUE, "output_config.format.type"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, Code.INVALID_VALUE, "thinking.budget_tokens"),
    ({"thinking": {"type": "adaptive"}}, Code.FIELD_NOT_SUPPORTED, "thinking"),
    ({"mcp_servers": [{"type": "url"}]}, Code.FIELD_NOT_SUPPORTED, "mcp_servers"),
    ({"container": "c1"}, Code.FIELD_NOT_SUPPORTED, "container"),
    ({"speed": "fast"}, Code.FIELD_NOT_SUPPORTED, "speed"),
    ({"service_tier": "priority"}, Code.FIELD_NOT_SUPPORTED, "service_tier"),
]


@pytest.mark.parametrize(("fields", "code", "field"), REFUSED)
def test_refused(fields: dict[str, Any], code: Code, field: str) -> None:
    refusal = read(**fields)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.field) == (code, field)


HALF = rb'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"half a pair: \ud800"}]}'


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff", b"null", b'{"unknown":' + b"[" * 5_000, b'{"container":' + b"[" * 5_000, HALF],
)
def test_not_a_json_object(body: bytes) -> None:
    refusal = messages_request.parse(body)
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.MALFORMED_BODY


@pytest.mark.parametrize("field", ["unknown", "metadata", "thinking", "output_config"])
def test_nested_too_deeply(field: str) -> None:
    deep = b'{"x":' * 5_000 + b"1" + b"}" * 5_000
    refusal = messages_request.parse(b'{"model":"m","max_tokens":1,"messages":[],"%b":%b}' % (field.encode(), deep))
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.MALFORMED_BODY


def test_a_schema_nested_as_deeply_as_can_just_be_read() -> None:
    for depth in range(960, 1_000):
        deep = b'{"x":' * depth + b"1" + b"}" * depth
        tool = b'[{"name":"w","input_schema":%b}]' % deep
        head = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":'
        request = messages_request.parse(head + tool + b"}")
        if isinstance(request, Refusal):
            assert request.code is Code.MALFORMED_BODY
        else:
            assert deep in upstream_body(request, "up", 1)


def test_the_bound_is_that_of_the_chat_completion() -> None:
    request = read(
        system="Be brief.", tools=[WEATHER], max_tokens=5, metadata={"user_id": "x" * 999}, unknown="x" * 99, seed=7
    )
    assert isinstance(request, ChatRequest)
    shape = request.shape
    assert (shape.messages, shape.tools, shape.output_max, shape.choices) == (2, 1, 5, 1)
    counted = [{"role": "system", "content": "Be brief."}, *HI], [FUNCTION]
    assert shape.text_bytes == sum(len(msgspec.json.encode(each)) for each in (*counted, "x" * 99))


def test_counting_needs_no_limit() -> None:
    request = messages_request.parse_to_count(msgspec.json.encode({"model": "m", "messages": HI}))
    assert isinstance(request, ChatRequest)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "content", "role", "name", "input", "source"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(messages_request.Body.__struct_fields__), JSON))
def test_whatever_comes_is_read_or_refused(fields: dict[str, Any]) -> None:
    assert isinstance(read(**fields), ChatRequest | Refusal)
