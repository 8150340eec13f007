"""Tariffs: prices of one million tokens by model, tier and token class, and what a use costs under them.

Prices are integers per million tokens in the smallest part of the tariff's unit, never per token: RMB 49.9 for 80
million is 623.75 nano-units a token. A tariff version never changes once published.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from tokenworks.core.amounts import MILLION, Rounding, divide
from tokenworks.core.usage import CLASSES, Tokens

ANY = "*"
PRICE_MAX = (1 << 63) - 1
"""What a catalog can carry: msgpack has no longer integers."""

Stopped = Literal["nothing", "passed", "generated"]
"""What an answer costs that content safety stopped: nothing, its input and what was passed on, or all that was made."""


class Rate(msgspec.Struct, frozen=True, array_like=True):
    """Price of one million tokens of each class, in the smallest part of the tariff's unit."""

    input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int

    @property
    def dearest_read(self) -> int:
        """The highest price an input token can have."""
        return max(self.input, self.cached_input, self.cache_write)

    @property
    def dearest_written(self) -> int:
        """The highest price an output token can have."""
        return max(self.output, self.reasoning)

    def each(self) -> tuple[int, int, int, int, int]:
        """The five prices in the order of `CLASSES`."""
        return (self.input, self.cached_input, self.cache_write, self.output, self.reasoning)


def flat(price: int) -> Rate:
    """The same price for every class: a package "10 million tokens" has `flat(1_000_000)` in the unit `token`."""
    return Rate(price, price, price, price, price)


class Price(msgspec.Struct, frozen=True):
    """What a tariff version asks for one model and tier, fixed at admission, with the dearest token of each kind."""

    tariff: str
    unit: str
    rate: Rate
    rounding: Rounding
    read_max: int
    written_max: int
    stopped: Stopped = "passed"


class Tariff(msgspec.Struct, frozen=True):
    """One published version. `rates` is keyed by `model` and `tier` as `model/tier`; `*` stands for any."""

    id: str
    version: int
    unit: str
    rates: dict[str, Rate]
    rounding: Rounding = "half_up"
    stopped: Stopped = "passed"

    @property
    def name(self) -> str:
        """What records keep: `personal@3`."""
        return f"{self.id}@{self.version}"

    def rate(self, model: str, tier: str) -> Rate | None:
        """The most particular rate: model and tier, then model, then tier, then any."""
        rates = self.rates
        return (
            rates.get(f"{model}/{tier}")
            or rates.get(f"{model}/{ANY}")
            or rates.get(f"{ANY}/{tier}")
            or rates.get(f"{ANY}/{ANY}")
        )

    def price(self, model: str, tier: str) -> Price | None:
        """The same with all that a reservation needs to know; None where the tariff has no rate."""
        rate = self.rate(model, tier)
        if rate is None:
            return None
        return Price(self.name, self.unit, rate, self.rounding, rate.dearest_read, rate.dearest_written, self.stopped)


def mildest(prices: Iterable[Price]) -> Stopped:
    """What holds for a stopped answer that these prices would pay for: nobody pays what his offer does not say."""
    said = {price.stopped for price in prices}
    if "nothing" in said:
        return "nothing"
    return "generated" if said == {"generated"} else "passed"


def cost(tokens: Tokens, rate: Rate, rounding: Rounding) -> int:
    """What these tokens cost, rounded once. Not zero unless the use or its price is zero."""
    total = (
        tokens.input * rate.input
        + tokens.cached_input * rate.cached_input
        + tokens.cache_write * rate.cache_write
        + tokens.output * rate.output
        + tokens.reasoning * rate.reasoning
    )
    return (divide(total, MILLION, rounding) or 1) if total else 0


def bound(input_max: int, output_max: int, price: Price) -> int:
    """The most that a use within these counts can cost under any split into classes and either rounding."""
    return divide(input_max * price.read_max + output_max * price.written_max, MILLION, "up")


def affordable(tokens: Tokens, amount: int, rate: Rate) -> Tokens:
    """The longest prefix of these tokens, in the order of `CLASSES`, that costs at most `amount` before rounding up."""
    left = amount * MILLION
    taken: list[int] = []
    for count, price in zip(tokens.each(), rate.each(), strict=True):
        part = count if count * price <= left else left // price
        left -= part * price
        taken.append(part)
        if part < count:
            break
    return Tokens(*taken, *[0] * (len(CLASSES) - len(taken)))
