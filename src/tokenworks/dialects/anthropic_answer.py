"""Answers of endpoints that speak Anthropic's API, as chat completions: whole ones, and streams event by event.

What has no counterpart in a chat completion (signatures of thinking) stands in fields of its own, for customers who
speak Anthropic's API too. Source: Anthropic API reference, "Create a Message" and "Streaming Messages".
"""

from typing import Any

import msgspec
from msgspec import Raw

from tokenworks.base import clock
from tokenworks.dialects.answers import DONE
from tokenworks.dialects.other import Splits
from tokenworks.dialects.reading import UNREADABLE
from tokenworks.dialects.sse import Event

_NULL = Raw(b"null")
_STOPS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_ALIVE = Event(b": alive\n\n", None)
_DONE = Event(DONE, b"[DONE]")


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None


class _Block(msgspec.Struct):
    type: str
    text: str | None = ""
    thinking: str | None = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


class _Message(msgspec.Struct):
    """A whole message, or the head of one."""

    content: list[_Block]
    id: str = ""
    model: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Raw = _NULL


class _Delta(msgspec.Struct, frozen=True):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    index: int = 0
    content_block: _Block | None = None
    delta: _Delta = _Delta()
    usage: Raw = _NULL


_message = msgspec.json.Decoder(_Message).decode
_event = msgspec.json.Decoder(_Event).decode
_usage = msgspec.json.Decoder(_Usage | None).decode
_encode = msgspec.json.encode


class AnthropicSpeech:
    """The answer of one endpoint."""

    def whole(self, body: bytes) -> bytes:
        """A whole message as a chat completion."""
        read = _message(body)
        said = "".join(block.text or "" for block in read.content if block.type == "text")
        calls = [_call(place, block) for place, block in enumerate(_of_type(read, "tool_use"))]
        message: dict[str, Any] = {"role": "assistant", "content": said or None}
        thought = "".join(block.thinking or "" for block in _of_type(read, "thinking"))
        if thought:
            message["reasoning_content"] = thought
        kept = [block for block in read.content if block.type in {"thinking", "redacted_thinking"}]
        if kept:
            message["thinking_blocks"] = [_thinking_block(block) for block in kept]
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message} | _finish(read.stop_reason, read.stop_sequence)
        head = _head(read.id, read.model, "chat.completion")
        return _encode(head | {"choices": [choice]} | _used(read.usage))

    def splitter(self, splitter: Splits) -> Splits:
        """The events of a stream as those of a chat completion."""
        return _AsChat(splitter)


