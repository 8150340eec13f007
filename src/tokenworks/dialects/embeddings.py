"""The API of embeddings: what is read of a request and of an answer. Only input is used, and charged.

Source: OpenAI API reference, "Create embeddings".
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from tokenworks.core.bounds import Shape
from tokenworks.core.refusals import Refusal
from tokenworks.core.snapshot import Served
from tokenworks.dialects import chat, passed, prompts
from tokenworks.dialects.chat import ChatRequest
from tokenworks.dialects.passed import Passed, Usage
from tokenworks.dialects.reading import UNREADABLE

PATH = "/v1/embeddings"

# Fields that shape the answer and never become part of the text. All others are counted as text.
_KNOBS = frozenset({"model", "encoding_format", "dimensions", "user"})
# Some engines take a conversation in place of the input, with parts that are no text.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "messages": (None,),
    "stream": (None, False),
    **dict.fromkeys(chat.EXTRAS, (None,)),
}
_READ = _KNOBS | _HARMLESS.keys() | {"input"}


class _Body(msgspec.Struct):
    model: str
    input: prompts.Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class _Answer(msgspec.Struct):
    data: Annotated[list[Raw], Meta(min_length=1)]
    usage: Usage | None = None


_shallow = msgspec.json.Decoder(dict[str, Raw]).decode
_deep = msgspec.json.Decoder(_Body).decode
_answer = msgspec.json.Decoder(_Answer).decode


class Embeddings(Passed):
    """One exchange."""

    api: Served = "embeddings"
    path = "/embeddings"

    def parse(self, body: bytes) -> ChatRequest | Refusal:
        """Read the request; the first thing wrong with it is the refusal."""
        try:
            read, fields = _deep(body), _shallow(body)
            refusal = passed.check_fields(fields, _HARMLESS, _READ)
        except UNREADABLE as fault:
            return chat.unreadable(fault)
        given = refusal or prompts.read("input", read.input, fields["input"])
        if isinstance(given, Refusal):
            return given
        text_bytes = given.text_bytes + passed.text_bytes(fields, _KNOBS | {"input"})
        return ChatRequest(fields, read.model, Shape(text_bytes, given.prompts), False, False, self)

    def whole(self, body: bytes) -> bytes:
        """The answer as a chat completion that only read."""
        self._answer = body
        return passed.unwritten(_answer(body).usage)
