"""The console's addresses: the page, logging in and out, the event stream, the prompt, the static files.

Each handler checks who asks, hands over to the board or the chat, and shapes the answer. The static files carry no
secret and are the only thing served to strangers besides the login form.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs

import jinja2
import msgspec
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from tokenworks.base import log
from tokenworks.console import chat, session
from tokenworks.console.board import Board
from tokenworks.console.context import ConsoleContext

_HERE = Path(__file__).parent
_TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True)
_FORM_BYTES_MAX = 4096
_log = log.get(__name__)
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_Sent = TypeVar("_Sent")
_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def create(app: FastAPI, context: ConsoleContext) -> Board:
    """Mount the console into the office's application at `/`.

    Call `end` of what it gives when the office is told to stop: a server waits for open event streams otherwise.
    """
    console = _Console(context)
    routes = APIRouter(lifespan=console.lifespan, include_in_schema=False)
    routes.add_api_route("/", console.page, methods=["GET"])
    routes.add_api_route("/login", console.log_in, methods=["POST"])
    routes.add_api_route("/logout", console.log_out, methods=["POST"])
    routes.add_api_route("/live/events", console.events, methods=["GET"])
    routes.add_api_route("/live/chat", console.prompt, methods=["POST"])
    routes.add_api_route("/live/kill", console.kill, methods=["POST"])
    app.include_router(routes)
    app.mount("/static", _Static(directory=_HERE / "static"), name="static")
    return console.board


class Victim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which worker is to be killed, by the name that its answers carry."""

    worker: str


class _Console:
    def __init__(self, context: ConsoleContext) -> None:
        self._context = context
        self.board = Board(context)
        self._http = chat.client(context.settings, context.gateway_url)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncGenerator[None]:
        """The board follows the books, and the page's HTTP client lives, as long as the office does."""
        async with self._http:
            following = asyncio.create_task(self.board.follow())
            following.add_done_callback(_tell_why)
            yield
            following.cancel()
            await asyncio.wait({following})

    async def page(self, request: Request) -> Response:
        """The live page; the login form for strangers; with a right `?token=` a session and a clean address."""
        token = request.query_params.get("token")
        if token is not None:
            return self._exchange(request, token)
        if not self._admits(request):
            return _page("login.html", 401)
        context = self._context
        kills = context.kill is not None
        return _page("live.html", 200, model=context.model, gateway_url=context.gateway_url, kills=kills)

    async def log_in(self, request: Request) -> Response:
        """The login form's answer."""
        body = await _body(request, _FORM_BYTES_MAX)
        form = parse_qs((body or b"").decode(errors="replace"))
        return self._exchange(request, form.get("token", [""])[0].strip())

    async def log_out(self) -> Response:
        """End the session."""
        response = RedirectResponse("/", 303)
        session.log_out(response)
        return response

    async def events(self, request: Request) -> Response:
        """The event stream of the page."""
        if not self._admits(request):
            return _stranger()
        if not self.board.open:
            return _error(503, "no_live_page", "Too many live pages are open, or the office is stopping.")
        return StreamingResponse(self.board.watch(), media_type="text/event-stream", headers=_STREAM_HEADERS)

    async def prompt(self, request: Request) -> Response:
        """Send a prompt to the gateway and relay the answer."""
        prompt = await self._sent(request, chat.Prompt)
        if isinstance(prompt, Response):
            return prompt
        events = chat.answer(self._http, self._context, prompt)
        return StreamingResponse(events, media_type="text/event-stream", headers=_STREAM_HEADERS)

    async def kill(self, request: Request) -> Response:
        """Kill the gateway worker that serves an answer, where the office may."""
        victim = await self._sent(request, Victim)
        if isinstance(victim, Response):
            return victim
        pid = self._context.kill(victim.worker) if self._context.kill else None
        if pid is None:
            return _error(404, "not_found", f"No gateway worker {victim.worker!r} runs here that could be killed.")
        return JSONResponse({"worker": victim.worker, "pid": pid})

    async def _sent(self, request: Request, kind: type[_Sent]) -> _Sent | Response:
        """What the page has sent; an error answer for strangers and for anything else."""
        if not self._admits(request):
            return _stranger()
        # A form of another site can post, but not with this content type: the browser would have to ask us first.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _error(400, "malformed_body", "Send JSON with the content type application/json.")
        body = await _body(request, self._context.settings.live_prompt_bytes_max)
        if body is None:
            return _error(413, "body_too_large", "The prompt is too long.")
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as fault:
            return _error(400, "malformed_body", f"The body cannot be read: {fault}.")

    def _admits(self, request: Request) -> bool:
        return session.admitted(request, self._context.admin_token, self._context.wall_ns())

    def _exchange(self, request: Request, token: str) -> Response:
        if not session.token_is_right(self._context.admin_token, token):
            return _page("login.html", 401, wrong=True)
        response = RedirectResponse("/", 303, headers={"cache-control": "no-store", "referrer-policy": "no-referrer"})
        session.log_in(response, request, self._context.admin_token, self._context.wall_ns())
        return response


class _Static(StaticFiles):
    """Static files that browsers ask about each time: they are few, small, and change with the release."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response


def _tell_why(following: asyncio.Task[None]) -> None:
    if not following.cancelled() and (fault := following.exception()):
        _log.error("the live page has stopped", exc_info=fault)


def _page(template: str, status: int, **values: object) -> Response:
    html = _TEMPLATES.get_template(template).render(**values)
    return HTMLResponse(html, status, headers=_PAGE_HEADERS)


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message, "field": None}}, status)


def _stranger() -> Response:
    return _error(401, "unauthorized", "Log in, or send the admin token as bearer.")


async def _body(request: Request, bytes_max: int) -> bytes | None:
    """The request's body, or none when it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            return None
    return bytes(body)
