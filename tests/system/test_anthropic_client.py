"""The official Anthropic client against the real system: an engine that speaks OpenAI, charged to the token."""

from collections.abc import AsyncGenerator
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageParam

from system.conftest import Customer
from tokenworks.app.spawned import Spawned

MODEL = "smollm2-135m"
PACKAGE = "ct-personal-10m"
QUESTION: list[MessageParam] = [{"role": "user", "content": "Name three rivers."}]
WEATHER: dict[str, Any] = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
TURNS: list[Any] = [
    *QUESTION,
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bonn"}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Rain."}]},
]


@pytest.fixture
async def client(system: Spawned, customer: Customer) -> AsyncGenerator[anthropic.AsyncAnthropic]:
    customer.buy(PACKAGE)
    base_url, secret = system.addresses["gateway"], customer.key["secret"]
    async with anthropic.AsyncAnthropic(base_url=base_url, api_key=secret, max_retries=0) as made:
        yield made


def total(usage: anthropic.types.Usage) -> int:
    """All tokens that were told of."""
    return usage.input_tokens + (usage.cache_read_input_tokens or 0) + usage.output_tokens


async def test_a_whole_message_is_charged_to_the_token(customer: Customer, client: anthropic.AsyncAnthropic) -> None:
    told = await client.messages.create(model=MODEL, max_tokens=12, messages=QUESTION, system="Be brief.")
    assert told.content[0].type == "text"
    assert told._request_id
    record = customer.record(told._request_id)
    assert (record["basis"], record["ending"], record["flags"]) == ("reported", "finished", [])
    assert record["tokens"]["total"] == total(told.usage)
    assert customer.left() == 10_000_000 - total(told.usage)


async def test_a_streamed_message_is_charged_to_the_token(customer: Customer, client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(model=MODEL, max_tokens=20, messages=QUESTION) as stream:
        texts = [text async for text in stream.text_stream]
        told = await stream.get_final_message()
    assert texts
    assert told.id.startswith("msg_")
    record = customer.record(told.id.removeprefix("msg_"))
    assert (record["basis"], record["stream"]) == ("reported", True)
    assert record["tokens"]["total"] == total(told.usage)
    assert customer.left() == 10_000_000 - total(told.usage)


async def test_the_engine_takes_turns_with_tools(client: anthropic.AsyncAnthropic) -> None:
    asked: Any = {"model": MODEL, "max_tokens": 12, "messages": TURNS, "tools": [WEATHER]}
    told = await client.messages.create(**asked)
    assert told.usage.output_tokens > 0
    counted = await client.messages.count_tokens(model=MODEL, messages=TURNS, tools=asked["tools"])
    assert counted.input_tokens >= told.usage.input_tokens + (told.usage.cache_read_input_tokens or 0)
