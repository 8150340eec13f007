"""Endpoints that speak Anthropic's API: odd blocks and uses in streams, and requests that may be misread there."""

import json
from pathlib import Path
from typing import Any

import anthropic
import pytest

from gateway.test_anthropic_endpoint import HELLO, TOOL, begins, block, ends, know, message, says, streaming, told
from gateway.test_images import png, url
from gateway_bench import BODY, bench, summary
from stand_in_office import SECRET, catalog, endpoint
from supplier import ok, whole
from tokenworks.core.bounds import ImageBound
from tokenworks.core.journal import Opening

CALL = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}


async def test_a_tool_without_arguments_streamed(tmp_path: Path) -> None:
    """Anthropic streams such a call as one delta with an empty text; OpenAI says `{}`."""
    sent = [*begins(), *block(0, CALL, {"type": "input_json_delta", "partial_json": ""}), *ends("tool_use")]
    async with bench(tmp_path) as gateway, gateway.official as client:
        know(gateway)
        gateway.supplier.default = streaming(*sent)
        asked: dict[str, Any] = {"model": "m", "messages": BODY["messages"], "tools": [TOOL]}
        async with client.chat.completions.stream(**asked) as running:
            choice: Any = (await running.get_final_completion()).choices[0]
        (call,) = choice.message.tool_calls
        tool: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
        async with client.responses.stream(model="m", input="x", tools=[tool]) as responding:
            (item,) = (await responding.get_final_response()).output
        assert json.loads(call.function.arguments) == {}
        assert json.loads(item.arguments) == {}


async def test_a_tool_whose_arguments_come_with_its_beginning(tmp_path: Path) -> None:
    begun = CALL | {"input": {"city": "Dali"}}
    async with bench(tmp_path) as gateway, gateway.official as client:
        know(gateway)
        gateway.supplier.default = streaming(*begins(), *block(0, begun), *ends("tool_use"))
        asked: dict[str, Any] = {"model": "m", "messages": BODY["messages"], "tools": [TOOL]}
        async with client.chat.completions.stream(**asked) as running:
            choice: Any = (await running.get_final_completion()).choices[0]
        assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Dali"}


async def test_the_use_of_the_beginning_is_not_that_of_the_end(tmp_path: Path) -> None:
    end = [told("message_delta", delta={"stop_reason": "end_turn"}), told("message_stop")]
    async with bench(tmp_path) as gateway:
        know(gateway)
        gateway.supplier.script(streaming(*begins(), *says(*["w "] * 15), *end))
        await gateway.ask_stream()
        closing = await gateway.closing()
        assert closing.tokens.written == 15, summary(closing)


@pytest.mark.parametrize("odd", ["7", 7.5, -1, {"a": 1}])
async def test_odd_usage_does_not_cost_the_customer_the_end(tmp_path: Path, odd: Any) -> None:
    end = [
        told("message_delta", delta={"stop_reason": "max_tokens"}, usage={"output_tokens": odd}),
        told("message_stop"),
    ]
    async with bench(tmp_path) as gateway:
        know(gateway)
        gateway.supplier.script(streaming(*begins(), *says("a", "b"), *end))
        _, events = await gateway.ask_stream(stream_options={"include_usage": True})
        assert all(each == "[DONE]" or "choices" in each for each in events), events
        reasons = [c["finish_reason"] for each in events if each != "[DONE]" for c in each["choices"]]
        assert reasons[-1] == "length"
        assert (await gateway.closing()).tokens.written == 2


async def test_null_text_in_a_beginning(tmp_path: Path) -> None:
    begun = {"type": "text", "text": None}
    async with bench(tmp_path) as gateway:
        know(gateway)
        deltas = [{"type": "text_delta", "text": "Hi"}]
        gateway.supplier.script(streaming(*begins(), *block(0, begun, *deltas), *ends()))
        _, events = await gateway.ask_stream()
        assert all(each == "[DONE]" or "choices" in each for each in events), events


