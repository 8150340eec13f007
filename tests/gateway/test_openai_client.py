"""OpenAI's own client and its chat completions: tools, JSON, logprobs, choices, images, streams, and its retries."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from gateway.test_images import png, url
from gateway_bench import BODY, WORDS, Bench, bench, summary
from stand_in_office import SECRET
from supplier import STREAM_HEAD, Act, Call, answer, chunk, event, ok, raw, status, stream, usage, whole
from tokenworks.core.bounds import ImageBound
from tokenworks.core.usage import Tokens

ASK: dict[str, Any] = {"model": "m", "messages": BODY["messages"], "max_tokens": 20}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Dali"}'}}
LOGPROB = {"token": "Hi", "logprob": -0.5, "bytes": [72], "top_logprobs": []}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with bench(tmp_path) as running:
        yield running


def choosing(*texts: str) -> Act:
    """An answer with so many choices, each with its probabilities; or their stream."""

    async def act(call: Call) -> bool:
        said = [{"index": n, "logprobs": {"content": [LOGPROB]}, "finish_reason": "stop"} for n, _ in enumerate(texts)]
        if not call.body.get("stream"):
            choices = [each | {"message": {"role": "assistant", "content": texts[n]}} for n, each in enumerate(said)]
            body = {"id": "c", "object": "chat.completion", "created": 1, "model": "up", "choices": choices}
            await call.send(answer(200, json.dumps(body | {"usage": usage(12, 4)}).encode()))
            return True
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "up"}
        chunks = [head | {"choices": [each | {"delta": {"content": texts[n]}}]} for n, each in enumerate(said)]
        sent = [*(b"data: %b\n\n" % json.dumps(each).encode() for each in chunks), event(None, usage=usage(12, 4))]
        data = b"".join(chunk(each) for each in [*sent, b"data: [DONE]\n\n"])
        await call.send(STREAM_HEAD + data + b"0\r\n\r\n")
        return True

    return act


@pytest.mark.parametrize("streams", [False, True])
async def test_choices_with_their_probabilities(gateway: Bench, streams: bool) -> None:
    gateway.supplier.script(choosing("Hi", "Ho"))
    async with gateway.official as client:
        asked: dict[str, Any] = ASK | {"n": 2, "logprobs": True, "top_logprobs": 2}
        if streams:
            running = await client.chat.completions.create(**asked, stream=True)
            choices: Any = [each.choices[0] async for each in running if each.choices]
            texts = [each.delta.content for each in choices]
        else:
            choices = (await client.chat.completions.create(**asked)).choices
            texts = [each.message.content for each in choices]
    assert texts == ["Hi", "Ho"]
    assert [each.logprobs.content[0].token for each in choices] == ["Hi", "Hi"]
    sent = gateway.supplier.calls[0].body
    assert (sent["n"], sent["logprobs"], sent["top_logprobs"]) == (2, True, 2)
    assert summary(await gateway.closing())[:4] == ("finished", "reported", Tokens(12, output=4), 16)


@pytest.mark.parametrize("streams", [False, True])
async def test_tools(gateway: Bench, streams: bool) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "up", "usage": usage(12, 9)}
    sent = [event({"role": "assistant", "tool_calls": [CALL | {"index": 0}]}), event({}, "tool_calls")]
    data = b"".join(chunk(each) for each in [*sent, event(None, usage=usage(12, 9)), b"data: [DONE]\n\n"])
    is_whole = ok(body | {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    gateway.supplier.script(raw(STREAM_HEAD + data + b"0\r\n\r\n", keep=True) if streams else is_whole)
    async with gateway.official as client:
        if streams:
            async with client.chat.completions.stream(**ASK, tools=[WEATHER]) as running:
                choice: Any = (await running.get_final_completion()).choices[0]
        else:
            choice = (await client.chat.completions.create(**ASK, tools=[WEATHER], tool_choice="required")).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [call.function.arguments for call in choice.message.tool_calls] == ['{"city": "Dali"}']
    assert gateway.supplier.calls[0].body["tools"] == [WEATHER]
    assert summary(await gateway.closing())[2] == Tokens(12, output=9)


class City(pydantic.BaseModel):
    """What the answer is to look like."""

    name: str


async def test_json(gateway: Bench) -> None:
    gateway.supplier.script(whole('{"name": "Dali"}'), whole('{"name": "Dali"}'))
    async with gateway.official as client:
        parsed = await client.chat.completions.parse(**ASK, response_format=City)
        await client.chat.completions.create(**ASK, response_format={"type": "json_object"})
    assert parsed.choices[0].message.parsed == City(name="Dali")
    formats = [call.body["response_format"]["type"] for call in gateway.supplier.calls]
    assert formats == ["json_schema", "json_object"]


async def test_an_image(gateway: Bench) -> None:
    gateway.know(image=ImageBound(100))
    gateway.supplier.script(whole("A cat."))
    part: Any = {"type": "image_url", "image_url": {"url": url(png(8, 8)), "detail": "low"}}
    async with gateway.official as client:
        told = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": [part]}])
        assert told.choices[0].message.content == "A cat."
        gateway.know()
        with pytest.raises(openai.BadRequestError, match="takes no images"):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": [part]}])
    assert gateway.supplier.calls[0].body["messages"][0]["content"] == [part]


@pytest.mark.parametrize("streams", [False, True])
async def test_its_own_retries_are_charged_once(gateway: Bench, streams: bool) -> None:
    gateway.supplier.script(
        status(500), status(429), stream(WORDS, usage(12, 3)) if streams else whole("x", usage(12, 3))
    )
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=SECRET, max_retries=2) as client:
        if streams:
            running = await client.chat.completions.create(**ASK, stream=True)
            assert [each async for each in running if each.choices]
        else:
            assert (await client.chat.completions.create(**ASK)).usage
    closings = gateway.closings()
    assert len(closings) == 3
    assert sum(charge.amount for closing in closings for charge in closing.charges) == 15
