"""Units and amounts: integers in the smallest part of a unit, exact division, and text for people.

A unit is `token`, `coin`, `point` or an ISO 4217 currency code. Currencies are kept in nano-units (10⁻⁹), because some
real prices have fractions of a cent per million tokens; the other units are counted whole. No float ever holds an
amount. This module does not know what is bought or sold.
"""

import re
from typing import Literal

NANO = 1_000_000_000
MILLION = 1_000_000

TOKEN = "token"  # noqa: S105 - a unit, not a secret
COIN = "coin"
POINT = "point"
_WHOLE = frozenset({TOKEN, COIN, POINT})

# Decimals of money that can be paid, where they are not two (ISO 4217).
_PAID_DECIMALS = {"CLP": 0, "ISK": 0, "JPY": 0, "KRW": 0, "VND": 0, "BHD": 3, "JOD": 3, "KWD": 3, "OMR": 3, "TND": 3}

_NUMBER = re.compile(r"([0-9]+)(?:\.([0-9]+))?")

Rounding = Literal["up", "half_up"]


class AmountFault(ValueError):
    """A text or number that cannot be an exact amount of its unit."""


def scale(unit: str) -> int:
    """Smallest parts in one of the unit: 1 for tokens, coins and points, 10⁹ for a currency."""
    if unit in _WHOLE:
        return 1
    if len(unit) == 3 and unit.isascii() and unit.isupper():
        return NANO
    raise AmountFault(f"{unit!r} is not a unit: use token, coin, point or a currency code such as CNY")


def divide(numerator: int, denominator: int, rounding: Rounding) -> int:
    """The one place where an amount is rounded. Numerator ≥ 0, denominator > 0."""
    if rounding == "up":
        return -(-numerator // denominator)
    return (2 * numerator + denominator) // (2 * denominator)


def payable(amount: int, currency: str) -> int:
    """The part of an amount ≥ 0 that can be paid: whole fen, cents, yen. What is below stays owed and adds up."""
    least = NANO // 10 ** _PAID_DECIMALS.get(currency, 2)
    return amount // least * least


def parse(text: str, unit: str) -> int:
    """`parse("9.90", "CNY")` → 9_900_000_000. Refuses more decimals than the unit has, signs and exponents.

    Digits are read as integers: `Decimal` would round silently past the 28 digits of its context.
    """
    places = len(str(scale(unit))) - 1
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise AmountFault(f"{text!r} is not a plain number such as 12 or 9.90")
    whole, fraction = found[1], (found[2] or "").rstrip("0")
    if len(fraction) > places:
        raise AmountFault(f"{text!r} has more decimals than {unit} can hold ({places})")
    return int(whole + fraction.ljust(places, "0"))


def show(amount: int, unit: str, digits: int = 2) -> str:
    """`show(9_339_622_642, "CNY", 6)` → `9.339623 CNY`; `show(10_000_000, "token")` → `10,000,000 token`.

    `digits` is the least number of decimals of a currency shown. A longer exact value is rounded for the eye only.
    """
    parts = scale(unit)
    if parts == 1:
        return f"{amount:,} {unit}"
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(divide(abs(amount), NANO // 10**digits, "half_up"), 10**digits)
    return f"{sign}{whole:,}.{rest:0{digits}d} {unit}" if digits else f"{sign}{whole:,} {unit}"


def exact(amount: int, unit: str) -> str:
    """The exact decimal text of an amount, for JSON: `exact(9_900_000_000, "CNY")` → `9.9`."""
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(abs(amount), scale(unit))
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{sign}{whole}{fraction}"
