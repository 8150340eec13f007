"""Messages through the gateway: what the customer is told, and that the money is that of a chat completion."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway_bench import BODY, COUNTED_INPUT, INPUT_MAX, WORDS, Bench, bench, charged_alike, summary
from stand_in_office import SECRET
from supplier import (
    DONE,
    STREAM_HEAD,
    Act,
    answer,
    broken_stream,
    chunk,
    completion,
    event,
    hang_up,
    raw,
    status,
    stream,
    stuck_stream,
    usage,
    whole,
)
from tokenworks.core.journal import Opening
from tokenworks.core.usage import Tokens

PATH = "/v1/messages"


async def create(gateway: Bench, path: str = PATH, **fields: Any) -> httpx2.Response:
    """One message of the test's customer."""
    async with httpx2.AsyncClient(base_url=gateway.url, headers={"x-api-key": SECRET}, timeout=10) as client:
        return await client.post(path, json=BODY | fields)


async def create_stream(gateway: Bench, **fields: Any) -> tuple[httpx2.Response, list[dict[str, Any]]]:
    """One streamed message: the answer and the data of its events."""
    told = await create(gateway, stream=True, **fields)
    return told, [json.loads(line[6:]) for line in told.text.split("\n") if line.startswith("data: ")]


def text_of(events: list[dict[str, Any]]) -> list[str]:
    return [each["delta"]["text"] for each in events if each["type"] == "content_block_delta"]


