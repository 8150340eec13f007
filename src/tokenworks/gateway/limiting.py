"""Reserving where that may take a while. For a key with limits: counted in first, then no more than they leave.

What a request may spend is known when it is reserved, so that limit is looked at then. Where it does not leave enough,
less output is reserved, as with a balance that is low; such a request reserves in full and does not grow.
"""

from tokenworks.base import clock
from tokenworks.core.bounds import NOTHING, Need
from tokenworks.core.limits import Gauge, Limits
from tokenworks.core.purse import Reservation
from tokenworks.core.refusals import Refusal
from tokenworks.core.snapshot import Key
from tokenworks.core.tariff import Tariff
from tokenworks.core.usage import NONE
from tokenworks.dialects import messages
from tokenworks.dialects.chat import ChatRequest
from tokenworks.gateway.delivery import Gateway
from tokenworks.gateway.exchange import Exchange
from tokenworks.gateway.grant import Grant, refusal_of, reserved_in
from tokenworks.gateway.holding import Holding


async def reserve(
    exchange: Exchange,
    gateway: Gateway,
    caller: Key,
    holding: Holding,
    request: ChatRequest,
    bound: Need,
    tariffs: dict[str, Tariff],
    *,
    is_visible: bool,
) -> tuple[Reservation | Refusal, Need, bool]:
    """The reservation, how much of the bound it is for, and whether it may grow.

    A key's request is counted in from here on, until it is over, where the key has limits: `exchange.grant`. Refusals:
    those of reserving, `rate_limit_exceeded`, `concurrency_limit_exceeded`, `spend_limit_exceeded`.
    """
    choices, limits, leases = request.shape.choices, caller.limits, gateway.leases
    if limits is None:
        reservation = await leases.reserve(holding, bound, choices, request.model, tariffs, is_visible=is_visible)
        return reservation, bound, is_visible
    grant = _admit(exchange, gateway, caller, limits, bound, choices)
    if isinstance(grant, Refusal):
        return grant, bound, False
    if not grant.spends:
        reservation = await leases.reserve(holding, grant.bound, choices, request.model, tariffs, is_visible=is_visible)
        return reservation, grant.bound, is_visible
    return *await _spend(gateway, grant, holding, request, tariffs), False


def count_in(exchange: Exchange, gateway: Gateway, caller: Key) -> Refusal | None:
    """Count in a request that costs no tokens, where its key has limits; why it is not let in."""
    if caller.limits is None:
        return None
    grant = _admit(exchange, gateway, caller, caller.limits, NOTHING, 1)
    if isinstance(grant, Refusal):
        return grant
    grant.settle(NONE, ())
    return None


def _admit(
    exchange: Exchange, gateway: Gateway, caller: Key, limits: Limits, bound: Need, choices: int
) -> Grant | Refusal:
    grant = gateway.limits.admit(caller, limits, bound, choices)
    if isinstance(grant, Grant):
        exchange.grant = grant
    # To be told with every answer, as the limits stand with this request.
    exchange.limit_fields = gateway.limits.fields(caller, limits, anthropic=exchange.path.startswith(messages.PATH))
    return grant


async def _spend(
    gateway: Gateway, grant: Grant, holding: Holding, request: ChatRequest, tariffs: dict[str, Tariff]
) -> tuple[Reservation | Refusal, Need]:
    """The reservation within what may be spent, and how much of the bound it is for."""
    leases, bound, choices = gateway.leases, grant.bound, request.shape.choices
    reservation = await leases.reserve(holding, bound, choices, request.model, tariffs)
    if isinstance(reservation, Refusal) or (gauge := grant.spend(reservation)) is None:
        return reservation, bound
    refusal, affordable = _refusal(gauge, reservation), grant.affordable(reservation)
    _release(gateway, holding, reservation)
    if affordable.output_max < min(choices, bound.output_max):
        return refusal, bound
    reservation = await leases.reserve(holding, affordable, choices, request.model, tariffs)
    if isinstance(reservation, Reservation) and grant.spend(reservation) is not None:
        # It is of other buckets now, at other prices, or others have spent meanwhile.
        _release(gateway, holding, reservation)
        return refusal, bound
    return reservation, affordable


def _release(gateway: Gateway, holding: Holding, reservation: Reservation) -> None:
    gateway.leases.settle(holding, reservation, ())
    gateway.leases.give_back(holding, clock.boot_ns())


def _refusal(gauge: Gauge, reservation: Reservation) -> Refusal:
    wanted = min(reserved_in(reservation, gauge.limit.unit), gauge.limit.amount)
    return refusal_of(gauge.limit, wanted, gauge.wait_ns(wanted, clock.wall_ns()))
