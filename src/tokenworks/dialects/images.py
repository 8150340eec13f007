"""Images in conversations: what is seen of them before they are sent on, and what a model says they cost at most.

Of data URLs the head of the picture is read for its sides (PNG, GIF, WebP, JPEG); nothing is decoded. What is to be
fetched is fetched by the endpoint, if the model allows it: the gateway follows no address that a customer gives it.
"""

import base64
import binascii
import re

import msgspec

from tokenworks.core.bounds import Image, image_tokens
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Model

IMAGES_MAX = 64
# Sides stand near the beginning. In a JPEG whole thumbnails and colour profiles may come before them.
_HEAD_CHARACTERS = 512 << 10
_DATA = re.compile(r"data:image/(?:png|jpeg|jpg|gif|webp);base64,", re.IGNORECASE)
# Markers of a JPEG that begin a frame, and say its sides.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
# Those that have no length. None belongs before a frame, but readers skip them.
_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})


class Given(msgspec.Struct):
    """An image as chat completions have it."""

    url: str
    detail: str | None = None


def seen(path: str, given: Given | None) -> Image | Refusal:
    """What can be seen of an image."""
    if given is None:
        return Refusal(Code.INVALID_VALUE, f"The field {path} is missing.", path)
    is_low = given.detail == "low"
    data = _DATA.match(given.url)
    if data is not None:
        width, height = _sides(given.url[data.end() : data.end() + _HEAD_CHARACTERS])
        return Image(width, height, is_low)
    if given.url.startswith(("https://", "http://")):
        return Image(is_low=is_low, is_url=True)
    why = "must be a data URL with a PNG, JPEG, GIF or WebP in base64, or begin with https://"
    return Refusal(Code.INVALID_VALUE, f"The field {path}.url {why}.", f"{path}.url")


def tokens(images: tuple[Image, ...], model: Model) -> int | Refusal:
    """The most tokens that these images are to a model."""
    bound = model.image
    if bound is None:
        return _unsupported(f"the model {model.id!r} takes no images")
    if len(images) > IMAGES_MAX:
        return _unsupported(f"there are more than {IMAGES_MAX} images in it")
    if not bound.urls and any(image.is_url for image in images):
        return _unsupported("images are not fetched here, send them as data URLs")
    return sum(image_tokens(image, bound) for image in images)


def _unsupported(why: str) -> Refusal:
    return Refusal(Code.FIELD_NOT_SUPPORTED, f"The field messages is not supported: {why}.", "messages")


def _sides(text: str) -> tuple[int, int]:
    """Width and height of the picture that begins so; 0 where they cannot be read."""
    try:
        head = base64.b64decode(text[: len(text) // 4 * 4])
    except (binascii.Error, ValueError):
        return 0, 0
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return _big(head[16:20]), _big(head[20:24])
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _gif(head)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp(head)
    return _jpeg(head) if head.startswith(b"\xff\xd8") else (0, 0)


def _webp(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b"VP8X" and len(head) >= 30:
        return 1 + _little(head[24:27]), 1 + _little(head[27:30])
    if kind == b"VP8 " and len(head) >= 30:
        return _little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF
    if kind == b"VP8L" and len(head) >= 25:
        bits = _little(head[21:25])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return 0, 0


def _gif(head: bytes) -> tuple[int, int]:
    """A frame may be larger than the screen it is on; readers show all of the first one."""
    place = 13 + (3 << 1 + (head[10] & 7) if len(head) > 10 and head[10] & 0x80 else 0)
    while head[place : place + 1] == b"!":
        place += 2
        while place < len(head) and head[place]:
            place += 1 + head[place]
        place += 1
    if head[place : place + 1] != b"," or place + 9 > len(head):
        return 0, 0
    left, top, width, height = (_little(head[at : at + 2]) for at in range(place + 1, place + 9, 2))
    return max(_little(head[6:8]), left + width), max(_little(head[8:10]), top + height)


def _jpeg(head: bytes) -> tuple[int, int]:
    """Goes from segment to segment; each says how long it is."""
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker = head[place + 1]
        if marker in _FRAMES:
            return _big(head[place + 7 : place + 9]), _big(head[place + 5 : place + 7])
        if marker in _BARE:
            break
        place += 2 + _big(head[place + 2 : place + 4]) if marker != 0xFF else 1
    return 0, 0


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
