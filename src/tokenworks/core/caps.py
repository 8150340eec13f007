"""Caps in several units as people write them: `token=5000000 CNY=100.50`. A unit that is not named has no cap."""

from collections.abc import Mapping

from tokenworks.core.amounts import AmountFault, parse


def parse_caps(text: str) -> Mapping[str, int]:
    """`parse_caps("token=1000 CNY=9.90")` → `{"token": 1000, "CNY": 9_900_000_000}`; else an `AmountFault`."""
    caps: dict[str, int] = {}
    for item in text.split():
        unit, sign, amount = item.partition("=")
        if not sign:
            raise AmountFault(f"{item!r} is not of the form unit=amount, such as token=1000000 or CNY=9.90")
        if unit in caps:
            raise AmountFault(f"the unit {unit!r} is named twice")
        caps[unit] = parse(amount, unit)
    return caps
