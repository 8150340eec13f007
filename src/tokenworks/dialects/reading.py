"""Reading answers of endpoints: reported usage, and our own count of what was generated.

Decodes only what is counted. The count of a stream is its number of deltas that carry something; the count of a whole
answer is its bytes divided by the model's bytes per token. Neither needs a tokenizer, both are kept in the record, and
both are the basis of a charge only where the endpoint's usage is missing or not plausible.
"""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from tokenworks.core.usage import NONE, Reported, Tokens, from_openai

# A count above this is nonsense, and would not fit the integers of the journal.
_Count = Annotated[int, Meta(le=1 << 53)]
# What decoders raise for bytes that somebody else chose.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NULL = Raw(b"null")
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
    """A delta, or a message: what a model can have written. Engines have many names for what it thought."""

    content: Raw = _NULL
    reasoning_content: Raw = _NULL
    reasoning: Raw = _NULL
    reasoning_text: Raw = _NULL
    reasoning_details: Raw = _NULL
    thinking: Raw = _NULL
    tool_calls: Raw = _NULL
    function_call: Raw = _NULL
    refusal: Raw = _NULL

    def parts(self) -> list[bytes]:
        """The JSON of those that hold anything."""
        fields = (
            self.content,
            self.reasoning_content,
            self.reasoning,
            self.reasoning_text,
            # Where it is told as text, these are the same in parts.
            self.reasoning_details if bytes(self.reasoning) in _NOTHING else _NULL,
            self.thinking,
            self.tool_calls,
            self.function_call,
            self.refusal,
        )
        return [part for field in fields if field is not _NULL and (part := bytes(field)) not in _NOTHING]

    def says(self) -> bool:
        """Whether any of them holds anything; mostly it is the first."""
        return (self.content is not _NULL and bytes(self.content) not in _NOTHING) or bool(self.parts())


class _StreamChoice(msgspec.Struct):
    """Some engines put a message where a delta should be; it is one delta."""

    index: int = 0
    delta: Text | None = None
    message: Raw = _NULL
    finish_reason: str | None = None

    def says(self) -> bool:
        """Whether it carries something."""
        if self.delta is not None:
            return self.delta.says()
        return self.message is not _NULL and bytes(self.message) not in _NOTHING

    def text_bytes(self) -> int:
        """About how many bytes of text it carries."""
        if self.delta is not None:
            return sum(len(part) - 2 for part in self.delta.parts())
        return len(bytes(self.message)) if self.says() else 0


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
            if choice.says():
                count += 1
        return count

    def text_bytes(self) -> int:
        """About how many bytes of text there are in the deltas."""
        return sum(choice.text_bytes() for choice in self.choices or ())


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
