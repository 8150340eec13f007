"""Content safety on the way in and out: what is refused, stopped, withheld and held back, and what is charged."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway_bench import COUNTED_INPUT, Bench, bench, summary
from supplier import (
    DONE,
    STREAM_HEAD,
    Act,
    Call,
    Supplier,
    answer,
    chunk,
    event,
    hang_up,
    ok,
    raw,
    silent,
    status,
    stream,
    supplier,
    usage,
    whole,
)
from tokenworks.core.usage import Tokens
from tokenworks.dialects.texts import joined

FILTER = ("content_filter", "usage_missing")
COUNT = Tokens(input=COUNTED_INPUT)


@asynccontextmanager
async def with_list(folder: Path, *words: str, **changes: Any) -> AsyncGenerator[Bench]:
    async with bench(folder, safety_keywords_file=str(listed(folder, *words)), **changes) as gateway:
        yield gateway


def listed(folder: Path, *words: str) -> Path:
    """The list of these words, put in place in one step."""
    (folder / "new").write_text("\n".join(words), encoding="utf-8")
    return (folder / "new").replace(folder / "words")


def texts(events: list[Any]) -> str:
    return "".join(
        choice["delta"].get("content") or "" for each in events if each != "[DONE]" for choice in each["choices"]
    )


def reasons(events: list[Any]) -> list[str]:
    found = [choice["finish_reason"] for each in events if each != "[DONE]" for choice in each["choices"]]
    return [reason for reason in found if reason]


async def test_without_settings_nobody_judges(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        assert gateway.gateway.safety is None


async def test_a_prompt_with_a_listed_phrase_costs_nothing_and_reaches_nobody(tmp_path: Path) -> None:
    async with with_list(tmp_path, "say hello") as gateway:
        refused = await gateway.ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
        assert (await gateway.ask(messages=[{"role": "user", "content": "Please say  hello"}])).status_code == 400
        part = {"role": "user", "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": "hello"}]}
        assert (await gateway.ask(messages=[part])).status_code == 200
        assert len(gateway.supplier.calls) == 1
        assert len(gateway.closings()) == 1


def test_images_are_no_text_and_what_stands_in_their_place_is() -> None:
    for url, is_text in (("data:image/png;base64,hello", False), ("https://x/hello", True), ("data:hello", True)):
        body = json.dumps([{"type": "image_url", "image_url": {"url": url}}]).encode()
        assert ("hello" in joined(body)) == is_text


async def test_a_stream_is_stopped_before_a_listed_phrase_and_what_was_passed_on_is_charged(tmp_path: Path) -> None:
    async with with_list(tmp_path, "three four") as gateway:
        gateway.supplier.script(stream(["one ", "two ", "thr", "ee", " fo", "ur", " five"], usage(12, 7)))
        _, events = await gateway.ask_stream(stream_options={"include_usage": True})
        assert (texts(events), reasons(events), events[-1]) == ("one two ", ["content_filter"], "[DONE]")
        assert events[-2]["usage"] == {"prompt_tokens": COUNTED_INPUT, "completion_tokens": 2, "total_tokens": 12}
        closing = await gateway.closing()
        tokens = Tokens(input=COUNTED_INPUT, output=2)
        assert summary(closing) == ("finished", "counted", tokens, 12, FILTER)
        # The supplier is owed what it had written when we stopped it.
        assert closing.attempts[0].tokens.output > 2


async def test_an_answer_with_a_listed_phrase_is_withheld_and_its_question_charged(tmp_path: Path) -> None:
    async with with_list(tmp_path, "there") as gateway:
        said = (await gateway.ask()).json()
        assert said["choices"] == [
            {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "content_filter"}
        ]
        assert said["usage"]["completion_tokens"] == 0
        assert summary(await gateway.closing()) == ("finished", "counted", COUNT, COUNTED_INPUT, FILTER)


TOOLS = [
    [{"index": 0, "function": {"name": "f", "arguments": '{"city": "th'}}],
    [{"index": 0, "function": {"arguments": "ere is"}}],
]


@pytest.mark.parametrize("calls", [TOOLS, [[1, "there"]], ["there is"], [{"there": "there "}]])
async def test_what_tools_are_called_with_is_judged_whatever_its_shape(tmp_path: Path, calls: list[Any]) -> None:
    async with with_list(tmp_path, "there") as gateway:
        pieces = [chunk(event({"tool_calls": call})) for call in calls]
        gateway.supplier.script(raw(STREAM_HEAD + b"".join([*pieces, chunk(DONE)]) + b"0\r\n\r\n", keep=True))
        answered, events = await gateway.ask_stream()
        assert "there" not in answered.text
        assert reasons(events) == ["content_filter"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_fields_that_nobody_knows_are_judged(tmp_path: Path, is_stream: bool) -> None:
    said = {"role": "assistant", "content": "ok", "reasoning_details": [{"text": "go there now"}]}
    async with with_list(tmp_path, "there") as gateway:
        if is_stream:
            gateway.supplier.script(raw(STREAM_HEAD + chunk(event(said)) + chunk(DONE) + b"0\r\n\r\n", keep=True))
            answered, _ = await gateway.ask_stream()
        else:
            gateway.supplier.script(ok({"choices": [{"message": said, "finish_reason": "stop"}]}))
            answered = await gateway.ask()
        assert ("there" in answered.text, "content_filter" in answered.text) == (False, True)


ASIDES = [
    b": go there\n\n",
    b"\0data: there\n\n",
    b"data: go there\n\n",
    b'event: there\ndata: {"choices":[]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"note":"there"}]}\n\n',
    b'data: {"choices":[],"note":{"is":["there"]}}\n\n',
    b'data: {"error":{"message":"go there"}}\n\n',
]


@pytest.mark.parametrize("aside", ASIDES)
async def test_nothing_passes_beside_what_is_judged(tmp_path: Path, aside: bytes) -> None:
    async with with_list(tmp_path, "there") as gateway:
        pieces = [event({"content": "ok"}), aside, event({}, "stop"), DONE]
        gateway.supplier.script(raw(STREAM_HEAD + b"".join(map(chunk, pieces)) + b"0\r\n\r\n", keep=True))
        answered, _ = await gateway.ask_stream()
        assert ("ok" in answered.text, "there" in answered.text) == (True, False)


async def test_models_that_are_not_named_are_not_judged(tmp_path: Path) -> None:
    async with with_list(tmp_path, "hello", safety_models="other another") as gateway:
        assert (await gateway.ask()).status_code == 200


async def test_a_changed_list_is_taken_up(tmp_path: Path) -> None:
    async with with_list(tmp_path, "nothing") as gateway:
        assert (await gateway.ask()).status_code == 200
        listed(tmp_path, "hello")
        assert gateway.gateway.safety
        gateway.gateway.safety.tick()
        assert (await gateway.ask()).status_code == 400


@pytest.mark.parametrize("is_stream", [False, True])
async def test_other_apis_are_judged_too(tmp_path: Path, is_stream: bool) -> None:
    async with with_list(tmp_path, "there") as gateway, gateway.client as client:
        gateway.supplier.script(stream(["Hello ", "there", "."]) if is_stream else whole("Hello there."))
        body = {"model": "m", "max_tokens": 20, "stream": is_stream, "messages": [{"role": "user", "content": "Hi"}]}
        said = await client.post("/v1/messages", json=body)
        assert '"stop_reason":"refusal"' in said.text.replace(" ", "")
        assert "there" not in said.text
        refused = await client.post("/v1/messages", json=body | {"system": "Go there"})
        assert (refused.status_code, refused.json()["type"]) == (400, "error")


class Hook:
    """A hook that judges as it is told, and remembers what it was asked."""

    def __init__(self, gateway: Bench, server: Supplier) -> None:
        self.gateway = gateway
        self.server = server
        self.calls = server.calls

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [(call.body["phase"], call.body["text"]) for call in self.calls]


def judging(refuse: str) -> Act:
    """Refuse texts with this in them."""

    async def act(call: Call) -> bool:
        body = {"allow": refuse not in call.body["text"], "reason": "because"}
        await call.send(answer(200, json.dumps(body).encode()))
        return True

    return act


@asynccontextmanager
async def with_hook(folder: Path, default: Act, **changes: Any) -> AsyncGenerator[Hook]:
    async with supplier() as asked:
        asked.default = default
        url = asked.url.replace("/v1", "/judge?who=me")
        async with bench(folder, safety_url=url, safety_token="tok-hook", **changes) as gateway:
            yield Hook(gateway, asked)


async def test_what_a_hook_is_asked(tmp_path: Path) -> None:
    async with with_hook(tmp_path, judging("nothing")) as hook:
        assert (await hook.gateway.ask()).status_code == 200
        first, second = hook.calls
        assert (first.path, first.headers["authorization"]) == ("/judge?who=me", "Bearer tok-hook")
        request_id = first.headers["x-request-id"]
        assert first.body == {
            "phase": "request",
            "request_id": request_id,
            "model": "m",
            "legal_entity_id": "le_1",
            "customer_id": "cus_1",
            "key_id": first.body["key_id"],
            "choice": 0,
            "context": "",
            "text": first.body["text"],
            "is_last": True,
        }
        assert first.body["text"].endswith("Say hello.")
        assert (second.body["phase"], second.body["text"]) == ("answer", "Hello there.")


async def test_a_hook_refuses_a_request(tmp_path: Path) -> None:
    async with with_hook(tmp_path, judging("hello")) as hook:
        refused = await hook.gateway.ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
        assert hook.gateway.closings() == []


async def test_a_stream_is_judged_in_windows_with_what_came_before(tmp_path: Path) -> None:
    words = [f"word{number:02} " for number in range(10)]
    async with with_hook(tmp_path, judging("word07"), safety_window_chars=14, safety_window_ms=60_000) as hook:
        hook.gateway.supplier.script(stream(words, usage(12, 10)))
        _, events = await hook.gateway.ask_stream()
        assert (texts(events), reasons(events)) == ("".join(words[:6]), ["content_filter"])
        windows = [call.body for call in hook.calls[1:]]
        assert [each["text"] for each in windows] == ["".join(words[at : at + 2]) for at in (0, 2, 4, 6)]
        assert [each["context"] for each in windows] == ["", *("".join(words[at : at + 2]) for at in (0, 2, 4))]
        assert summary(await hook.gateway.closing())[2:] == (Tokens(input=COUNTED_INPUT, output=6), 16, FILTER)


async def test_a_stream_that_is_let_through_is_the_same_stream(tmp_path: Path) -> None:
    async with with_hook(tmp_path, judging("nothing"), safety_window_chars=5) as hook:
        hook.gateway.supplier.script(stream(["He", "llo", " there"], usage(12, 5)))
        _, events = await hook.gateway.ask_stream(stream_options={"include_usage": True})
        assert (texts(events), reasons(events), events[-1]) == ("Hello there", ["stop"], "[DONE]")
        assert summary(await hook.gateway.closing()) == ("finished", "reported", Tokens(input=12, output=5), 17, ())
        assert "".join(text for phase, text in hook.asked if phase == "answer") == "Hello there"


async def test_a_slow_stream_is_not_held_until_a_window_is_full(tmp_path: Path) -> None:
    """When the time to wait for more is over, what is there is judged, and passed on while the rest is written."""
    async with with_hook(tmp_path, judging("nothing"), safety_window_ms=1, safety_window_chars=9_999) as hook:
        rest = asyncio.Event()

        async def act(call: Call) -> bool:
            await call.send(STREAM_HEAD)
            for piece in ("one ", "two "):
                await call.send(chunk(event({"content": piece})))
                # More than the time to wait passes before the next.
                await nearly(call.until_gone(), 0.02)
            await rest.wait()
            await call.send(chunk(event({}, "stop")) + chunk(DONE) + b"0\r\n\r\n")
            return True

        hook.gateway.supplier.script(act)
        reader, writer = await hook.gateway.connect()
        writer.write(hook.gateway.request(stream=True))
        async with asyncio.timeout(5):
            seen = await reader.readuntil(b"two ")
        assert b"one " in seen
        rest.set()
        assert b"[DONE]" in await reader.readuntil(b"[DONE]")


async def nearly(waited: Coroutine[Any, Any, None], seconds: float) -> None:
    """Wait for something that does not come for so long."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(waited, seconds)


