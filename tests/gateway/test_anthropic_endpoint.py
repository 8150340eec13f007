"""Endpoints that speak Anthropic's API, behind OpenAI's and Anthropic's own clients; and thinking."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import MessageParam, ToolParam

from gateway_bench import BODY, COUNTED_INPUT, WORDS, Bench, bench, summary
from stand_in_office import SECRET, catalog, endpoint
from supplier import CLOSING_STREAM_HEAD, STREAM_HEAD, Act, chunk, event, ok, raw, status, whole
from tokenworks.core.bounds import ImageBound
from tokenworks.core.journal import Opening
from tokenworks.core.usage import Tokens

HELLO: list[MessageParam] = [{"role": "user", "content": "Say hello."}]
USED = {"input_tokens": 4, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 5, "output_tokens": 7}
TOKENS = Tokens(4, cached_input=3, cache_write=5, output=7)
WEATHER: ToolParam = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
CALL = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Dali"}}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with bench(tmp_path) as running:
        know(running)
        yield running


def know(gateway: Bench, **about: Any) -> None:
    """The endpoint speaks Anthropic's."""
    gateway.use(catalog(endpoint(gateway.supplier.url, dialect="anthropic"), **about))


def message(*blocks: Any, stop: str = "end_turn", **more: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": each} if isinstance(each, str) else each for each in blocks]
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "up", "content": content}
    return head | {"stop_reason": stop, "stop_sequence": None, "usage": USED} | more


def told(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **fields}).encode())


def block(index: int, begun: dict[str, Any], *deltas: dict[str, Any]) -> list[bytes]:
    return [
        told("content_block_start", index=index, content_block=begun),
        *[told("content_block_delta", index=index, delta=delta) for delta in deltas],
        told("content_block_stop", index=index),
    ]


def says(*texts: str) -> list[bytes]:
    return block(0, {"type": "text", "text": ""}, *({"type": "text_delta", "text": text} for text in texts))


def ends(stop: str = "end_turn", **more: Any) -> list[bytes]:
    delta = {"stop_reason": stop, "stop_sequence": None} | more
    return [told("message_delta", delta=delta, usage={"output_tokens": 7}), told("message_stop")]


def begins() -> list[bytes]:
    return [told("message_start", message=message(usage=USED | {"output_tokens": 1}, stop_reason=None)), told("ping")]


def streaming(*events: bytes) -> Act:
    return raw(STREAM_HEAD + b"".join(chunk(each) for each in events) + b"0\r\n\r\n", keep=True)


async def test_an_openai_client_gets_a_chat_completion(gateway: Bench) -> None:
    gateway.supplier.script(ok(message("Hello ", "there.")))
    async with gateway.official as client:
        answer = await client.chat.completions.create(
            model="m",
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}],
            max_tokens=20,
            temperature=1.5,
            stop=".",
            seed=3,
        )
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hello there.", "stop")
    assert (answer.object, answer.model, answer.id) == ("chat.completion", "up", "msg_1")
    call = gateway.supplier.calls[0]
    assert (call.path, call.headers["x-api-key"], call.headers["anthropic-version"]) == (
        "/v1/messages",
        "up-key",
        "2023-06-01",
    )
    assert "authorization" not in call.headers
    assert call.body == {
        "model": "up",
        "max_tokens": 20,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}],
        "temperature": 1.0,
        "stop_sequences": ["."],
    }
    assert summary(await gateway.closing()) == ("finished", "reported", TOKENS, 19, ())


@pytest.mark.parametrize("wants_usage", [True, False])
async def test_an_openai_client_gets_a_stream(gateway: Bench, wants_usage: bool) -> None:
    gateway.supplier.script(streaming(*begins(), *says(*WORDS), *ends()))
    answer, events = await gateway.ask_stream(stream_options={"include_usage": wants_usage})
    assert answer.status_code == 200
    said = [each["choices"][0] for each in events[:-1] if each["choices"]]
    assert [each["delta"].get("content") for each in said] == ["", *WORDS, None]
    assert said[-1]["finish_reason"] == "stop"
    assert events[-1] == "[DONE]"
    assert len([each for each in events[:-1] if not each["choices"]]) == wants_usage
    assert gateway.supplier.calls[0].body["stream"] is True
    assert summary(await gateway.closing()) == ("finished", "reported", TOKENS, 19, ())


TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Says it.", "parameters": {"type": "object"}},
}
CHAT_CALL = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Dali"}'}}


