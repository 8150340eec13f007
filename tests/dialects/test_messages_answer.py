"""Chat completions as messages: whole answers, streams, errors; each a golden translation."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supplier import DONE, completion, event
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.usage import Tokens
from tokenworks.dialects import messages_answer
from tokenworks.dialects.answers import TABLE
from tokenworks.dialects.messages_answer import message
from tokenworks.dialects.messages_stream import PING, MessageStream
from tokenworks.dialects.reading import UNREADABLE

USED = Tokens(10, cached_input=3, cache_write=2, output=5, reasoning=1)
USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 2,
    "cache_read_input_tokens": 3,
    "output_tokens": 6,
}


def call(place: int = 0, call_id: str | None = "c1", name: str | None = "f", arguments: Any = "{}") -> dict[str, Any]:
    return {"index": place, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def used(call_id: str = "c1", given: Any = None) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "f", "input": given or {}}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


WHOLE: list[tuple[dict[str, Any], str | None, list[dict[str, Any]], str]] = [
    ({"content": "Hi."}, "stop", [text("Hi.")], "end_turn"),
    ({"content": "Hi."}, "length", [text("Hi.")], "max_tokens"),
    ({"content": "Hi."}, None, [text("Hi.")], "end_turn"),
    ({"content": "Hi."}, "odd", [text("Hi.")], "end_turn"),
    ({"content": None}, "content_filter", [], "refusal"),
    ({"content": "", "refusal": "No."}, "stop", [text("No.")], "end_turn"),
    ({"content": [{"type": "text", "text": "a"}, {"type": "thinking"}, text("b")]}, "stop", [text("ab")], "end_turn"),
    ({"content": 3}, "stop", [], "end_turn"),
    ({"content": "Hi.", "reasoning_content": "hm"}, "stop", [text("Hi.")], "end_turn"),
    ({"content": None, "tool_calls": None}, "stop", [], "end_turn"),
    ({"tool_calls": [call(arguments='{"x": 1}')]}, "tool_calls", [used(given={"x": 1})], "tool_use"),
    ({"content": "a", "tool_calls": [call(), call(1, "c2")]}, "stop", [text("a"), used(), used("c2")], "tool_use"),
    ({"tool_calls": [call(arguments="")]}, "tool_calls", [used()], "tool_use"),
    ({"tool_calls": [call(arguments={"x": 1})]}, "tool_calls", [used(given={"x": 1})], "tool_use"),
    ({"tool_calls": [call(arguments='{"x": ')]}, "length", [used(given={"arguments": '{"x": '})], "max_tokens"),
    ({"tool_calls": [call(call_id=None)]}, "tool_calls", [used("toolu_1_0")], "tool_use"),
]


@pytest.mark.parametrize(("said", "finish", "content", "stop"), WHOLE)
def test_whole_answers(said: dict[str, Any], finish: str | None, content: list[Any], stop: str) -> None:
    choice = {"index": 0, "message": {"role": "assistant"} | said, "finish_reason": finish}
    told = message("msg_1", "m", json.dumps({"choices": [choice]}).encode(), ["END"])
    assert json.loads(json.dumps(told, default=lambda raw: json.loads(bytes(raw)))) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": messages_answer.usage(Tokens()),
    }


def test_usage_is_in_disjoint_classes() -> None:
    assert messages_answer.usage(USED) == USAGE


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stop_reason": "END"}, ("stop_sequence", "END")),
        ({"matched_stop": "END"}, ("stop_sequence", "END")),
        ({"stop_reason": "</s>"}, ("end_turn", None)),
        ({"matched_stop": 2, "stop_reason": None}, ("end_turn", None)),
    ],
)
def test_the_sequence_that_stopped_it_where_the_engine_says_so(fields: dict[str, Any], expected: tuple[Any]) -> None:
    body = json.loads(completion("x", None))
    body["choices"][0] |= fields
    told = message("msg_1", "m", json.dumps(body).encode(), ["END"])
    assert (told["stop_reason"], told["stop_sequence"]) == expected


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"choices":[]}', b'{"choices":[{"message":{"tool_calls":3}}]}', b'{"choices":[{"message":3}]}'],
)
def test_what_is_no_answer_is_not_told(body: bytes) -> None:
    with pytest.raises(UNREADABLE):
        message("msg_1", "m", body, [])


# --- streams


def begun() -> MessageStream:
    return MessageStream("msg_1", "m", Tokens(7), ["END"])


def seen(data: bytes) -> list[dict[str, Any]]:
    """The events, each told by its name and its data alike."""
    events: list[dict[str, Any]] = []
    for block in data.decode().split("\n\n")[:-1]:
        name, told = block.split("\n")
        events.append(json.loads(told.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def short(told: dict[str, Any]) -> Any:
    """An event in short, for tables."""
    match told["type"]:
        case "content_block_start":
            block = told["content_block"]
            return (told["index"], "text" if block["type"] == "text" else (block["id"], block["name"]))
        case "content_block_delta":
            return (told["index"], "+", told["delta"].get("text") or told["delta"]["partial_json"])
        case "content_block_stop":
            return (told["index"], ".")
        case kind:
            return kind


def said(content: str) -> bytes:
    return event({"content": content})


def calls(*made: dict[str, Any]) -> bytes:
    return event({"tool_calls": list(made)})


STREAMS: dict[str, tuple[list[bytes], list[Any], str]] = {
    "text": (
        [event({"role": "assistant", "content": ""}), said("a"), said("b"), event({}, "stop")],
        [(0, "text"), (0, "+", "a"), (0, "+", "b"), (0, ".")],
        "end_turn",
    ),
    "nothing": ([event({}, "stop")], [], "end_turn"),
    "no finish": ([said("a")], [(0, "text"), (0, "+", "a"), (0, ".")], "end_turn"),
    "length": ([said("a"), event({}, "length")], [(0, "text"), (0, "+", "a"), (0, ".")], "max_tokens"),
    "finish with the last text": (
        [event({"content": "a"}, "stop", usage={"x": 1})],
        [(0, "text"), (0, "+", "a"), (0, ".")],
        "end_turn",
    ),
    "a tool in pieces": (
        [
            calls(call(arguments="")),
            calls(call(0, None, None, '{"x"')),
            calls(call(0, None, None, ": 1}")),
            event({}, "tool_calls"),
        ],
        [(0, ("c1", "f")), (0, "+", '{"x"'), (0, "+", ": 1}"), (0, ".")],
        "tool_use",
    ),
    "text and two tools": (
        [said("a"), calls(call()), calls(call(1, "c2")), event({}, "stop")],
        [
            (0, "text"),
            (0, "+", "a"),
            (0, "."),
            (1, ("c1", "f")),
            (1, "+", "{}"),
            (1, "."),
            (2, ("c2", "f")),
            (2, "+", "{}"),
            (2, "."),
        ],
        "tool_use",
    ),
    "two tools in one event": (
        [calls(call(), call(1, "c2")), event({}, "tool_calls")],
        [(0, ("c1", "f")), (0, "+", "{}"), (0, "."), (1, ("c2", "f")), (1, "+", "{}"), (1, ".")],
        "tool_use",
    ),
    "two tools of one index": (
        [calls(call()), calls(call(0, "c2")), event({}, "tool_calls")],
        [(0, ("c1", "f")), (0, "+", "{}"), (0, "."), (1, ("c2", "f")), (1, "+", "{}"), (1, ".")],
        "tool_use",
    ),
    "two tools mixed": (
        [calls(call(arguments="")), calls(call(1, "c2", "f", "[")), calls(call(0, None, None, "x"))],
        [(0, ("c1", "f")), (0, "."), (1, ("c2", "f")), (1, "+", "["), (0, "+", "x"), (1, ".")],
        "tool_use",
    ),
    "text after a tool": (
        [calls(call(arguments="")), said("a"), event({}, "stop")],
        [(0, ("c1", "f")), (0, "."), (1, "text"), (1, "+", "a"), (1, ".")],
        "tool_use",
    ),
    "arguments as an object": (
        [calls(call(arguments={"x": 1}))],
        [(0, ("c1", "f")), (0, "+", '{"x": 1}'), (0, ".")],
        "tool_use",
    ),
    "reasoning and comments": (
        [event({"reasoning_content": "hm"}), b": wait\n\n", said("a")],
        ["ping", "ping", (0, "text"), (0, "+", "a"), (0, ".")],
        "end_turn",
    ),
    "what cannot be read": (
        [b"data: {\n\n", b"data: 3\n\n", event({"tool_calls": 3}), said("a"), DONE],
        [(0, "text"), (0, "+", "a"), (0, ".")],
        "end_turn",
    ),
    "half a character": (
        [said("ab").replace(b"b", "€".encode()[:1])],
        [(0, "text"), (0, "+", "a\ufffd"), (0, ".")],
        "end_turn",
    ),
    "usage alone": ([said("a"), event(None, usage={})], [(0, "text"), (0, "+", "a"), (0, ".")], "end_turn"),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("is_at_once", [False, True])
def test_streams(name: str, is_at_once: bool) -> None:
    pieces, expected, stop = STREAMS[name]
    stream = begun()
    pieces = [b"".join(pieces)] if is_at_once else pieces
    told = seen(b"".join(stream.events(piece) for piece in pieces) + stream.last(DONE, USED))
    assert [short(each) for each in told] == ["message_start", *expected, "message_delta", "message_stop"]
    assert told[0]["message"] == messages_answer.empty("msg_1", "m", Tokens(7))
    assert told[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": stop, "stop_sequence": None},
        "usage": USAGE,
    }


def test_a_stream_that_is_cut_says_why() -> None:
    cut = event({}, "length", tokenworks={"code": "balance_used_up"})
    told = seen(begun().last(cut + DONE, USED))
    assert told[-2]["delta"]["stop_reason"] == "max_tokens"
    assert told[-2]["tokenworks"] == {"code": "balance_used_up"}


def test_the_ping_is_an_event() -> None:
    assert seen(PING) == [{"type": "ping"}]


@given(st.lists(st.text(min_size=1), max_size=8), st.lists(st.text(min_size=1), max_size=8))
def test_nothing_is_lost(texts: list[str], arguments: list[str]) -> None:
    stream = begun()
    pieces = [said(each) for each in texts] + [calls(call(0, None, None, each)) for each in arguments]
    told = seen(b"".join(stream.events(piece) for piece in pieces) + stream.last(DONE, USED))
    deltas = [each["delta"] for each in told if each["type"] == "content_block_delta"]
    assert "".join(each.get("text", "") for each in deltas) == "".join(texts)
    assert "".join(each.get("partial_json", "") for each in deltas) == "".join(arguments)


ODD = st.recursive(
    st.none() | st.integers(-1, 2) | st.sampled_from(["", "a", "c1", "text", "stop", '{"x"']),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "text", "content", "tool_calls", "index", "id", "function", "name", "arguments"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.lists(st.fixed_dictionaries({}, optional={"index": ODD, "delta": ODD, "finish_reason": ODD}), max_size=6))
def test_whatever_an_endpoint_sends_the_events_are_in_order(choices: list[Any]) -> None:
    stream = begun()
    pieces = [b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode() for choice in choices]
    told = seen(b"".join(stream.events(piece) for piece in pieces) + stream.last(DONE, USED))
    first, *others, delta, last = told
    assert (first["type"], delta["type"], last["type"]) == ("message_start", "message_delta", "message_stop")
    begun_blocks = [each["index"] for each in others if each["type"] == "content_block_start"]
    ended_blocks = [each["index"] for each in others if each["type"] == "content_block_stop"]
    assert begun_blocks == ended_blocks == list(range(len(begun_blocks)))
    assert {each["index"] for each in others if each["type"] == "content_block_delta"} <= set(begun_blocks)


@given(ODD, ODD)
def test_whatever_an_endpoint_answers_is_told_or_unreadable(said_odd: Any, finish: Any) -> None:
    body = json.dumps({"choices": [{"message": said_odd, "finish_reason": finish}]}).encode()
    with contextlib.suppress(UNREADABLE):
        assert message("msg_1", "m", body, [])["role"] == "assistant"


# --- errors


STATUSES: dict[int, tuple[int, str]] = {
    400: (400, "invalid_request_error"),
    401: (401, "authentication_error"),
    402: (402, "billing_error"),
    403: (403, "permission_error"),
    404: (404, "not_found_error"),
    405: (405, "invalid_request_error"),
    413: (413, "request_too_large"),
    429: (429, "rate_limit_error"),
    431: (431, "invalid_request_error"),
    502: (502, "api_error"),
    503: (529, "overloaded_error"),
    504: (504, "timeout_error"),
}


@pytest.mark.parametrize("code", Code, ids=lambda code: code.value)
def test_every_refusal_has_anthropic_s_status_and_type(code: Code) -> None:
    expected, kind = STATUSES[TABLE[code][0]]
    status, body = messages_answer.refusal(Refusal(code, "No.", "x"), "req_1")
    told = {"type": kind, "message": "No.", "param": "x", "code": code.value}
    assert (status, json.loads(body)) == (expected, {"type": "error", "error": told, "request_id": "req_1"})


@pytest.mark.parametrize(
    ("body", "text", "code"),
    [
        (b'{"error":{"message":"Too long.","code":"context_length_exceeded"}}', "Too long.", "context_length_exceeded"),
        (b"{", "The request was refused.", None),
    ],
)
def test_errors_of_endpoints(body: bytes, text: str, code: str | None) -> None:
    told = json.loads(messages_answer.error(422, body, "req_1"))
    assert told["error"] == {"type": "invalid_request_error", "message": text, "param": None, "code": code}
