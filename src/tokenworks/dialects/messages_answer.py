"""The dialect of Messages: whole answers, usage, reasons for stopping, and errors, translated from chat completions.

Pure functions. Streams are `messages_stream`'s. Source: Anthropic API reference, "Create a Message" and "Errors".
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from tokenworks.core.refusals import Refusal
from tokenworks.core.usage import NONE, Tokens
from tokenworks.dialects import answers, reading

_NULL = Raw(b"null")
_STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
# Anthropic's types by status. Other statuses of requests are `invalid_request_error`, of servers `api_error`.
_ERRORS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Function(msgspec.Struct):
    """The function of a call. Some engines send its arguments as an object."""

    name: str | None = None
    arguments: Raw = _NULL


class Call(msgspec.Struct):
    """A call of a tool, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None

    @property
    def name(self) -> str:
        """The tool's name; empty where it was said before."""
        return (self.function.name or "") if self.function else ""

    @property
    def arguments(self) -> str:
        """The JSON of the arguments, or the piece of it that came."""
        raw = self.function.arguments if self.function else _NULL
        return text_of(raw) if bytes(raw).startswith((b'"', b"null")) else bytes(raw).decode()


class Said(msgspec.Struct, frozen=True):
    """A message or a delta of a chat completion: what is told of it."""

    content: Raw = _NULL
    refusal: Raw = _NULL
    reasoning_content: Raw = _NULL
    reasoning: Raw = _NULL
    thinking_blocks: list[Raw] | None = None
    thinking_signature: str | None = None
    redacted_thinking: str | None = None
    tool_calls: list[Call] | None = None

    @property
    def text(self) -> str:
        """What is said to the customer. Reasoning is told apart, to who asked for it."""
        return text_of(self.content) + text_of(self.refusal)

    @property
    def thought(self) -> str:
        """The reasoning in it."""
        return text_of(self.reasoning_content) or text_of(self.reasoning)


class Choice(msgspec.Struct):
    """A choice of an answer, whole or streamed. Engines name the sequence that stopped it in either of two fields."""

    index: int | None = None
    message: Said = Said()
    delta: Said | None = None
    finish_reason: str | None = None
    stop_reason: Raw = _NULL
    matched_stop: Raw = _NULL

    @property
    def stopped_by(self) -> str:
        """The sequence that stopped it, if the engine says so."""
        return text_of(self.stop_reason) or text_of(self.matched_stop)


class Answer(msgspec.Struct):
    """An unstreamed chat completion."""

    choices: Annotated[list[Choice], Meta(min_length=1)]


class _Part(msgspec.Struct):
    type: str = "text"
    text: Raw = _NULL


_decode = msgspec.json.Decoder(Answer).decode
_string = msgspec.json.Decoder(str).decode
_parts = msgspec.json.Decoder(list[_Part]).decode
_object = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode


def message(
    message_id: str, model: str, body: bytes, stop_sequences: Sequence[str], *, thinks: bool = False
) -> dict[str, Any]:
    """The message that a chat completion becomes, all but its usage; raises one of `reading.UNREADABLE`."""
    choice = _decode(body).choices[0]
    calls = choice.message.tool_calls or ()
    text = choice.message.text
    blocks: list[Any] = _thinking(choice.message) if thinks else []
    blocks += [{"type": "text", "text": text}] if text else []
    blocks += [
        tool_use(call.id or made_id(message_id, place), call.name, _input(call.arguments))
        for place, call in enumerate(calls)
    ]
    stopped = stop(choice.finish_reason, choice.stopped_by, stop_sequences, has_calls=bool(calls))
    return empty(message_id, model) | {"content": blocks} | stopped


def empty(message_id: str, model: str, tokens: Tokens = NONE) -> dict[str, Any]:
    """A message of which nothing has been said."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage(tokens),
    }


def thinking(text: str = "", signature: str = "") -> dict[str, str]:
    """A block of thinking. What no engine has signed has an empty signature."""
    return {"type": "thinking", "thinking": text, "signature": signature}


def tool_use(call_id: str, name: str, given: Any) -> dict[str, Any]:
    """A block that calls a tool."""
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def made_id(message_id: str, place: int) -> str:
    """A name for a call whose endpoint gave it none."""
    return f"toolu_{message_id.removeprefix('msg_')}_{place}"


def stop(
    finish_reason: str | None, stopped_by: str, stop_sequences: Sequence[str], *, has_calls: bool
) -> dict[str, str | None]:
    """Why the message ends. A sequence is named only if the customer asked for it, whatever the engine stops at."""
    reason = _STOPS.get(finish_reason or "stop", "end_turn")
    if reason == "end_turn" and stopped_by in stop_sequences:
        return {"stop_reason": "stop_sequence", "stop_sequence": stopped_by}
    if reason == "end_turn" and has_calls:
        reason = "tool_use"  # some engines say `stop` after calls too
    return {"stop_reason": reason, "stop_sequence": None}


def usage(tokens: Tokens) -> dict[str, int]:
    """Token counts. Anthropic's classes of input are disjoint, as ours are."""
    return {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cached_input,
        "output_tokens": tokens.written,
    }


def text_of(raw: Raw) -> str:
    """The text of a string, or of the text parts of a list; of anything else none."""
    data = bytes(raw)
    if data.startswith(b'"'):
        return _string(data)
    if not data.startswith(b"["):
        return ""
    return "".join(text_of(part.text) for part in _parts(data) if part.type == "text")


# --- errors


def refusal(refused: Refusal, request_id: str) -> tuple[int, bytes]:
    """Status and body of a refusal. Of what is busy for now, Anthropic says 529."""
    status = answers.TABLE[refused.code][0]
    status = 529 if status == 503 else status
    return status, _error_body(status, refused.message, refused.field or None, refused.code.value, request_id)


def error(status: int, body: bytes, request_id: str) -> bytes:
    """An error in OpenAI's shape in Anthropic's."""
    found = reading.error(body)
    if found is None:
        return _error_body(status, "The request was refused.", None, None, request_id)
    return _error_body(status, found.message, found.param, str(found.code) if found.code else None, request_id)


def _error_body(status: int, text: str, field: str | None, code: str | None, request_id: str) -> bytes:
    kind = _ERRORS.get(status, answers.INVALID if status < 500 else "api_error")
    told = {"type": kind, "message": text, "param": field, "code": code}
    return _encode({"type": "error", "error": told, "request_id": request_id})


def _thinking(said: Said) -> list[Any]:
    """What was thought, in the engine's own blocks where it has some."""
    if said.thinking_blocks:
        return list(said.thinking_blocks)
    return [thinking(said.thought)] if said.thought else []


def _input(arguments: str) -> dict[str, Any]:
    """The input of a call. What a model wrote that is no JSON object is not lost: it is the only member of one."""
    try:
        return _object(arguments or "{}")
    except reading.UNREADABLE:
        return {"arguments": arguments}
