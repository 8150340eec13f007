"""The dialect of Responses: streams, translated event by event as they pass.

Each event has a number, each item a place in the output. Nothing is held back. Text and reasoning end when something
else begins, calls at the end: engines may mix pieces of several. Source: OpenAI API reference, "Streaming events".
"""

from typing import Any

import msgspec
from msgspec import Raw

from tokenworks.core.usage import Tokens
from tokenworks.dialects import responses_answer as answer
from tokenworks.dialects.messages_answer import Call, text_of
from tokenworks.dialects.reading import UNREADABLE
from tokenworks.dialects.responses_answer import Choice, Names
from tokenworks.dialects.sse import Splitter

# A comment says that the endpoint is alive where nothing can be told.
_ALIVE = b": alive\n\n"
# Only whole events come here; what their size may be was decided before.
_ANY_SIZE = 1 << 62


class _Told(msgspec.Struct, omit_defaults=True):
    """What the gateway says of an end: why it came early, and what is charged."""

    code: str = ""
    charged: list[Raw] | None = None


class _Chunk(msgspec.Struct):
    choices: list[Choice] | None = None
    tokenworks: _Told | None = None


class _Part(msgspec.Struct):
    """What is being said: its item's place and id, its kind, and all of it so far."""

    place: int
    item_id: str
    kind: str
    call_id: str = ""
    name: str = ""
    text: str = ""
    logprobs: list[Raw] = []

    def item(self, status: str = "completed") -> dict[str, Any]:
        """The item of the output. One that has only begun has no parts yet."""
        has_begun = status != "in_progress"
        if self.kind == "call":
            return answer.function_call(self.item_id, self.call_id, self.name, self.text, status)
        if self.kind == "reasoning":
            return answer.reasoning(self.item_id, self.text, status)
        return answer.message(self.item_id, [self.part()] if has_begun else [], status)

    def part(self) -> dict[str, Any]:
        """The part of a message, or of what is reasoned."""
        if self.kind == "text":
            return answer.text_part(self.text, self.logprobs)
        if self.kind == "refusal":
            return answer.refusal_part(self.text)
        return {"type": "reasoning_text", "text": self.text}


_chunk = msgspec.json.Decoder(_Chunk).decode
_PREFIXES = {"call": "fc", "reasoning": "rs"}
# The names of events that tell a piece of text, and all of it.
_EVENTS = {
    "text": "response.output_text",
    "refusal": "response.refusal",
    "reasoning": "response.reasoning_text",
    "call": "response.function_call_arguments",
}
_WHOLE = {"text": "text", "refusal": "refusal", "reasoning": "text", "call": "arguments"}


