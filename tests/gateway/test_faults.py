"""Endpoints that ignore the limit or send what no decoder takes, and faults nobody expected: money stays right."""

import json
from pathlib import Path

import httpx2
import pytest

from gateway_bench import COUNTED_INPUT, WORDS, bench, summary
from stand_in_office import catalog, endpoint
from supplier import DONE, STREAM_HEAD, Act, chunk, event, raw, stream, usage
from supplier import answer as http_answer
from tokenworks.core.usage import Tokens

DEEP = b"[" * 5_000 + b"]" * 5_000
OUTPUT = 20


def words_of(seen: list[dict[str, list[dict[str, dict[str, str]]]]]) -> list[str]:
    texts = [choice["delta"].get("content") for each in seen for choice in each["choices"]]
    return [text for text in texts if text]


@pytest.mark.parametrize("is_one_piece", [False, True])
async def test_a_stream_past_its_limit_is_ended_where_the_balance_ends(tmp_path: Path, *, is_one_piece: bool) -> None:
    async with bench(tmp_path, balance=80 + OUTPUT) as gateway:
        written = [event({"content": f"w{number}"}) for number in range(500)]
        whole = http_answer(200, b"".join([*written, DONE]), content_type="text/event-stream")
        endless = STREAM_HEAD + b"".join(map(chunk, written))
        gateway.supplier.script(raw(whole if is_one_piece else endless, keep=True))
        answer, seen = await gateway.ask_stream()
        assert words_of(seen[:-1]) == [f"w{number}" for number in range(OUTPUT)]
        assert seen[-2] == json.loads(event({}, "length")[6:])
        assert (answer.status_code, seen[-1]) == (200, "[DONE]")
        tokens = Tokens(COUNTED_INPUT, output=OUTPUT)
        flags = ("output_above_limit", "usage_missing")
        assert summary(await gateway.closing()) == ("finished", "counted", tokens, tokens.total, flags)


async def test_a_stream_up_to_its_limit_is_not_cut(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(stream(["w"] * OUTPUT, usage(12, OUTPUT)))
        _, seen = await gateway.ask_stream()
        assert len(words_of(seen[:-1])) == OUTPUT
        assert summary(await gateway.closing())[1:] == ("reported", Tokens(12, output=OUTPUT), 12 + OUTPUT, ())


NESTED: dict[str, tuple[bool, Act, int, str]] = {
    "whole": (False, raw(http_answer(200, b'{"choices":[{"message":{"content":"x","y":%b}}]}' % DEEP)), 502, "none"),
    "usage": (
        False,
        raw(http_answer(200, b'{"choices":[{"message":{"content":"x"}}],"usage":{"y":%b}}' % DEEP)),
        502,
        "none",
    ),
    "error": (False, raw(http_answer(400, b'{"error":%b}' % DEEP)), 400, "none"),
    "event": (
        True,
        raw(
            STREAM_HEAD
            + b"".join(map(chunk, [event({"content": "x"}), b'data: {"y":%b}\n\n' % DEEP, DONE]))
            + b"0\r\n\r\n"
        ),
        200,
        "counted",
    ),
}


@pytest.mark.parametrize("name", NESTED)
async def test_an_endpoint_that_nests_too_deeply(tmp_path: Path, name: str) -> None:
    is_stream, act, status, basis = NESTED[name]
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(act)
        answer = await gateway.ask(stream=is_stream)
        closing = await gateway.closing()
        assert (answer.status_code, closing.basis) == (status, basis)
        assert gateway.held()[1] == 0


async def test_a_customer_who_nests_too_deeply_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway, gateway.client as client:
        body = b'{"model":"m","messages":[{"role":"user","content":"x","y":%b}]}' % DEEP
        answer = await client.post("/v1/chat/completions", content=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_body")


async def test_a_fault_nobody_expected_ends_the_request_with_its_closing(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.use(catalog(endpoint("http://127.0.0.1:99999/v1", "ep_x"), version=2))
        with pytest.raises(httpx2.TransportError):
            await gateway.ask()
        assert summary(await gateway.closing()) == ("endpoint_broken", "none", Tokens(), 0, ())
        assert gateway.held()[1] == 0
        gateway.use(catalog(endpoint(gateway.supplier.url), version=3))
        gateway.supplier.script(stream(WORDS, usage(12, 3)))
        assert (await gateway.ask_stream())[1][-1] == "[DONE]"
