"""Texts of requests and answers, for those who judge them: strings, names that nobody knows, what hides in escapes.

The data of pictures is no text; whatever else stands in the place of a picture is.
"""

import re
from typing import cast

import msgspec
from msgspec import Raw

from tokenworks.dialects.reading import UNREADABLE

_NULL = Raw(b"null")
# What a choice says, and once more as tokens.
_SAYING = frozenset({"delta", "message", "logprobs"})

# Names of the APIs and of JSON Schema: what a request is made of, and nothing that a customer says.
_NAMES = frozenset(
    {
        *("messages", "system", "tools", "tool_choice", "functions", "response_format", "output_config", "prompt"),
        *("role", "content", "type", "text", "name", "id", "refusal", "image_url", "url", "detail", "source", "data"),
        *("media_type", "title", "context", "tool_calls", "tool_call_id", "function", "arguments", "parameters"),
        *("description", "strict", "properties", "required", "items", "enum", "const", "anyOf", "allOf", "oneOf"),
        *("additionalProperties", "$ref", "$defs", "default", "format", "pattern", "minimum", "maximum", "schema"),
        *("json_schema", "input", "input_schema", "tool_use_id", "is_error", "thinking", "signature", "cache_control"),
    }
)
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")


class _Call(msgspec.Struct):
    index: int = 0
    function: Raw = _NULL


class Said(msgspec.Struct, frozen=True):
    """What a choice says in one event, by field, tools apart; and whether it is its end."""

    index: int
    texts: list[tuple[str, str]]
    is_over: bool


class _SayingChoice(msgspec.Struct):
    index: int = 0
    delta: dict[str, Raw] | None = None
    message: dict[str, Raw] | None = None
    finish_reason: str | None = None


class _Saying(msgspec.Struct):
    choices: list[_SayingChoice] | None = None


_any = msgspec.json.Decoder().decode
_asides = msgspec.json.Decoder(dict[str, Raw]).decode
_choices = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_saying = msgspec.json.Decoder(_Saying).decode
_calls = msgspec.json.Decoder(list[_Call]).decode


def said(data: bytes) -> list[Said]:
    """What each choice of an event, or of a whole answer, says: all its fields, also those that nobody knows."""
    return [
        Said(choice.index, _texts(choice.delta or {}) + _texts(choice.message or {}), choice.finish_reason is not None)
        for choice in _saying(data).choices or ()
    ]


def aside(data: bytes) -> str:
    """All strings of an event, or of a whole answer, beside what its choices say: what nobody expects there."""
    try:
        body = _asides(data)
        rest = [
            {name: raw for name, raw in choice.items() if name not in _SAYING}
            for choice in _choices(body.pop("choices", Raw(b"[]")))
        ]
    except UNREADABLE:
        return data.decode(errors="replace")
    return joined(msgspec.json.encode([body, rest]), "\n")


def joined(part: bytes, between: str = "") -> str:
    """All strings in a piece of JSON with this between them; what cannot be read is taken as it is."""
    try:
        found: list[str] = []
        _gather(_any(part), found, None)
    except UNREADABLE:
        return part.decode(errors="replace")
    return between.join(found)


def each(part: bytes) -> list[str]:
    """All strings in a piece of JSON, and all names that are none of an API's."""
    try:
        found: list[str] = []
        _gather(_any(part), found, found)
    except UNREADABLE:
        return [part.decode(errors="replace")]
    return found


def unescaped(text: str) -> str:
    """With the escapes read of JSON that stands in a string, as the arguments of a tool do: a model reads them too."""
    return _ESCAPES.sub(_read_escapes, text)


def _texts(fields: dict[str, Raw]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, raw in fields.items():
        if name == "tool_calls":
            found += _said_to_tools(bytes(raw))
        elif name != "role" and (text := joined(bytes(raw))):
            found.append((name, text))
    return found


def _said_to_tools(part: bytes) -> list[tuple[str, str]]:
    """What each tool is called with; what cannot be told apart is one text."""
    try:
        return [(f"tool {call.index}", joined(bytes(call.function))) for call in _calls(part)]
    except UNREADABLE:
        return [("tool", joined(part))]


def _read_escapes(found: re.Match[str]) -> str:
    units = bytes.fromhex(found[0].replace("\\u", ""))
    return units.decode("utf-16-be", errors="replace")


def _gather(value: object, found: list[str], names: list[str] | None) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            _gather(inner, found, names)
    elif isinstance(value, dict):
        for name, inner in cast("dict[str, object]", value).items():
            if names is not None and name not in _NAMES:
                names.append(name)
            if not (name == "image_url" and _is_image(inner)) and not (name == "source" and _is_picture(inner)):
                _gather(inner, found, names)


def _is_image(value: object) -> bool:
    url = cast("dict[str, object]", value).get("url") if isinstance(value, dict) else value
    return isinstance(url, str) and url.startswith("data:image/")


def _is_picture(value: object) -> bool:
    """The same as Anthropic has it, with nothing beside it."""
    if not isinstance(value, dict):
        return False
    source = cast("dict[str, object]", value)
    kind = source.get("media_type")
    return source.keys() == {"type", "media_type", "data"} and isinstance(kind, str) and kind.startswith("image/")
