"""An exchange: one request of a customer and the way its answer takes, whole or streamed, once.

The pipeline sees customers only through this. Bytes go to a `Wire` (a connection, or a list in tests). Whether the
customer may be answered again on the same connection is decided in `server`.
"""

from typing import Protocol

import msgspec

from tokenworks.core.refusals import Code, Refusal
from tokenworks.dialects import answers
from tokenworks.dialects.dialect import Dialect, dialect_of
from tokenworks.gateway.flow import Interrupt
from tokenworks.gateway.grant import Grant


class ClientGone(Interrupt):
    """The customer closed the connection."""


class Drained(Interrupt):
    """The worker stops and its time to finish requests is over."""


class TooLong(Interrupt):
    """The request has lived for the longest time a request may."""


class Source(Protocol):
    """Where streamed bytes come from: held back while the customer does not read."""

    def pause(self) -> None:
        """Stop reading."""
        ...

    def resume(self) -> None:
        """Go on reading."""
        ...


class Wire(Protocol):
    """What an exchange needs of its connection."""

    @property
    def stamp(self) -> bytes:
        """Header lines of every answer: the date, and the worker's name."""
        ...

    def write(self, data: bytes) -> None:
        """Send, or drop if the customer is gone."""
        ...

    def attach(self, source: Source | None) -> None:
        """Pause and resume this source as the customer reads."""
        ...

    def cut(self) -> None:
        """Break the connection off: the answer cannot be completed, and the customer must notice."""
        ...


class Exchange(msgspec.Struct, eq=False):
    """One request and its answer. `headers` has only those the gateway reads, with lower-case names.

    What goes out is as it is given, in the customer's `dialect`; only refusals are put into it here. `grant` and
    `limit_fields` are there where the key has limits.
    """

    wire: Wire
    request_id: str
    method: bytes
    path: str
    headers: dict[bytes, bytes]
    body: bytes
    is_http_11: bool
    keep_alive: bool
    began_ns: int
    query: bytes = b""
    refusal: Refusal | None = None
    streaming: bool = False
    complete: bool = False
    gone: bool = False
    drains: bool = False
    dialect: Dialect | None = None
    grant: Grant | None = None
    limit_fields: bytes = b""

    def answer(self, status: int, body: bytes, fields: bytes = b"", content_type: bytes = answers.JSON) -> None:
        """The whole answer at once."""
        if self.gone:
            return
        head = self._head(status, content_type, b"content-length: %d\r\n%b" % (len(body), fields))
        self.wire.write(head if self.method == b"HEAD" else head + body)
        self.complete = True

    def start_stream(self, fields: bytes = b"") -> None:
        """The head of a streamed answer. Without chunks (HTTP/1.0) the end of the connection is its end."""
        self.streaming = True
        if self.gone:
            return
        framing = answers.CHUNKED
        if not self.is_http_11:
            framing = b""
            self.keep_alive = False
        fields = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n" + framing + fields
        self.wire.write(self._head(200, answers.EVENTS, fields))

    def send(self, data: bytes) -> None:
        """A piece of a streamed answer."""
        if data and not self.gone:
            self.wire.write(answers.chunk(data) if self.is_http_11 else data)

    def end_stream(self, data: bytes) -> None:
        """The last piece of a streamed answer, and its end."""
        if self.gone:
            return
        if self.is_http_11:
            data = (answers.chunk(data) if data else b"") + answers.LAST_CHUNK
        self.wire.write(data)
        self.complete = True

    def refuse(self, refusal: Refusal, fields: bytes = b"") -> None:
        """Say no: as an error answer, or, once a stream has begun, as an error event that ends it."""
        # A request may be refused before it was looked at what is spoken where it goes.
        dialect = self.dialect = self.dialect or dialect_of(self.path, self.request_id)
        if dialect is None:
            status, body = answers.TABLE[refusal.code][0], answers.refusal_body(refusal)
        else:
            status, body = dialect.refusal(refusal)
        if self.streaming:
            self.keep_alive = False
            self.end_stream(b"%bdata: %b\n\n" % (dialect.error_event if dialect else b"", body))
            return
        if refusal.code is Code.DRAINING:
            self.keep_alive = False
        self.answer(status, body, answers.refusal_fields(refusal) + fields)

    def _head(self, status: int, content_type: bytes, fields: bytes) -> bytes:
        if not self.keep_alive:
            fields += answers.CLOSE
        elif not self.is_http_11:
            fields += b"connection: keep-alive\r\n"
        if self.dialect is not None:
            fields += self.dialect.fields
        if self.limit_fields:
            fields += self.limit_fields
        return answers.head(status, content_type, self.request_id, self.wire.stamp, fields)
