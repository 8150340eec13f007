"""The auditor's own rating: what tokens cost, from the price list, in fractions. It shares no code with `core`."""

from fractions import Fraction
from math import ceil, floor

Counts = tuple[int, int, int, int, int]  # input, cached input, cache write, output, reasoning

# Prices of a million of each class at version 1, by tariff and model; `*` is any other model.
SELLING: dict[str, dict[str, Counts]] = {
    "plain": {
        "m-large": (3_000_000, 3_000_000, 3_000_000, 3_000_000, 3_000_000),
        "*": (1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000),
    },
    "classes": {"*": (1_500_000, 150_000, 1_900_000, 4_200_000, 4_200_000)},
    "money": {"*": (623_750_000, 62_375_000, 623_750_000, 1_247_500_001, 1_247_500_001)},
}
ROUNDED_UP = frozenset({"classes"})
BUYING: dict[str, Counts] = {
    "buy-a@1": (300_000_000, 30_000_000, 375_000_000, 600_000_000, 600_000_000),
    "buy-b@1": (123_456_789, 12_345_678, 123_456_789, 987_654_321, 987_654_321),
}
BYTES_PER_TOKEN = {"m-small": 4, "m-large": 3}


def caps(text: str) -> dict[str, int]:
    """`token=20000 CNY=0.02`, in whole tokens and in billionths of money."""
    parts = [item.split("=") for item in text.split()]
    return {unit: int(Fraction(amount) * (1 if unit == "token" else 10**9)) for unit, amount in parts}


def selling_price(tariff: str, model: str, counts: Counts) -> int:
    """What a use costs under `plain@2`."""
    name, _, version = tariff.partition("@")
    prices = SELLING[name].get(model) or SELLING[name]["*"]
    dearer = int(version) - 1
    return _priced([price + price * dearer // 10 for price in prices], counts, up=name in ROUNDED_UP)


def purchase_price(tariff: str, counts: Counts, *, up: bool) -> int:
    """What an attempt costs us."""
    return _priced(BUYING[tariff], counts, up=up)


def earned(net: int, consumed: int, granted: int) -> int:
    """What is earned of a price when so much of a package is consumed, to the nearest whole number."""
    return (2 * net * consumed // granted + 1) // 2 if granted else 0


def _priced(prices: "list[int] | Counts", counts: Counts, *, up: bool) -> int:
    exact = sum((Fraction(price * count, 10**6) for price, count in zip(prices, counts, strict=True)), Fraction(0))
    if exact == 0:
        return 0
    return max(1, ceil(exact) if up else floor(exact + Fraction(1, 2)))
