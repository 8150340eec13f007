"""The prompt of the live page, sent to the gateway as any customer would, and the answer relayed to the browser.

The browser gets server-sent events: `answer` when the gateway admits the request, then the gateway's own events as
they come; `refusal` with the gateway's error when it does not; `broken` when the gateway cannot be reached or its
answer breaks off. Nothing is counted or charged here.
"""

from collections.abc import AsyncIterator

import httpx2
import msgspec

from tokenworks.base import tls
from tokenworks.base.config import Settings
from tokenworks.console.board import frame
from tokenworks.console.context import ConsoleContext


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the browser sends."""

    prompt: str


class Admitted(msgspec.Struct, frozen=True):
    """The gateway took the request. `output_limit`: the answer is held to what the balance covers."""

    request_id: str
    output_limit: int | None
    worker: str


class Error(msgspec.Struct, frozen=True):
    """The part of OpenAI's error object that is shown."""

    message: str
    code: str | None = None


class _Body(msgspec.Struct, frozen=True):
    error: Error


class Refused(msgspec.Struct, frozen=True):
    """The gateway's no, with its HTTP status and stable code."""

    status: int
    error: Error


def client(settings: Settings, gateway_url: str) -> httpx2.AsyncClient:
    """The one client of the page, with the gateway's own limits of patience."""
    # Loading certificates takes 0.2 s of the office's start, and plain HTTP on loopback has none to check.
    verify = tls.to_own_gateway() if gateway_url.startswith("https:") else False
    timeout = httpx2.Timeout(settings.connect_timeout_ms / 1000, read=settings.endpoint_silence_ms / 1000)
    return httpx2.AsyncClient(timeout=timeout, trust_env=False, verify=verify)


async def answer(http: httpx2.AsyncClient, context: ConsoleContext, prompt: Prompt) -> AsyncIterator[bytes]:
    """The events of one prompt. Closing this iterator closes the request at the gateway."""
    question = {
        "model": context.model,
        "stream": True,
        "max_tokens": context.settings.live_answer_tokens,
        "messages": [{"role": "user", "content": prompt.prompt}],
    }
    headers = {"authorization": f"Bearer {context.live_key}"}
    url = f"{context.gateway_url}/v1/chat/completions"
    try:
        async with http.stream("POST", url, json=question, headers=headers) as reply:
            if reply.status_code != 200:
                yield frame("refusal", Refused(reply.status_code, _error(await reply.aread())))
                return
            yield frame("answer", _admitted(reply.headers))
            async for chunk in reply.aiter_bytes():
                yield chunk
    except httpx2.ConnectError:
        yield frame("broken", Error("The gateway cannot be reached. Is it running?", "gateway_unreachable"))
    except httpx2.HTTPError:
        # Two line ends first: the break may have come in the middle of an event.
        yield b"\n\n" + frame("broken", Error("The connection to the gateway broke off.", "gateway_broken"))


def _admitted(headers: httpx2.Headers) -> Admitted:
    limit = headers.get("x-tokenworks-output-limit", "")
    return Admitted(
        request_id=headers.get("x-request-id", ""),
        output_limit=int(limit) if limit.isascii() and limit.isdigit() else None,
        worker=headers.get("x-tokenworks-worker", ""),
    )


def _error(body: bytes) -> Error:
    try:
        return msgspec.json.decode(body, type=_Body).error
    except msgspec.DecodeError:
        return Error("The gateway refused the request without saying why.")
