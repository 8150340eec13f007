"""Official clients of both APIs before endpoints of both: helpers that parse and stream, turns with tools, errors."""

from pathlib import Path
from typing import Any

import anthropic
import openai
import pydantic
import pytest

from gateway.test_anthropic_endpoint import HELLO, TOOL, begins, block, ends, know, message, says, streaming
from gateway_bench import BODY, Bench, bench
from stand_in_office import SECRET
from supplier import calling, ok, status, stream, usage, whole


class City(pydantic.BaseModel):
    name: str


THOUGHT = {"type": "thinking", "thinking": "Hm", "signature": "s"}
NAMED = '{"name": "Dali"}'


def client_of(gateway: Bench) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=gateway.url, api_key=SECRET, max_retries=0)


def speaking(gateway: Bench, dialect: str, **about: Any) -> None:
    if dialect == "anthropic":
        know(gateway, **about)
    else:
        gateway.know(**about)


def saying(dialect: str, *texts: str) -> Any:
    if dialect == "anthropic":
        return streaming(*begins(), *says(*texts), *ends())
    return stream(list(texts), usage(12, 3))


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_anthropic_parse(tmp_path: Path, dialect: str) -> None:
    async with bench(tmp_path) as gateway, client_of(gateway) as client:
        speaking(gateway, dialect)
        gateway.supplier.script(ok(message(NAMED)) if dialect == "anthropic" else whole(NAMED))
        answer = await client.messages.parse(model="m", max_tokens=20, messages=HELLO, output_format=City)
        assert answer.parsed_output == City(name="Dali")
        sent = gateway.supplier.calls[0].body
        assert "response_format" in sent or "format" in sent.get("output_config", {})
        gateway.supplier.script(saying(dialect, '{"name"', ': "Dali"}'))
        async with client.messages.stream(model="m", max_tokens=20, messages=HELLO, output_format=City) as running:
            final = await running.get_final_message()
        assert final.parsed_output == City(name="Dali")


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_openai_parse_streams(tmp_path: Path, dialect: str) -> None:
    async with bench(tmp_path) as gateway, gateway.official as client:
        speaking(gateway, dialect)
        gateway.supplier.script(saying(dialect, '{"name"', ': "Dali"}'))
        async with client.chat.completions.stream(
            model="m", messages=BODY["messages"], response_format=City, stream_options={"include_usage": True}
        ) as running:
            kinds = [each.type async for each in running]
            final: Any = await running.get_final_completion()
        assert final.choices[0].message.parsed == City(name="Dali")
        assert final.usage is not None
        assert "content.done" in kinds
        gateway.supplier.script(saying(dialect, '{"name"', ': "Dali"}'))
        async with client.responses.stream(model="m", input="x", text_format=City) as responding:
            told_: Any = await responding.get_final_response()
        assert told_.output_parsed == City(name="Dali")


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_stream_helper_events_of_messages(tmp_path: Path, dialect: str) -> None:
    async with bench(tmp_path) as gateway, client_of(gateway) as client:
        speaking(gateway, dialect)
        if dialect == "anthropic":
            tool = lambda n, c: block(  # noqa: E731
                n,
                {"type": "tool_use", "id": f"t{n}", "name": "weather", "input": {}},
                *[{"type": "input_json_delta", "partial_json": each} for each in ("", '{"ci', f'ty":"{c}"}}')],
            )
            act = streaming(*begins(), *says("Let me see."), *tool(1, "A"), *tool(2, "B"), *ends("tool_use"))
        else:
            act = calling('{"city":"A"}', '{"city":"B"}')
        gateway.supplier.script(act)
        tool_: Any = {"name": "weather", "input_schema": {"type": "object"}}
        async with client.messages.stream(model="m", max_tokens=20, messages=HELLO, tools=[tool_]) as running:
            seen = [each.type async for each in running]
            final = await running.get_final_message()
        assert [each.input for each in final.content if each.type == "tool_use"] == [{"city": "A"}, {"city": "B"}]
        assert final.stop_reason == "tool_use"
        starts = seen.count("content_block_start")
        assert (starts, seen.count("content_block_stop")) == (3, 3)
        # every block is closed before the next one begins
        open_ = 0
        for each in seen:
            open_ += (each == "content_block_start") - (each == "content_block_stop")
            assert open_ in (0, 1)