@pytest.mark.parametrize("streams", [False, True])
async def test_tools_of_an_openai_client(gateway: Bench, streams: bool) -> None:
    begun = CALL | {"input": {}}
    pieces = [{"type": "input_json_delta", "partial_json": each} for each in ('{"city"', ':"Dali"}')]
    act = streaming(*begins(), *says("So."), *block(1, begun, *pieces), *ends("tool_use"))
    gateway.supplier.script(act if streams else ok(message("So.", CALL, stop="tool_use")))
    async with gateway.official as client:
        asked: dict[str, Any] = {"model": "m", "messages": BODY["messages"], "tools": [TOOL]}
        if streams:
            async with client.chat.completions.stream(**asked) as running:
                choice: Any = (await running.get_final_completion()).choices[0]
        else:
            choice = (await client.chat.completions.create(**asked, tool_choice="required")).choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "So.")
        (call,) = choice.message.tool_calls
        assert (call.id, call.function.name, json.loads(call.function.arguments)) == ("t1", "weather", {"city": "Dali"})
        turns = [*asked["messages"], {"role": "assistant", "content": "So.", "tool_calls": [CHAT_CALL]}]
        turns += [{"role": "tool", "tool_call_id": "t1", "content": "28 °C"}, {"role": "user", "content": "And?"}]
        gateway.supplier.script(ok(message("Sunny.")))
        await client.chat.completions.create(model="m", messages=turns, tools=asked["tools"], parallel_tool_calls=False)
    first, second = (call.body for call in gateway.supplier.calls)
    assert first["tools"] == [{"name": "weather", "description": "Says it.", "input_schema": {"type": "object"}}]
    assert second["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert second["messages"][1:] == [
        {"role": "assistant", "content": [{"type": "text", "text": "So."}, CALL]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "28 °C"},
                {"type": "text", "text": "And?"},
            ],
        },
    ]


async def test_an_anthropic_client_s_message_goes_as_it_was_written(gateway: Bench) -> None:
    gateway.supplier.script(ok(message("Hello.")))
    cached: Any = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    beside = {"unknown": {"x": 1}, "cache_control": {"type": "ephemeral"}}
    left = {"seed": 3, "n": 2, "service_tier": "auto", "inference_geo": "us", "context_management": {"edits": []}}
    more = beside | left | {"Max_Tokens": 99, "absent": None}
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=SECRET, max_retries=0) as client:
        answer = await client.messages.create(
            model="m", max_tokens=20, system=cached, messages=HELLO, tools=[WEATHER], extra_body=more
        )
    assert (answer.content[0].type, answer.stop_reason) == ("text", "end_turn")
    assert answer.usage.cache_creation_input_tokens == 5
    expected = {"model": "up", "max_tokens": 20, "system": cached, "messages": HELLO, "tools": [WEATHER]}
    assert gateway.supplier.calls[0].body == expected | beside
    assert summary(await gateway.closing())[:4] == ("finished", "reported", TOKENS, 19)


@pytest.mark.parametrize("streams", [False, True])
async def test_thinking_with_its_signature(gateway: Bench, streams: bool) -> None:
    know(gateway, thinking="budget", output_max=4_096)
    redacted = {"type": "redacted_thinking", "data": "xyz"}
    thought = block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Hm."},
        {"type": "signature_delta", "signature": "sig"},
    )
    sent = [
        *thought,
        *block(1, redacted),
        *block(2, {"type": "text", "text": ""}, {"type": "text_delta", "text": "So."}),
    ]
    gateway.supplier.script(
        streaming(*begins(), *sent, *ends()) if streams else ok(message(THOUGHT, redacted, "So.")), ok(message("Yes."))
    )
    asked: dict[str, Any] = {"model": "m", "max_tokens": 2_000, "thinking": {"type": "enabled", "budget_tokens": 1_500}}
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=SECRET, max_retries=0) as client:
        if streams:
            async with client.messages.stream(messages=HELLO, **asked) as running:
                answer = await running.get_final_message()
        else:
            answer = await client.messages.create(messages=HELLO, **asked)
        assert [each.to_dict() for each in answer.content] == [THOUGHT, redacted, {"type": "text", "text": "So."}]
        again: Any = [*HELLO, {"role": "assistant", "content": [each.to_dict() for each in answer.content]}, *HELLO]
        await client.messages.create(messages=again, **asked)
    first, second = (call.body for call in gateway.supplier.calls)
    assert first["thinking"] == asked["thinking"]
    assert second["messages"] == again
    openings = [entry for entry in gateway.entries() if isinstance(entry, Opening)]
    assert openings[1].input_max - openings[0].input_max > len("Hm.sigxyzSo.Say hello.")


