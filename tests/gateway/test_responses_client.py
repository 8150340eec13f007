"""OpenAI's own client and its Responses: whole and streamed, with tools and schemas, and its own retries."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
from openai.types.responses import FunctionToolParam

from gateway_bench import BODY, COUNTED_INPUT, Bench, bench, summary
from stand_in_office import SECRET
from supplier import STREAM_HEAD, Call, broken_stream, calling, chunk, event, status, stream, usage, whole
from tokenworks.core.usage import Tokens

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with bench(tmp_path) as running:
        yield running


async def test_a_response(gateway: Bench) -> None:
    gateway.supplier.script(whole("Hello there.", usage(12, 5, cached=4, reasoning=2)))
    async with gateway.official as client:
        raw = await client.responses.with_raw_response.create(
            model="m", input="Say hello.", instructions="Be brief.", max_output_tokens=20, metadata={"a": "b"}
        )
    told = raw.parse()
    assert (told.output_text, told.status, told.store if hasattr(told, "store") else False) == (
        "Hello there.",
        "completed",
        False,
    )
    assert told.id == f"resp_{raw.headers['x-request-id']}"
    assert (told.instructions, told.max_output_tokens, told.metadata) == ("Be brief.", 20, {"a": "b"})
    assert told.usage is not None
    assert (told.usage.input_tokens, told.usage.input_tokens_details.cached_tokens) == (12, 4)
    assert (told.usage.output_tokens, told.usage.output_tokens_details.reasoning_tokens) == (5, 2)
    assert raw.headers["x-tokenworks-charged"] == "17 token"
    assert gateway.supplier.calls[0].body == {
        "model": "up",
        "messages": [{"role": "system", "content": "Be brief."}, *BODY["messages"]],
        "max_tokens": 20,
    }
    closing = await gateway.closing()
    expected = Tokens(8, cached_input=4, output=3, reasoning=2)
    assert summary(closing) == ("finished", "reported", expected, 17, ())


async def test_a_stream(gateway: Bench) -> None:
    gateway.supplier.script(stream(["Hello ", "there."], usage(12, 2)))
    async with gateway.official as client:
        events = [each async for each in await client.responses.create(model="m", input="Say hello.", stream=True)]
    assert [each.type for each in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [each.sequence_number for each in events] == list(range(10))
    assert [each.delta for each in events if each.type == "response.output_text.delta"] == ["Hello ", "there."]
    last = events[-1]
    assert last.type == "response.completed"
    assert (last.response.output_text, last.response.status) == ("Hello there.", "completed")
    assert last.response.usage is not None
    assert last.response.usage.total_tokens == 14
    assert summary(await gateway.closing())[:4] == ("finished", "reported", Tokens(12, output=2), 14)


@pytest.mark.parametrize("streams", [False, True])
async def test_functions_are_called_and_their_results_go_back(gateway: Bench, streams: bool) -> None:
    gateway.supplier.script(calling('{"city": "Kunming"}', '{"city": "Dali"}', mixed=True), whole("Sunny."))
    given: list[Any] = [{"role": "user", "content": "Weather?"}]
    async with gateway.official as client:
        if streams:
            async with client.responses.stream(model="m", input=given, tools=[WEATHER]) as running:
                told = await running.get_final_response()
        else:
            told = await client.responses.create(model="m", input=given, tools=[WEATHER], tool_choice="required")
        calls = [item for item in told.output if item.type == "function_call"]
        assert [(call.name, call.call_id, json.loads(call.arguments)) for call in calls] == [
            ("weather", "t0", {"city": "Kunming"}),
            ("weather", "t1", {"city": "Dali"}),
        ]
        assert told.output_text == "Let me see."
        given += [item.to_dict() for item in told.output]
        given += [{"type": "function_call_output", "call_id": call.call_id, "output": "28 °C"} for call in calls]
        after = await client.responses.create(model="m", input=given, tools=[WEATHER])
    assert after.output_text == "Sunny."
    function = {name: WEATHER[name] for name in ("name", "description", "parameters", "strict")}
    assert gateway.supplier.calls[0].body["tools"] == [{"type": "function", "function": function}]
    sent = gateway.supplier.calls[1].body["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert (sent[1]["content"], len(sent[1]["tool_calls"])) == ("Let me see.", 2)
    assert sent[2] == {"role": "tool", "tool_call_id": "t0", "content": "28 °C"}


class City(pydantic.BaseModel):
    """What the answer is to look like."""

    name: str


async def test_a_schema(gateway: Bench) -> None:
    gateway.supplier.script(whole('{"name": "Kunming"}'))
    async with gateway.official as client:
        told = await client.responses.parse(model="m", input="Which city?", text_format=City)
    assert told.output_parsed == City(name="Kunming")
    asked = gateway.supplier.calls[0].body["response_format"]
    assert (asked["type"], asked["json_schema"]["name"], asked["json_schema"]["strict"]) == (
        "json_schema",
        "City",
        True,
    )
    assert asked["json_schema"]["schema"]["required"] == ["name"]


async def test_what_is_longer_than_its_limit_is_incomplete(gateway: Bench) -> None:
    gateway.supplier.script(stream([f"w{place} " for place in range(9)], None))
    async with gateway.official as client:
        stream_ = await client.responses.create(model="m", input="Say hello.", max_output_tokens=3, stream=True)
        last = [each async for each in stream_][-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert (last.response.status, last.response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert last.response.output_text == "w0 w1 w2 "
    assert summary(await gateway.closing())[2] == Tokens(COUNTED_INPUT, output=3)


async def test_reasoning_that_is_shown_is_an_item(gateway: Bench) -> None:
    sent = [event({"reasoning_content": "Hm. "}), event({"reasoning_content": "Yes."}), event({"content": "Hello."})]
    data = b"".join(chunk(each) for each in [*sent, event({}, "stop"), b"data: [DONE]\n\n"])

    async def act(call: Call) -> bool:
        await call.send(STREAM_HEAD + data + b"0\r\n\r\n")
        return True

    gateway.supplier.script(act)
    async with gateway.official as client:
        fields: dict[str, Any] = {"reasoning": {"effort": "low"}}
        async with client.responses.stream(model="m", input="Say hello.", **fields) as running:
            told = await running.get_final_response()
    assert [item.type for item in told.output] == ["reasoning", "message"]
    assert told.output[0].to_dict()["content"] == [{"type": "reasoning_text", "text": "Hm. Yes."}]
    assert gateway.supplier.calls[0].body["reasoning_effort"] == "low"


async def test_a_stream_that_breaks_raises(gateway: Bench) -> None:
    gateway.supplier.script(broken_stream(["one"]))
    async with gateway.official as client:
        running = await client.responses.create(model="m", input="Say hello.", stream=True)
        with pytest.raises(openai.APIError, match="broke off"):
            _ = [each async for each in running]
    assert summary(await gateway.closing())[:3] == ("endpoint_broken", "counted", Tokens(COUNTED_INPUT, output=1))


async def test_nothing_is_stored_and_that_is_said(gateway: Bench) -> None:
    async with gateway.official as client:
        for fields in ({"store": True}, {"previous_response_id": "resp_1"}, {"background": True}):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.responses.create(model="m", input="x", **fields)
            assert (refused.value.code, refused.value.param) == ("field_not_supported", next(iter(fields)))
            assert "nothing is stored here" in refused.value.message
        with pytest.raises(openai.NotFoundError) as missing:
            await client.responses.retrieve("resp_req_1")
        assert missing.value.code == "response_not_found"
        with pytest.raises(openai.NotFoundError):
            await client.responses.delete("resp_req_1")
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="sk-tw-no").responses.retrieve("resp_req_1")
    assert gateway.closings() == []


@pytest.mark.parametrize("streams", [False, True])
async def test_its_own_retries_are_charged_once(gateway: Bench, streams: bool) -> None:
    gateway.supplier.script(status(503), whole("Hello there.", usage(12, 5)))
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=SECRET, max_retries=2) as client:
        if streams:
            async with client.responses.stream(model="m", input="Say hello.") as running:
                told = await running.get_final_response()
        else:
            told = await client.responses.create(model="m", input="Say hello.")
    assert told.output_text.startswith("Hello")
    assert sum(charge.amount for closing in gateway.closings() for charge in closing.charges) == 17
