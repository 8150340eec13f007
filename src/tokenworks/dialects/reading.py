"""Reading answers of endpoints: reported usage, and our own count of what was generated.

Decodes only what is counted. The count of a stream is its number of deltas that carry something; the count of a whole
answer is its bytes divided by the model's bytes per token. Neither needs a tokenizer, both are kept in the record, and
both are the basis of a charge only where the endpoint's usage is missing or not plausible.
"""

from collections.abc import Iterable
from typing import Annotated, cast

import msgspec
from msgspec import Meta, Raw

from tokenworks.core.usage import NONE, Reported, Tokens, from_openai

# A count above this is nonsense, and would not fit the integers of the journal.
_Count = Annotated[int, Meta(le=1 << 53)]
# What decoders raise for bytes that somebody else chose.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NULL = Raw(b"null")
# What a choice says, and once more as tokens.
_SAYING = frozenset({"delta", "message", "logprobs"})
_NOTHING = frozenset({b"null", b'""', b"[]", b"{}"})


class _InputDetails(msgspec.Struct):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count
    completion_tokens: _Count
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class Text(msgspec.Struct):
    """A delta, or a message: what a model can have written."""

    content: Raw = _NULL
    reasoning_content: Raw = _NULL
    reasoning: Raw = _NULL
    tool_calls: Raw = _NULL
    function_call: Raw = _NULL
    refusal: Raw = _NULL

    def parts(self) -> list[bytes]:
        """The JSON of those that hold anything."""
        fields = (
            self.content,
            self.reasoning_content,
            self.reasoning,
            self.tool_calls,
            self.function_call,
            self.refusal,
        )
        return [part for field in fields if field is not _NULL and (part := bytes(field)) not in _NOTHING]

    def says(self) -> bool:
        """Whether any of them holds anything; mostly it is the first."""
        return (self.content is not _NULL and bytes(self.content) not in _NOTHING) or bool(self.parts())


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


class _StreamChoice(msgspec.Struct):
    index: int = 0
    delta: Text | None = None
    finish_reason: str | None = None


class StreamChunk(msgspec.Struct):
    """One event of a stream."""

    choices: list[_StreamChoice] | None = None
    usage: Raw = _NULL
    error: Raw = _NULL

    @property
    def has_usage(self) -> bool:
        """Whether usage is reported here."""
        return self.usage is not _NULL and bytes(self.usage) != b"null"

    @property
    def has_error(self) -> bool:
        """Whether the endpoint gives up."""
        return self.error is not _NULL and bytes(self.error) != b"null"

    @property
    def is_delta(self) -> bool:
        """Whether it is a delta of one choice that carries something, and nothing else."""
        choices = self.choices
        if choices is None or len(choices) != 1 or self.has_usage or self.has_error:
            return False
        delta = choices[0].delta
        return delta is not None and choices[0].finish_reason is None and delta.says()

    def finished(self) -> list[int]:
        """The choices that end here."""
        return [choice.index for choice in self.choices or () if choice.finish_reason is not None]

    def count(self) -> int:
        """Choices with a delta that carries something."""
        count = 0
        for choice in self.choices or ():
            if choice.delta is not None and choice.delta.says():
                count += 1
        return count

    def text_bytes(self) -> int:
        """About how many bytes of text there are in the deltas."""
        return sum(
            len(part) - 2 for choice in self.choices or () if choice.delta is not None for part in choice.delta.parts()
        )


class _Cut(msgspec.Struct):
    """What the last event of a stream that is cut short takes over from the event that is not passed on."""

    id: Raw = Raw(b'""')
    object: Raw = Raw(b'"chat.completion.chunk"')
    created: Raw = Raw(b"0")
    model: Raw = Raw(b'""')


class _WholeChoice(msgspec.Struct):
    message: Text


class WholeAnswer(msgspec.Struct):
    """An unstreamed answer."""

    choices: Annotated[list[_WholeChoice], Meta(min_length=1)]
    usage: Raw = _NULL

    def count(self, bytes_per_token: int) -> int:
        """Tokens by bytes, each choice rounded up."""
        tokens = 0
        for choice in self.choices:
            size = 0
            for part in choice.message.parts():
                size += _text_bytes(part)
            tokens -= -size // bytes_per_token
        return tokens


class _Error(msgspec.Struct):
    message: str
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class ErrorAnswer(msgspec.Struct):
    """OpenAI's error object, as endpoints send it."""

    error: _Error


class FlatErrorAnswer(_Error):
    """The same without the outer object, as some engines send it."""