HOW: list[tuple[str, int, dict[str, Any]]] = [
    ("effort", 1_024, {"reasoning_effort": "low"}),
    ("effort", 9_000, {"reasoning_effort": "medium"}),
    ("effort", 20_000, {"reasoning_effort": "high"}),
    ("template", 1_024, {"chat_template_kwargs": {"enable_thinking": True}}),
    ("budget", 1_024, {"thinking": {"type": "enabled", "budget_tokens": 1_024}}),
]


@pytest.mark.parametrize(("how", "budget", "expected"), HOW)
async def test_thinking_at_endpoints_that_speak_openai(
    tmp_path: Path, how: str, budget: int, expected: dict[str, Any]
) -> None:
    sent = [event({"reasoning_content": "Hm."}), event({"content": "So."}), event({}, "stop"), b"data: [DONE]\n\n"]
    async with bench(tmp_path) as gateway:
        gateway.know(thinking=how, output_max=30_000, context_window=40_000)
        gateway.supplier.script(streaming(*sent))
        async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=SECRET, max_retries=0) as client:
            thinking: Any = {"type": "enabled", "budget_tokens": budget}
            async with client.messages.stream(
                model="m", max_tokens=25_000, messages=HELLO, thinking=thinking
            ) as running:
                answer = await running.get_final_message()
        assert [each.to_dict() for each in answer.content] == [
            {"type": "thinking", "thinking": "Hm.", "signature": ""},
            {"type": "text", "text": "So."},
        ]
        assert {name: gateway.supplier.calls[0].body.get(name) for name in expected} == expected
        assert summary(await gateway.closing())[2] == Tokens(COUNTED_INPUT, output=2)


UNTHINKABLE: list[tuple[str, dict[str, Any], str]] = [
    ("none", {"type": "enabled", "budget_tokens": 1_024}, "thinking"),
    ("budget", {"type": "enabled", "budget_tokens": 2_000}, "thinking.budget_tokens"),
    ("budget", {"type": "enabled", "budget_tokens": 10}, "thinking.budget_tokens"),
    ("budget", {"type": "enabled"}, "thinking.budget_tokens"),
    ("budget", {"type": "adaptive"}, "thinking"),
]


@pytest.mark.parametrize(("how", "thinking", "field"), UNTHINKABLE)
async def test_thinking_that_is_refused(gateway: Bench, how: str, thinking: dict[str, Any], field: str) -> None:
    know(gateway, thinking=how)
    async with gateway.client as client:
        fields = {"model": "m", "max_tokens": 2_000, "messages": HELLO, "thinking": thinking}
        answer = await client.post("/v1/messages", json=fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_a_limit_that_leaves_no_room_for_thinking_goes_without(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=1_000) as gateway:
        know(gateway, thinking="budget", output_max=4_096)
        gateway.supplier.script(ok(message("So.")))
        async with gateway.client as client:
            thinking = {"type": "enabled", "budget_tokens": 1_024}
            fields = {"model": "m", "max_tokens": 2_000, "messages": HELLO, "thinking": thinking}
            assert (await client.post("/v1/messages", json=fields)).status_code == 200
        assert "thinking" not in gateway.supplier.calls[0].body
        assert gateway.supplier.calls[0].body["max_tokens"] < 1_024


CANNOT: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}]}, "messages"),
]


