"""Grants: what one request was counted as in the limits of its key, corrected at its end to what it used.

A request counts once it is opened, with the tokens it reserves until it is over and with those it is charged for
from then on. One that is refused before, for whatever reason, leaves nothing behind. Who is let in is `limits`'.
"""

from collections.abc import Callable, Iterable

import msgspec

from tokenworks.base import clock
from tokenworks.core import amounts
from tokenworks.core.amounts import MILLION
from tokenworks.core.bounds import Need
from tokenworks.core.limits import Gauge, Limit, Seats
from tokenworks.core.purse import Charge, Reservation
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.usage import Tokens

Touch = Callable[[str, int], None]

# When another request may have ended.
_SEAT_WAIT_MS = 1_000


class Gauges(msgspec.Struct, eq=False):
    """The gauges that apply to one key, by what they count. `used_ns`: when the key was used last."""

    requests: tuple[Gauge, ...]
    tokens: tuple[Gauge, ...]
    spend: tuple[Gauge, ...]
    seats: tuple[Seats, ...]
    used_ns: int = 0


def gauges_of(windowed: Iterable[Gauge], seats: Iterable[Seats]) -> Gauges:
    """The gauges of a key in their groups."""
    by_metric: dict[str, list[Gauge]] = {"requests": [], "tokens": [], "spend": []}
    for gauge in windowed:
        by_metric[gauge.limit.metric].append(gauge)
    return Gauges(tuple(by_metric["requests"]), tuple(by_metric["tokens"]), tuple(by_metric["spend"]), tuple(seats))


class Grant:
    """One request within its limits. `bound` is what they leave of what it asked for, `weight` its customer's."""

    __slots__ = ("_gauges", "_is_counted", "_is_over", "_now_ns", "_taken", "_touch", "bound", "weight")

    def __init__(self, gauges: Gauges, bound: Need, weight: int, now_ns: int, touch: Touch) -> None:
        self.bound = bound
        self.weight = weight
        self._gauges = gauges
        self._now_ns = now_ns
        self._touch = touch
        self._taken: list[tuple[Gauge, int, int]] = []
        self._is_counted = self._is_over = False
        for gauge in gauges.requests:
            self._take(gauge, 1)
        for gauge in gauges.tokens:
            self._take(gauge, bound.input_max + bound.output_max)
        for seats in gauges.seats:
            seats.own += 1
            touch(seats.limit.id, 0)

    @property
    def spends(self) -> bool:
        """Whether there is a limit on what may be spent: such a request reserves in full and does not grow."""
        return bool(self._gauges.spend)

    def spend(self, reservation: Reservation) -> Gauge | None:
        """Count what is reserved as spent; where that is too much nothing is, and the gauge says so."""
        # Balance may have been waited for.
        self._now_ns = clock.wall_ns()
        for gauge in self._gauges.spend:
            if reserved_in(reservation, gauge.limit.unit) > gauge.left(self._now_ns):
                return gauge
        for gauge in self._gauges.spend:
            self._take(gauge, reserved_in(reservation, gauge.limit.unit))
        return None

    def affordable(self, reservation: Reservation) -> Need:
        """How much of what is reserved may be spent, at the dearest of its prices."""
        covered = reservation.covered
        output = covered.output_max
        for gauge in self._gauges.spend:
            parts = [part for part in reservation.parts if part.price.unit == gauge.limit.unit]
            read = max((part.price.read_max for part in parts), default=0)
            written = max((part.price.written_max for part in parts), default=0)
            if written:
                # Each part is rounded up by itself.
                room = (gauge.left(self._now_ns) - len(parts)) * MILLION - covered.input_max * read
                output = min(output, room // written)
        return Need(covered.input_max, max(output, 0))

    def settle(self, tokens: Tokens, charges: tuple[Charge, ...]) -> None:
        """The request is over and this is what it is charged for."""
        self._is_counted = True
        for gauge, cell_ns, taken in self._taken:
            limit = gauge.limit
            if limit.metric == "tokens":
                self._correct(gauge, cell_ns, tokens.total - taken)
            elif limit.metric == "spend":
                charged = sum(charge.amount for charge in charges if charge.unit == limit.unit)
                self._correct(gauge, cell_ns, charged - taken)

    def end(self) -> None:
        """Nothing runs any more. What was never charged for was never there."""
        if self._is_over:
            return
        self._is_over = True
        for seats in self._gauges.seats:
            seats.own -= 1
            self._touch(seats.limit.id, 0)
        if not self._is_counted:
            for gauge, cell_ns, taken in self._taken:
                self._correct(gauge, cell_ns, -taken)

    def _take(self, gauge: Gauge, amount: int) -> None:
        cell_ns = gauge.take(amount, self._now_ns)
        self._taken.append((gauge, cell_ns, amount))
        self._touch(gauge.limit.id, cell_ns)

    def _correct(self, gauge: Gauge, cell_ns: int, by: int) -> None:
        if by and gauge.correct(cell_ns, by):
            self._touch(gauge.limit.id, cell_ns)


def reserved_in(reservation: Reservation, unit: str) -> int:
    """What a reservation takes of a unit."""
    return sum(part.amount for part in reservation.parts if part.price.unit == unit)


def refusal_of(limit: Limit, wanted: int, wait_ns: int | None) -> Refusal:
    """Why a limit does not let a request in, and when to come again; a wait of None is for ever."""
    if limit.metric == "concurrency":
        text = f"{limit.amount} requests run already, which is the limit. Try again when one has ended."
        return Refusal(Code.CONCURRENCY_LIMITED, text, retry_after_ms=_SEAT_WAIT_MS)
    if limit.metric == "spend":
        amount = f"{amounts.exact(limit.amount, limit.unit)} {limit.unit}"
        text = f"The spend limit of {amount} per {limit.window} does not leave enough for this request."
        return Refusal(Code.SPEND_LIMITED, text, retry_after_ms=_milliseconds(wait_ns))
    told = f"limit {limit.amount}, requested {wanted}"
    if wait_ns is None:
        text = f"The request is larger than its limit of {limit.metric} per {limit.window}: {told}. Ask for less."
        return Refusal(Code.RATE_LIMITED, text, kind=limit.metric)
    text = f"Rate limit reached on {limit.metric} per {limit.window}: {told}."
    return Refusal(Code.RATE_LIMITED, text, retry_after_ms=_milliseconds(wait_ns), kind=limit.metric)


def _milliseconds(wait_ns: int | None) -> int:
    return max(1, -(-wait_ns // clock.MS)) if wait_ns is not None else 0
