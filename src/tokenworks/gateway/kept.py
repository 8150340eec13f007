"""Responses that endpoints keep: who makes them, and reaching them by the ids that customers have.

Nothing is kept in the gateway: an id says where what it names is. What is fetched costs nothing and is in no record; it
was paid for when it was made. It counts among its key's requests all the same, as an endpoint was asked. Where content
safety judges a model nothing of it is kept, so that no answer can be fetched that was not to be seen.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec

from tokenworks.base import clock
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Endpoint, Key
from tokenworks.dialects import answers, kept_answer, kept_request, reading, responses
from tokenworks.dialects.kept import PATH, Kept
from tokenworks.dialects.kept_ids import KeptIds, Place, Telling
from tokenworks.dialects.responses import Responses
from tokenworks.gateway.coding import plain
from tokenworks.gateway.delivery import Gateway
from tokenworks.gateway.exchange import Exchange
from tokenworks.gateway.limiting import count_in
from tokenworks.gateway.upstream import Sending, Unreachable, Upstream, UpstreamBroken, UpstreamSilent

# What can be done with a response, by what stands behind its id.
_METHODS = {"": (b"GET", b"DELETE"), "/input_items": (b"GET",), "/cancel": (b"POST",)}
_CUSTOMERS = frozenset({400, 409, 422})
_PLAIN_QUERY = frozenset({"limit", "order", "include", "include[]"})
_ITEM_QUERY = frozenset({"after", "before"})

_UNAVAILABLE = Refusal(
    Code.ENDPOINT_UNAVAILABLE, "The endpoint that keeps the response cannot be asked now.", retry_after_ms=1_000
)
_REFUSED = Refusal(Code.ENDPOINT_REFUSED, "The endpoint that keeps the response refused the gateway.")
_NOT_AN_ANSWER = Refusal(Code.ENDPOINT_BROKEN, "The endpoint that keeps the response gave no answer that can be read.")

_encode = msgspec.json.encode


class _Asked(msgspec.Struct, frozen=True):
    endpoint: Endpoint
    sending: Sending
    telling: Telling


async def create(exchange: Exchange, gateway: Gateway) -> Kept | Responses:
    """How a response is made: at an endpoint that keeps it, where that is needed and can be, else from nothing."""
    model = kept_request.wants(exchange.body)
    if model and keeps(gateway, model):
        caller = await gateway.keys.authenticate(exchange.headers)
        ids = None if isinstance(caller, Refusal) else _ids(caller, gateway)
        if ids is not None:
            return Kept(ids)
    return Responses(exchange.request_id)


async def reach(exchange: Exchange, gateway: Gateway) -> None:
    """Fetch, delete or cancel a response by its id: a request like any other in its key's limits, without tokens."""
    caller = await gateway.keys.authenticate(exchange.headers)
    if isinstance(caller, Refusal):
        return exchange.refuse(caller)
    ids = _ids(caller, gateway)
    asked = _asked(exchange, gateway, ids) if ids is not None else _not_found(_told_id(exchange))
    if isinstance(asked, Refusal):
        return exchange.refuse(asked, _allowed(asked, exchange))
    if (refusal := count_in(exchange, gateway, caller)) is not None:
        return exchange.refuse(refusal)
    answer = await gateway.upstreams.send(asked.endpoint, asked.sending)
    if isinstance(answer, Unreachable):
        return exchange.refuse(_UNAVAILABLE)
    body = await _read(answer, gateway.settings.answer_bytes_max)
    return _tell(exchange, answer.status, body, asked.telling)


def _asked(exchange: Exchange, gateway: Gateway, ids: KeptIds) -> _Asked | Refusal:
    """What the endpoint is asked, if this customer may."""
    told = _told_id(exchange)
    place, behind = ids.opened("response", told), _behind(exchange)
    if place is None or behind not in _METHODS:
        return _not_found(told)
    if exchange.method not in _METHODS[behind]:
        return Refusal(Code.METHOD_NOT_ALLOWED, f"Use {b' or '.join(_METHODS[behind]).decode()} for {exchange.path}.")
    endpoint = gateway.catalog.keeper(place.endpoint_id)
    if endpoint is None or not keeps(gateway, endpoint.model):
        return _gone(told)
    query = _query(exchange.query, ids, place)
    if isinstance(query, Refusal):
        return query
    path = f"{PATH}/{quote(place.own_id, safe='')}{behind}{query}"
    telling = Telling(ids, endpoint.id, endpoint.model)
    telling.knows("response", place.own_id)
    return _Asked(endpoint, Sending(b"", exchange.request_id, path=path, method=exchange.method.decode()), telling)


