"""The life of a request, as one flat function: authenticate, parse, admit, reserve, open, dispatch, relay, charge.

Each step moves on or refuses. After the opening there is no way out that does not pass through `charge`.
"""

from collections.abc import Callable

import msgspec

from tokenworks.base import clock
from tokenworks.base.journal import PAYLOAD_BYTES_MAX, JournalFull
from tokenworks.core.bounds import Need, need
from tokenworks.core.journal import Opening, Reserved
from tokenworks.core.purse import Charge, Part
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Key
from tokenworks.dialects import chat, images, thinking
from tokenworks.dialects.receipt import charged_fields, with_charges
from tokenworks.gateway.catalog import Route
from tokenworks.gateway.charge import charge, closing_bytes_max, counted
from tokenworks.gateway.delivery import Delivery, Gateway, Outcome, Tally
from tokenworks.gateway.dispatch import dispatch
from tokenworks.gateway.exchange import ClientGone, Drained, Exchange, TooLong
from tokenworks.gateway.limiting import reserve
from tokenworks.gateway.relay import relay
from tokenworks.gateway.safety import Asker, Safety
from tokenworks.gateway.screen import Screen
from tokenworks.gateway.upstream import Upstream

DRAINING = Refusal(Code.DRAINING, "This gateway worker is stopping. Retry now.", retry_after_ms=1_000)
TOO_LONG = Refusal(Code.ENDPOINT_TIMEOUT, "The request took longer than any request may.")
JOURNAL_FULL = Refusal(Code.JOURNAL_FULL, "The gateway cannot record requests right now.", retry_after_ms=5_000)
_LOST = Outcome("endpoint_broken")


Parse = Callable[[bytes], chat.ChatRequest | Refusal]


