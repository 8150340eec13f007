"""Answers that are no chat completions: the seam to endpoints that speak otherwise, and to other things asked for.

The life of a request stays one, in the form of chat completions. Who asks for something else brings along an `Other`:
how its bound is computed, what its endpoint is sent and where, and what its endpoint's answer is as a chat completion,
so that it can be counted and charged as one. Customers of chat completions have none.
"""

from typing import Protocol

from msgspec import Raw

from tokenworks.core.bounds import Need, Shape
from tokenworks.core.snapshot import Endpoint, Model, Served
from tokenworks.dialects.sse import Event


class Splits(Protocol):
    """Bytes of a stream in, whole events out: a `sse.Splitter`, or what stands before one."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        ...

    def finish(self) -> list[Event]:
        """At the end of the stream: the event whose terminator never came, if any."""
        ...


class Speech(Protocol):
    """How one endpoint answers one request, where it does not answer with a chat completion."""

    def whole(self, body: bytes) -> bytes:
        """An unstreamed answer as a chat completion; raises one of `reading.UNREADABLE` where it is none."""
        ...

    def splitter(self, splitter: Splits) -> Splits:
        """The events of a stream as those of a chat completion."""
        ...


class Other(Speech, Protocol):
    """One request for something else than a chat completion."""

    @property
    def api(self) -> Served:
        """What a model must be offered on."""
        ...

    @property
    def endpoint_id(self) -> str:
        """The only endpoint that can serve it; empty where each can."""
        ...

    @property
    def path(self) -> str:
        """Where endpoints serve it, behind their base URL."""
        ...

    def need(self, shape: Shape, model: Model) -> Need:
        """The bound of the request."""
        ...

    def body(self, fields: dict[str, Raw], endpoint: Endpoint, output_limit: int) -> bytes:
        """The body for this endpoint."""
        ...
