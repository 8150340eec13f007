"""Values typed at a terminal: what is sent for them, and what is refused before anything is sent."""

import pytest

from tokenworks.cli import values
from tokenworks.cli.faults import WRONG_USE, CommandFault


@pytest.mark.parametrize(
    ("text", "unit", "sent"),
    [
        ("9.9", "CNY", {"amount": "9.9", "unit": "CNY"}),
        ("9.90", "CNY", {"amount": "9.9", "unit": "CNY"}),
        ("0.000000001", "CNY", {"amount": "0.000000001", "unit": "CNY"}),
        ("10000000", "token", {"amount": 10_000_000, "unit": "token"}),
    ],
)
def test_an_amount_is_sent_exactly(text: str, unit: str, sent: dict[str, object]) -> None:
    assert values.amount(text, unit, "--price") == sent


@pytest.mark.parametrize(
    ("text", "unit"),
    [("nine", "CNY"), ("-1", "CNY"), ("1e3", "CNY"), ("0.0000000001", "CNY"), ("1.5", "token"), ("1", "yuan")],
)
def test_an_inexact_amount_is_refused(text: str, unit: str) -> None:
    with pytest.raises(CommandFault) as refused:
        values.amount(text, unit, "--price")
    assert refused.value.code == WRONG_USE
    assert refused.value.message.startswith("--price: ")


def test_a_rate_with_one_price_is_for_all_classes() -> None:
    place, prices = values.rate("*/*:1000000", "token")
    assert place == "*/*"
    assert set(prices.values()) == {"1000000"}
    assert set(prices) == {"input", "cached_input", "cache_write", "output", "reasoning"}


def test_a_rate_names_the_classes_that_differ() -> None:
    assert values.rate("glm-5/high:input=0.6,output=2.2,cached_input=0.11", "CNY") == (
        "glm-5/high",
        {"input": "0.6", "output": "2.2", "cached_input": "0.11"},
    )


@pytest.mark.parametrize("text", ["1000000", "m/*:input=1", "m/*:input=1,output=2,audio=3", "m/*:input=x,output=1"])
def test_a_rate_that_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(CommandFault) as refused:
        values.rate(text, "CNY")
    assert refused.value.code == WRONG_USE
