"""Odd answers of endpoints that speak OpenAI's API, and pictures that are larger than their heads say."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.test_images import BOUND
from gateway_bench import bench
from supplier import DONE, STREAM_HEAD, chunk, event, ok, raw
from tokenworks.core.bounds import Image, image_tokens
from tokenworks.dialects.images import Given, seen


def framed(*events: bytes) -> bytes:
    return STREAM_HEAD + b"".join(map(chunk, events)) + b"0\r\n\r\n"


SAID: dict[str, list[dict[str, Any]]] = {
    "reasoning_details": [{"reasoning_details": [{"type": "reasoning.text", "text": f"w{n}"}]} for n in range(60)],
    "thinking": [{"thinking": f"w{n}"} for n in range(60)],
    "reasoning_text": [{"reasoning_text": f"w{n}"} for n in range(60)],
}


@pytest.mark.parametrize("ending", ["whole", "cut"])
@pytest.mark.parametrize("name", SAID)
async def test_what_was_delivered_is_not_free(tmp_path: Path, name: str, ending: str) -> None:
    events = [event(each) for each in SAID[name]]
    data = framed(*events, event({}, "stop"), DONE) if ending == "whole" else framed(*events)[:-5]
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(raw(data))
        answered, _ = await gateway.ask_stream()
        delivered = sum(f'"w{n}"' in answered.text for n in range(60))
        closing = await gateway.closing()
        assert delivered == 0 or closing.tokens.output > 0
        assert delivered <= 20  # the limit of the request


@pytest.mark.parametrize("name", SAID)
async def test_what_was_delivered_whole_is_not_free(tmp_path: Path, name: str) -> None:
    message = {"role": "assistant", "content": "", **SAID[name][0]}
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(ok({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
        answered = await gateway.ask()
        assert "w0" not in answered.text or (await gateway.closing()).tokens.output > 0


async def test_a_message_where_a_delta_should_be_is_not_free(tmp_path: Path) -> None:
    chunks = [
        b"data: " + json.dumps({"choices": [{"index": 0, "message": {"content": f"w{n}"}}]}).encode() + b"\n\n"
        for n in range(60)
    ]
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(raw(framed(*chunks, event({}, "stop"), DONE)))
        await gateway.ask_stream()
        assert 0 < (await gateway.closing()).tokens.output <= 20


def url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def big_gif() -> bytes:
    """The screen is 1 by 1, its only frame 4000 by 4000: readers (Pillow, browsers) show the frame."""
    frame = b"," + bytes(4) + (4_000).to_bytes(2, "little") * 2 + b"\x80" + b"\0\0\0\xff\xff\xff" + b"\x02\x02L\x01\0"
    return b"GIF89a\1\0\1\0\0\0\0" + frame + b";"


def big_jpeg() -> bytes:
    """A marker without a length (RST0), which readers skip, is taken for a segment: a small frame stands behind it."""
    frame = b"\xff\xc0\x00\x11\x08" + (4_000).to_bytes(2, "big") * 2 + b"\x03" + bytes(9)
    begun = b"\xff\xd8\xff\xd0" + frame
    skipped = 4 + int.from_bytes(frame[:2], "big")
    small = b"\xff\xc0\x00\x11\x08\x00\x01\x00\x01\x03"
    comment = b"\xff\xfe" + (65_000).to_bytes(2, "big")
    body = begun + comment
    body += bytes(skipped - len(body)) + small
    return body + bytes(10)


@pytest.mark.parametrize(("make", "kind"), [(big_gif, "gif"), (big_jpeg, "jpeg")])
def test_a_picture_that_is_larger_than_its_head_says(make: Any, kind: str) -> None:
    image = seen("x", Given(url(make(), kind)))
    assert isinstance(image, Image)
    assert image_tokens(image, BOUND) == BOUND.tokens_max, image


async def test_text_after_calls_goes_back_as_chat_completions_want_it(tmp_path: Path) -> None:
    """Responses: a text between a call and its result must not part them."""
    given: list[Any] = [
        {"role": "user", "content": "Weather?"},
        {"type": "function_call", "call_id": "t0", "name": "f", "arguments": "{}"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
        {"type": "function_call_output", "call_id": "t0", "output": "x"},
    ]
    async with bench(tmp_path) as gateway, gateway.official as client:
        await client.responses.create(model="m", input=given)
        sent = gateway.supplier.calls[0].body["messages"]
        place = next(n for n, each in enumerate(sent) if each.get("tool_calls"))
        assert sent[place + 1]["role"] == "tool"


async def test_what_is_incomplete_ends_as_incomplete(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway, gateway.official as client:
        gateway.supplier.script(raw(framed(event({"content": "a"}), event({}, "length"), DONE)))
        running = await client.responses.create(model="m", input="x", stream=True)
        events = [each async for each in running]
        done: Any = next(each for each in events if each.type == "response.output_item.done")
        last: Any = events[-1]
        assert (done.item.status, last.response.output[0].status) == ("incomplete", "incomplete")