async def serve(exchange: Exchange, gateway: Gateway, parse: Parse = chat.parse) -> None:
    """Serve one chat completion, or what a dialect makes one of; or what is asked for in its place."""
    now_ns = clock.boot_ns()
    caller = gateway.keys.known(exchange.headers, now_ns) or await gateway.keys.asked(exchange.headers)
    if isinstance(caller, Refusal):
        return exchange.refuse(caller)
    request = parse(exchange.body)
    if isinstance(request, Refusal):
        return exchange.refuse(request)
    screen = None if gateway.safety is None else await screened(exchange, gateway.safety, caller, request)
    route = admit(request, gateway, now_ns) if screen is None or screen.refusal is None else screen.refusal
    if isinstance(route, Refusal):
        return exchange.refuse(route)
    model, shape = route.model, request.shape
    if request.other is None:
        bound = need(shape, model.formula, model.context_window, model.output_max)
    else:
        bound = request.other.need(shape, model)
    leases, tariffs = gateway.leases, gateway.catalog.tariffs
    holding = leases.holding(caller.billing_account_id)
    is_visible = request.stream and not model.hidden_reasoning
    reservation = None
    if caller.limits is None:
        reservation = leases.at_once(holding, bound, request.model, tariffs, clock.boot_ns(), clock.wall_ns())
    if reservation is None:
        reservation, bound, is_visible = await reserve(
            exchange, gateway, caller, holding, request, bound, tariffs, is_visible=is_visible
        )
    if isinstance(reservation, Refusal):
        return exchange.refuse(reservation)
    reserved = reservation.covered
    position = open_request(exchange, gateway, caller, request, route, reservation.parts, reserved)
    if isinstance(position, Refusal):
        leases.settle(holding, reservation, ())
        leases.give_back(holding, clock.boot_ns())
        return exchange.refuse(position)
    may_grow = is_visible and reservation.short.output_max > 0
    covered, limit = (reserved, bound.output_max // shape.choices) if may_grow else clip(reserved, shape.choices)
    delivery = Delivery(
        exchange,
        request,
        route,
        holding,
        reservation,
        covered,
        limit,
        clock.boot_ns(),
        position,
        Tally(),
        tariffs,
        may_grow,
    )
    delivery.screen = screen
    outcome = _LOST
    try:
        if exchange.dialect is not None:
            exchange.dialect.begin(request, counted(delivery))
        outcome = await deliver(delivery, gateway)
    finally:
        # Also where a fault nobody expected goes on from here: it costs this request its answer, not its closing.
        charges = charge(delivery, gateway, outcome)
    try:
        await gateway.records.durable()
    except (Drained, TooLong):
        # It is charged, and who pays for an answer gets it; but not before its closing is written.
        await gateway.records.durable()
    finish(delivery, outcome, charges)
    return None


async def screened(exchange: Exchange, safety: Safety, caller: Key, request: chat.ChatRequest) -> Screen | None:
    """The screen for the answer, with the refusal of the request if it is not to be served. None: nobody judges."""
    if not safety.judges(request.model):
        return None
    asker = Asker(exchange.request_id, request.model, caller)
    return Screen(safety, asker, await safety.request(asker, request))


def admit(request: chat.ChatRequest, gateway: Gateway, now_ns: int) -> Route | Refusal:
    """How the model is served, if it is."""
    other = request.other
    if other is None:
        route = gateway.catalog.route(request.model, now_ns)
    else:
        route = gateway.catalog.route_other(request.model, other.api, now_ns, other.endpoint_id)
    if (request.images or request.thinking or request.own) and isinstance(route, Route):
        refusal = suit(request, route)
        if refusal is not None:
            return refusal
    if isinstance(route, Route) and not route.endpoints:
        return Refusal(
            Code.ENDPOINT_UNAVAILABLE, f"No endpoint serves the model {request.model!r} now.", retry_after_ms=5_000
        )
    return route


def suit(request: chat.ChatRequest, route: Route) -> Refusal | None:
    """Bound the images of a request, and its own words where they are sent, and ask for thinking, now that its model
    is known.
    """
    model = route.model
    speaks_anthropic = any(endpoint.dialect == "anthropic" for endpoint in route.endpoints)
    pictures = request.images
    if speaks_anthropic:
        # Nothing is told there of the detail that was asked for.
        pictures = tuple(msgspec.structs.replace(picture, is_low=False) for picture in pictures)
    tokens = images.tokens(pictures, model) if pictures else 0
    if isinstance(tokens, Refusal):
        return tokens
    text_bytes = request.shape.text_bytes
    if request.thinking is not None:
        fields = thinking.fields(request.thinking, model)
        if isinstance(fields, Refusal):
            return fields
        request.fields |= fields
        text_bytes += thinking.earlier_bytes(request.thinking, model)
    if request.own and speaks_anthropic:
        text_bytes = max(text_bytes, request.own_bytes)
    request.shape = msgspec.structs.replace(request.shape, text_bytes=text_bytes, image_tokens=tokens)
    return None


def clip(covered: Need, choices: int) -> tuple[Need, int]:
    """The output that can be paid for, the same for each choice."""
    if choices == 1:
        return covered, covered.output_max
    limit = covered.output_max // choices
    return Need(covered.input_max, limit * choices), limit


def open_request(
    exchange: Exchange,
    gateway: Gateway,
    caller: Key,
    request: chat.ChatRequest,
    route: Route,
    parts: tuple[Part, ...],
    reserved: Need,
) -> int | Refusal:
    """Append the opening; its position in the journal names the request from now on."""
    close_bytes_max = closing_bytes_max(parts, route, gateway.settings.attempts_max)
    if close_bytes_max > PAYLOAD_BYTES_MAX:
        return JOURNAL_FULL
    named: list[Reserved] = []
    for part in parts:
        held = part.slice
        named.append(Reserved(held.lease_id, held.bucket.id, part.price.unit, part.amount))
    opening = Opening(
        exchange.request_id,
        clock.wall_ns(),
        caller.legal_entity_id,
        caller.billing_account_id,
        caller.key_id,
        request.model,
        request.stream,
        reserved.input_max,
        reserved.output_max,
        tuple(named),
    )
    position = gateway.records.open(opening, close_bytes_max)
    return JOURNAL_FULL if isinstance(position, JournalFull) else position


async def deliver(delivery: Delivery, gateway: Gateway) -> Outcome:
    """Get the answer to the customer, all but its last bytes; every way in which that can end is an outcome."""
    try:
        await gateway.records.written()
        answer = await dispatch(delivery, gateway)
        outcome = await relay(delivery, gateway, answer) if isinstance(answer, Upstream) else answer
    except ClientGone:
        if delivery.is_dispatched and not delivery.request.stream:
            # What was generated cannot be known; only the input is charged, and the record says so.
            delivery.tally.flags += ("output_unseen",)
        return Outcome("client_gone")
    except Drained:
        return Outcome("drained", DRAINING)
    except TooLong:
        return Outcome("endpoint_timeout", TOO_LONG)
    if delivery.exchange.gone and outcome.ending == "finished":
        return Outcome("client_gone")
    return outcome


def finish(delivery: Delivery, outcome: Outcome, charges: tuple[Charge, ...]) -> None:
    """The last bytes to the customer, after the closing was written."""
    exchange, body = delivery.exchange, outcome.body
    if outcome.refusal is not None:
        return exchange.refuse(outcome.refusal)
    if exchange.streaming and delivery.request.wants_usage:
        body = with_charges(body, charges)
    if exchange.dialect is not None and not exchange.gone:
        body = exchange.dialect.last(outcome.status, body, delivery.charged)
    if exchange.streaming:
        exchange.end_stream(body)
    elif outcome.ending == "refused":
        exchange.answer(outcome.status, body)
    else:
        exchange.answer(200, body, delivery.fields() + charged_fields(charges))
    return None