@pytest.mark.parametrize(("fields", "field"), CANNOT)
async def test_what_cannot_be_said_is_refused_and_costs_nothing(
    gateway: Bench, fields: dict[str, Any], field: str
) -> None:
    answer = await gateway.ask(**fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert summary(await gateway.closing())[:4] == ("refused", "none", Tokens(), 0)
    assert gateway.supplier.calls == []


async def test_what_cannot_be_said_goes_to_an_endpoint_that_speaks_openai(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2) as gateway:
        first, second = gateway.suppliers
        gateway.use(catalog(endpoint(first.url, "ep_1", dialect="anthropic"), endpoint(second.url, "ep_2")))
        answers = [await gateway.ask(n=2) for _ in range(2)]
        assert [each.status_code for each in answers] == [200, 200]
        assert (len(first.calls), len(second.calls)) == (0, 2)


ODD: dict[str, tuple[Act, tuple[Any, ...]]] = {
    "refused": (
        status(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Too long."}}),
        ("refused", "none", Tokens(), 0),
    ),
    "overloaded": (
        status(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}),
        ("refused", "none", Tokens(), 0),
    ),
    "not a message": (ok({"id": "x"}), ("endpoint_broken", "none", Tokens(), 0)),
    "negative usage": (
        ok(message("Hi", usage={"input_tokens": -4, "output_tokens": 1})),
        ("finished", "counted", Tokens(COUNTED_INPUT, output=1), 11),
    ),
    "no usage": (ok(message("Hi", usage=None)), ("finished", "counted", Tokens(COUNTED_INPUT, output=1), 11)),
    "strange usage": (ok(message("Hi", usage=3)), ("finished", "counted", Tokens(COUNTED_INPUT, output=1), 11)),
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_answers(gateway: Bench, name: str) -> None:
    act, closing = ODD[name]
    gateway.supplier.script(act)
    await gateway.ask()
    assert summary(await gateway.closing())[:4] == closing


ODD_STREAMS: dict[str, tuple[list[bytes], tuple[Any, ...]]] = {
    "an error within": (
        [*begins(), *says("a"), told("error", error={"type": "overloaded_error", "message": "Busy."})],
        ("endpoint_broken", "counted", Tokens(COUNTED_INPUT, output=1), 11),
    ),
    "without its last event": ([*begins(), *says("a"), ends()[0]], ("finished", "reported", TOKENS, 19)),
    "without its end": ([*begins(), *says("a")], ("finished", "counted", Tokens(COUNTED_INPUT, output=1), 11)),
    "beyond the limit": (
        [*begins(), *says(*["w"] * 30), *ends()],
        ("finished", "counted", Tokens(COUNTED_INPUT, output=20), 30),
    ),
}


@pytest.mark.parametrize("name", ODD_STREAMS)
async def test_odd_streams(gateway: Bench, name: str) -> None:
    events, closing = ODD_STREAMS[name]
    gateway.supplier.script(streaming(*events))
    await gateway.ask_stream()
    assert summary(await gateway.closing())[:4] == closing


async def test_a_stream_that_is_cut_off_is_charged_for_what_came(gateway: Bench) -> None:
    gateway.supplier.script(raw(STREAM_HEAD + b"".join(chunk(each) for each in [*begins(), *says("a")])))
    await gateway.ask_stream()
    expected = ("endpoint_broken", "counted", Tokens(COUNTED_INPUT, output=1), 11)
    assert summary(await gateway.closing())[:4] == expected
    gateway.supplier.script(raw(CLOSING_STREAM_HEAD + b"".join([*begins(), *says("a"), *ends()])))
    await gateway.ask_stream()
    assert summary(await gateway.closing(1))[:4] == ("finished", "reported", TOKENS, 19)


async def test_images_and_schemas_of_an_openai_client(gateway: Bench) -> None:
    know(gateway, image=ImageBound(100, urls=True))
    gateway.supplier.script(ok(message('{"a": 1}')))
    pictures = ["data:image/png;base64,AAAA", "https://pictures.example/1.png"]
    content = [
        {"type": "text", "text": "What?"},
        *[{"type": "image_url", "image_url": {"url": each}} for each in pictures],
    ]
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    answer = await gateway.ask(messages=[{"role": "user", "content": content}], response_format=schema)
    assert answer.status_code == 200
    sent = gateway.supplier.calls[0].body
    assert sent["messages"][0]["content"][1:] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": pictures[1]}},
    ]
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}


async def test_other_apis_are_not_served_there(gateway: Bench) -> None:
    know(gateway, apis=("chat", "embeddings"))
    async with gateway.official as client:
        with pytest.raises(openai.InternalServerError) as refused:
            await client.embeddings.create(model="m", input="x")
    assert refused.value.code == "endpoint_unavailable"


async def test_an_openai_endpoint_beside_it_takes_over(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2) as gateway:
        first, second = gateway.suppliers
        gateway.use(catalog(endpoint(first.url, "ep_1", dialect="anthropic"), endpoint(second.url, "ep_2")))
        first.default = status(529)
        second.default = whole("Hello there.")
        answers = [await gateway.ask() for _ in range(3)]
        assert [each.json()["choices"][0]["message"]["content"] for each in answers] == ["Hello there."] * 3
