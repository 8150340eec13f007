"""Responses that an endpoint keeps: streams. Its events are passed on with other ids; chat completions stand for them
while they are counted, held to what is covered, and charged.

The last event is kept back: it goes out when what is charged is written down. A stream without one has broken off,
however well it was framed. Source: OpenAI API reference, "Streaming events".
"""

from typing import Any

import msgspec
from msgspec import Raw

from tokenworks.core.usage import Tokens
from tokenworks.dialects import kept_answer
from tokenworks.dialects.kept_ids import Telling
from tokenworks.dialects.other import Splits
from tokenworks.dialects.reading import UNREADABLE
from tokenworks.dialects.sse import Event, Splitter

_ENDS = {"response.completed": "stop", "response.incomplete": "length"}
_ITEM_DONE = "response.output_item.done"
_NO_CHOICES = b'{"choices":[]}'
_DONE = b"[DONE]"
# Only whole events come here; what their size may be was decided before.
_ANY_SIZE = 1 << 62


class _Response(msgspec.Struct):
    usage: Raw = Raw(b"null")


class _Error(msgspec.Struct):
    message: str = ""


class _Failed(msgspec.Struct):
    error: _Error | None = None


class _GaveUp(_Failed):
    response: _Failed | None = None
    message: str = ""


class _Last(msgspec.Struct):
    response: _Response = msgspec.field(default_factory=_Response)


class _Told(msgspec.Struct, omit_defaults=True):
    """What the gateway says of an end: why it came early, and what is charged."""

    code: str = ""
    charged: list[Raw] | None = None


class _Chunk(msgspec.Struct):
    choices: list[Raw] = []
    tokenworks: _Told | None = None


_last = msgspec.json.Decoder(_Last).decode
_gave_up = msgspec.json.Decoder(_GaveUp).decode
_chunk = msgspec.json.Decoder(_Chunk).decode
_encode = msgspec.json.encode


class KeptStream:
    """One stream: the events of the endpoint, each with the event of a chat completion that stands for it."""

    def __init__(self, splitter: Splits, telling: Telling) -> None:
        self._splitter = splitter
        self._telling = telling
        self._number = -1
        self._response: dict[str, Any] = {}
        self._items: list[dict[str, Any]] = []
        self._counted: set[str] = set()
        self._end: dict[str, Any] | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        return [told for event in self._splitter.feed(data) for told in self._tell(event)]

    def finish(self) -> list[Event]:
        """At the end of the stream: the event whose terminator never came, if any, and that it broke off if it did."""
        told = [told for event in self._splitter.finish() for told in self._tell(event)]
        return told if self._end is not None else [*told, _error("It broke off.")]

    def passed(self, events: bytes) -> None:
        """These events went to the customer: what is whole in them is part of the answer, wherever it ends."""
        if _ITEM_DONE.encode() in events:
            told = [kept_answer.fields_of(each.data) for each in Splitter(_ANY_SIZE).feed(events) if each.data]
            self._items += [each["item"] for each in told if each.get("type") == _ITEM_DONE and "item" in each]

    def last(self, body: bytes, tokens: Tokens) -> bytes:
        """The last event. `body` is how the stream of chat completions ended, `tokens` are charged for."""
        why, end = _Told(), self._end
        for event in Splitter(_ANY_SIZE).feed(body):
            if event.data is None or event.data == _DONE:
                continue
            chunk = _chunk(event.data)
            if chunk.choices:
                end = None  # it was ended here, whatever came after that
            if chunk.tokenworks is not None:
                why = _Told(chunk.tokenworks.code or why.code, chunk.tokenworks.charged)
        end = end or self._cut()
        response: dict[str, Any] = kept_answer.charged(end["response"], tokens)
        if why != _Told():
            response["tokenworks"] = why
        return _event(end | {"response": response}).raw

    def error(self, message: str, field: str | None, code: str, kind: str) -> bytes:
        """The data of the event that ends the stream for an error."""
        nested = {"message": message, "type": kind, "param": field, "code": code}
        told = {"type": "error", "sequence_number": self._number + 1, "code": code, "message": message, "param": field}
        return _encode(told | {"error": nested})

    def _tell(self, event: Event) -> list[Event]:
        if event.data is None:
            return [event]
        if event.data.strip() == _DONE or self._end is not None:
            return []
        try:
            # A character that is cut in two costs itself, not the event.
            read = kept_answer.fields_of(event.data.decode(errors="replace"))
        except UNREADABLE:
            return [Event(b"", event.data)]
        if isinstance(read.get("sequence_number"), int):
            self._number = read["sequence_number"]
        told = self._telling.event(read)
        if isinstance(told.get("response"), dict):
            self._response = told["response"]
        kind = str(read.get("type"))
        if kind in {"error", "response.failed"}:
            return [_error(self._telling.text(_message(read)))]
        return self._ended(told, event.data, _ENDS[kind]) if kind in _ENDS else [self._counts(told)]

    def _counts(self, told: dict[str, Any]) -> Event:
        """An event that is not the last, as what is counted of it."""
        kind, place, text = str(told.get("type")), str(told.get("output_index")), ""
        if kind.endswith(".delta"):
            text = told.get("delta")
        elif kind == _ITEM_DONE and isinstance(told.get("item"), dict):
            # What was not told in pieces is counted when it is whole.
            text = "" if place in self._counted else kept_answer.text_of(told["item"])
        if not text or not isinstance(text, str):
            return Event(_event(told).raw, _NO_CHOICES)
        self._counted.add(place)
        return Event(_event(told).raw, _encode({"choices": [{"index": 0, "delta": {"content": text}}]}))

    def _ended(self, told: dict[str, Any], data: bytes, reason: str) -> list[Event]:
        """The end, as those of a chat completion; it is told by `last`."""
        self._end = told | {"response": self._response}
        finish = Event(b"", _encode({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
        try:
            usage = _last(data.decode(errors="replace")).response.usage
        except UNREADABLE:
            usage = Raw(b'"unreadable"')
        if bytes(usage) == b"null":
            return [finish, Event(b"", _DONE)]
        return [finish, _event({"choices": [], "usage": kept_answer.usage_of(usage)}), Event(b"", _DONE)]

    def _cut(self) -> dict[str, Any]:
        """The end of a stream that was ended here."""
        why = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        response = self._response | why | {"output": self._items}
        return {"type": "response.incomplete", "sequence_number": self._number + 1, "response": response}


def _message(read: dict[str, Any]) -> str:
    """Why the endpoint gave up, as far as it says so."""
    try:
        told = _gave_up(_encode(read))
    except UNREADABLE:
        return ""
    found = told.error or (told.response.error if told.response else None)
    return found.message if found is not None else told.message


def _error(message: str) -> Event:
    return Event(b"", _encode({"error": {"message": message}}))


def _event(told: dict[str, Any]) -> Event:
    data = _encode(told)
    kind = told.get("type")
    named = b"event: %b\n" % kind.encode() if isinstance(kind, str) and kind.isprintable() else b""
    return Event(b"%bdata: %b\n\n" % (named, data), data)
