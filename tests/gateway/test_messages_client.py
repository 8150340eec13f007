"""The official Anthropic client, unchanged, against the gateway."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam

from gateway_bench import COUNTED_INPUT, INPUT_MAX, Bench, bench, summary
from stand_in_office import SECRET
from supplier import broken_stream, calling, status, stream, usage, whole
from tokenworks.core.usage import Tokens

HELLO: list[MessageParam] = [{"role": "user", "content": "Say hello."}]
WEATHER: ToolParam = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with bench(tmp_path) as running:
        yield running


def customer(gateway: Bench, **options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(**({"base_url": gateway.url, "api_key": SECRET, "max_retries": 0} | options))


async def test_a_message(gateway: Bench) -> None:
    gateway.supplier.script(whole("Hello there.", usage(12, 5, cached=4)))
    async with customer(gateway) as client:
        told = await client.messages.create(model="m", max_tokens=20, messages=HELLO, system="Be brief.")
    assert (told.content[0].type, told.model, told.stop_reason) == ("text", "m", "end_turn")
    assert (told.usage.input_tokens, told.usage.cache_read_input_tokens, told.usage.output_tokens) == (8, 4, 5)
    closing = await gateway.closing()
    assert told._request_id
    assert told.id == f"msg_{told._request_id}"
    assert summary(closing)[:4] == ("finished", "reported", Tokens(8, cached_input=4, output=5), 17)


async def test_a_stream(gateway: Bench) -> None:
    gateway.supplier.script(stream(["Hello ", "there."], usage(12, 2)))
    async with (
        customer(gateway) as client,
        client.messages.stream(model="m", max_tokens=20, messages=HELLO) as told,
    ):
        texts = [text async for text in told.text_stream]
        message = await told.get_final_message()
    assert texts == ["Hello ", "there."]
    assert (await told.get_final_text(), message.stop_reason) == ("Hello there.", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (12, 2)
    assert summary(await gateway.closing())[:4] == ("finished", "reported", Tokens(12, output=2), 14)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_tools_are_called_and_answered(gateway: Bench, is_stream: bool) -> None:
    gateway.supplier.script(calling('{"city":"Bonn"}', '{"city":"Rome"}'), whole("It rains.", usage(30, 3)))
    asked: dict[str, Any] = {"model": "m", "max_tokens": 20, "tools": [WEATHER], "tool_choice": {"type": "any"}}
    async with customer(gateway) as client:
        if is_stream:
            async with client.messages.stream(messages=HELLO, **asked) as stream_told:
                told = await stream_told.get_final_message()
        else:
            told = await client.messages.create(messages=HELLO, **asked)
        assert told.stop_reason == "tool_use"
        assert [block.type for block in told.content] == ["text", "tool_use", "tool_use"]
        calls = [block for block in told.content if block.type == "tool_use"]
        assert [(call.id, call.name, call.input) for call in calls] == [
            ("t0", "weather", {"city": "Bonn"}),
            ("t1", "weather", {"city": "Rome"}),
        ]
        results: Any = [{"type": "tool_result", "tool_use_id": call.id, "content": "Rain."} for call in calls]
        turns: list[Any] = [
            *HELLO,
            {"role": "assistant", "content": told.content},
            {"role": "user", "content": results},
        ]
        last = await client.messages.create(messages=turns, **asked | {"tool_choice": {"type": "auto"}})
    assert last.content[0].type == "text"
    first, second = gateway.supplier.calls
    assert (first.body["tool_choice"], second.body["tool_choice"]) == ("required", "auto")
    user, turn, *answers = second.body["messages"]
    assert (user["content"], turn["content"]) == ("Say hello.", "Let me see.")
    assert [call["function"]["arguments"] for call in turn["tool_calls"]] == ['{"city":"Bonn"}', '{"city":"Rome"}']
    assert [(each["role"], each["tool_call_id"]) for each in answers] == [("tool", "t0"), ("tool", "t1")]
    assert summary(await gateway.closing())[:4] == ("finished", "reported", Tokens(12, output=9), 21)


async def test_beta_paths_and_bearer_tokens_are_taken_too(gateway: Bench) -> None:
    async with customer(gateway, api_key=None, auth_token=SECRET) as client:
        told = await client.beta.messages.create(
            model="m", max_tokens=20, messages=[{"role": "user", "content": "Hi."}]
        )
    assert told.content[0].type == "text"


async def test_counting(gateway: Bench) -> None:
    async with customer(gateway) as client:
        told = await client.messages.count_tokens(model="m", messages=HELLO)
    assert told.input_tokens == INPUT_MAX
    assert gateway.closings() == []


async def test_refusals_raise_its_exceptions(gateway: Bench) -> None:
    async with customer(gateway) as client:
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await client.messages.create(model="x", max_tokens=20, messages=HELLO)
        with pytest.raises(anthropic.BadRequestError) as thinking:
            await client.messages.create(
                model="m", max_tokens=20, messages=HELLO, thinking={"type": "enabled", "budget_tokens": 1024}
            )
        with pytest.raises(anthropic.AuthenticationError):
            await client.with_options(api_key="no").messages.create(model="m", max_tokens=20, messages=HELLO)
    assert unknown.value.request_id
    assert "thinking" in thinking.value.message
    assert gateway.closings() == []


async def test_a_stream_that_breaks_raises(gateway: Bench) -> None:
    gateway.supplier.script(broken_stream(["Hello "]))
    async with customer(gateway) as client:
        with pytest.raises(anthropic.APIStatusError, match="broke off"):
            async with client.messages.stream(model="m", max_tokens=20, messages=HELLO) as told:
                await told.get_final_message()
    assert summary(await gateway.closing())[:3] == ("endpoint_broken", "counted", Tokens(COUNTED_INPUT, output=1))


async def test_what_is_busy_is_asked_again(gateway: Bench) -> None:
    gateway.supplier.script(status(503), whole("Hello."))
    async with customer(gateway, max_retries=2) as client:
        waiting = client.messages.create(model="m", max_tokens=20, messages=HELLO)
        told = await waiting
    assert told.content[0].type == "text"
    assert [closing.ending for closing in gateway.closings()] == ["refused", "finished"]