def _told_id(exchange: Exchange) -> str:
    """The id in the path, as the customer has it."""
    return unquote(exchange.path[len(responses.PATH) + 1 :].partition("/")[0])


def _behind(exchange: Exchange) -> str:
    """What stands behind the id."""
    _, slash, behind = exchange.path[len(responses.PATH) + 1 :].partition("/")
    return slash + behind


def _allowed(refusal: Refusal, exchange: Exchange) -> bytes:
    if refusal.code is not Code.METHOD_NOT_ALLOWED:
        return b""
    return b"allow: %b\r\n" % b", ".join(_METHODS[_behind(exchange)])


def keeps(gateway: Gateway, model: str) -> bool:
    """Whether an endpoint of the model keeps responses, and may."""
    if gateway.safety is not None and gateway.safety.judges(model):
        return False
    return not isinstance(gateway.catalog.route_other(model, "responses", clock.boot_ns()), Refusal)


def _ids(caller: Key, gateway: Gateway) -> KeptIds | None:
    """The ids of the customer who asks; None where nobody has any."""
    aliases = gateway.catalog.aliases()
    return None if aliases is None else KeptIds(aliases, caller.billing_account_id)


def _query(raw: bytes, ids: KeptIds, place: Place) -> str | Refusal:
    """What is asked about a list, with the endpoint's ids."""
    told: list[tuple[str, str]] = []
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        if name in _PLAIN_QUERY:
            told.append((name, value))
        elif name in _ITEM_QUERY:
            item = ids.opened("item", value)
            if item is None or item.endpoint_id != place.endpoint_id:
                return kept_request.not_found(value, name, "item")
            told.append((name, item.own_id))
        elif value != "false":
            text = f"The parameter {name} is not supported: a response is fetched whole, when it is there."
            return Refusal(Code.FIELD_NOT_SUPPORTED, text, name)
    return f"?{urlencode(told)}" if told else ""


async def _read(answer: Upstream, bytes_max: int) -> bytes | None:
    """A whole answer; None for one that breaks off or does not end."""
    body, coded = bytearray(), plain(answer)
    try:
        while data := await coded.chunk():
            body += data
            if len(body) > bytes_max:
                return None
    except (UpstreamBroken, UpstreamSilent):
        return None
    finally:
        answer.let_go()
    return bytes(body)


def _tell(exchange: Exchange, status: int, body: bytes | None, telling: Telling) -> None:
    """What the endpoint says, with the ids that the customer knows."""
    if status == 404:
        return exchange.refuse(_not_found(_told_id(exchange)))
    if status in _CUSTOMERS:
        found = reading.error(body or b"")
        text = telling.text(found.message) if found else f"The endpoint refused the request with status {status}."
        return exchange.answer(status, answers.error_body(text, answers.INVALID, None, Code.ENDPOINT_REFUSED.value))
    if not 200 <= status < 300:
        return exchange.refuse(_UNAVAILABLE if status == 429 or status >= 500 else _REFUSED)
    try:
        fields = kept_answer.fields_of(body or b"")
    except reading.UNREADABLE:
        return exchange.refuse(_NOT_AN_ANSWER)
    return exchange.answer(200, _encode(_renamed(fields, telling)))


def _renamed(fields: Mapping[str, Any], telling: Telling) -> dict[str, Any]:
    return telling.listed(fields) if fields.get("object") == "list" else telling.response(fields)


def _not_found(told: str) -> Refusal:
    return kept_request.not_found(told, "response_id")


def _gone(told: str) -> Refusal:
    """Whoever is told this has the right id."""
    text = f"The endpoint that keeps the response {told!r} does not serve any more, or must not keep it."
    return Refusal(Code.RESPONSE_NOT_FOUND, text, "response_id")
