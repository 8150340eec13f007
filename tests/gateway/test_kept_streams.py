"""Responses that an endpoint keeps, answered oddly: broken off, without an end or a use, too long, for nobody."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.keeper import ASK, TOKENS, USED, create, events, keeping, response, sse, streaming, told
from gateway_bench import Bench, summary
from stand_in_office import SECRET
from supplier import Act, held, ok


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with keeping(tmp_path) as running:
        yield running


def cut_short(texts: Sequence[str], at: int) -> Act:
    return streaming(*sse(*events("resp_own", texts)[:at]), ends=False)


def without_usage() -> list[dict[str, Any]]:
    return events("resp_own", ["a", "b"], None)


ODD: dict[str, tuple[Act, str, tuple[Any, ...]]] = {
    "broken off": (cut_short(["a", "b", "c"], 6), "error", ("endpoint_broken", "counted", 2, ("usage_missing",))),
    "ends without its end": (
        streaming(*sse(*events("resp_own", ["a", "b"])[:6])),
        "error",
        ("endpoint_broken", "counted", 2, ("usage_missing",)),
    ),
    "fails": (
        streaming(
            *sse(
                *events("resp_own", ["a"])[:5],
                {"type": "response.failed", "response": {"error": {"message": "no resp_own"}}},
            )
        ),
        "error",
        ("endpoint_broken", "counted", 1, ("usage_missing",)),
    ),
    "an error": (
        streaming(*sse(*events("resp_own", ["a"])[:5], {"type": "error", "message": "overloaded", "code": "x"})),
        "error",
        ("endpoint_broken", "counted", 1, ("usage_missing",)),
    ),
    "no usage": (
        streaming(*sse(*without_usage())),
        "response.completed",
        ("finished", "counted", 2, ("usage_missing",)),
    ),
    "odd usage": (
        streaming(*sse(*events("resp_own", ["a", "b"], {"input_tokens": "x"}))),
        "response.completed",
        ("finished", "counted", 2, ("usage_malformed",)),
    ),
    "zero usage": (
        streaming(*sse(*events("resp_own", ["a", "b"], USED | {"output_tokens": 0, "output_tokens_details": None}))),
        "response.completed",
        ("finished", "counted", 2, ("usage_zero",)),
    ),
    "absurd usage": (
        streaming(*sse(*events("resp_own", ["a", "b"], USED | {"output_tokens": 1 << 70}))),
        "response.completed",
        ("finished", "counted", 2, ("usage_malformed",)),
    ),
    "incomplete": (
        streaming(
            *sse(*events("resp_own", ["a"], status="incomplete", incomplete_details={"reason": "max_output_tokens"}))
        ),
        "response.incomplete",
        ("finished", "reported", 5, ()),
    ),
    "more than its limit": (
        streaming(*sse(*events("resp_own", [f"w{n}" for n in range(30)]))),
        "response.incomplete",
        ("finished", "counted", 20, ("output_above_limit", "usage_missing")),
    ),
    "rubbish": (
        streaming(
            b": alive\n\n",
            *sse(*events("resp_own", ["a", "b"])[:-1]),
            b"data: {rub\n\n",
            *sse(events("resp_own", ["ab"])[-1]),
        ),
        "response.completed",
        ("finished", "reported", 5, ("event_malformed",)),
    ),
    "not told in pieces": (
        streaming(*sse(*[each for each in without_usage() if not each["type"].endswith(".delta")])),
        "response.completed",
        ("finished", "counted", 1, ("usage_missing",)),
    ),
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_streams(gateway: Bench, name: str) -> None:
    act, last, expected = ODD[name]
    gateway.supplier.script(act)
    answer = await create(gateway, stream=True)
    seen = told(answer)
    assert seen[-1]["type"] == last
    ending, basis, tokens, charged, flags = summary(await gateway.closing())
    assert (ending, basis, tokens.written, flags) == expected
    assert charged == tokens.total
    assert "resp_own" not in answer.text
    assert gateway.held()[1] == 0
    if last != "error":
        used = seen[-1]["response"]["usage"]
        assert (used["input_tokens"], used["output_tokens"]) == (tokens.read, tokens.written)
    if name == "more than its limit":
        assert seen[-1]["response"]["output"] == []
        assert "w20" not in answer.text


@pytest.mark.parametrize(
    "body",
    [{}, response("resp_own") | {"status": "failed"}, response("resp_own") | {"status": "queued"}, {"output": []}],
    ids=["nothing", "failed", "queued", "no response"],
)
async def test_what_is_no_answer_costs_nothing(gateway: Bench, body: dict[str, Any]) -> None:
    gateway.supplier.script(ok(body))
    answer = await create(gateway)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "endpoint_broken")
    assert summary(await gateway.closing())[3] == 0


@pytest.mark.parametrize("is_stream", [False, True])
async def test_who_leaves_pays_for_all_that_is_kept(gateway: Bench, is_stream: bool) -> None:
    release = asyncio.Event()
    then = streaming(*sse(*events("resp_own", ["a", "b"]))) if is_stream else ok(response("resp_own"))
    gateway.supplier.script(held(release, then))
    _, writer = await gateway.connect()
    body = json.dumps(ASK | {"stream": is_stream}).encode()
    head = f"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await gateway.supplier.call(0)
    writer.close()
    await writer.wait_closed()
    release.set()
    assert summary(await gateway.closing())[:4] == ("client_gone", "reported", TOKENS, 17)
