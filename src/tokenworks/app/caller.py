"""A customer's program: calls the API as any OpenAI client does, and notes what it saw.

It knows a URL, a key and a model, nothing of the operator behind them.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import msgspec

from tokenworks.base import clock

TIMEOUT_S = 120
_PATH = "/v1/chat/completions"


class CallFault(Exception):
    """The API refused or broke off; the text carries its code and message."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What the customer's program saw of one request; the counts are the API's `usage`."""

    request_id: str
    text: str
    tokens_prompt: int
    tokens_completion: int
    first_token_ms: int
    duration_ms: int
    streamed: bool


def streamed(http: httpx2.Client, key: str, body: dict[str, Any], hear: Callable[[str], None]) -> Call:
    """Make a streaming request; `hear` gets each piece of text as it arrives."""
    sent_ns = clock.boot_ns()
    first_ns = 0
    pieces: list[str] = []
    usage: dict[str, Any] = {}
    with http.stream("POST", _PATH, headers=_headers(key), json=_streaming(body)) as answer:
        if not answer.is_success:
            answer.read()
        _insist(answer)
        for event in _events(answer.iter_lines()):
            usage = event.get("usage") or usage
            if piece := _text(event):
                first_ns = first_ns or clock.boot_ns()
                pieces.append(piece)
                hear(piece)
    return _call(answer, "".join(pieces), usage, sent_ns, first_ns or clock.boot_ns(), was_streamed=True)


def whole(http: httpx2.Client, key: str, body: dict[str, Any]) -> Call:
    """Make a request whose answer comes in one piece."""
    sent_ns = clock.boot_ns()
    answer = http.post(_PATH, headers=_headers(key), json=body)
    _insist(answer)
    content = answer.json()
    text = content["choices"][0]["message"]["content"]
    return _call(answer, text, content["usage"], sent_ns, clock.boot_ns(), was_streamed=False)


def program(url: str) -> httpx2.Client:
    """The customer's HTTP client; made before the first call, so that a call's times are the API's alone."""
    return httpx2.Client(base_url=url, timeout=TIMEOUT_S)


def _headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def _streaming(body: dict[str, Any]) -> dict[str, Any]:
    return body | {"stream": True, "stream_options": {"include_usage": True}}


def _insist(answer: httpx2.Response) -> None:
    if not answer.is_success:
        raise CallFault(f"The API answered {answer.status_code}: {answer.text}")


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise CallFault(f"The stream broke off: {event['error']}")
        yield event
    raise CallFault("The stream ended without saying so.")


def _text(event: dict[str, Any]) -> str:
    choices: list[dict[str, Any]] = event.get("choices") or []
    delta: dict[str, Any] = choices[0].get("delta") or {} if choices else {}
    return delta.get("content") or ""


def _call(
    answer: httpx2.Response, text: str, usage: dict[str, Any], sent_ns: int, first_ns: int, *, was_streamed: bool
) -> Call:
    return Call(
        request_id=answer.headers.get("x-request-id", ""),
        text=text,
        tokens_prompt=usage.get("prompt_tokens", 0),
        tokens_completion=usage.get("completion_tokens", 0),
        first_token_ms=(first_ns - sent_ns) // clock.MS,
        duration_ms=(clock.boot_ns() - sent_ns) // clock.MS,
        streamed=was_streamed,
    )
