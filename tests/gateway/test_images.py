"""Images: what is seen of them, what they cost at most, and which are refused."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_bench import INPUT_MAX, Bench, bench, summary
from supplier import usage, whole
from tokenworks.core.bounds import Image, ImageBound, image_tokens
from tokenworks.core.journal import Opening
from tokenworks.core.usage import Tokens
from tokenworks.dialects.images import Given, seen

BOUND = ImageBound(1_000, tokens_low=85, tile_pixels=100, tokens_per_tile=10, tokens_base=5)
WHERE = "https://pictures.example/1.png"


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02"


def gif(width: int, height: int) -> bytes:
    sides = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    comment = b"!\xfe\x03abc\x00"
    return b"GIF89a" + sides + b"\x81\x00\x00" + bytes(12) + comment + b"," + bytes(4) + sides + b"\x00"


def jpeg(width: int, height: int) -> bytes:
    thumbnail = b"\xff\xe1" + (40_002).to_bytes(2, "big") + b"\xff\xc0" * 20_000
    frame = b"\xff\xc2\x00\x11\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\x03"
    return b"\xff\xd8" + thumbnail + b"\xff\xdb\x00\x03\x00" + b"\xff" + frame


def webp(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + sides


def webp_lossy(width: int, height: int) -> bytes:
    sides = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"RIFF\x00\x00\x00\x00WEBPVP8 \x0a\x00\x00\x00\x00\x00\x00\x9d\x01\x2a" + sides


def webp_lossless(width: int, height: int) -> bytes:
    sides = (width - 1 | height - 1 << 14).to_bytes(4, "little")
    return b"RIFF\x00\x00\x00\x00WEBPVP8L\x0a\x00\x00\x00\x2f" + sides


def url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("make", [png, gif, jpeg, webp, webp_lossy, webp_lossless])
def test_sides_are_read_from_the_head(make: Callable[[int, int], bytes]) -> None:
    assert seen("x", Given(url(make(640, 361)))) == Image(640, 361)


@given(st.binary(max_size=80), st.sampled_from([b"", png(2, 3)[:16], gif(2, 3)[:6], jpeg(2, 3)[:2], webp(2, 3)[:16]]))
def test_any_bytes_have_sides_or_none(rest: bytes, head: bytes) -> None:
    image = seen("x", Given(url(head + rest), "high"))
    assert isinstance(image, Image)
    assert 0 < image_tokens(image, BOUND) <= BOUND.tokens_max


TOKENS: list[tuple[Image, ImageBound, int]] = [
    (Image(100, 100), BOUND, 15),
    (Image(101, 100), BOUND, 25),
    (Image(5_000, 5_000), BOUND, 1_000),
    (Image(), BOUND, 1_000),
    (Image(is_url=True), BOUND, 1_000),
    (Image(is_url=True, is_low=True), BOUND, 85),
    (Image(5_000, 5_000, is_low=True), BOUND, 85),
    (Image(100, 100), ImageBound(1_000), 1_000),
    (Image(100, 100, is_low=True), ImageBound(1_000), 1_000),
]


@pytest.mark.parametrize(("image", "bound", "tokens"), TOKENS)
def test_what_an_image_costs_at_most(image: Image, bound: ImageBound, tokens: int) -> None:
    assert image_tokens(image, bound) == tokens


def asking(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]


def image(address: str, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address, **more}}


def openings(gateway: Bench) -> list[Opening]:
    return [entry for entry in gateway.entries() if isinstance(entry, Opening)]


async def test_an_image_is_bounded_by_its_sides_and_not_by_its_bytes(tmp_path: Path) -> None:
    picture = url(png(200, 150) + bytes(3_000))
    async with bench(tmp_path) as gateway:
        gateway.know(image=BOUND)
        gateway.supplier.script(whole("A cat.", usage(40, 3)), whole("A cat.", None))
        messages = asking(image(picture))
        told = await gateway.ask(messages=messages)
        assert told.status_code == 200
        assert gateway.supplier.calls[0].body["messages"] == messages
        text_bytes = len(json.dumps(messages, separators=(",", ":"))) - len(picture)
        assert openings(gateway)[0].input_max == 40 + text_bytes + 45
        assert summary(await gateway.closing())[:4] == ("finished", "reported", Tokens(40, output=3), 43)
        await gateway.ask(messages=messages)
        assert (await gateway.closing(1)).counted.input == 45 + -(-text_bytes // 4)


REFUSED: dict[str, tuple[ImageBound | None, list[dict[str, Any]], str]] = {
    "a model that does not see": (None, asking(image(url(png(1, 1)))), "takes no images"),
    "what would have to be fetched": (BOUND, asking(image(WHERE)), "send them as data URLs"),
    "too many": (BOUND, asking(*[image(url(png(1, 1)))] * 65), "more than 64"),
    "a file of the endpoint": (BOUND, asking(image("file:///etc/passwd")), "must be a data URL"),
    "no picture": (BOUND, asking(image("data:text/html;base64,AAAA")), "must be a data URL"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(tmp_path: Path, name: str) -> None:
    bound, messages, why = REFUSED[name]
    async with bench(tmp_path) as gateway:
        gateway.know(image=bound)
        told = await gateway.ask(messages=messages)
        assert told.status_code == 400
        assert why in told.json()["error"]["message"]
        assert gateway.entries() == gateway.entries()[:1]


async def test_what_an_endpoint_may_fetch_costs_the_most_unless_it_is_to_be_low(tmp_path: Path) -> None:
    bound = ImageBound(1_000, tokens_low=85, urls=True)
    async with bench(tmp_path) as gateway:
        gateway.know(image=bound)
        assert (await gateway.ask(messages=asking(image(WHERE)))).status_code == 200
        assert (await gateway.ask(messages=asking(image(WHERE, detail="low")))).status_code == 200
        high, low = (opening.input_max for opening in openings(gateway))
        assert high - low == 1_000 - 85 - len(',"detail":"low"')


async def test_images_of_messages_and_of_responses(tmp_path: Path) -> None:
    picture = url(png(100, 100))
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture[22:]}}
    async with bench(tmp_path) as gateway:
        gateway.know(image=BOUND)
        fields = {"model": "m", "max_tokens": 9}
        async with gateway.client as client:
            counted = await client.post(
                "/v1/messages/count_tokens", json={**fields, "messages": [{"role": "user", "content": [block]}]}
            )
            message = await client.post(
                "/v1/messages", json={**fields, "messages": [{"role": "user", "content": [block]}]}
            )
            part = {"type": "input_image", "image_url": picture, "detail": "high"}
            response = await client.post(
                "/v1/responses", json={"model": "m", "input": [{"role": "user", "content": [part]}]}
            )
        assert (message.status_code, response.status_code) == (200, 200)
        assert counted.json()["input_tokens"] == openings(gateway)[0].input_max < INPUT_MAX + 100
        sent = [call.body["messages"][0]["content"] for call in gateway.supplier.calls]
        assert sent == [[image(picture)], [image(picture, detail="high")]]
