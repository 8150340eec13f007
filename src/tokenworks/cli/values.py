"""Values typed at a terminal, checked before they are sent: exact amounts, rates, secrets."""

import sys
from typing import Any

from tokenworks.cli.faults import WRONG_USE, CommandFault
from tokenworks.core import amounts
from tokenworks.core.usage import CLASSES


def amount(text: str, unit: str, option: str) -> dict[str, Any]:
    """`amount("9.90", "CNY", "--price")` → `{"amount": "9.9", "unit": "CNY"}`, exactly."""
    try:
        value = amounts.parse(text, unit)
    except amounts.AmountFault as fault:
        raise CommandFault(
            f"{option}: {fault}.", "Write amounts as plain decimals, for example 9.9.", WRONG_USE
        ) from fault
    return {"amount": value if amounts.scale(unit) == 1 else amounts.exact(value, unit), "unit": unit}


def price(text: str, unit: str, option: str) -> str:
    """A price of a million tokens as exact decimal text."""
    return str(amount(text, unit, option)["amount"])


def currency_price(text: str, option: str) -> str:
    """A price in whatever currency the supplier is paid in: all currencies have the same smallest part."""
    return price(text, "CNY", option)


def rate(text: str, unit: str) -> tuple[str, dict[str, str]]:
    """`smollm2-135m/*:input=1,output=2` → the place of a rate and its prices by token class; see `tariffs add`."""
    place, colon, prices = text.rpartition(":")
    if not colon:
        raise CommandFault(f"--rate: {text!r} names no model.", "Write it as MODEL/TIER:CLASS=PRICE,…", WRONG_USE)
    if "=" not in prices:
        return place, dict.fromkeys(CLASSES, price(prices, unit, "--rate"))
    given: dict[str, str] = {}
    for part in prices.split(","):
        name, _, value = part.partition("=")
        if name not in CLASSES:
            raise CommandFault(f"--rate: {name!r} is not a token class.", f"Use {', '.join(CLASSES)}.", WRONG_USE)
        given[name] = price(value, unit, "--rate")
    if not {"input", "output"} <= given.keys():
        raise CommandFault(f"--rate: {text!r} lacks a price for input or output.", code=WRONG_USE)
    return place, given


def secret(text: str) -> str:
    """A secret given directly, or read from standard input for `-`, so that it stays out of the shell's history."""
    return sys.stdin.readline().strip() if text == "-" else text
