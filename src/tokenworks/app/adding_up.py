"""Whether a demonstration adds up: the customer's counts, the records, the balance, the bill and the supplier's due.

Pure: facts go in as they were seen from outside, findings come out. It repeats the arithmetic on purpose instead of
asking the rooms for it.
"""

from typing import Any

import msgspec

from tokenworks.app.caller import Call
from tokenworks.core import amounts, sales
from tokenworks.core.usage import CLASSES
from tokenworks.ledger.verify import Check

Record = dict[str, Any]

_DIGITS = 9
"""All digits of a currency, so that amounts that differ never look the same."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen, as the API and the office told it. `bucket_before` and `bucket_after` are one balance entry."""

    offer: Record
    order: Record
    bucket_before: Record
    bucket_after: Record
    calls: tuple[Call, ...]
    records: tuple[Record, ...]
    bill: Record
    supplier: Record
    margin: Record


def findings(facts: Facts) -> list[Check]:
    """Every sum that must come out, each as a check that shows it or names both sides."""
    return [*_of_usage(facts), *_of_balance(facts), *_of_money(facts)]


def _of_usage(facts: Facts) -> list[Check]:
    return [
        _equal("one usage record for each call", _metered_ids(facts.records), _told_ids(facts.calls)),
        _equal("tokens metered are the tokens the customer was told", _metered(facts.records), _told(facts.calls)),
        _equal("the token classes of each record add up", _class_sums(facts.records), _totals(facts.records)),
    ]


def _of_balance(facts: Facts) -> list[Check]:
    before, after, spent = left(facts.bucket_before), left(facts.bucket_after), charged(facts.records)
    unit = facts.bucket_after["unit"]
    return [
        Check("balance before − charged = balance after", before - spent == after, _sum(before, spent, after, unit)),
        _same("the bucket spent what was charged", facts.bucket_after["spent"], spent, unit),
    ]


def _of_money(facts: Facts) -> list[Check]:
    bill, bucket, currency = facts.bill, facts.bucket_after, facts.offer["price"]["unit"]
    price, net, tax = smallest(facts.offer["price"]), smallest(bill["net"]), smallest(bill["tax"])
    earned = sales.recognised(smallest(bucket["net"]), bucket["spent"], bucket["granted"])
    revenue, cost, margin = (smallest(facts.margin[name]) for name in ("revenue", "cost", "margin"))
    owed = sum(smallest(attempt["cost"]) for record in facts.records for attempt in record["attempts"])
    return [
        _same("paid is the price of the offer", smallest(facts.order["price"]), price, currency),
        _same("the bill's total is the price", smallest(bill["total"]), price, currency),
        _same("the bill's net and tax are its total", net + tax, price, currency),
        _same("payable is the cost of all attempts", smallest(facts.supplier["payable"]), owed, currency),
        _same("revenue is net price × spent / granted", revenue, earned, currency),
        _same("cost is what is payable", cost, owed, currency),
        _same("margin is revenue − cost", margin, revenue - cost, currency),
    ]


def charged(records: tuple[Record, ...]) -> int:
    """Everything charged to the customer, in the bucket's unit."""
    return sum(smallest(charge["amount"]) for record in records for charge in record["charges"])


def left(bucket: Record) -> int:
    """What the customer can still spend, wherever it is: available or with a gateway."""
    return bucket["granted"] - bucket["spent"] - bucket["expired"] - bucket["withdrawn"]


def by_class(records: tuple[Record, ...]) -> dict[str, int]:
    """Tokens of all records, by class and in total."""
    return {name: sum(record["tokens"][name] for record in records) for name in (*CLASSES, "total")}


def smallest(value: Record) -> int:
    """An amount of the office's JSON in the smallest part of its unit, negative ones too."""
    text, unit = str(value["amount"]), value["unit"]
    return -amounts.parse(text[1:], unit) if text.startswith("-") else amounts.parse(text, unit)


def _equal(name: str, found: str, expected: str) -> Check:
    return Check(name, found == expected, found if found == expected else f"{found} ≠ {expected}")


def _same(name: str, found: int, expected: int, unit: str) -> Check:
    return _equal(name, amounts.show(found, unit, _DIGITS), amounts.show(expected, unit, _DIGITS))


def _sum(before: int, spent: int, after: int, unit: str) -> str:
    sign = "=" if before - spent == after else "≠"
    return f"{before:,} − {spent:,} {sign} {amounts.show(after, unit)}"


def _told_ids(calls: tuple[Call, ...]) -> str:
    return ", ".join(sorted(call.request_id for call in calls))


def _metered_ids(records: tuple[Record, ...]) -> str:
    return ", ".join(sorted(record["request_id"] for record in records))


def _told(calls: tuple[Call, ...]) -> str:
    return _counts(sum(call.tokens_prompt for call in calls), sum(call.tokens_completion for call in calls))


def _metered(records: tuple[Record, ...]) -> str:
    tokens = by_class(records)
    read = tokens["input"] + tokens["cached_input"] + tokens["cache_write"]
    return _counts(read, tokens["output"] + tokens["reasoning"])


def _counts(read: int, written: int) -> str:
    return f"{read} read, {written} written"


def _totals(records: tuple[Record, ...]) -> str:
    return ", ".join(str(record["tokens"]["total"]) for record in records)


def _class_sums(records: tuple[Record, ...]) -> str:
    return ", ".join(str(sum(record["tokens"][name] for name in CLASSES)) for record in records)
