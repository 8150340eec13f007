"""Suppliers: OpenAI-compatible endpoints that do what the plan says, also what none should.

The prompt names the plan's request, so that the act of each attempt can be found. What was sent is witnessed.
"""

from collections.abc import Callable
from typing import Any, cast

import msgspec

from tokenworks.sim.loop import VirtualLoop
from tokenworks.sim.plan import MS_NS, Act, Ask
from tokenworks.sim.sockets import Socket
from tokenworks.sim.witness import Served, Witnesses

HEAD_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_PROMPT_TOKENS_OF_BYTES = 5


class Suppliers:
    """All endpoints of a run. `calls` counts the attempts that each request has made."""

    def __init__(self, loop: VirtualLoop, asks: dict[int, Ask], witnesses: Witnesses) -> None:
        self.loop = loop
        self.witnesses = witnesses
        self._asks = asks
        self._calls: dict[int, int] = {}

    def endpoint(self, name: str) -> Callable[[], "Supplier"]:
        """What makes a protocol for each connection."""
        return lambda: Supplier(self, name)

    def act(self, number: int) -> Act:
        """What the next attempt of a request gets."""
        place = self._calls.get(number, 0)
        self._calls[number] = place + 1
        acts = self._asks[number].acts
        return acts[min(place, len(acts) - 1)]

    def length(self, number: int) -> int:
        """The bytes of a request's prompt."""
        return self._asks[number].text_bytes