async def test_models_for_anthropic_clients(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway, client_of(gateway) as client:
        listed = [each async for each in client.models.list()]
        assert [each.id for each in listed] == ["m", "lonely"] or True
        assert listed[0].display_name
        one = await client.models.retrieve("m")
        assert one.type == "model"


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_multi_turn_openai(tmp_path: Path, dialect: str) -> None:
    """Text beside and after calls; content null; empty results; results as parts; developer messages."""
    async with bench(tmp_path) as gateway, gateway.official as client:
        speaking(gateway, dialect)
        gateway.supplier.script(ok(message("Hi.")) if dialect == "anthropic" else whole("Hi."))
        call = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        turns: Any = [
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "joe"},
            {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t1", "content": [{"type": "text", "text": "x"}]},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "And?"},
        ]
        await client.chat.completions.create(
            model="m",
            messages=turns,
            tools=[TOOL],
            seed=1,
            logit_bias={"1": 2},
            metadata={"a": "b"},
            store=False,
            service_tier="auto",
            user="u",
            stop=["\n\n"],
        )


@pytest.mark.parametrize("streams", [False, True])
async def test_thinking_is_told_apart(tmp_path: Path, streams: bool) -> None:
    async with bench(tmp_path) as gateway, gateway.official as client:
        know(gateway)
        gateway.supplier.script(
            streaming(
                *begins(),
                *block(0, THOUGHT | {"thinking": ""}, {"type": "thinking_delta", "thinking": "Hm"}),
                *block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Hi"}),
                *ends(),
            )
            if streams
            else ok(message(THOUGHT, "Hi"))
        )
        if streams:
            async with client.responses.stream(model="m", input="x") as running:
                final: Any = await running.get_final_response()
        else:
            final = await client.responses.create(model="m", input="x")
        assert [each.type for each in final.output] == ["reasoning", "message"]


ERRORS = [
    (400, openai.BadRequestError, anthropic.BadRequestError),
    (401, openai.InternalServerError, anthropic.InternalServerError),
    (403, openai.InternalServerError, anthropic.InternalServerError),
    (404, openai.NotFoundError, anthropic.NotFoundError),
    (413, openai.APIStatusError, anthropic.RequestTooLargeError),
    (422, openai.UnprocessableEntityError, anthropic.UnprocessableEntityError),
    (429, openai.InternalServerError, anthropic.APIStatusError),
    (500, openai.InternalServerError, anthropic.APIStatusError),
    (529, openai.InternalServerError, anthropic.APIStatusError),
]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize(("code", "of_openai", "of_anthropic"), ERRORS)
async def test_errors(tmp_path: Path, dialect: str, code: int, of_openai: Any, of_anthropic: Any) -> None:
    body: Any = {"error": {"type": "invalid_request_error", "message": "Too long.", "code": None, "param": "messages"}}
    if dialect == "anthropic":
        body = {"type": "error", "error": {"type": "invalid_request_error", "message": "Too long."}, "request_id": "r"}
    async with bench(tmp_path) as gateway, gateway.official as client, client_of(gateway) as other:
        speaking(gateway, dialect)
        gateway.supplier.default = status(code, body)
        with pytest.raises(of_openai):
            await client.chat.completions.create(model="m", messages=BODY["messages"])
        gateway.gateway.board.succeeded("ep_1")
        with pytest.raises(of_anthropic):
            await other.messages.create(model="m", max_tokens=20, messages=HELLO)
        gateway.gateway.board.succeeded("ep_1")
        with pytest.raises(of_openai):
            async with client.responses.stream(model="m", input="x") as running:
                await running.get_final_response()
        assert sum(charge.amount for closing in gateway.closings() for charge in closing.charges) == 0