FAULTS: dict[str, Callable[[], Act]] = {
    "hangs up": hang_up,
    "500": lambda: status(500),
    "no JSON": lambda: raw(answer(200, b"yes")),
    "no judgement": lambda: raw(answer(200, b'{"allow":"yes"}')),
    "silent": silent,
    "no HTTP": lambda: raw(b"rubbish\r\n\r\n"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_hook_that_fails_lets_through_what_the_setting_says(tmp_path: Path, name: str) -> None:
    for on_fault, expected in (("closed", 503), ("open", 200)):
        changes = {"safety_on_fault": on_fault, "safety_timeout_ms": 50}
        async with with_hook(tmp_path / on_fault, FAULTS[name](), **changes) as hook:
            said = await hook.gateway.ask()
            assert said.status_code == expected
            if expected == 503:
                assert said.json()["error"]["code"] == "safety_unavailable"
                assert hook.gateway.closings() == []


async def test_a_hook_that_fails_within_an_answer_ends_it_or_lets_it_go_on(tmp_path: Path) -> None:
    for on_fault, said in (("closed", ""), ("open", "onetwo")):
        async with with_hook(tmp_path / on_fault, status(500), safety_on_fault=on_fault) as hook:
            good = raw(answer(200, b'{"allow":true}'), keep=True)
            hook.gateway.supplier.script(stream(["one", "two"], usage(12, 2)))
            hook.server.script(good)
            _, events = await hook.gateway.ask_stream()
            assert texts(events) == said
            assert reasons(events) == (["stop"] if said else ["content_filter"])


async def test_a_customer_may_leave_while_the_hook_is_asked(tmp_path: Path) -> None:
    async with with_hook(tmp_path, silent(), safety_timeout_ms=60_000) as hook:
        _, writer = await hook.gateway.connect()
        writer.write(hook.gateway.request())
        while not hook.calls:
            await hook.gateway.gateway_turn()
        writer.transport.abort()
        async with asyncio.timeout(5):
            while hook.gateway.server.connections:
                await hook.gateway.gateway_turn()
        assert hook.gateway.closings() == []
        assert hook.gateway.held()[1] == 0


async def test_completions_are_stopped_and_refused_in_their_own_form(tmp_path: Path) -> None:
    async with with_list(tmp_path, "there") as gateway, gateway.client as client:
        gateway.know(apis=("completions",))
        body = {"model": "m", "prompt": "Go", "max_tokens": 5}
        refused = await client.post("/v1/completions", json=body | {"prompt": ["Go", "over there"]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
        gateway.supplier.script(ok(completed("Hello there.")))
        withheld = await client.post("/v1/completions", json=body)
        assert (withheld.status_code, withheld.json()["error"]["code"]) == (400, "content_filter")
        # The model has read the question: that is charged, as for an answer that may be shown.
        assert summary(await gateway.closing())[2] == Tokens(input=1)
        events = [b"data: %b\n\n" % json.dumps(completed(text)).encode() for text in ("Hello ", "there", " now")]
        gateway.supplier.script(raw(STREAM_HEAD + b"".join(map(chunk, [*events, DONE])) + b"0\r\n\r\n", keep=True))
        said = await client.post("/v1/completions", json=body | {"stream": True})
        assert ("Hello " in said.text, "there" in said.text) == (True, False)
        assert '"finish_reason":"content_filter"' in said.text


def completed(text: str) -> dict[str, Any]:
    return {"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": None}]}
