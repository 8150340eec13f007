"""Charging: what a request is charged, decided once, on every ending, in one function.

The endpoint's usage is the basis when it is plausible, else our count, held within the reservation. Prices are
`core.tariff`'s, the split over buckets is `core.purse`'s.
"""

import msgspec

from tokenworks.base import clock
from tokenworks.core.bounds import Need
from tokenworks.core.journal import Basis, Checkpoint, Closing, Ending
from tokenworks.core.purse import Charge, Part, charges_for
from tokenworks.core.tariff import mildest
from tokenworks.core.usage import NONE, Tokens, clip, plausible
from tokenworks.gateway.catalog import Route
from tokenworks.gateway.delivery import Delivery, Gateway, Outcome, Tally

CONTENT_FILTER = "content_filter"
"""The flag of an answer that content safety stopped."""

_CLOSING_BYTES = 384
_CHARGE_BYTES = 80
_BROKEN_OFF = frozenset({"endpoint_broken", "endpoint_timeout", "drained"})


class Measure(msgspec.Struct, frozen=True):
    """What is charged for, and why. `counted` is our own count whatever the basis."""

    basis: Basis
    tokens: Tokens
    counted: Tokens
    flags: tuple[str, ...]


def measure(ending: Ending, tally: Tally, counted: Tokens, covered: Need, *, is_dispatched: bool) -> Measure:
    """The basis of the charge.

    Nothing is charged before an endpoint was sent the request, for a refusal of the endpoint, or where an answer broke
    off before the customer got any of it. A customer who went away pays for the input and for what was generated.
    """
    if not is_dispatched or ending == "refused" or (ending in _BROKEN_OFF and tally.output == 0):
        return Measure("none", NONE, NONE, tally.flags)
    seen, flags, reported = counted, tally.flags, tally.reported
    if counted.input > covered.input_max or counted.output > covered.output_max:
        seen = clip(counted, covered.input_max, covered.output_max)
        flags += ("count_clipped",)
    doubt = plausible(reported, covered.input_max, covered.output_max, seen.written) if reported else "usage_missing"
    if reported is None or doubt:
        return Measure("counted", seen, seen, (*flags, doubt))
    return Measure("reported", reported.tokens, seen, tally.flags)


def charge(delivery: Delivery, gateway: Gateway, outcome: Outcome) -> tuple[Charge, ...]:
    """Take what the request costs, release the rest, and append its closing. Called exactly once for an opening."""
    tally, leases, holding, ending = delivery.tally, gateway.leases, delivery.holding, outcome.ending
    result = measure(ending, tally, counted(delivery), delivery.covered, is_dispatched=delivery.is_dispatched)
    # We pay for what was generated, whatever the customer is charged for.
    generated = result.tokens + Tokens(output=tally.surplus) if tally.surplus else result.tokens
    if tally.is_cut:
        result = _as_offered(result, delivery)
    tokens = delivery.charged = result.tokens
    charges = charges_for(delivery.reservation, tokens)
    leases.settle(holding, delivery.reservation, charges)
    if delivery.exchange.grant is not None:
        delivery.exchange.grant.settle(tokens, charges)
    if delivery.ticket is not None:
        gateway.queues.settle(delivery.ticket, delivery.request.model, tokens.total)
    if ending == "finished" and not tally.is_cut:
        leases.learn(holding, delivery.request.model, -(-tokens.written // delivery.request.shape.choices))
    now_ns, first_ns = clock.boot_ns(), tally.first_token_ns
    delivery.end_attempt(gateway, ending, now_ns, generated)
    gateway.records.close(
        Closing(
            delivery.position,
            clock.wall_ns(),
            ending,
            result.basis,
            tokens,
            result.counted,
            tally.reported.tokens if tally.reported else None,
            result.flags,
            charges,
            tuple(delivery.attempts),
            first_ns - delivery.opened_ns if first_ns else 0,
        )
    )
    leases.give_back(holding, now_ns)
    return charges


def charged_when_cut(delivery: Delivery) -> Tokens:
    """What is charged for an answer that was ended here, as far as it is known when its customer is told of its use."""
    seen = counted(delivery)
    return _as_offered(Measure("counted", seen, seen, ()), delivery).tokens


def _as_offered(result: Measure, delivery: Delivery) -> Measure:
    """The same where content safety stopped the answer: as the offers say that it was reserved from."""
    tally, covered = delivery.tally, delivery.covered
    if CONTENT_FILTER not in tally.flags or result.basis == "none":
        return result
    stopped = mildest(part.price for part in delivery.reservation.parts)
    if stopped == "nothing":
        return msgspec.structs.replace(result, basis="none", tokens=NONE)
    if stopped == "passed":
        return result
    tokens = clip(result.tokens + Tokens(output=tally.surplus), covered.input_max, covered.output_max)
    return msgspec.structs.replace(result, tokens=tokens)


def closing_bytes_max(parts: tuple[Part, ...], route: Route, attempts_max: int) -> int:
    """The most bytes that the closing of a request with this reservation takes."""
    size = _CLOSING_BYTES + attempts_max * route.attempt_bytes
    for part in parts:
        price = part.price
        size += _CHARGE_BYTES + 4 * (len(part.slice.bucket.id) + len(price.tariff) + len(price.unit))
    return size


def checkpoint(delivery: Delivery) -> Checkpoint:
    """How far a stream has come, rated, so that a successor can close the request without rating."""
    endpoint, sending = delivery.endpoint, delivery.sending
    tokens = clip(counted(delivery), delivery.covered.input_max, delivery.covered.output_max)
    attempts = tuple(delivery.attempts)
    if endpoint is not None and sending is not None:
        attempts += (delivery.attempt(endpoint, sending, "orphaned", clock.boot_ns(), tokens),)
    return Checkpoint(delivery.position, tokens, charges_for(delivery.reservation, tokens), attempts)


def counted(delivery: Delivery) -> Tokens:
    """Our own count: input by bytes, held to the bound; output as it was seen."""
    shape, input_max = delivery.request.shape, delivery.covered.input_max
    by_bytes = shape.image_tokens - (-shape.text_bytes // delivery.route.model.bytes_per_token)
    return Tokens(min(by_bytes, input_max), 0, 0, delivery.tally.output)
