"""What is read of a chat completion, what is refused, and what is sent on."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.refusals import Code, Refusal
from tokenworks.dialects.chat import ChatRequest, parse, upstream_body

MESSAGES = [{"role": "user", "content": "hi"}]


def read(**fields: Any) -> ChatRequest | Refusal:
    body = {"model": "m", "messages": MESSAGES} | fields
    return parse(json.dumps({name: value for name, value in body.items() if value != "absent"}).encode())


REFUSED: list[tuple[dict[str, Any], Code, str]] = [
    ({"model": "absent"}, Code.INVALID_VALUE, "model"),
    ({"model": 3}, Code.INVALID_VALUE, "model"),
    ({"messages": "absent"}, Code.INVALID_VALUE, "messages"),
    ({"messages": []}, Code.INVALID_VALUE, "messages"),
    ({"messages": "hi"}, Code.INVALID_VALUE, "messages"),
    ({"messages": [{"content": "hi"}]}, Code.INVALID_VALUE, "messages[0]"),
    ({"messages": [{"role": "user", "content": 3}]}, Code.INVALID_VALUE, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}]},
        Code.FIELD_NOT_SUPPORTED,
        "messages[0].content[0].type",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        Code.INVALID_VALUE,
        "messages[0].content[0].image_url.url",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        Code.INVALID_VALUE,
        "messages[0].content[0].image_url",
    ),
    ({"messages": [{"role": "assistant", "audio": {"id": "x"}}]}, Code.FIELD_NOT_SUPPORTED, "messages[0].audio"),
    ({"max_tokens": 0}, Code.INVALID_VALUE, "max_tokens"),
    ({"max_tokens": "9"}, Code.INVALID_VALUE, "max_tokens"),
    ({"max_completion_tokens": -1}, Code.INVALID_VALUE, "max_completion_tokens"),
    ({"n": 0}, Code.INVALID_VALUE, "n"),
    ({"n": 17}, Code.INVALID_VALUE, "n"),
    ({"stream": "yes"}, Code.INVALID_VALUE, "stream"),
    ({"stream_options": {"include_usage": 1}}, Code.INVALID_VALUE, "stream_options.include_usage"),
    ({"tools": [{"type": "web_search"}]}, Code.FIELD_NOT_SUPPORTED, "tools[0].type"),
    ({"web_search_options": {}}, Code.FIELD_NOT_SUPPORTED, "web_search_options"),
    ({"modalities": ["text", "audio"]}, Code.FIELD_NOT_SUPPORTED, "modalities"),
    ({"audio": {"voice": "x"}}, Code.FIELD_NOT_SUPPORTED, "audio"),
    ({"prediction": {"type": "content"}}, Code.FIELD_NOT_SUPPORTED, "prediction"),
    ({"service_tier": "priority"}, Code.FIELD_NOT_SUPPORTED, "service_tier"),
    ({"best_of": 4}, Code.FIELD_NOT_SUPPORTED, "best_of"),
    ({"use_beam_search": True}, Code.FIELD_NOT_SUPPORTED, "use_beam_search"),
    ({"n_predict": 9}, Code.FIELD_NOT_SUPPORTED, "n_predict"),
    ({"n_cmpl": 2}, Code.FIELD_NOT_SUPPORTED, "n_cmpl"),
    ({"max_new_tokens": 9}, Code.FIELD_NOT_SUPPORTED, "max_new_tokens"),
    ({"enable_search": True}, Code.FIELD_NOT_SUPPORTED, "enable_search"),
    ({"thinking": {"type": "enabled"}}, Code.FIELD_NOT_SUPPORTED, "thinking"),
    ({"plugins": [{"id": "web"}]}, Code.FIELD_NOT_SUPPORTED, "plugins"),
    ({"models": ["dearer"]}, Code.FIELD_NOT_SUPPORTED, "models"),
    ({"Max_Tokens": 9}, Code.FIELD_NOT_SUPPORTED, "Max_Tokens"),
    ({"ſtream": True}, Code.FIELD_NOT_SUPPORTED, "ſtream"),
]


@pytest.mark.parametrize(("fields", "code", "field"), REFUSED)
def test_refused(fields: dict[str, Any], code: Code, field: str) -> None:
    refusal = read(**fields)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.field) == (code, field)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff", b'{"model":"m"', b"null"])
def test_not_a_json_object(body: bytes) -> None:
    refusal = parse(body)
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.MALFORMED_BODY


@pytest.mark.parametrize("field", ["unknown", "metadata", "stream_options", "plugins"])
def test_nested_too_deeply(field: str) -> None:
    deep = b'{"x":' * 5_000 + b"1" + b"}" * 5_000
    refusal = parse(b'{"model":"m","messages":[{"role":"user","content":"x"}],"%b":%b}' % (field.encode(), deep))
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.MALFORMED_BODY


TAKEN: list[tuple[dict[str, Any], tuple[int, int, int]]] = [
    ({}, (0, 1, 0)),
    ({"max_tokens": 5}, (5, 1, 0)),
    ({"max_tokens": 5, "max_completion_tokens": 3}, (3, 1, 0)),
    ({"max_tokens": None, "n": 3}, (0, 3, 0)),
    ({"tools": [{"type": "function"}, {"type": "custom"}], "functions": [{"name": "f"}]}, (0, 1, 3)),
    ({"service_tier": "auto", "modalities": ["text"], "audio": None, "temperature": 1.5, "unknown": [1]}, (0, 1, 0)),
    ({"n_predict": None, "thinking": {"type": "disabled"}, "enable_search": False, "min_tokens": 3}, (0, 1, 0)),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, (0, 1, 0)),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}, (0, 1, 0)),
]


@pytest.mark.parametrize(("fields", "expected"), TAKEN)
def test_taken(fields: dict[str, Any], expected: tuple[int, int, int]) -> None:
    request = read(**fields)
    assert isinstance(request, ChatRequest)
    assert (request.shape.output_max, request.shape.choices, request.shape.tools) == expected


def test_what_may_reach_the_prompt_counts_as_text() -> None:
    plain = read(temperature=0.5, user="x" * 1_000)
    odd = read(documents=["x" * 1_000])
    assert isinstance(plain, ChatRequest)
    assert isinstance(odd, ChatRequest)
    assert plain.shape.text_bytes == len(json.dumps(MESSAGES))
    assert odd.shape.text_bytes == plain.shape.text_bytes + 1_004


@given(
    st.dictionaries(st.text(max_size=8), st.integers() | st.text() | st.lists(st.booleans()), max_size=4),
    st.sampled_from(
        [{}, {"max_tokens": 9}, {"max_completion_tokens": 9}, {"max_tokens": 9, "max_completion_tokens": 8}]
    ),
    st.booleans(),
)
def test_the_endpoint_gets_the_rest_as_it_came(rest: dict[str, Any], limits: dict[str, int], stream: bool) -> None:
    fields = {"x_" + name: value for name, value in rest.items()} | limits | {"stream": stream}
    request = read(**fields)
    assert isinstance(request, ChatRequest)
    sent = json.loads(upstream_body(request, "up", 7))
    expected = {"model": "up", "messages": MESSAGES} | fields | dict.fromkeys(limits or ["max_tokens"], 7)
    assert sent == expected | ({"stream_options": {"include_usage": True}} if stream else {})


def test_a_field_given_twice_is_sent_once_as_it_was_read() -> None:
    request = parse(b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":1,"max_tokens":50}')
    assert isinstance(request, ChatRequest)
    assert request.shape.output_max == 50
    assert upstream_body(request, "up", 50).count(b"max_tokens") == 1
