"""The API of moderations: what is read of a request and of an answer.

A model that judges texts is charged by the tariff like any other; one that is free has a price of zero there. OpenAI's
answers report no usage, so that the count by bytes is what is charged for. Source: OpenAI API reference, "Create
moderation".
"""

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from tokenworks.core.bounds import Shape
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Served
from tokenworks.dialects import chat, passed
from tokenworks.dialects.chat import ChatRequest
from tokenworks.dialects.passed import Passed, Usage, wrong
from tokenworks.dialects.prompts import PROMPTS_MAX
from tokenworks.dialects.reading import UNREADABLE

PATH = "/v1/moderations"
NONE_OFFERED = Refusal(
    Code.MODEL_NOT_SUPPORTED, "No model is offered for moderations here. GET /v1/models lists what is.", "model"
)

_HARMLESS: dict[str, tuple[object, ...]] = {"stream": (None, False), **dict.fromkeys(chat.EXTRAS, (None,))}
_READ = _HARMLESS.keys() | {"model", "input"}


class _Part(msgspec.Struct):
    type: str


class _Body(msgspec.Struct):
    input: str | list[str | _Part]
    model: str | None = None


class _Answer(msgspec.Struct):
    results: Annotated[list[Raw], Meta(min_length=1)]
    usage: Usage | None = None


_shallow = msgspec.json.Decoder(dict[str, Raw]).decode
_deep = msgspec.json.Decoder(_Body).decode
_answer = msgspec.json.Decoder(_Answer).decode


class Moderations(Passed):
    """One exchange. `first` gives the model that is used where a customer names none."""

    api: Served = "moderations"
    path = "/moderations"

    def __init__(self, first: Callable[[], str]) -> None:
        super().__init__()
        self._first = first

    def parse(self, body: bytes) -> ChatRequest | Refusal:
        """Read the request; the first thing wrong with it is the refusal."""
        try:
            read, fields = _deep(body), _shallow(body)
            refusal = passed.check_fields(fields, _HARMLESS, _READ) or _check_input(read.input)
        except UNREADABLE as fault:
            return chat.unreadable(fault)
        if refusal is not None:
            return refusal
        model = read.model or self._first()
        if not model:
            return NONE_OFFERED
        texts = 1 if isinstance(read.input, str) else len(read.input)
        shape = Shape(passed.text_bytes(fields, frozenset({"model"})), texts)
        return ChatRequest(fields, model, shape, False, False, self)

    def whole(self, body: bytes) -> bytes:
        """The answer as a chat completion that only read."""
        self._answer = body
        return passed.unwritten(_answer(body).usage)


def _check_input(given: str | list[str | _Part]) -> Refusal | None:
    if isinstance(given, str):
        return None
    if not 0 < len(given) <= PROMPTS_MAX:
        return wrong("input", f"has no part, or more than {PROMPTS_MAX}")
    for place, part in enumerate(given):
        if isinstance(part, _Part) and part.type != "text":
            return chat.unsupported(f"input[{place}].type", f"{part.type!r} is not text")
    return None
