"""A worker's purse: the slices of balance it holds for one billing account, and reservations against them.

The purse is the only writer of its slices. A reservation takes the most a request can cost from slices in draw order; a
charge takes the actual cost from what was reserved and releases the rest. It never asks for leases itself; it says
what is short. Invariant of every slice: free + reserved + charged + returned = leased, none below zero.
"""

import sys

import msgspec

from tokenworks.core.amounts import MILLION
from tokenworks.core.bounds import NOTHING, Need
from tokenworks.core.bucket import Bucket
from tokenworks.core.tariff import Price, Tariff, affordable, bound, cost
from tokenworks.core.usage import NONE, Count, Tokens


class Slice(msgspec.Struct):
    """Balance of one bucket leased to this worker. `use_until_ns` is on the worker's own monotonic clock, and so is
    `renew_ns`, from when on the next slice is asked for.

    `prices` remembers what `tariffs` ask for each model; other tariffs are another catalog.
    """

    lease_id: int
    bucket: Bucket
    leased: int
    free: int
    use_until_ns: int
    linger: bool
    reserved: int = 0
    uses: int = 0  # parts of running reservations; one at a price of zero reserves nothing and yet names the lease
    used_ns: int = 0  # when it was last reserved from
    renew_ns: int = sys.maxsize
    tariffs: dict[str, Tariff] = {}
    prices: dict[str, Price | None] = {}

    @property
    def is_unused(self) -> bool:
        """Whether nothing is reserved from it, not even by an extension whose stream has ended meanwhile."""
        return self.uses == 0 and self.reserved == 0

    def usable(self, model: str, now_ns: int, mono_ns: int) -> bool:
        """Whether a new reservation may still be made from it."""
        return self.free > 0 and mono_ns < self.use_until_ns and self.bucket.matches(model, now_ns)

    def price(self, model: str, tariffs: dict[str, Tariff]) -> Price | None:
        """What the bucket pays for the model; None where its tariff has no rate for it."""
        if self.tariffs is not tariffs:
            self.tariffs, self.prices = tariffs, {}
        if model not in self.prices:
            tariff = tariffs.get(self.bucket.tariff_id)
            self.prices[model] = tariff.price(model, self.bucket.tier) if tariff else None
        return self.prices[model]


class Part(msgspec.Struct, frozen=True):
    """What one slice contributes to a reservation, and the price fixed for it at admission."""

    slice: Slice
    amount: int
    price: Price


class Reservation(msgspec.Struct, frozen=True):
    """Parts in draw order. `short` is what could not be covered: nothing, or output beyond what can be paid."""

    parts: tuple[Part, ...]
    need: Need
    short: Need

    @property
    def covered(self) -> Need:
        """The tokens that can be paid for."""
        if self.short is NOTHING:
            return self.need
        return Need(self.need.input_max - self.short.input_max, self.need.output_max - self.short.output_max)