async def test_a_whole_message(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(whole("Hello there.", usage(12, 5, cached=4)))
        told = await create(gateway, system="Be brief.")
        request_id = told.headers["request-id"]
        assert (told.status_code, told.headers["x-request-id"]) == (200, request_id)
        assert told.headers["x-tokenworks-charged"] == "17 token"
        assert told.json() == {
            "id": f"msg_{request_id}",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [{"type": "text", "text": "Hello there."}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": 8,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 4,
                "output_tokens": 5,
            },
        }
        assert gateway.supplier.calls[0].body == {
            "model": "up",
            "messages": [{"role": "system", "content": "Be brief."}, *BODY["messages"]],
            "max_tokens": 20,
        }


async def test_a_streamed_message(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(stream(WORDS, usage(12, 3)))
        told, events = await create_stream(gateway)
        assert told.headers["content-type"].startswith("text/event-stream")
        assert told.headers["request-id"] == told.headers["x-request-id"]
        assert [each["type"] for each in events] == [
            "message_start",
            "content_block_start",
            *["content_block_delta"] * 3,
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        assert events[0]["message"]["usage"]["input_tokens"] == COUNTED_INPUT
        assert text_of(events) == WORDS
        assert events[-2]["usage"]["input_tokens"] == 12
        assert "[DONE]" not in told.text
        assert gateway.supplier.calls[0].body["stream_options"] == {"include_usage": True}


def piece(*events: bytes) -> Act:
    return raw(STREAM_HEAD + b"".join(chunk(each) for each in [*events, DONE]) + b"0\r\n\r\n", keep=True)


TOOL = {"tool_calls": [{"index": 0, "id": "t1", "function": {"name": "f", "arguments": "{}"}}]}
ACTS: dict[str, Act] = {
    "as reported": whole("Hello there, you.", usage(12, 3, cached=2, reasoning=1)),
    "no usage": whole("Hello there, you.", None),
    "above the reservation": whole("Hello there, you.", usage(12, 21)),
    "zero": whole("Hello there, you.", usage(12, 0)),
    "negative": whole("Hello there, you.", usage(-1, 3)),
    "nothing said": whole("", usage(12, 0)),
    "refused": status(400, {"error": {"message": "Too long.", "code": "context_length_exceeded"}}),
    "broken off": broken_stream(WORDS),
    "hung up": hang_up(),
    "busy": status(503),
    "not an answer": raw(answer(200, b"{}"), keep=True),
    "beyond its limit": stream([f"w{place}" for place in range(30)], None),
    "usage twice": piece(event({"content": "a"}), event(None, usage=usage(9, 1)), event(None, usage=usage(9, 2))),
    "tools": piece(event(TOOL), event({}, "tool_calls"), event(None, usage=usage(9, 4))),
    "reasoning": piece(event({"reasoning_content": "a"}), event({"content": "b"}), event({}, "stop")),
    "an error within": piece(event({"content": "a"}), b'data: {"error":{"message":"Out of memory."}}\n\n'),
    "what cannot be read": piece(event({"content": "a"}), b"data: {\n\n", event({}, "stop")),
    "several choices": piece(b'data: {"choices":[{"index":1,"delta":{"content":"b"}}]}\n\n', event({"content": "a"})),
}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("name", ACTS)
async def test_the_money_is_that_of_the_chat_completion(tmp_path: Path, name: str, is_stream: bool) -> None:
    async with bench(tmp_path) as gateway:
        chat, told, tokens = await charged_alike(gateway, ACTS[name], create, is_stream=is_stream)
        assert told.status_code == (529 if chat.status_code == 503 else chat.status_code)
        assert gateway.held()[1] == 0
        if told.status_code == 200:
            _told_as_charged(told, is_stream, tokens)


def _told_as_charged(told: httpx2.Response, is_stream: bool, tokens: Tokens) -> None:
    """What is told of use is what is charged for."""
    events = [json.loads(line[6:]) for line in told.text.split("\n") if line.startswith("data: ")]
    if is_stream and events[-1]["type"] == "error":
        return
    used = events[-2]["usage"] if is_stream else told.json()["usage"]
    assert used == {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cached_input,
        "output_tokens": tokens.written,
    }


async def test_a_balance_that_is_used_up_ends_the_stream_as_its_limit_would(tmp_path: Path) -> None:
    paid = 30
    steps = {"lease_likely_tokens": 8, "lease_step_tokens": 4, "lease_wait_ms": 5_000}
    async with bench(tmp_path, balance=INPUT_MAX + paid, **steps) as gateway:
        gateway.supplier.script(stuck_stream([f"w{place}" for place in range(40)]))
        told, events = await create_stream(gateway, max_tokens=100)
        assert (told.status_code, len(text_of(events))) == (200, paid)
        assert [each["type"] for each in events[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
        assert events[-2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
        assert events[-2]["tokenworks"] == {
            "code": "balance_used_up",
            "charged": [{"amount": "40", "unit": "token", "bucket": "bkt_1"}],
        }
        assert (events[-2]["usage"]["input_tokens"], events[-2]["usage"]["output_tokens"]) == (COUNTED_INPUT, paid)
        closing = await gateway.closing()
        flags = ("balance_short", "usage_missing")
        assert summary(closing) == ("finished", "counted", Tokens(COUNTED_INPUT, output=paid), 40, flags)
        call = await gateway.supplier.call(0)
        await asyncio.wait_for(call.gone.wait(), 5)


async def test_a_customer_who_leaves_pays_for_what_was_generated(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(stuck_stream(WORDS))
        reader, writer = await gateway.connect()
        writer.write(gateway.request(stream=True).replace(b"/v1/chat/completions", PATH.encode()))
        await reader.readuntil(b'"three"')
        writer.transport.abort()
        closing = await gateway.closing()
        assert summary(closing)[:3] == ("client_gone", "counted", Tokens(COUNTED_INPUT, output=3))


async def test_a_stream_that_breaks_ends_with_an_error_event(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(broken_stream(WORDS))
        told, events = await create_stream(gateway)
        assert text_of(events) == WORDS
        assert told.text.split("\n\n")[-2].startswith("event: error\ndata: ")
        assert events[-1] == {
            "type": "error",
            "error": {
                "type": "api_error",
                "message": "The answer of the endpoint broke off.",
                "param": None,
                "code": "endpoint_broken",
            },
            "request_id": told.headers["request-id"],
        }


REFUSED: dict[str, tuple[str, str, dict[str, Any], int, str, str]] = {
    "model": ("POST", PATH, {"model": "x"}, 404, "not_found_error", "model_not_found"),
    "thinking": (
        "POST",
        PATH,
        {"thinking": {"type": "enabled", "budget_tokens": 1_024}, "max_tokens": 2_000},
        400,
        "invalid_request_error",
        "field_not_supported",
    ),
    "no limit": ("POST", PATH, {"max_tokens": None}, 400, "invalid_request_error", "invalid_value"),
    "no endpoint": ("POST", PATH, {"model": "lonely"}, 529, "overloaded_error", "endpoint_unavailable"),
    "method": ("GET", PATH, {}, 405, "invalid_request_error", "method_not_allowed"),
    "path": ("POST", PATH + "/batches", {}, 404, "not_found_error", "route_not_found"),
    "too large": ("POST", PATH, {"x": "x" * 5_000}, 413, "request_too_large", "body_too_large"),
    "count": ("POST", PATH + "/count_tokens", {"model": "x"}, 404, "not_found_error", "model_not_found"),
    "nothing to count": (
        "POST",
        PATH + "/count_tokens",
        {"messages": []},
        400,
        "invalid_request_error",
        "invalid_value",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refusals_have_anthropic_s_shape(tmp_path: Path, name: str) -> None:
    method, path, fields, code, kind, reason = REFUSED[name]
    async with bench(tmp_path, body_bytes_max=4_096) as gateway:
        async with httpx2.AsyncClient(base_url=gateway.url, headers={"x-api-key": SECRET}) as client:
            told = await client.request(method, path, json=BODY | fields)
        error = told.json()["error"]
        assert (told.status_code, told.json()["type"]) == (code, "error")
        assert (error["type"], error["code"]) == (kind, reason)
        assert told.headers["request-id"] == told.headers["x-request-id"] == told.json()["request_id"]
        assert gateway.closings() == []


@pytest.mark.parametrize("path", [PATH, PATH + "/count_tokens"])
@pytest.mark.parametrize(("headers", "code"), [({}, "key_missing"), ({"x-api-key": "no"}, "invalid_api_key")])
async def test_without_a_key(tmp_path: Path, path: str, headers: dict[str, str], code: str) -> None:
    async with bench(tmp_path) as gateway:
        async with httpx2.AsyncClient(base_url=gateway.url, headers=headers) as client:
            told = await client.post(path, json=BODY)
        error = told.json()["error"]
        assert (told.status_code, error["type"], error["code"]) == (401, "authentication_error", code)


async def test_without_balance(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=10) as gateway:
        told = await create(gateway)
        error = told.json()["error"]
        assert (told.status_code, error["type"], error["code"]) == (402, "billing_error", "balance_used_up")


async def test_a_draining_worker_says_so(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(stuck_stream([]))
        asked = asyncio.create_task(create(gateway))
        await gateway.supplier.call(0)
        await gateway.server.drain(0)
        told = await asked
        assert (told.status_code, told.json()["error"]["code"]) == (529, "draining")
        assert told.headers["connection"] == "close"


async def test_tokens_are_counted_by_the_bound_and_nothing_is_charged(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=0) as gateway:
        told = await create(gateway, PATH + "/count_tokens")
        assert (told.status_code, told.json()) == (
            200,
            {"input_tokens": INPUT_MAX, "tokenworks": {"input_tokens_likely": COUNTED_INPUT}},
        )
        longer = await create(gateway, PATH + "/count_tokens", system="x" * 100_000)
        assert longer.json()["input_tokens"] == 4_096  # the context window
        assert gateway.supplier.calls == []
        assert [entry for entry in gateway.entries() if isinstance(entry, Opening)] == []


async def test_an_answer_that_cannot_be_told_is_not_charged(tmp_path: Path) -> None:
    body = json.loads(completion("", usage(12, 5)))
    body["choices"][0]["message"] = {"content": "x", "tool_calls": [3]}
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(raw(answer(200, json.dumps(body).encode()), keep=True))
        told = await create(gateway)
        assert (told.status_code, told.json()["error"]["code"]) == (502, "endpoint_broken")
        assert summary(await gateway.closing())[:4] == ("endpoint_broken", "none", Tokens(), 0)