class _AsChat:
    """Stands before a splitter: its events, as those of a chat completion."""

    def __init__(self, splitter: Splits) -> None:
        self._splitter = splitter
        self._head: dict[str, Any] = _head("", "", "chat.completion.chunk")
        self._used = _Usage()
        self._odd_usage = _NULL
        self._is_ending = False
        self._calls: dict[int, int] = {}
        # What each call begins with: all of its arguments, where nothing follows.
        self._given: dict[int, str] = {}

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        return [told for event in self._splitter.feed(data) for told in self._tell(event)]

    def finish(self) -> list[Event]:
        """At the end of the stream: the event whose terminator never came, if any."""
        told = [told for event in self._splitter.finish() for told in self._tell(event)]
        return told if _DONE in told else [*told, *self._usage()]

    def _tell(self, event: Event) -> list[Event]:
        if event.data is None:
            return [_ALIVE]
        try:
            # A character that is cut in two costs itself, not the event.
            read = _event(event.data.decode(errors="replace"))
            self._add(read)
            delta = self._delta(read)
        except UNREADABLE:
            return [event]
        if read.type == "message_stop":
            return [*self._usage(), _DONE]
        if read.type == "error":
            return [event]
        return [_ALIVE] if delta is None else [self._chunk(delta, read.delta)]

    def _delta(self, read: _Event) -> dict[str, Any] | None:
        """What an event adds; None where it adds nothing."""
        if read.type == "message_start" and read.message is not None:
            self._head = _head(read.message.id, read.message.model, "chat.completion.chunk")
            return {"role": "assistant", "content": ""}
        if read.type == "message_delta":
            self._is_ending = True
            return {}
        if read.type == "content_block_start" and read.content_block is not None:
            return self._begun(read.index, read.content_block)
        if read.type == "content_block_delta":
            return self._added(read.index, read.delta)
        if read.type == "content_block_stop" and read.index in self._given:
            return self._argued(read.index, self._given.pop(read.index))
        return None

    def _added(self, index: int, said: _Delta) -> dict[str, Any] | None:
        if said.type == "input_json_delta":
            if said.partial_json:
                self._given.pop(index, None)
            return self._argued(index, said.partial_json)
        told = {"content": said.text, "reasoning_content": said.thinking, "thinking_signature": said.signature}
        return {name: text for name, text in told.items() if text} or None

    def _argued(self, index: int, arguments: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": self._calls.get(index, 0), "function": {"arguments": arguments}}]}

    def _begun(self, index: int, block: _Block) -> dict[str, Any] | None:
        if block.type == "tool_use":
            place = self._calls[index] = len(self._calls)
            self._given[index] = bytes(block.input).decode()
            return {"tool_calls": [_call(place, block) | {"function": {"name": block.name, "arguments": ""}}]}
        if block.type == "redacted_thinking":
            return {"redacted_thinking": block.data}
        told = {"content": block.text, "reasoning_content": block.thinking}
        return {name: text for name, text in told.items() if text} or None

    def _chunk(self, delta: dict[str, Any], said: _Delta) -> Event:
        finish = _finish(said.stop_reason, said.stop_sequence)
        return _as_event(self._head | {"choices": [{"index": 0, "delta": delta} | finish]})

    def _add(self, read: _Event) -> None:
        """Take what is told of use so far; each number is of the whole message, but for the output at its beginning."""
        raw = read.usage if read.message is None else read.message.usage
        try:
            told = _usage(raw)
        except UNREADABLE:
            self._odd_usage = raw  # it is odd, and is found to be so where it is read
            return
        for name in _Usage.__struct_fields__ if told is not None else ():
            count = getattr(told, name)
            if count is not None and (read.message is None or name != "output_tokens"):
                setattr(self._used, name, count)

    def _usage(self) -> list[Event]:
        """What was used, once the message has said why it ends: before that the numbers are of its beginning."""
        if bytes(self._odd_usage) != b"null":
            return [_as_event(self._head | {"choices": [], "usage": self._odd_usage})]
        if not self._is_ending or self._used == _Usage():
            return []
        return [_as_event(self._head | {"choices": [], "usage": _as_chat(self._used)})]


def _as_event(fields: dict[str, Any]) -> Event:
    data = _encode(fields)
    return Event(b"data: %b\n\n" % data, data)


def _head(message_id: str, model: str, kind: str) -> dict[str, Any]:
    return {"id": message_id, "object": kind, "created": clock.wall_ns() // clock.SECOND, "model": model}


def _of_type(message: _Message, kind: str) -> list[_Block]:
    return [block for block in message.content if block.type == kind]


def _call(place: int, block: _Block) -> dict[str, Any]:
    function = {"name": block.name, "arguments": bytes(block.input).decode()}
    return {"index": place, "id": block.id, "type": "function", "function": function}


def _thinking_block(block: _Block) -> dict[str, str]:
    if block.type == "redacted_thinking":
        return {"type": block.type, "data": block.data}
    return {"type": block.type, "thinking": block.thinking or "", "signature": block.signature}


def _finish(reason: str | None, sequence: str | None) -> dict[str, str | None]:
    """Why it ended. The sequence is where other engines name it too."""
    finish = None if reason is None else _STOPS.get(reason, "stop")
    return {"finish_reason": finish} | ({"stop_reason": sequence} if sequence else {})


def _used(raw: Raw) -> dict[str, Any]:
    try:
        used = _usage(raw)
    except UNREADABLE:
        return {"usage": raw}  # it is odd, and is found to be so where it is read
    return {} if used is None else {"usage": _as_chat(used)}


def _as_chat(used: _Usage) -> dict[str, Any]:
    """Anthropic's classes of input are disjoint, OpenAI's are not."""
    cached, written = used.cache_read_input_tokens or 0, used.cache_creation_input_tokens or 0
    prompt, completion = (used.input_tokens or 0) + cached + written, used.output_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
    }
