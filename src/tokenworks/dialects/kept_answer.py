"""Responses that an endpoint keeps: its whole answers as chat completions, and with what is charged for.

What is passed on is what the endpoint says. A chat completion stands for it only while it is counted. Source: OpenAI
API reference, "The response object".
"""

from typing import Any, cast

import msgspec
from msgspec import Raw

from tokenworks.core.usage import Tokens
from tokenworks.dialects import reading, responses_answer, texts

_WHOLE = frozenset({"completed", "incomplete"})


class _InputDetails(msgspec.Struct):
    cached_tokens: Raw = Raw(b"0")
    cache_write_tokens: Raw = Raw(b"0")


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: Raw = Raw(b"0")


class _Usage(msgspec.Struct):
    """As it is reported; whether it can be believed is found out where it is read as that of a chat completion."""

    input_tokens: Raw = Raw(b"null")
    output_tokens: Raw = Raw(b"null")
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Answer(msgspec.Struct):
    """A whole response: without these it is none."""

    id: str
    status: str
    output: list[dict[str, Any]]
    usage: Raw = Raw(b"null")


_answer = msgspec.json.Decoder(_Answer).decode
_usage = msgspec.json.Decoder(_Usage | None).decode
_encode = msgspec.json.encode
fields_of = msgspec.json.Decoder(dict[str, Any]).decode


def as_chat(body: bytes) -> bytes:
    """A whole answer as a chat completion; raises one of `reading.UNREADABLE` where it is none, or not whole."""
    answer = _answer(body)
    if answer.status not in _WHOLE:
        raise msgspec.ValidationError(f"a response that is {answer.status}")
    said = "".join(text_of(item) for item in answer.output)
    return _encode({"choices": [{"message": {"content": said}}], "usage": usage_of(answer.usage)})


def text_of(item: dict[str, Any]) -> str:
    """All that the model can have written of an item."""
    told = {name: each for name, each in item.items() if name not in {"id", "type", "status", "role", "call_id"}}
    parts = [part for name in ("content", "summary") for part in _parts(told.pop(name, None))]
    written = [{name: part.get(name) for name in ("text", "refusal")} for part in parts]
    told.pop("encrypted_content", None)
    return texts.joined(_encode([written, told]))


def usage_of(raw: Raw) -> dict[str, Any] | Raw:
    """Usage as chat completions have it; what cannot be read stays as it is, and is found to be so."""
    try:
        used = _usage(raw)
    except reading.UNREADABLE:
        return raw
    if used is None:
        return Raw(b"null")
    read, written = used.input_tokens_details or _InputDetails(), used.output_tokens_details or _OutputDetails()
    return {
        "prompt_tokens": used.input_tokens,
        "completion_tokens": used.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": read.cached_tokens,
            "cache_write_tokens": read.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": written.reasoning_tokens},
    }


def charged(response: dict[str, Any], tokens: Tokens) -> dict[str, Any]:
    """A response with the use that is charged for."""
    return response | {"usage": responses_answer.usage(tokens)}


def _parts(given: Any) -> list[dict[str, Any]]:
    parts = cast("list[Any]", given) if isinstance(given, list) else []
    return [part for part in parts if isinstance(part, dict)]
