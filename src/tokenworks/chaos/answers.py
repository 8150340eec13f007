"""What a customer makes of an answer: how it ended, what its usage said, how many deltas it had. Pure.

This is the customers' side of the comparison, so nothing here is taken from the gateway's code.
"""

from typing import Literal

import msgspec

from tokenworks.chaos.questions import Question

Ended = Literal["complete", "refused", "cut", "unheard"]


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """One request as its customer saw it.

    `ended`: a complete answer; a refusal; an answer that was cut off after its head; or a connection that was lost
    before any head, so that not even the request's id is known. `deltas` counts the tokens of a stream as they came,
    `usage` is what the answer reported (input, output), `charged` what its header said.
    """

    question: Question
    ended: Ended
    request_id: str = ""
    status: int = 0
    code: str = ""
    deltas: int = 0
    usage: tuple[int, int] | None = None
    charged: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Error(msgspec.Struct):
    code: str | None = None


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Message | None = None


class _Body(msgspec.Struct):
    usage: _Usage | None = None
    error: _Error | None = None
    choices: list[_Choice] = []


_decode = msgspec.json.Decoder(_Body).decode
_DONE = b"[DONE]"


def read(question: Question, status: int, headers: dict[bytes, bytes], body: bytes, *, is_whole: bool) -> Answer:
    """The answer with this head and as much of its body as came."""
    request_id = headers.get(b"x-request-id", b"").decode()
    if status != 200:
        return Answer(question, "refused", request_id, status, _code(body) if is_whole else "")
    if question.streamed:
        return _stream(question, request_id, body, is_whole=is_whole)
    if not is_whole:
        return Answer(question, "cut", request_id, status)
    usage, charged = _decode(body).usage, headers.get(b"x-tokenworks-charged")
    return Answer(
        question,
        "complete",
        request_id,
        status,
        usage=(usage.prompt_tokens, usage.completion_tokens) if usage else None,
        charged=int(charged.partition(b" ")[0]) if charged else None,
    )


def _stream(question: Question, request_id: str, body: bytes, *, is_whole: bool) -> Answer:
    """The last event counts only if its empty line came too."""
    *events, _ = body.split(b"\n\n")
    deltas, usage, code, is_done = 0, None, "", False
    for event in events:
        data = event.removeprefix(b"data: ")
        if data == _DONE:
            is_done = True
            break
        chunk = _decode(data)
        deltas += sum(1 for choice in chunk.choices if choice.delta and choice.delta.content)
        if chunk.usage:
            usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        if chunk.error:
            code = chunk.error.code or "error"
    ended: Ended = "complete" if is_done and is_whole and not code else "cut"
    return Answer(question, ended, request_id, 200, code, deltas, usage)


def _code(body: bytes) -> str:
    try:
        error = _decode(body).error
    except msgspec.DecodeError:
        return ""
    return (error.code or "") if error else ""
