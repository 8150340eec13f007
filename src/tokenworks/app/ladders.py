"""The price ladders of the demonstration operator: token packages sold in China in 2026, as offers and tariffs.

Price and amount are what the sellers published. Everything else is ours, because they publish no rule for it: the
validity where none is said, the tier, the multipliers by model, and the one offer of credit. All of it is data to be
changed freely.
"""

import msgspec

from tokenworks.core.amounts import MILLION, TOKEN, parse
from tokenworks.core.tariff import Rate, flat

PUBLISHED = "price and amount as published in 2026"
PUBLISHED_MONTHLY = PUBLISHED + ", by the month"
OURS_MONTH = PUBLISHED + "; the month of validity is ours"

SAME = {"*/*": flat(MILLION)}
"""One token of the package for each token used, whatever the model and class."""


class Multipliers(msgspec.Struct, frozen=True):
    """A tariff in tokens: how many tokens of the package a million tokens of a model take."""

    id: str
    rates: dict[str, Rate]


class Step(msgspec.Struct, frozen=True):
    """One step of a ladder: this many tokens at this price, in RMB with tax."""

    id: str
    name: str
    seller: str
    price: str
    granted: int
    tariff: str
    source: str = PUBLISHED_MONTHLY
    unit: str = TOKEN


class Credit(msgspec.Struct, frozen=True):
    """A limit in RMB for each month, spent by a tariff in RMB and put on the phone bill."""

    id: str
    name: str
    limit: str
    tariff: str
    source: str


TARIFFS = (
    Multipliers("personal", SAME),
    # GLM-5 is published as taking twice its count off peak; a tariff that knows the hour does not exist yet.
    Multipliers("developer", SAME | {"glm-5/*": flat(2 * MILLION)}),
    Multipliers("any-model", SAME),
    Multipliers("cloud", SAME),
)

OFFERS = (
    Step("ct-personal-10m", "Personal, 10 million tokens", "China Telecom", "9.9", 10 * MILLION, "personal"),
    Step("ct-personal-40m", "Personal, 40 million tokens", "China Telecom", "29.9", 40 * MILLION, "personal"),
    Step("ct-personal-80m", "Personal, 80 million tokens", "China Telecom", "49.9", 80 * MILLION, "personal"),
    Step("ct-developer-15m", "Developer, 15 million tokens", "China Telecom", "39.9", 15 * MILLION, "developer"),
    Step("ct-developer-70m", "Developer, 70 million tokens", "China Telecom", "159.9", 70 * MILLION, "developer"),
    Step("ct-developer-150m", "Developer, 150 million tokens", "China Telecom", "299.9", 150 * MILLION, "developer"),
    Step("sm-any-400k", "Any model, 400,000 tokens", "Shanghai Mobile", "1", 400_000, "any-model", OURS_MONTH),
    Step("cu-personal-6m", "Cloud, 6 million tokens", "China Unicom", "15", 6 * MILLION, "cloud", OURS_MONTH),
    Step("cu-personal-12m", "Cloud, 12 million tokens", "China Unicom", "30", 12 * MILLION, "cloud", OURS_MONTH),
    Step("cu-personal-18m", "Cloud, 18 million tokens", "China Unicom", "45", 18 * MILLION, "cloud", OURS_MONTH),
)

CREDIT = Credit(
    "pay-as-you-go",
    "pay as you go, up to RMB 100 a month on the phone bill",
    "100",
    "pay-as-you-go",
    "no seller's offer: the price of a million tokens is that of Shanghai Mobile's package, the limit is ours",
)


def metered(currency: str) -> dict[str, Rate]:
    """RMB 2.50 for a million tokens of any model, tax included, as in Shanghai Mobile's package."""
    return {"*/*": flat(parse("2.5", currency))}
