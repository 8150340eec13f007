"""Every ending of a request, streamed and not: what the customer sees, what the journal says, what is charged."""

import asyncio
from pathlib import Path

import pytest

from gateway_bench import COUNTED_INPUT, INPUT_MAX, PATH, WORDS, Bench, bench, summary
from supplier import (
    STREAM_HEAD,
    Act,
    broken_stream,
    chunk,
    completion,
    event,
    hang_up,
    raw,
    silent,
    status,
    stream,
    stuck_stream,
    usage,
    whole,
)
from supplier import answer as http_answer
from tokenworks.core.journal import Checkpoint, Closing, Head, LeaseTaken, Opening
from tokenworks.core.usage import Tokens


async def test_an_unstreamed_answer_is_charged_as_reported(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        answer = await gateway.ask()
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"] == "Hello there."
        assert answer.headers["x-tokenworks-charged"] == "17 token"
        assert answer.headers["x-request-id"].startswith("req_")
        head, taken, opening, closing = gateway.entries()
        assert isinstance(head, Head)
        assert isinstance(taken, LeaseTaken)
        assert isinstance(opening, Opening)
        assert (opening.input_max, opening.output_max, opening.stream) == (INPUT_MAX, 20, False)
        assert opening.request_id == answer.headers["x-request-id"]
        assert isinstance(closing, Closing)
        assert summary(closing) == ("finished", "reported", Tokens(12, output=5), 17, ())
        assert gateway.held() == (taken.amount - 17, 0, 1)


async def test_the_endpoint_gets_its_own_model_key_and_limit(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        await gateway.ask(max_tokens=None, temperature=0.5)
        await gateway.ask_stream(max_completion_tokens=7, stream_options={"x": 1})
        first, second = gateway.supplier.calls
        assert first.path == PATH
        assert first.headers["authorization"] == "Bearer up-key"
        assert (first.body["model"], first.body["max_tokens"], first.body["temperature"]) == ("up", 100, 0.5)
        assert "stream_options" not in first.body
        assert (second.body["max_tokens"], second.body["max_completion_tokens"]) == (7, 7)
        assert second.body["stream_options"] == {"x": 1, "include_usage": True}
        assert gateway.supplier.connections == 1


@pytest.mark.parametrize("wants_usage", [False, True])
async def test_a_stream_is_passed_on_event_by_event(tmp_path: Path, wants_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(stream(WORDS, usage(12, 3)))
        answer, seen = await gateway.ask_stream(**options)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert seen[-1] == "[DONE]"
        texts = [choice["delta"].get("content") for each in seen[:-1] for choice in each["choices"]]
        assert texts == ["", *WORDS, None]
        assert [each["usage"]["total_tokens"] for each in seen[:-1] if each.get("usage")] == [15] * wants_usage
        closing = await gateway.closing()
        assert summary(closing) == ("finished", "reported", Tokens(12, output=3), 15, ())
        assert closing.counted == Tokens(COUNTED_INPUT, output=3)


FINISHED: dict[str, tuple[Act, Act, Tokens, str, tuple[str, ...]]] = {
    "no usage": (
        whole("x" * 10, None),
        stream(WORDS, None),
        Tokens(COUNTED_INPUT, output=3),
        "counted",
        ("usage_missing",),
    ),
    "above the reservation": (
        whole("x" * 10, usage(12, 21)),
        stream(WORDS, usage(12, 21)),
        Tokens(COUNTED_INPUT, output=3),
        "counted",
        ("usage_above_reservation",),
    ),
    "nothing for something": (
        whole("x" * 10, usage(0, 0)),
        stream(WORDS, usage(0, 0)),
        Tokens(COUNTED_INPUT, output=3),
        "counted",
        ("usage_zero",),
    ),
    "nonsense": (
        whole("x" * 10, {"prompt_tokens": "many", "completion_tokens": 1}),
        stream(WORDS, {"prompt_tokens": 1 << 70, "completion_tokens": 1}),
        Tokens(COUNTED_INPUT, output=3),
        "counted",
        ("usage_malformed",),
    ),
    "cached and reasoning inside": (
        whole("x" * 10, usage(12, 5, cached=4, reasoning=2)),
        stream(WORDS, usage(12, 5, cached=4, reasoning=2)),
        Tokens(8, 4, 0, 3, 2),
        "reported",
        (),
    ),
}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("name", FINISHED)
async def test_what_a_finished_answer_is_charged_by(tmp_path: Path, name: str, is_stream: bool) -> None:
    unstreamed, streamed, tokens, basis, flags = FINISHED[name]
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(streamed if is_stream else unstreamed)
        answer = (await gateway.ask_stream())[0] if is_stream else await gateway.ask()
        assert answer.status_code == 200
        closing = await gateway.closing()
        assert summary(closing) == ("finished", basis, tokens, tokens.total, flags)
        attempt = closing.attempts[-1]
        assert (attempt.endpoint_id, attempt.tokens, attempt.outcome) == ("ep_1", tokens, "finished")
        assert attempt.cost == -(-(tokens.read * 300 + tokens.written * 600) * 1_000_000 // 1_000_000)


NOTHING_CHARGED: dict[str, tuple[Act, int, str, str]] = {
    "its own error": (
        status(400, {"error": {"message": "too long", "code": "context_length_exceeded"}}),
        400,
        "context_length_exceeded",
        "refused",
    ),
    "a flat error": (status(422, {"message": "odd"}), 422, "endpoint_refused", "refused"),
    "an error without a body": (status(404), 404, "endpoint_refused", "refused"),
    "our credentials": (status(401), 502, "endpoint_refused", "refused"),
    "busy": (status(429, {}, "retry-after: 7"), 503, "endpoint_unavailable", "refused"),
    "failing": (status(500), 503, "endpoint_unavailable", "refused"),
    "hangs up": (hang_up(), 503, "endpoint_unavailable", "refused"),
    "not HTTP": (raw(b"SSH-2.0-x\r\n\r\n"), 503, "endpoint_unavailable", "refused"),
    "not a completion": (raw(http_answer(200, b"<html>")), 502, "endpoint_broken", "endpoint_broken"),
    "no choices": (raw(http_answer(200, b'{"choices":[]}')), 502, "endpoint_broken", "endpoint_broken"),
    "breaks off in its head": (raw(b"HTTP/1.1 200 OK\r\ncontent-"), 503, "endpoint_unavailable", "refused"),
    "breaks off in its body": (
        raw(http_answer(200, completion("Hello", usage(12, 5)))[:-9]),
        502,
        "endpoint_broken",
        "endpoint_broken",
    ),
}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("name", NOTHING_CHARGED)
async def test_endings_that_charge_nothing(tmp_path: Path, name: str, is_stream: bool) -> None:
    act, code, error, ending = NOTHING_CHARGED[name]
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(act)
        answer = await gateway.ask(stream=is_stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (code, error)
        closing = await gateway.closing()
        assert summary(closing) == (ending, "none", Tokens(), 0, ())
        assert [attempt.cost for attempt in closing.attempts] == [0]
        assert gateway.held()[1] == 0
        assert (answer.headers.get("retry-after") == "7") == (name == "busy")


BREAKS: dict[str, tuple[Act, str]] = {
    "connection lost": (broken_stream(WORDS), "endpoint_broken"),
    "its own error": (
        raw(
            STREAM_HEAD
            + b"".join(chunk(event({"content": word})) for word in WORDS)
            + chunk(b'data: {"error":{"message":"OOM"}}\n\n')
        ),
        "endpoint_broken",
    ),
    "not chunks any more": (
        raw(STREAM_HEAD + b"".join(chunk(event({"content": word})) for word in WORDS) + b"zz\r\n"),
        "endpoint_broken",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_a_stream_that_breaks_is_told_and_charged_by_our_count(tmp_path: Path, name: str) -> None:
    act, ending = BREAKS[name]
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(act)
        answer, seen = await gateway.ask_stream()
        assert answer.status_code == 200
        assert seen[-1]["error"]["code"] == "endpoint_broken"
        assert "[DONE]" not in seen
        closing = await gateway.closing()
        assert summary(closing) == (ending, "counted", Tokens(COUNTED_INPUT, output=3), 13, ("usage_missing",))


async def test_a_stream_that_breaks_before_its_first_event_is_an_error_answer(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(broken_stream([]))
        answer = await gateway.ask(stream=True)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "endpoint_broken")
        assert summary(await gateway.closing()) == ("endpoint_broken", "none", Tokens(), 0, ())


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_silent_endpoint_times_out(tmp_path: Path, is_stream: bool) -> None:
    async with bench(tmp_path, endpoint_silence_ms=500, checkpoint_tokens=1) as gateway:
        gateway.supplier.script(stuck_stream(WORDS) if is_stream else silent())
        asked = asyncio.create_task(gateway.ask_stream() if is_stream else gateway.ask())
        call = await gateway.supplier.call(0)
        if is_stream:
            await _counted(gateway, 3)
        gateway.tick(3)
        result = await asked
        await asyncio.wait_for(call.gone.wait(), 5)
        closing = await gateway.closing()
        if isinstance(result, tuple):
            assert result[1][-1]["error"]["code"] == "endpoint_timeout"
            assert summary(closing)[:4] == ("endpoint_timeout", "counted", Tokens(COUNTED_INPUT, output=3), 13)
        else:
            assert (result.status_code, result.json()["error"]["code"]) == (504, "endpoint_timeout")
            assert summary(closing) == ("endpoint_timeout", "none", Tokens(), 0, ())


async def _counted(gateway: Bench, output: int) -> None:
    """Wait until the stream that runs has passed on this many tokens; told by a client's view would be too late."""
    async with asyncio.timeout(5):
        while not any(isinstance(entry, Checkpoint) and entry.counted.output >= output for entry in gateway.entries()):
            gateway.writer.flush()
            await gateway.gateway_turn()