_usage = msgspec.json.Decoder(_Usage).decode
_text = msgspec.json.Decoder(str).decode
_any = msgspec.json.Decoder().decode
_asides = msgspec.json.Decoder(dict[str, Raw]).decode
_choices = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_saying = msgspec.json.Decoder(_Saying).decode
_calls = msgspec.json.Decoder(list[_Call]).decode
stream_chunk = msgspec.json.Decoder(StreamChunk).decode
_cut = msgspec.json.Decoder(_Cut).decode
whole_answer = msgspec.json.Decoder(WholeAnswer).decode


def reported(raw: Raw) -> Reported | None:
    """Usage as the endpoint reported it, in disjoint classes; None where it reported none."""
    if bytes(raw) == b"null":
        return None
    try:
        usage = _usage(raw)
    except UNREADABLE as fault:
        return Reported(NONE, str(fault))
    read, written = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = (read.cached_tokens or 0) if read else 0
    cache_write = (read.cache_write_tokens or 0) if read else 0
    reasoning = (written.reasoning_tokens or 0) if written else 0
    return from_openai(usage.prompt_tokens, usage.completion_tokens, cached, reasoning, cache_write)


def said(data: bytes) -> list[Said]:
    """What each choice of an event, or of a whole answer, says: all its fields, also those that nobody knows."""
    return [
        Said(choice.index, _texts(choice.delta or choice.message or {}), choice.finish_reason is not None)
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
    return strings(msgspec.json.encode([body, rest]), "\n")


def _texts(fields: dict[str, Raw]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, raw in fields.items():
        if name == "tool_calls":
            found += _said_to_tools(bytes(raw))
        elif name != "role" and (text := strings(bytes(raw))):
            found.append((name, text))
    return found


def _said_to_tools(part: bytes) -> list[tuple[str, str]]:
    """What each tool is called with; what cannot be told apart is one text."""
    try:
        return [(f"tool {call.index}", strings(bytes(call.function))) for call in _calls(part)]
    except UNREADABLE:
        return [("tool", strings(part))]


def cut_event(data: bytes, choices: Iterable[int], code: str, reason: str = "length") -> bytes:
    """The event that ends these choices for this reason, in place of the event with this data.

    `code` says why, where it was not the limit that the customer set.
    """
    ends: list[dict[str, object]] = [{"index": index, "delta": {}, "finish_reason": reason} for index in choices]
    why: dict[str, object] = {"tokenworks": {"code": code}} if code else {}
    return _event({**msgspec.structs.asdict(_cut(data)), "choices": ends, **why})


def usage_event(data: bytes, tokens: Tokens) -> bytes:
    """The event with the usage of a stream that was cut short in place of the event with this data, by our count."""
    return _event({**msgspec.structs.asdict(_cut(data)), "choices": [], "usage": _usage_of(tokens)})


def emptied(body: bytes, tokens: Tokens) -> bytes:
    """A whole answer whose choices say nothing for reasons of content safety, with this usage."""
    answer: dict[str, object] = {**msgspec.structs.asdict(_cut(body)), "object": "chat.completion"}
    said = {"role": "assistant", "content": ""}
    answer["choices"] = [
        {"index": index, "message": said, "finish_reason": "content_filter"}
        for index, _ in enumerate(whole_answer(body).choices)
    ]
    answer["usage"] = _usage_of(tokens)
    answer["tokenworks"] = {"code": "content_filter"}
    return msgspec.json.encode(answer)


def strings(part: bytes, between: str = "") -> str:
    """All strings in a piece of JSON with this between them; what cannot be read is taken as it is."""
    try:
        found: list[str] = []
        _gather(_any(part), found)
    except UNREADABLE:
        return part.decode(errors="replace")
    return between.join(found)


def _gather(value: object, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, list):
        for each in cast("list[object]", value):
            _gather(each, found)
    elif isinstance(value, dict):
        for name, each in cast("dict[str, object]", value).items():
            # The bytes of an image are no text; whatever else stands in its place is.
            if name != "image_url" or not _is_image(each):
                _gather(each, found)


def _is_image(value: object) -> bool:
    url = cast("dict[str, object]", value).get("url") if isinstance(value, dict) else value
    return isinstance(url, str) and url.startswith("data:image/")


def error(body: bytes) -> _Error | None:
    """The error an endpoint answered with, if it is one that can be read."""
    for kind in (ErrorAnswer, FlatErrorAnswer):
        try:
            found = msgspec.json.decode(body, type=kind)
        except UNREADABLE:
            continue
        return found.error if isinstance(found, ErrorAnswer) else found
    return None


def _usage_of(tokens: Tokens) -> dict[str, int]:
    return {"prompt_tokens": tokens.read, "completion_tokens": tokens.written, "total_tokens": tokens.total}


def _event(body: dict[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _text_bytes(part: bytes) -> int:
    if not part.startswith(b'"'):
        return len(part)
    return len(part) - 2 if b"\\" not in part and part.isascii() else len(_text(part).encode())
