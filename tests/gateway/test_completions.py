"""Completions through the gateway, with OpenAI's own client: bounds, streams, echoes, cuts, and what is charged."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway_bench import Bench, bench, summary
from stand_in_office import SECRET
from supplier import (
    DONE,
    STREAM_HEAD,
    Act,
    Call,
    Usage,
    chunk,
    hang_up,
    ok,
    raw,
    status,
    usage,
)
from tokenworks.core.journal import Opening
from tokenworks.core.usage import Tokens

PATH = "/v1/completions"
PROMPT = "Once upon"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with bench(tmp_path) as running:
        running.know(apis=("completions",))
        yield running


def choice(text: str, index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish} | more


def completed(*choices: dict[str, Any], used: Usage | None = None) -> dict[str, Any]:
    body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "up", "choices": list(choices)}
    return body | ({"usage": used} if used else {})


def streamed(*bodies: dict[str, Any], end: bytes = DONE) -> Act:
    data = [b"data: %b\n\n" % json.dumps(body).encode() for body in bodies]
    return raw(STREAM_HEAD + b"".join(chunk(each) for each in [*data, end]) + b"0\r\n\r\n", keep=True)


async def test_a_whole_answer_passes_as_it_came(gateway: Bench) -> None:
    body = completed(choice(" a time.", finish="stop", logprobs={"tokens": [" a"]}), used=usage(2, 4))
    gateway.supplier.script(ok(body))
    async with gateway.official as client:
        told = await client.completions.with_raw_response.create(
            model="m", prompt=PROMPT, max_tokens=8, logprobs=1, stop=["\n"], suffix="The end.", temperature=0
        )
    assert json.loads(told.text) == body
    assert told.headers["x-tokenworks-charged"] == "6 token"
    call = gateway.supplier.calls[0]
    assert (call.path, call.body) == (
        "/v1/completions",
        {
            "model": "up",
            "prompt": PROMPT,
            "max_tokens": 8,
            "logprobs": 1,
            "stop": ["\n"],
            "suffix": "The end.",
            "temperature": 0,
        },
    )
    assert summary(await gateway.closing()) == ("finished", "reported", Tokens(2, output=4), 6, ())


@pytest.mark.parametrize("wants_usage", [True, False])
async def test_a_stream_passes_as_it_came(gateway: Bench, wants_usage: bool) -> None:
    bodies = [
        completed(choice(" a", logprobs={"tokens": [" a"]})),
        completed(choice(" time", finish="stop")),
        completed(used=usage(2, 2)),
    ]
    gateway.supplier.script(streamed(*bodies))
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    async with gateway.client as client:
        told = await client.post(PATH, json={"model": "m", "prompt": PROMPT, "stream": True} | options)
    data = [line[6:] for line in told.text.split("\n") if line.startswith("data: ")]
    bodies[2]["tokenworks"] = {"charged": [{"amount": "4", "unit": "token", "bucket": "bkt_1"}]}
    assert [json.loads(each) for each in data[:-1]] == (bodies if wants_usage else bodies[:2])
    assert data[-1] == "[DONE]"
    assert gateway.supplier.calls[0].body["stream_options"] == {"include_usage": True}
    assert gateway.supplier.calls[0].body["max_tokens"] == 16
    assert summary(await gateway.closing()) == ("finished", "reported", Tokens(2, output=2), 4, ())


async def test_the_client_reads_a_stream(gateway: Bench) -> None:
    gateway.supplier.script(streamed(completed(choice(" a")), completed(choice(" time", finish="stop"))))
    async with gateway.official as client:
        stream = await client.completions.create(model="m", prompt=PROMPT, stream=True)
        texts = [each.choices[0].text async for each in stream]
    assert texts == [" a", " time"]
    flags = ("usage_missing",)
    assert summary(await gateway.closing()) == ("finished", "counted", Tokens(3, output=2), 5, flags)


SHAPES: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "a text": ({"prompt": "x" * 8}, (40 + 10, 16)),
    "texts": ({"prompt": ["x", "y"]}, (80 + 9, 32)),
    "choices": ({"prompt": ["x", "y"], "n": 3, "max_tokens": 5}, (80 + 9, 30)),
    "token ids": ({"prompt": [1, 2, 3]}, (40 + 12, 16)),
    "lists of token ids": ({"prompt": [[1], [2, 3]], "best_of": 1}, (80 + 12, 32)),
    "with an end": ({"prompt": "x" * 8, "suffix": "y" * 8}, (40 + 20, 16)),
    "longer than the model writes": ({"prompt": "x" * 8, "max_tokens": 500}, (50, 100)),
    "an echo alone": ({"prompt": "x" * 8, "echo": True, "max_tokens": 0}, (50, 1)),
}


@pytest.mark.parametrize("name", SHAPES)
async def test_the_bound_covers_all_prompts_and_choices(gateway: Bench, name: str) -> None:
    fields, bound = SHAPES[name]
    gateway.supplier.script(ok(completed(choice("x", finish="stop"), used=usage(1, 0))))
    async with gateway.client as client:
        assert (await client.post(PATH, json={"model": "m"} | fields)).status_code == 200
    (opening,) = [entry for entry in gateway.entries() if isinstance(entry, Opening)]
    assert (opening.input_max, opening.output_max) == bound


async def test_an_echo_is_not_counted_as_written(gateway: Bench) -> None:
    asked = {"model": "m", "prompt": ["Once upon", "Far away"], "n": 2, "echo": True, "max_tokens": 4}
    choices = [choice(f"{prompt} lay", place) for place, prompt in enumerate(["Once upon"] * 2 + ["Far away"] * 2)]
    gateway.supplier.script(ok(completed(*choices)), streamed(*(completed(each) for each in choices)))
    async with gateway.client as client:
        told = await client.post(PATH, json=asked)
        stream = await client.post(PATH, json=asked | {"stream": True})
    assert [each["text"] for each in told.json()["choices"]] == [each["text"] for each in choices]
    assert [json.loads(line[6:])["choices"][0] for line in stream.text.split("\n\n")[:4]] == choices
    assert [(await gateway.closing(place)).counted.output for place in range(2)] == [4, 4]


async def test_an_echo_that_comes_in_pieces(gateway: Bench) -> None:
    pieces = ["On", "ce up", "on a", " time"]
    gateway.supplier.script(streamed(*(completed(choice(piece)) for piece in pieces)))
    async with gateway.client as client:
        fields = {"prompt": PROMPT, "echo": True, "stream": True, "stream_options": {"include_usage": True}}
        told = await client.post(PATH, json={"model": "m"} | fields)
    assert [json.loads(line[6:])["choices"][0]["text"] for line in told.text.split("\n\n")[:4]] == pieces
    assert (await gateway.closing()).counted.output == 2


async def test_an_echo_alone_is_asked_for_as_such(gateway: Bench) -> None:
    gateway.supplier.script(ok(completed(choice(PROMPT, finish="length"), used=usage(2, 0))))
    async with gateway.official as client:
        await client.completions.create(model="m", prompt=PROMPT, echo=True, max_tokens=0, logprobs=1)
    assert gateway.supplier.calls[0].body["max_tokens"] == 0
    assert summary(await gateway.closing()) == ("finished", "reported", Tokens(2), 2, ())


async def test_a_balance_that_is_used_up_ends_the_stream_in_its_own_shape(tmp_path: Path) -> None:
    paid, bound = 12, 51
    steps = {"lease_likely_tokens": 8, "lease_step_tokens": 4, "lease_wait_ms": 5_000}
    async with bench(tmp_path, balance=bound + paid, **steps) as gateway:
        gateway.know(apis=("completions",))

        async def act(call: Call) -> bool:
            data = [b"data: %b\n\n" % json.dumps(completed(choice(f"w{place}"))).encode() for place in range(40)]
            await call.send(STREAM_HEAD + b"".join(chunk(each) for each in data))
            await call.until_gone()
            return False

        gateway.supplier.script(act)
        async with gateway.official as client:
            fields: dict[str, Any] = {"max_tokens": 100, "stream_options": {"include_usage": True}}
            stream = await client.completions.create(model="m", prompt=PROMPT, stream=True, **fields)
            told = [each.to_dict() async for each in stream]
        assert len(told) == paid + 2
        cut, used = told[-2:]
        assert cut["object"] == "text_completion"
        assert cut["choices"] == [{"text": "", "index": 0, "finish_reason": "length"}]
        assert cut["tokenworks"] == {"code": "balance_used_up"}
        assert used["usage"] == {"prompt_tokens": 3, "completion_tokens": paid, "total_tokens": 3 + paid}
        closing = await gateway.closing()
        assert summary(closing)[:4] == ("finished", "counted", Tokens(3, output=paid), 3 + paid)


async def test_what_goes_beyond_the_limit_is_cut_off(gateway: Bench) -> None:
    gateway.supplier.script(streamed(*(completed(choice(f"w{place}")) for place in range(9))))
    async with gateway.client as client:
        told = await client.post(PATH, json={"model": "m", "prompt": PROMPT, "stream": True, "max_tokens": 3})
    assert told.text.count('"text":"w') == 3
    assert summary(await gateway.closing())[2] == Tokens(3, output=3)


BROKEN: dict[str, tuple[Act, str, int]] = {
    "nothing": (ok({}), "endpoint_broken", 502),
    "no choice": (ok({"choices": []}), "endpoint_broken", 502),
    "hung up": (hang_up(), "endpoint_unavailable", 503),
    "busy": (status(503), "endpoint_unavailable", 503),
    "refused": (status(400, {"error": {"message": "No.", "code": "no"}}), "no", 400),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_completion_is_not_charged(gateway: Bench, name: str) -> None:
    act, code, answered = BROKEN[name]
    gateway.supplier.default = act
    async with gateway.official as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.completions.create(model="m", prompt=PROMPT)
    assert (refused.value.status_code, refused.value.code) == (answered, code)
    assert summary(await gateway.closing())[1:4] == ("none", Tokens(), 0)


async def test_an_error_within_a_stream_ends_it(gateway: Bench) -> None:
    gateway.supplier.script(streamed(completed(choice(" a")), {"error": {"message": "Out of memory."}}))
    async with gateway.official as client:
        stream = await client.completions.create(model="m", prompt=PROMPT, stream=True)
        with pytest.raises(openai.APIError, match="Out of memory"):
            _ = [each async for each in stream]
    assert summary(await gateway.closing())[:3] == ("endpoint_broken", "counted", Tokens(3, output=1))


async def test_a_customer_who_leaves_pays_for_what_was_generated(gateway: Bench) -> None:
    async def act(call: Call) -> bool:
        await call.send(STREAM_HEAD + chunk(b"data: %b\n\n" % json.dumps(completed(choice(" a"))).encode()))
        await call.until_gone()
        return False

    gateway.supplier.script(act)
    async with gateway.official as client:
        stream = await client.completions.create(model="m", prompt=PROMPT, stream=True)
        async for _ in stream:
            break
        await stream.close()
    assert summary(await gateway.closing())[:3] == ("client_gone", "counted", Tokens(3, output=1))


REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no prompt": ({"prompt": None}, "invalid_value", "prompt"),
    "prompts without any": ({"prompt": []}, "invalid_value", "prompt"),
    "no tokens": ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    "less than none": ({"max_tokens": -1, "echo": True}, "invalid_value", "max_tokens"),
    "too many choices": ({"n": 17}, "invalid_value", "n"),
    "thrown away": ({"best_of": 4, "n": 2}, "field_not_supported", "best_of"),
    "another limit": ({"n_predict": 9}, "field_not_supported", "n_predict"),
    "the limit of chats": ({"max_completion_tokens": 9}, "field_not_supported", "max_completion_tokens"),
    "embedded already": ({"prompt_embeds": "x"}, "field_not_supported", "prompt_embeds"),
    "capitals": ({"Best_Of": 4}, "field_not_supported", "Best_Of"),
    "a model that chats": ({"model": "lonely"}, "model_not_supported", "model"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(gateway: Bench, name: str) -> None:
    fields, code, field = REFUSED[name]
    async with gateway.client as client:
        told = await client.post(PATH, json={"model": "m", "prompt": "x"} | fields)
    assert (told.status_code, told.json()["error"]["code"], told.json()["error"]["param"]) == (400, code, field)
    assert gateway.closings() == []


async def test_the_client_s_own_retries_are_charged_once(gateway: Bench) -> None:
    gateway.supplier.script(
        status(503),
        ok(completed(choice("x", finish="stop"), used=usage(2, 1))),
    )
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=SECRET, max_retries=2) as client:
        told = await client.completions.create(model="m", prompt=PROMPT)
    assert told.choices[0].text == "x"
    assert sum(charge.amount for closing in gateway.closings() for charge in closing.charges) == 3
