"""Answers that are passed on as the endpoint gave them, while a chat completion stands for them meanwhile.

The common part of embeddings, moderations and completions: both ends of one exchange, a `Dialect` and an `Other`.
"""

from collections.abc import Set
from typing import Any

import msgspec
from msgspec import Raw

from tokenworks.core.bounds import Need, Shape, need_of_prompts
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Endpoint, Model, Served
from tokenworks.core.usage import Tokens
from tokenworks.dialects import answers, chat
from tokenworks.dialects.chat import ChatRequest
from tokenworks.dialects.other import Splits

_NULL = Raw(b"null")
_encode = msgspec.json.encode


class Usage(msgspec.Struct):
    """What is used by an answer that writes nothing. Other fields of the endpoint's usage say nothing more."""

    prompt_tokens: Raw = _NULL


class Passed:
    """One exchange. Its answer is not a stream, and has no tokens of output, unless a kind of it says otherwise."""

    fields = b""
    error_event = b""
    api: Served = "embeddings"
    endpoint_id = ""
    path = ""

    def __init__(self) -> None:
        self._answer = b""

    # --- the customer's end

    def begin(self, request: ChatRequest, counted: Tokens) -> None:
        """Nothing of the request is needed for its answer."""

    def read(self, body: bytes) -> None:
        """It was read as the endpoint gave it."""

    def pass_on(self, events: bytes) -> bytes:
        """Events of a stream."""
        return events

    def last(self, status: int, body: bytes, tokens: Tokens) -> bytes:
        """The error, or the answer of the endpoint."""
        del tokens
        return body if status >= 400 else self._answer

    def refusal(self, refusal: Refusal) -> tuple[int, bytes]:
        """In OpenAI's shape."""
        return answers.TABLE[refusal.code][0], answers.refusal_body(refusal)

    # --- the endpoint's end

    def need(self, shape: Shape, model: Model) -> Need:
        """The bound of what is read; nothing is written."""
        return need_of_prompts(shape, model.formula, model.context_window, 0)

    def body(self, fields: dict[str, Raw], endpoint: Endpoint, output_limit: int) -> bytes:
        """The request as it came, with the endpoint's name of the model."""
        del output_limit
        return _encode({**fields, "model": endpoint.upstream_model})

    def splitter(self, splitter: Splits) -> Splits:
        """There is no stream."""
        return splitter


def unwritten(usage: Usage | None) -> bytes:
    """A chat completion that used so much input and says nothing."""
    used: dict[str, Any] = {}
    if usage is not None and bytes(usage.prompt_tokens) != b"null":
        used = {"usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": 0}}
    return _encode({"choices": [{"message": {}}], **used})


def text_bytes(fields: dict[str, Raw], knobs: frozenset[str]) -> int:
    """The bytes of all fields that may become part of a prompt."""
    return sum(len(bytes(raw)) for name, raw in fields.items() if name not in knobs)


def check_fields(fields: dict[str, Raw], harmless: dict[str, tuple[object, ...]], read: Set[str]) -> Refusal | None:
    """Refuse what can cost more than can be reserved for it, and names that some servers may take for others."""
    for name, raw in fields.items():
        if name in harmless and msgspec.json.decode(raw) not in harmless[name]:
            return chat.unsupported(name, "it can cost more than can be reserved for it")
        if name not in read and name.casefold() in read:
            return chat.unsupported(name, "names of fields are in lower case")
    return None


def wrong(name: str, why: str) -> Refusal:
    """A field with a value that it cannot have."""
    return Refusal(Code.INVALID_VALUE, f"The field {name} {why}.", name)
