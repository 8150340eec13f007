"""Dialects: how customers are answered who speak another API than OpenAI's chat completions.

The life of a request is one, in the form of chat completions. A dialect translates a request before it and what the
customer is told after it; it decides nothing about money. Customers of chat completions have none.
"""

from typing import Protocol

from tokenworks.core.refusals import Refusal
from tokenworks.core.usage import Tokens
from tokenworks.dialects import messages
from tokenworks.dialects.chat import ChatRequest


class Dialect(Protocol):
    """The answer of one exchange. It gets what a customer of chat completions would get."""

    fields: bytes
    """Header lines of every answer."""
    error_event: bytes
    """What stands before the data of an event that ends a stream with an error."""

    def begin(self, request: ChatRequest, counted: Tokens) -> None:
        """The request is opened; `counted` is what was counted of it so far: its input."""
        ...

    def read(self, body: bytes) -> None:
        """Read an unstreamed answer; raises one of `reading.UNREADABLE` where it cannot be told."""
        ...

    def pass_on(self, events: bytes) -> bytes:
        """Whole events of a stream."""
        ...

    def last(self, status: int, body: bytes, tokens: Tokens) -> bytes:
        """The last bytes of an answer: its error, the end of its stream, or all of it. `tokens` are charged for."""
        ...

    def refusal(self, refusal: Refusal) -> tuple[int, bytes]:
        """Status and body of a refusal."""
        ...


def dialect_of(path: str, request_id: str) -> Dialect | None:
    """What is spoken at a path, also where nothing is served; None for chat completions."""
    if path == messages.PATH or path.startswith(messages.PATH + "/"):
        return messages.Messages(request_id)
    return None
