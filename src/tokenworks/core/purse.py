"""A worker's purse: the slices of balance it holds for one billing account, and reservations against them.

The purse is the only writer of its slices. A reservation takes the most a request can cost from slices in draw order; a
charge takes the actual cost from what was reserved and releases the rest. It never asks for leases itself; it says
what is short. Invariant of every slice: free + reserved + charged + returned = leased, none below zero.
"""

from collections.abc import Iterator

import msgspec

from tokenworks.core.amounts import MILLION, Rounding
from tokenworks.core.bounds import Need
from tokenworks.core.bucket import Bucket
from tokenworks.core.tariff import Rate, Tariff, affordable, bound, cost
from tokenworks.core.usage import Tokens


class Slice(msgspec.Struct):
    """Balance of one bucket leased to this worker. `use_until_ns` is on the worker's own monotonic clock."""

    lease_id: int
    bucket: Bucket
    leased: int
    free: int
    use_until_ns: int
    linger: bool
    reserved: int = 0
    uses: int = 0  # running reservations; one at a price of zero reserves nothing and yet names the lease

    def usable(self, model: str, now_ns: int, mono_ns: int) -> bool:
        """Whether a new reservation may still be made from it."""
        return self.free > 0 and mono_ns < self.use_until_ns and self.bucket.matches(model, now_ns)


class Part(msgspec.Struct, frozen=True):
    """What one slice contributes to a reservation, and the rate fixed for it at admission."""

    slice: Slice
    amount: int
    tariff: str
    unit: str
    rate: Rate
    rounding: Rounding


class Reservation(msgspec.Struct, frozen=True):
    """Parts in draw order. `short` is what could not be covered: nothing, or output beyond what can be paid."""

    parts: tuple[Part, ...]
    need: Need
    short: Need

    @property
    def covered(self) -> Need:
        """The tokens that can be paid for."""
        return Need(self.need.input_max - self.short.input_max, self.need.output_max - self.short.output_max)


class Charge(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line of a record: these tokens at this tariff version cost this amount of this bucket through this lease."""

    lease_id: int
    bucket_id: str
    tariff: str
    unit: str
    tokens: Tokens
    amount: int


class Purse:
    """The slices of one billing account, in draw order."""

    def __init__(self) -> None:
        self.slices: list[Slice] = []

    def add(self, leased: Slice) -> None:
        """Take in a new slice, keeping the draw order; within a bucket the older slice is used first."""
        self.slices.append(leased)
        self.slices.sort(key=lambda held: (held.bucket.draw_key(), held.lease_id))

    def reserve(self, need: Need, model: str, tariffs: dict[str, Tariff], now_ns: int, mono_ns: int) -> Reservation:
        """Reserve the most that `need` can cost, as far as the slices reach. Read the answer's `short`.

        The caller either goes on with what is covered or gives it back with `release`.
        """
        parts: list[Part] = []
        short = need
        for held in self.slices:
            if short.input_max == 0 and short.output_max == 0:
                break
            if not held.usable(model, now_ns, mono_ns):
                continue
            tariff = tariffs.get(held.bucket.tariff_id)
            rate = tariff.rate(model, held.bucket.tier) if tariff else None
            if tariff is None or rate is None:
                continue
            amount, short = cover(short, held.free, rate)
            held.free -= amount
            held.reserved += amount
            held.uses += 1
            parts.append(Part(held, amount, tariff.name, tariff.unit, rate, tariff.rounding))
        return Reservation(tuple(parts), need, short)

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back whole, nothing charged."""
        for part in reservation.parts:
            part.slice.reserved -= part.amount
            part.slice.free += part.amount
            part.slice.uses -= 1

    def settle(self, reservation: Reservation, charges: tuple[Charge, ...]) -> None:
        """Take the charges out of the reservation and release the rest. Called exactly once for a reservation."""
        charged = {charge.lease_id: charge.amount for charge in charges}
        for part in reservation.parts:
            taken = charged.get(part.slice.lease_id, 0)
            if taken > part.amount:
                raise AssertionError(f"lease {part.slice.lease_id}: charge {taken} above reservation {part.amount}")
            part.slice.reserved -= part.amount
            part.slice.free += part.amount - taken
            part.slice.uses -= 1

    def returnable(self, mono_ns: int) -> Iterator[Slice]:
        """Slices to close now: no reservation on them and either past their time, used up, or not to be kept idle."""
        for held in self.slices:
            if held.uses == 0 and (mono_ns >= held.use_until_ns or held.free == 0 or not held.linger):
                yield held

    def remove(self, closed: Slice) -> None:
        """Forget a slice whose closing has been journaled."""
        self.slices.remove(closed)


def cover(need: Need, amount: int, rate: Rate) -> tuple[int, Need]:
    """How much of `amount` the need takes at its dearest, and the need left over: input is covered before output."""
    whole = bound(need.input_max, need.output_max, rate)
    if whole <= amount:
        return whole, Need(0, 0)
    left = amount * MILLION
    read = need.input_max if need.input_max * rate.dearest_read <= left else left // rate.dearest_read
    left -= read * rate.dearest_read
    written = 0
    if read == need.input_max:
        price = rate.dearest_written
        written = need.output_max if need.output_max * price <= left else left // price
    return amount, Need(need.input_max - read, need.output_max - written)


def charges_for(reservation: Reservation, tokens: Tokens) -> tuple[Charge, ...]:
    """Split the use over the reservation's parts in draw order and rate each piece once.

    `tokens` must be within the reservation's covered need; then everything is charged, and no part is charged more
    than it reserved.
    """
    charges: list[Charge] = []
    left = tokens
    for part in reservation.parts:
        if left.total == 0:
            break
        amount = cost(left, part.rate, part.rounding)
        piece = left
        if amount > part.amount:
            piece = affordable(left, part.amount, part.rate)
            amount = min(cost(piece, part.rate, part.rounding), part.amount)
        if piece.total:
            charges.append(Charge(part.slice.lease_id, part.slice.bucket.id, part.tariff, part.unit, piece, amount))
            if piece is left:
                break
            left = left - piece
    return tuple(charges)
