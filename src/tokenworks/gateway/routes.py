"""Routes: which path and method is served by what, and what every request has in common when it cannot go on."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import msgspec

from tokenworks.base import clock
from tokenworks.base.journal import JournalFault
from tokenworks.core.bounds import need
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Model
from tokenworks.dialects import completions, embeddings, messages, messages_request, moderations, responses
from tokenworks.dialects.completions import Completions
from tokenworks.dialects.dialect import dialect_of
from tokenworks.dialects.embeddings import Embeddings
from tokenworks.dialects.moderations import Moderations
from tokenworks.gateway import kept, pipeline
from tokenworks.gateway.catalog import not_found
from tokenworks.gateway.delivery import Gateway
from tokenworks.gateway.exchange import ClientGone, Drained, Exchange, TooLong

_MODELS = "/v1/models"
_CHAT = "/v1/chat/completions"
_METHODS = {
    **dict.fromkeys((_CHAT, messages.PATH, messages.COUNT_PATH), b"POST"),
    **dict.fromkeys((completions.PATH, embeddings.PATH, moderations.PATH, responses.PATH), b"POST"),
    **dict.fromkeys((_MODELS, "/healthz", "/readyz"), b"GET"),
}
_encode = msgspec.json.encode


class Routes:
    """The handler of all exchanges."""

    def __init__(self, gateway: Gateway, is_ready: Callable[[], bool]) -> None:
        self._gateway = gateway
        self._is_ready = is_ready

    async def handle(self, exchange: Exchange) -> None:
        """Serve one exchange, however it ends."""
        try:
            if exchange.path == _CHAT and exchange.method == b"POST":
                await pipeline.serve(exchange, self._gateway)
            else:
                await self._serve(exchange)
        except ClientGone:
            pass  # nobody is left to answer
        except Drained:
            exchange.refuse(pipeline.DRAINING)
        except TooLong:
            exchange.refuse(pipeline.TOO_LONG)
        except JournalFault:
            exchange.refuse(pipeline.JOURNAL_FULL)
        finally:
            if exchange.grant is not None:
                exchange.grant.end()

    async def _serve(self, exchange: Exchange) -> None:
        path = exchange.path
        method = _METHODS.get(path) or (b"GET" if path.startswith(_MODELS + "/") else None)
        if method is None and path.startswith(responses.PATH + "/"):
            await kept.reach(exchange, self._gateway)
        elif method is None:
            exchange.refuse(Refusal(Code.ROUTE_NOT_FOUND, f"There is nothing at {path}."))
        elif exchange.method != method and (exchange.method, method) != (b"HEAD", b"GET"):
            refusal = Refusal(Code.METHOD_NOT_ALLOWED, f"Use {method.decode()} for {path}.")
            exchange.refuse(refusal, b"allow: %b\r\n" % method)
        elif method == b"POST":
            await self._serve_other(exchange, path)
        elif path == "/healthz":
            exchange.answer(200, b'{"status":"ok"}')
        elif path == "/readyz":
            ready = self._is_ready()
            exchange.answer(200 if ready else 503, b'{"status":"ready"}' if ready else b'{"status":"not ready"}')
        else:
            await self._models(exchange, unquote(path[len(_MODELS) + 1 :]))

    async def _serve_other(self, exchange: Exchange, path: str) -> None:
        """APIs that are made chat completions of, or are served in their place."""
        exchange.dialect = dialect_of(path, exchange.request_id)
        if path == messages.PATH:
            await pipeline.serve(exchange, self._gateway, messages_request.parse)
        elif path == messages.COUNT_PATH:
            await self._count(exchange)
        else:
            other = await kept.create(exchange, self._gateway) if path == responses.PATH else self._other(exchange)
            exchange.dialect = other
            await pipeline.serve(exchange, self._gateway, other.parse)

    def _other(self, exchange: Exchange) -> Completions | Embeddings | Moderations:
        path = exchange.path
        if path == completions.PATH:
            return Completions()
        if path == embeddings.PATH:
            return Embeddings()
        return Moderations(lambda: self._gateway.catalog.first("moderations"))

    async def _count(self, exchange: Exchange) -> None:
        """The tokens of a message that is not created: the bound that would be reserved for its input."""
        caller = await self._gateway.keys.authenticate(exchange.headers)
        if isinstance(caller, Refusal):
            return exchange.refuse(caller)
        request = messages_request.parse_to_count(exchange.body)
        if isinstance(request, Refusal):
            return exchange.refuse(request)
        route = self._gateway.catalog.route(request.model, clock.boot_ns())
        if isinstance(route, Refusal):
            return exchange.refuse(route)
        model = route.model
        refusal = pipeline.suit(request, route)
        if refusal is not None:
            return exchange.refuse(refusal)
        bound = need(request.shape, model.formula, model.context_window, model.output_max).input_max
        shape = request.shape
        likely = min(bound, shape.image_tokens - (-shape.text_bytes // model.bytes_per_token))
        return exchange.answer(200, _encode({"input_tokens": bound, "tokenworks": {"input_tokens_likely": likely}}))

    async def _models(self, exchange: Exchange, model_id: str) -> None:
        caller = await self._gateway.keys.authenticate(exchange.headers)
        if isinstance(caller, Refusal):
            return exchange.refuse(caller)
        if not model_id:
            listed = [self._shown(model) for model in self._gateway.catalog.models]
            ends = {"has_more": False, "first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {}
            return exchange.answer(200, _encode({"object": "list", "data": listed, **ends}))
        found = next((model for model in self._gateway.catalog.models if model.id == model_id), None)
        if found is None:
            return exchange.refuse(not_found(model_id))
        return exchange.answer(200, _encode(self._shown(found)))

    def _shown(self, model: Model) -> dict[str, Any]:
        """The same for clients of both APIs, whose names differ."""
        shown = {"id": model.id, "object": "model", "created": model.created_s, "owned_by": model.owned_by}
        created = datetime.fromtimestamp(model.created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        shown |= {"type": "model", "display_name": model.id, "created_at": created}
        keeps = {"keeps_responses": True} if kept.keeps(self._gateway, model.id) else {}
        return shown | {"tokenworks": {"apis": model.apis} | keeps}