class Charge(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line of a record: these tokens at this tariff version cost this amount of this bucket through this lease."""

    lease_id: int
    bucket_id: str
    tariff: str
    unit: str
    tokens: Tokens
    amount: Count


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
        short = self._draw(parts, need, model, tariffs, now_ns, mono_ns)
        return Reservation(tuple(parts), need, short)

    def extend(
        self,
        reservation: Reservation,
        more: Need,
        model: str,
        tariffs: dict[str, Tariff],
        now_ns: int,
        mono_ns: int,
    ) -> Reservation:
        """The reservation with `more` of what it is short of, as far as the slices reach.

        Its parts stay as they are and new ones follow: charging goes through them in this order, so that what was
        covered before is covered still, whatever the rates. `tariffs` are those of its admission.
        """
        parts = list(reservation.parts)
        lacking = self._draw(parts, more, model, tariffs, now_ns, mono_ns)
        short = reservation.short
        got = Need(more.input_max - lacking.input_max, more.output_max - lacking.output_max)
        short = Need(short.input_max - got.input_max, short.output_max - got.output_max)
        return Reservation(_joined(parts, len(reservation.parts)), reservation.need, short)

    def shrink(self, grown: Reservation, reservation: Reservation) -> None:
        """Take an extension back: release what `grown` has more than `reservation`, which it was made of."""
        for place, part in enumerate(grown.parts):
            before = reservation.parts[place].amount if place < len(reservation.parts) else 0
            part.slice.reserved -= part.amount - before
            part.slice.free += part.amount - before
            if place >= len(reservation.parts):
                part.slice.uses -= 1

    def free(self, model: str, now_ns: int, mono_ns: int) -> dict[str, int]:
        """What a new reservation for the model might be made from, by bucket."""
        found: dict[str, int] = {}
        for held in self.slices:
            if held.usable(model, now_ns, mono_ns):
                found[held.bucket.id] = found.get(held.bucket.id, 0) + held.free
        return found

    def _draw(
        self,
        parts: list[Part],
        need: Need,
        model: str,
        tariffs: dict[str, Tariff],
        now_ns: int,
        mono_ns: int,
    ) -> Need:
        """Reserve parts for the need in draw order; gives what is not covered."""
        short = need
        for held in self.slices:
            if short.input_max == 0 and short.output_max == 0:
                break
            if not held.usable(model, now_ns, mono_ns):
                continue
            price = held.price(model, tariffs)
            if price is None:
                continue
            amount, short = cover(short, held.free, price)
            held.free -= amount
            held.reserved += amount
            held.uses += 1
            held.used_ns = mono_ns
            parts.append(Part(held, amount, price))
        return short

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back whole, nothing charged."""
        for part in reservation.parts:
            part.slice.reserved -= part.amount
            part.slice.free += part.amount
            part.slice.uses -= 1

    def settle(self, reservation: Reservation, charges: tuple[Charge, ...]) -> None:
        """Take the charges out of the reservation and release the rest. Called exactly once for a reservation."""
        charged: dict[int, int] = {}
        for charge in charges:
            charged[charge.lease_id] = charged.get(charge.lease_id, 0) + charge.amount
        for part in reservation.parts:
            held, amount = part.slice, part.amount
            taken = charged.get(held.lease_id, 0)
            if taken:
                taken = min(taken, amount)
                charged[held.lease_id] -= taken
            held.reserved -= amount
            held.free += amount - taken
            held.uses -= 1
        if any(charged.values()):
            raise AssertionError(f"charges above the reservation, by lease: {charged}")

    def returnable(self, mono_ns: int, idle_since_ns: int) -> list[Slice]:
        """Slices to close now: no reservation on them and past their time, used up, idle, or not to be kept idle."""
        return [
            held
            for held in self.slices
            if held.is_unused
            and (not held.linger or held.free == 0 or mono_ns >= held.use_until_ns or held.used_ns <= idle_since_ns)
        ]

    def spare(self, mono_ns: int, *, keep: bool) -> list[Slice]:
        """Slices that running requests hold open and of which a free part should go back: all, or those past their
        time where the others are kept.
        """
        return [held for held in self.slices if held.uses and held.free and (not keep or mono_ns >= held.use_until_ns)]

    def give_back(self, held: Slice, amount: int) -> None:
        """A free part of a slice has gone back; the slice stays."""
        held.free -= amount

    def remove(self, closed: Slice) -> None:
        """Forget a slice whose closing has been journaled."""
        self.slices.remove(closed)


def cover(need: Need, amount: int, price: Price) -> tuple[int, Need]:
    """How much of `amount` the need takes at its dearest, and the need left over: input is covered before output."""
    whole = bound(need.input_max, need.output_max, price)
    if whole <= amount:
        return whole, NOTHING
    left = amount * MILLION
    read = need.input_max if need.input_max * price.read_max <= left else left // price.read_max
    left -= read * price.read_max
    written = 0
    if read == need.input_max:
        written = need.output_max if need.output_max * price.written_max <= left else left // price.written_max
    return amount, Need(need.input_max - read, need.output_max - written)


def charges_for(reservation: Reservation, tokens: Tokens) -> tuple[Charge, ...]:
    """Split the use over the reservation's parts in their order, and rate what each bucket pays, rounding once.

    `tokens` must be within the reservation's covered need; then everything is charged, and no part is charged more
    than it reserved.
    """
    charges: list[Charge] = []
    paying: list[Part] = []
    left = tokens
    for part in reservation.parts:
        if left.total == 0:
            break
        price = part.price
        amount = cost(left, price.rate, price.rounding)
        piece = left
        if amount > part.amount:
            piece = affordable(left, part.amount, price.rate)
            amount = min(cost(piece, price.rate, price.rounding), part.amount)
        if piece is left or piece.total:
            charges.append(Charge(part.slice.lease_id, part.slice.bucket.id, price.tariff, price.unit, piece, amount))
            paying.append(part)
            if piece is left:
                break
            left = left - piece
    return tuple(charges) if len(charges) < 2 else _rounded_once(charges, paying)


def _rounded_once(charges: list[Charge], paying: list[Part]) -> tuple[Charge, ...]:
    """The same lines with amounts that add up, bucket by bucket, to the cost of the bucket's tokens rounded once.

    What is reserved for a bucket suffices: it is whole units, and not less than the cost before rounding.
    """
    used: dict[str, Tokens] = {}
    for charge in charges:
        used[charge.bucket_id] = used.get(charge.bucket_id, NONE) + charge.tokens
    if len(used) == len(charges):
        return tuple(charges)
    prices = {part.slice.bucket.id: part.price for part in paying}
    left = {bucket: cost(tokens, prices[bucket].rate, prices[bucket].rounding) for bucket, tokens in used.items()}
    lines: list[Charge] = []
    for charge, part in zip(charges, paying, strict=True):
        amount = min(part.amount, left[charge.bucket_id])
        left[charge.bucket_id] -= amount
        lines.append(msgspec.structs.replace(charge, amount=amount))
    return tuple(lines)


def _joined(parts: list[Part], kept: int) -> tuple[Part, ...]:
    """An extension's first part joins the one before where both are of one slice: fewer lines, the same amounts."""
    if not 0 < kept < len(parts):
        return tuple(parts)
    last, more = parts[kept - 1], parts[kept]
    if last.slice is not more.slice or last.price.tariff != more.price.tariff:
        return tuple(parts)
    more.slice.uses -= 1
    parts[kept - 1 : kept + 1] = [msgspec.structs.replace(last, amount=last.amount + more.amount)]
    return tuple(parts)
