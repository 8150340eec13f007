"""The dialect of Messages: one exchange of a customer who speaks Anthropic's API.

Holds what the answers of one exchange need to know of its request; the translation itself is in `messages_request`,
`messages_answer` and `messages_stream`.
"""

from typing import Any

import msgspec

from tokenworks.core.refusals import Refusal
from tokenworks.core.usage import Tokens
from tokenworks.dialects import messages_answer
from tokenworks.dialects.chat import ChatRequest
from tokenworks.dialects.messages_stream import MessageStream

PATH = "/v1/messages"
COUNT_PATH = PATH + "/count_tokens"

_encode = msgspec.json.encode
_strings = msgspec.json.Decoder(list[str]).decode


class Messages:
    """A `Dialect`."""

    error_event = b"event: error\n"

    def __init__(self, request_id: str) -> None:
        self.fields = b"request-id: %b\r\n" % request_id.encode()
        self._request_id = request_id
        self._message_id = f"msg_{request_id}"
        self._model = ""
        self._thinks = False
        self._stop_sequences: list[str] = []
        self._stream: MessageStream | None = None
        self._message: dict[str, Any] = {}

    def begin(self, request: ChatRequest, counted: Tokens) -> None:
        """The request is opened; `counted` is what was counted of it so far: its input."""
        self._model = request.model
        self._thinks = request.thinking is not None
        stop = request.fields.get("stop")
        self._stop_sequences = _strings(stop) if stop is not None else []
        if request.stream:
            self._stream = MessageStream(
                self._message_id, self._model, counted, self._stop_sequences, thinks=self._thinks
            )

    def read(self, body: bytes) -> None:
        """Read an unstreamed answer; raises one of `reading.UNREADABLE` where it cannot be told."""
        self._message = messages_answer.message(
            self._message_id, self._model, body, self._stop_sequences, thinks=self._thinks
        )

    def pass_on(self, events: bytes) -> bytes:
        """Events of a stream."""
        return self._stream.events(events) if self._stream else b""

    def last(self, status: int, body: bytes, tokens: Tokens) -> bytes:
        """The last bytes of an answer: its error, the end of its stream, or all of it. `tokens` are charged for."""
        if status >= 400:
            return messages_answer.error(status, body, self._request_id)
        if self._stream is not None:
            return self._stream.last(body, tokens)
        return _encode(self._message | {"usage": messages_answer.usage(tokens)})

    def refusal(self, refusal: Refusal) -> tuple[int, bytes]:
        """Status and body of a refusal."""
        return messages_answer.refusal(refusal, self._request_id)
