"""The catalog in use: models, endpoints and tariffs, swapped whole when the office publishes a new one.

Readers take what they need at admission and keep it, so a swap never changes a request that is under way.
"""

import msgspec

from tokenworks.base import clock, log
from tokenworks.base.aliases import Aliases
from tokenworks.base.vault import Vault, VaultFault, is_sealed
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Catalog, Endpoint, Model, Served
from tokenworks.core.tariff import Tariff

_log = log.get(__name__)

_NONE_YET = Refusal(Code.STALE_SNAPSHOT, "The gateway has no catalog yet. Retry shortly.", retry_after_ms=1_000)
_STALE = Refusal(
    Code.STALE_SNAPSHOT, "The gateway has had no word from the office for too long. Retry later.", retry_after_ms=5_000
)


class Route(msgspec.Struct, frozen=True):
    """A model with the endpoints that serve it. `attempt_bytes` bounds what one attempt takes in a closing record."""

    model: Model
    endpoints: tuple[Endpoint, ...]
    attempt_bytes: int


class CatalogInUse:
    """The newest catalog a worker knows, and when it was last confirmed."""

    def __init__(self, stale_ms: int, vault: Vault | None = None) -> None:
        self._vault = vault
        self._has_unopened = False
        self._stale_ns = stale_ms * clock.MS
        self._routes: dict[str, Route] = {}
        self._others: dict[tuple[str, Served], Route] = {}
        self._confirmed_ns: int | None = None
        self._catalog: Catalog | None = None
        self.tariffs: dict[str, Tariff] = {}
        self.models: tuple[Model, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether there is a catalog."""
        return self._confirmed_ns is not None

    @property
    def endpoint_ids(self) -> set[str]:
        """All endpoints."""
        routes = (*self._routes.values(), *self._others.values())
        return {endpoint.id for route in routes for endpoint in route.endpoints}

    @property
    def concurrency_max(self) -> dict[str, int]:
        """The endpoints that may run only so many requests at once."""
        each = self._catalog.endpoints if self._catalog is not None else ()
        return {endpoint.id: endpoint.concurrency_max for endpoint in each if endpoint.concurrency_max}

    def take(self, catalog: Catalog) -> bool:
        """Use this catalog from now on; the same one again only confirms it. Whether it is another one."""
        self._confirmed_ns = clock.boot_ns()
        if catalog is self._catalog and not self._may_open_more():
            return False
        self._catalog = catalog
        catalog = self._opened(catalog)
        routes = {model.id: _route(model, catalog) for model in catalog.models.values()}
        self._routes = {name: route for name, route in routes.items() if "chat" in route.model.apis}
        self._others = {
            (name, api): _of_openai(route)
            for name, route in routes.items()
            for api in route.model.apis
            if api != "chat"
        }
        for name, route in self._routes.items():
            keeping = _keeping(route)
            if keeping.endpoints:
                self._others[name, "responses"] = keeping
        self.tariffs = catalog.tariffs
        self.models = tuple(catalog.models.values())
        return True

    def _may_open_more(self) -> bool:
        return self._has_unopened and self._vault is not None and self._vault.has_changed()

    def _opened(self, catalog: Catalog) -> Catalog:
        """The catalog with the endpoints' own keys. One whose key does not open cannot be used, and is left out."""
        self._has_unopened = False
        endpoints: list[Endpoint] = []
        for endpoint in catalog.endpoints:
            if self._vault is None or not is_sealed(endpoint.api_key):
                endpoints.append(endpoint)
                continue
            try:
                api_key = self._vault.open(endpoint.api_key, endpoint.id)
            except VaultFault as fault:
                self._has_unopened = True
                _log.error("an endpoint cannot be used: %s", fault, extra={"endpoint": endpoint.id})
            else:
                endpoints.append(msgspec.structs.replace(endpoint, api_key=api_key))
        return msgspec.structs.replace(catalog, endpoints=tuple(endpoints))

    def route(self, model: str, now_ns: int) -> Route | Refusal:
        """How to serve a model."""
        if self._confirmed_ns is None:
            return _NONE_YET
        if now_ns - self._confirmed_ns > self._stale_ns:
            return _STALE
        return self._routes.get(model) or self._none(model, "chat")

    def route_other(self, model: str, api: Served, now_ns: int, endpoint_id: str = "") -> Route | Refusal:
        """How to serve what is no chat completion, by one endpoint if it is named."""
        known = self.route(model, now_ns)
        if isinstance(known, Refusal) and known.code is Code.STALE_SNAPSHOT:
            return known
        route = self._others.get((model, api))
        if route is None:
            return self._none(model, api)
        if not endpoint_id:
            return route
        named = tuple(endpoint for endpoint in route.endpoints if endpoint.id == endpoint_id)
        return msgspec.structs.replace(route, endpoints=named) if named else _left(model)

    def keeper(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint that keeps a response, if it still serves."""
        keeping = (route.endpoints for (_, api), route in self._others.items() if api == "responses")
        return next((each for endpoints in keeping for each in endpoints if each.id == endpoint_id), None)

    def aliases(self) -> Aliases | None:
        """By which customers know what endpoints keep; None where there is no master key, so nothing can be kept."""
        try:
            return None if self._vault is None else Aliases(self._vault, "responses")
        except VaultFault as fault:
            _log.error("responses cannot be kept: %s", fault)
            return None

    def first(self, api: Served) -> str:
        """The first model that is offered on an API; empty where none is."""
        return min((model for model, offered in self._others if offered == api), default="")

    def _none(self, model: str, api: Served) -> Refusal:
        """Why there is no route."""
        apis = next((known.apis for known in self.models if known.id == model), None)
        if apis is None:
            return not_found(model)
        text = f"The model {model!r} is not offered for {api}, but for {' and '.join(apis)}. GET /v1/models lists them."
        return Refusal(Code.MODEL_NOT_SUPPORTED, text, "model")


def _of_openai(route: Route) -> Route:
    """Without endpoints that speak another API than OpenAI's."""
    spoken = tuple(endpoint for endpoint in route.endpoints if endpoint.dialect != "anthropic")
    return route if len(spoken) == len(route.endpoints) else msgspec.structs.replace(route, endpoints=spoken)


def _keeping(route: Route) -> Route:
    """The endpoints that keep responses. What they keep can be fetched, so it is written to its end whoever leaves,
    and paid for in full beforehand, like what no stream shows.
    """
    endpoints = tuple(
        msgspec.structs.replace(endpoint, disconnect="drain")
        for endpoint in route.endpoints
        if endpoint.dialect == "responses"
    )
    return Route(msgspec.structs.replace(route.model, hidden_reasoning=True), endpoints, route.attempt_bytes)


def _left(model: str) -> Refusal:
    text = f"What the request goes on from is kept by an endpoint that does not serve the model {model!r}, or is gone."
    return Refusal(Code.RESPONSE_NOT_FOUND, f"{text} Send the whole conversation as input.", "previous_response_id")


def not_found(model: str) -> Refusal:
    """There is no such model."""
    text = f"The model {model!r} does not exist here. GET /v1/models lists them."
    return Refusal(Code.MODEL_NOT_FOUND, text, "model")


def _route(model: Model, catalog: Catalog) -> Route:
    endpoints = tuple(endpoint for endpoint in catalog.endpoints if endpoint.model == model.id)
    texts = [
        len(f"{endpoint.id}{endpoint.supplier_id}{endpoint.tariff}{endpoint.currency}".encode())
        for endpoint in endpoints
    ]
    # Ten numbers of at most nine bytes (a cost may have more: it is text then), the outcome, and the heads of all.
    return Route(model, endpoints, 160 + max(texts, default=0))
