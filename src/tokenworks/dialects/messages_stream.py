"""The dialect of Messages: streams, translated event by event as they pass.

Text, calls of tools and, where it was asked for, thinking become blocks, one after the other. Nothing is held back.
What is counted and charged was decided before an event comes here. Source: Anthropic API reference, "Streaming
Messages".
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from tokenworks.core.usage import Tokens
from tokenworks.dialects import messages_answer as answer
from tokenworks.dialects.reading import UNREADABLE
from tokenworks.dialects.sse import Splitter

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
# Only whole events come here; what their size may be was decided before.
_ANY_SIZE = 1 << 62
# Thinking that has its signature: what is thought after it is a block of its own.
_SIGNED = "signed thinking"


class _Told(msgspec.Struct, omit_defaults=True):
    """What the gateway says of an end: why it came early, and what is charged."""

    code: str = ""
    charged: list[Raw] | None = None


class _Chunk(msgspec.Struct):
    choices: list[answer.Choice] | None = None
    tokenworks: _Told | None = None


class _Block(msgspec.Struct):
    """A call of a tool that was begun: the number of its block, and the endpoint's name for it."""

    number: int
    call_id: str | None


_chunk = msgspec.json.Decoder(_Chunk).decode


class MessageStream:
    """One streamed message: bytes of a stream of chat completion chunks go in, Anthropic's events come out."""

    def __init__(
        self, message_id: str, model: str, counted: Tokens, stop_sequences: Sequence[str], *, thinks: bool = False
    ) -> None:
        self._id = message_id
        self._start = answer.empty(message_id, model, counted)
        self._stop_sequences = stop_sequences
        self._splitter = Splitter(_ANY_SIZE)
        self._has_begun = False
        self._blocks = 0
        self._open: int | None = None
        self._kind = ""
        self._thinks = thinks
        self._calls: dict[int, _Block] = {}
        self._finish_reason: str | None = None
        self._stopped_by = ""
        self._told = _Told()

    def events(self, data: bytes) -> bytes:
        """What whole events of the endpoint become."""
        told = b"".join([self._tell(each.data) for each in self._splitter.feed(data)])
        if self._has_begun:
            return told
        self._has_begun = True
        return _event("message_start", message=self._start) + told

    def last(self, data: bytes, tokens: Tokens) -> bytes:
        """What the last events become, and the end of the message; `tokens` are what is charged for."""
        told = self.events(data) + self._close()
        stopped = answer.stop(self._finish_reason, self._stopped_by, self._stop_sequences, has_calls=bool(self._calls))
        more = {"tokenworks": self._told} if self._told != _Told() else {}
        told += _event("message_delta", delta=stopped, usage=answer.usage(tokens), **more)
        return told + _event("message_stop")

    def _tell(self, data: bytes | None) -> bytes:
        if data is None:
            return PING  # a comment, by which the endpoint says that it is alive
        try:
            # A character that is cut in two costs itself, not the event.
            chunk = _chunk(data.decode(errors="replace"))
            told = b"".join([self._choice(choice) for choice in chunk.choices or () if not choice.index])
        except UNREADABLE:
            return b""  # `[DONE]`, or what no customer could read
        if chunk.tokenworks is not None:
            self._told = _Told(chunk.tokenworks.code or self._told.code, chunk.tokenworks.charged)
        return told

    def _choice(self, choice: answer.Choice) -> bytes:
        if choice.finish_reason is not None:
            self._finish_reason, self._stopped_by = choice.finish_reason, choice.stopped_by
        said = choice.delta
        if said is None:
            return b""
        told = self._thought(said) if self._thinks else b""
        text = said.text
        if text:
            told += self._say("text", {"type": "text", "text": ""}, {"type": "text_delta", "text": text})
        for call in said.tool_calls or ():
            told += self._call(call)
        return told or (PING if said.thought else b"")

    def _thought(self, said: answer.Said) -> bytes:
        """Thinking, and what signs it, for who asked for it."""
        told = b""
        if said.thought:
            told = self._say("thinking", answer.thinking(), {"type": "thinking_delta", "thinking": said.thought})
        if said.thinking_signature:
            delta = {"type": "signature_delta", "signature": said.thinking_signature}
            told += self._say(_SIGNED if self._kind == _SIGNED else "thinking", answer.thinking(), delta)
            self._kind = _SIGNED
        if said.redacted_thinking:
            told += self._begin({"type": "redacted_thinking", "data": said.redacted_thinking}, "redacted_thinking")
        return told

    def _say(self, kind: str, empty: dict[str, str], delta: dict[str, str]) -> bytes:
        """A piece of a block of this kind: of the one that is open, or of a new one."""
        told = b"" if self._kind == kind else self._begin(empty, kind)
        return told + self._delta(delta, self._blocks - 1)

    def _call(self, call: answer.Call) -> bytes:
        """A call, or a piece of one. One whose block has ended is still told by the number of its block."""
        place = call.index or 0
        block = self._calls.get(place)
        told = b""
        # Some endpoints give all calls the same index: another name is another call.
        if block is None or (call.id and block.call_id and call.id != block.call_id):
            block = self._calls[place] = _Block(self._blocks, call.id)
            call_id = call.id or answer.made_id(self._id, self._blocks)
            told = self._begin(answer.tool_use(call_id, call.name, {}), "tool_use")
        arguments = call.arguments
        if not arguments:
            return told
        return told + self._delta({"type": "input_json_delta", "partial_json": arguments}, block.number)

    def _begin(self, block: dict[str, Any], kind: str) -> bytes:
        told = self._close() + _event("content_block_start", index=self._blocks, content_block=block)
        self._open, self._kind = self._blocks, kind
        self._blocks += 1
        return told

    def _delta(self, delta: dict[str, str], number: int) -> bytes:
        return _event("content_block_delta", index=number, delta=delta)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        told = _event("content_block_stop", index=self._open)
        self._open, self._kind = None, ""
        return told


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))