class ResponseStream:
    """One streamed response: bytes of a stream of chat completion chunks go in, OpenAI's typed events come out."""

    def __init__(self, names: Names, unfinished: dict[str, Any]) -> None:
        self.has_begun = False
        self._names = names
        self._response = unfinished
        self._splitter = Splitter(_ANY_SIZE)
        self._number = -1
        self._items: list[dict[str, Any]] = []
        self._open: _Part | None = None
        self._calls: dict[int, _Part] = {}
        self._running: list[_Part] = []
        self._finish_reason: str | None = None
        self._is_cut = False
        self._told = _Told()

    def events(self, data: bytes) -> bytes:
        """What whole events of the endpoint become."""
        begun = b"" if self.has_begun else self._begin()
        return begun + b"".join([self._tell(each.data) for each in self._splitter.feed(data)])

    def last(self, data: bytes, tokens: Tokens) -> bytes:
        """What the last events become, and the end of the response; `tokens` are what is charged for."""
        told = self.events(data)
        self._is_cut = answer.is_cut(self._finish_reason)
        told += self._end_open() + b"".join([self._end(call) for call in self._running])
        ended = answer.ended(self._response, self._items, self._finish_reason, tokens)
        if self._told != _Told():
            ended["tokenworks"] = self._told
        return told + self._event(f"response.{ended['status']}", response=ended)

    def error(self, message: str, field: str | None, code: str, kind: str) -> bytes:
        """The data of the event that ends the stream for an error."""
        nested = {"message": message, "type": kind, "param": field, "code": code}
        return msgspec.json.encode(self._numbered("error", code=code, message=message, param=field, error=nested))

    def _begin(self) -> bytes:
        self.has_begun = True
        return self._event("response.created", response=self._response) + self._event(
            "response.in_progress", response=self._response
        )

    def _tell(self, data: bytes | None) -> bytes:
        if data is None:
            return _ALIVE
        try:
            # A character that is cut in two costs itself, not the event.
            chunk = _chunk(data.decode(errors="replace"))
            told = b"".join([self._choice(choice) for choice in chunk.choices or () if not choice.index])
        except UNREADABLE:
            return b""  # `[DONE]`, or what no customer could read
        if chunk.tokenworks is not None:
            self._told = _Told(chunk.tokenworks.code or self._told.code, chunk.tokenworks.charged)
        return told

    def _choice(self, choice: Choice) -> bytes:
        if choice.finish_reason is not None:
            self._finish_reason = choice.finish_reason
        said = choice.delta
        if said is None:
            return b""
        told = self._say("reasoning", text_of(said.reasoning_content) or text_of(said.reasoning), [])
        told += self._say("text", text_of(said.content), choice.tokens)
        told += self._say("refusal", text_of(said.refusal), [])
        for call in said.tool_calls or ():
            told += self._call(call)
        return told

    def _say(self, kind: str, text: str, logprobs: list[Raw]) -> bytes:
        if not text:
            return b""
        told, part = b"", self._open
        if part is None or part.kind != kind:
            told = self._end_open()
            part = self._open = self._new(kind)
            told += self._added(part) + self._event("response.content_part.added", **self._at(part), part=part.part())
        part.logprobs = part.logprobs + logprobs
        return told + self._delta(part, text, **({"logprobs": logprobs} if kind == "text" else {}))

    def _call(self, call: Call) -> bytes:
        """A call, or a piece of one. Some endpoints give all calls the same index: another name is another call."""
        index = call.index or 0
        part = self._calls.get(index)
        told = b""
        if part is None or (call.id and call.id != part.call_id):
            told = self._end_open()
            part = self._calls[index] = self._new("call")
            part.call_id, part.name = call.id or answer.made_id(part.item_id), call.name
            self._running.append(part)
            told += self._added(part)
        return told + (self._delta(part, call.arguments) if call.arguments else b"")

    def _new(self, kind: str) -> _Part:
        place = len(self._items)
        part = _Part(place, self._names.item(_PREFIXES.get(kind, "msg"), place), kind)
        self._items.append(part.item("in_progress"))
        return part

    def _added(self, part: _Part) -> bytes:
        return self._event("response.output_item.added", output_index=part.place, item=part.item("in_progress"))

    def _delta(self, part: _Part, text: str, **more: Any) -> bytes:
        part.text += text
        return self._event(f"{_EVENTS[part.kind]}.delta", **self._at(part), delta=text, **more)

    def _end_open(self) -> bytes:
        part, self._open = self._open, None
        return self._end(part) if part is not None else b""

    def _end(self, part: _Part) -> bytes:
        whole: dict[str, Any] = {_WHOLE[part.kind]: part.text}
        if part.kind == "text":
            whole["logprobs"] = part.logprobs
        if part.kind == "call":
            whole["name"] = part.name
        told = self._event(f"{_EVENTS[part.kind]}.done", **self._at(part), **whole)
        if part.kind != "call":
            told += self._event("response.content_part.done", **self._at(part), part=part.part())
        is_whole = not self._is_cut or part.place < len(self._items) - 1
        item = self._items[part.place] = part.item("completed" if is_whole else "incomplete")
        return told + self._event("response.output_item.done", output_index=part.place, item=item)

    def _at(self, part: _Part) -> dict[str, Any]:
        place: dict[str, Any] = {"item_id": part.item_id, "output_index": part.place}
        return place if part.kind == "call" else place | {"content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(self._numbered(kind, **fields)))

    def _numbered(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": kind, "sequence_number": self._number, **fields}
