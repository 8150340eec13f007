"""The dialect of Responses: one exchange of a customer who speaks OpenAI's newer API.

Holds what the answers of one exchange need to know of its request; the translation itself is in `responses_request`,
`responses_answer` and `responses_stream`. Nothing is kept of it; responses that an endpoint keeps are `kept`'s.
"""

from typing import Any

import msgspec
from msgspec import Raw

from tokenworks.base import clock
from tokenworks.core.refusals import Refusal
from tokenworks.core.usage import Tokens
from tokenworks.dialects import answers, responses_answer, responses_request
from tokenworks.dialects.chat import ChatRequest
from tokenworks.dialects.responses_answer import Names
from tokenworks.dialects.responses_stream import ResponseStream

PATH = "/v1/responses"


class Responses:
    """A `Dialect`."""

    fields = b""
    error_event = b"event: error\n"

    def __init__(self, request_id: str) -> None:
        self._names = Names(request_id)
        self._asked: dict[str, Raw] = {}
        self._unfinished: dict[str, Any] = {}
        self._items: list[dict[str, Any]] = []
        self._finish_reason: str | None = None
        self._stream: ResponseStream | None = None

    def parse(self, body: bytes) -> ChatRequest | Refusal:
        """Read the request as the chat completion that it is sent on as."""
        read = responses_request.parse(body)
        if isinstance(read, Refusal):
            return read
        self._asked = read.fields
        return read.request

    def begin(self, request: ChatRequest, counted: Tokens) -> None:
        """The request is opened."""
        del counted
        created_s = clock.wall_ns() // clock.SECOND
        self._unfinished = responses_answer.response(self._names, request.model, self._asked, created_s)
        if request.stream:
            self._stream = ResponseStream(self._names, self._unfinished)

    def read(self, body: bytes) -> None:
        """Read an unstreamed answer; raises one of `reading.UNREADABLE` where it cannot be told."""
        self._items, self._finish_reason = responses_answer.output(self._names, body)

    def pass_on(self, events: bytes) -> bytes:
        """Events of a stream."""
        return self._stream.events(events) if self._stream else b""

    def last(self, status: int, body: bytes, tokens: Tokens) -> bytes:
        """The last bytes of an answer: its error, the end of its stream, or all of it. `tokens` are charged for."""
        if status >= 400:
            return body
        if self._stream is not None:
            return self._stream.last(body, tokens)
        return msgspec.json.encode(responses_answer.ended(self._unfinished, self._items, self._finish_reason, tokens))

    def refusal(self, refusal: Refusal) -> tuple[int, bytes]:
        """Status and body of a refusal; within a stream the data of its last event."""
        status, kind = answers.TABLE[refusal.code]
        if self._stream is None or not self._stream.has_begun:
            return status, answers.refusal_body(refusal)
        return status, self._stream.error(refusal.message, refusal.field or None, refusal.code.value, kind)