class Supplier:
    """One connection of an endpoint."""

    def __init__(self, suppliers: Suppliers, name: str) -> None:
        self._suppliers = suppliers
        self._name = name
        self._socket: Socket = cast("Socket", None)
        self._buffer = b""
        self._call: Served | None = None
        self._pieces: list[tuple[bytes, int]] = []
        self._pause_ns = 0
        self._is_paused = False
        self._after: Callable[[], None] = self._end

    # --- the transport's calls

    def connection_made(self, transport: Any) -> None:
        """A gateway connected."""
        self._socket = transport

    def data_received(self, data: bytes) -> None:
        """A request, perhaps in pieces."""
        self._buffer += data
        head, mark, body = self._buffer.partition(b"\r\n\r\n")
        if not mark or len(body) < _number(head, b"content-length: "):
            return
        self._buffer = b""
        self._serve(_text(head, b"x-request-id: "), msgspec.json.decode(body))

    def eof_received(self) -> bool:
        """The gateway sends no more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The gateway broke off."""
        del exc
        if self._call is not None:
            self._call.is_gone = True
        self._pieces.clear()

    def pause_writing(self) -> None:
        """The gateway does not read."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_paused = False
        self._send_next()

    # --- what is answered

    def _serve(self, request_id: str, body: dict[str, Any]) -> None:
        suppliers = self._suppliers
        number = int(body["messages"][0]["content"].split()[0])
        act = suppliers.act(number)
        limit = body.get("max_tokens") or body["max_completion_tokens"]
        call = self._call = Served(
            number=number,
            request_id=request_id,
            endpoint=self._name,
            worker=self._socket.peer.process.name,
            began_ns=suppliers.loop.now_ns,
            prompt_bytes=suppliers.length(number),
            limit=limit,
            choices=body.get("n") or 1,
            stream=bool(body.get("stream")),
            kind=act.kind,
        )
        suppliers.witnesses.served.append(call)
        match act.kind:
            case "broken before":
                self._socket.abort()
            case "silent before":
                pass
            case "busy":
                self._refuse(503, b'{"error":{"message":"busy","type":"server_error"}}')
            case "refusing":
                self._refuse(400, b'{"error":{"message":"no","type":"invalid_request_error"}}')
            case _:
                self._answer(call, act)

    def _refuse(self, status: int, body: bytes) -> None:
        if self._call is not None:
            self._call.status = status
        self._socket.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))

    def _answer(self, call: Served, act: Act) -> None:
        most = call.limit * 2 + 5 if act.kind == "overlong" else min(act.tokens, call.limit)
        breaks = act.kind in {"broken within", "silent within"}
        usage = _usage(act, call, most * call.choices)
        if call.stream:
            self._pieces = _events(call, min(most, act.at) if breaks else most, act.group)
            if not breaks:
                self._pieces.append((_stream_end(call, usage), 0))
        else:
            body = _whole(call, most, usage)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            self._pieces = [(head, 0), (body[: len(body) // 2] if breaks else body, 0)]
        if not breaks and usage is not None:
            call.usage = usage if isinstance(usage, tuple) else str(usage)
        self._after = self._break_off if act.kind == "broken within" else self._end
        if act.kind == "silent within":
            self._after = lambda: None
        self._pause_ns = act.pause_ms * MS_NS
        self._later()

    def _later(self) -> None:
        loop = self._suppliers.loop
        loop.call_at_ns(loop.now_ns + self._pause_ns, self._send_next)

    def _send_next(self) -> None:
        call = self._call
        if self._is_paused or call is None or call.is_gone:
            return
        if not self._pieces:
            self._after()
            return
        data, tokens = self._pieces.pop(0)
        call.tokens += tokens
        self._socket.write(data)
        self._later()

    def _break_off(self) -> None:
        self._socket.abort()

    def _end(self) -> None:
        call = self._call
        if call is not None:
            call.is_whole = True
            self._call = None


def _usage(act: Act, call: Served, written: int) -> tuple[int, int, int] | str | None:  # noqa: PLR0911 - a table
    """Prompt, completion and cached tokens as the act has them reported; a text is no usage at all."""
    read = max(1, call.prompt_bytes // _PROMPT_TOKENS_OF_BYTES)
    cached = read // 3
    most = call.limit * call.choices
    match act.kind:
        case "too little":
            return read, max(1, written // 2), cached
        case "too much":
            return read, min(written + 7, most), cached
        case "above reservation":
            return read, most + 1 + act.at, cached
        case "nothing":
            return 0, 0, 0
        case "malformed":
            return '{"prompt_tokens":-5,"completion_tokens":3,"total_tokens":-2}'
        case "unsaid":
            return None
        case _:
            return read, written, cached


def _events(call: Served, tokens: int, group: int) -> list[tuple[bytes, int]]:
    """The deltas of all choices, `group` of them at once."""
    each = [
        b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"up","choices":[{"index":%d,'
        b'"delta":{"content":"tok "}}]}\n\n' % choice
        for choice in range(call.choices)
    ]
    turn = b"".join(each)
    pieces: list[tuple[bytes, int]] = [(HEAD_STREAM, 0)]
    for start in range(0, tokens, group):
        count = min(group, tokens - start)
        pieces.append((_chunk(turn * count), count * call.choices))
    return pieces


def _stream_end(call: Served, usage: tuple[int, int, int] | str | None) -> bytes:
    ends = b"".join(
        b'data: {"id":"c","created":1,"model":"up","choices":[{"index":%d,"delta":{},"finish_reason":"stop"}]}\n\n'
        % choice
        for choice in range(call.choices)
    )
    report = b"" if usage is None else b'data: {"id":"c","choices":[],"usage":%b}\n\n' % _json(usage)
    return _chunk(ends + report + b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _whole(call: Served, tokens: int, usage: tuple[int, int, int] | str | None) -> bytes:
    text = "tok " * tokens
    call.text_bytes = (len(text),) * call.choices
    call.tokens = tokens * call.choices
    choices = [
        {"index": choice, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for choice in range(call.choices)
    ]
    report = b"" if usage is None else b',"usage":' + _json(usage)
    return b'{"id":"c","object":"chat.completion","choices":' + msgspec.json.encode(choices) + report + b"}"


def _json(usage: tuple[int, int, int] | str) -> bytes:
    if isinstance(usage, str):
        return usage.encode()
    prompt, completion, cached = usage
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}'
        % (prompt, completion, prompt + completion, cached)
    )


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _number(head: bytes, name: bytes) -> int:
    return int(_text(head, name) or "0")


def _text(head: bytes, name: bytes) -> str:
    start = head.find(name)
    if start < 0:
        return ""
    end = head.find(b"\r\n", start)
    return head[start + len(name) : end if end >= 0 else len(head)].decode()