async def test_endpoints_that_cannot_be_told_it_are_no_attempts(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=4) as gateway:
        speaking = [endpoint(gateway.suppliers[n].url, f"ep_{n}", dialect="anthropic") for n in range(3)]
        gateway.use(catalog(*speaking, endpoint(gateway.suppliers[3].url, "ep_3")))
        answers = [await gateway.ask(n=2) for _ in range(6)]
        assert [each.status_code for each in answers] == [200] * 6


ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "weather"}}]},
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tool_choice": ALLOWED}, None),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
    ],
)
async def test_tool_choices(tmp_path: Path, fields: dict[str, Any], expected: Any) -> None:
    async with bench(tmp_path) as gateway:
        know(gateway)
        gateway.supplier.script(ok(message("Hi.")))
        answer = await gateway.ask(tools=[TOOL], **fields)
        if expected is None and answer.status_code == 400:
            return
        sent = gateway.supplier.calls[0].body.get("tool_choice")
        assert sent == expected, sent


async def test_empty_parameters(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        know(gateway)
        gateway.supplier.script(ok(message("Hi.")))
        await gateway.ask(tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
        assert gateway.supplier.calls[0].body["tools"][0]["input_schema"].get("type") == "object"


async def test_two_thoughts_in_a_row_are_two(tmp_path: Path) -> None:
    def thought(index: int, text: str, signature: str) -> list[bytes]:
        return block(
            index,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": text},
            {"type": "signature_delta", "signature": signature},
        )

    async with bench(tmp_path) as gateway:
        know(gateway, thinking="budget", output_max=4_096)
        gateway.supplier.script(streaming(*begins(), *thought(0, "A.", "s1"), *thought(1, "B.", "s2"), *ends()))
        asked: dict[str, Any] = {
            "model": "m",
            "max_tokens": 2_000,
            "thinking": {"type": "enabled", "budget_tokens": 1_500},
        }
        async with (
            anthropic.AsyncAnthropic(base_url=gateway.url, api_key=SECRET, max_retries=0) as client,
            client.messages.stream(messages=HELLO, **asked) as running,
        ):
            answer = await running.get_final_message()
        assert [each.to_dict() for each in answer.content] == [
            {"type": "thinking", "thinking": "A.", "signature": "s1"},
            {"type": "thinking", "thinking": "B.", "signature": "s2"},
        ]


async def test_a_dear_cache_is_charged_as_such(tmp_path: Path) -> None:
    """A cache for an hour costs twice the input at Anthropic, one for five minutes 1.25 times; here is one price."""
    cached: Any = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    async with bench(tmp_path) as gateway:
        know(gateway)
        gateway.supplier.script(ok(message("Hi.")))
        async with gateway.client as client:
            fields = {"model": "m", "max_tokens": 20, "messages": HELLO, "system": cached}
            answer = await client.post("/v1/messages", json=fields)
        assert answer.status_code == 400 or "1h" not in json.dumps(gateway.supplier.calls[0].body)


async def test_a_picture_of_low_detail_is_whole_there(tmp_path: Path) -> None:
    """Anthropic's API knows no `detail`: what is reserved must be what such a picture can be."""
    part = {"type": "image_url", "image_url": {"url": url(png(8, 8)), "detail": "low"}}
    async with bench(tmp_path) as gateway:
        know(gateway, image=ImageBound(1_000, tokens_low=85))
        gateway.supplier.script(ok(message("Hi.")))
        assert (await gateway.ask(messages=[{"role": "user", "content": [part]}])).status_code == 200
        (opening,) = [entry for entry in gateway.entries() if isinstance(entry, Opening)]
        assert "detail" not in json.dumps(gateway.supplier.calls[0].body)
        assert opening.input_max > 1_000


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_a_picture_as_the_result_of_a_tool(tmp_path: Path, dialect: str) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": url(png(8, 8))[22:]}
    result = [{"type": "image", "source": source}]
    turns: Any = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": result}]},
    ]
    async with bench(tmp_path) as gateway, gateway.client as client:
        gateway.use(catalog(endpoint(gateway.supplier.url, dialect=dialect), image=ImageBound(100)))
        gateway.supplier.script(ok(message("Hi.")) if dialect == "anthropic" else whole("Hi."))
        fields = {"model": "m", "max_tokens": 20, "messages": turns}
        answer = await client.post("/v1/messages", json=fields)
        assert answer.status_code == 200, answer.text
