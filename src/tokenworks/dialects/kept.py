"""Responses that the endpoint keeps: one exchange of a customer whose response is to be fetched, or gone on from.

Both ends at once, as of all answers that are passed on: what the endpoint gives is what the customer gets, but for the
ids, which only this customer can use. What is gone on from becomes input whose size nobody here knows: it is bounded by
the context window. What costs no state is `responses`'.
"""

from typing import Any

import msgspec
from msgspec import Raw

from tokenworks.core.bounds import Need, Shape, need
from tokenworks.core.refusals import Refusal
from tokenworks.core.snapshot import Endpoint, Model, Served
from tokenworks.core.usage import Tokens
from tokenworks.dialects import answers, kept_answer, kept_request
from tokenworks.dialects.chat import ChatRequest
from tokenworks.dialects.kept_ids import KeptIds, Kind, Telling
from tokenworks.dialects.kept_stream import KeptStream
from tokenworks.dialects.other import Splits
from tokenworks.dialects.passed import Passed

PATH = "/responses"
"""Where endpoints keep responses, behind their base URL."""

_encode = msgspec.json.encode


class Kept(Passed):
    """One exchange."""

    error_event = b"event: error\n"
    api: Served = "responses"
    path = PATH

    def __init__(self, ids: KeptIds) -> None:
        super().__init__()
        self._ids = ids
        self._model = ""
        self._goes_on_from: list[tuple[Kind, str]] = []
        self._response: dict[str, Any] = {}
        self._telling = Telling(ids, "", "")
        self._stream: KeptStream | None = None
        self._has_begun = False

    def parse(self, body: bytes) -> ChatRequest | Refusal:
        """Read the request; the first thing wrong with it is the refusal."""
        read = kept_request.parse(body, self._ids)
        if isinstance(read, Refusal):
            return read
        self.endpoint_id, self._goes_on_from = read.endpoint_id, read.goes_on_from
        asked = read.as_chat
        self._model = asked.model
        shape = msgspec.structs.replace(asked.shape, text_bytes=read.text_bytes, messages=read.items + 1)
        return ChatRequest(read.fields, asked.model, shape, asked.stream, True, self, asked.images)

    def need(self, shape: Shape, model: Model) -> Need:
        """The bound of the request: with all that the window holds, where it goes on from what is kept."""
        bound = need(shape, model.formula, model.context_window, model.output_max)
        return Need(model.context_window, bound.output_max) if self.endpoint_id else bound

    def body(self, fields: dict[str, Raw], endpoint: Endpoint, output_limit: int) -> bytes:
        """The request as it came, with the endpoint's ids and a limit it cannot pass."""
        self._telling = Telling(self._ids, endpoint.id, self._model)
        for kind, own_id in self._goes_on_from:
            self._telling.knows(kind, own_id)
        return _encode({**fields, "model": endpoint.upstream_model, "max_output_tokens": output_limit})

    def whole(self, body: bytes) -> bytes:
        """The answer as a chat completion."""
        as_chat = kept_answer.as_chat(body)
        self._response = self._telling.response(kept_answer.fields_of(body))
        return as_chat

    def splitter(self, splitter: Splits) -> Splits:
        """The events of a stream, each counted as that of a chat completion."""
        self._stream = KeptStream(splitter, self._telling)
        return self._stream

    def pass_on(self, events: bytes) -> bytes:
        """Events of a stream, as they are."""
        self._has_begun = True
        if self._stream is not None:
            self._stream.passed(events)
        return events

    def last(self, status: int, body: bytes, tokens: Tokens) -> bytes:
        """The last bytes of an answer: its error, the end of its stream, or all of it. `tokens` are charged for."""
        if status >= 400:
            return self._telling.text(body.decode(errors="replace")).encode()
        if self._stream is not None:
            return self._stream.last(body, tokens)
        return _encode(kept_answer.charged(self._response, tokens))

    def refusal(self, refusal: Refusal) -> tuple[int, bytes]:
        """Status and body of a refusal; within a stream the data of its last event."""
        status, body = super().refusal(refusal)
        if self._stream is None or not self._has_begun:
            return status, body
        kind = answers.TABLE[refusal.code][1]
        return status, self._stream.error(refusal.message, refusal.field or None, refusal.code.value, kind)
