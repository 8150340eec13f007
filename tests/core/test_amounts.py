"""Amounts: exact text in and out, one rounding, and refusals of what is not exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.amounts import NANO, AmountFault, divide, exact, parse, scale, show

UNITS = st.sampled_from(["token", "coin", "point", "CNY", "USD"])


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        ("9.90", "CNY", 9_900_000_000),
        ("0.000000001", "CNY", 1),
        ("10000000", "token", 10_000_000),
        ("17438060000", "CNY", 17_438_060_000 * NANO),
        ("0", "USD", 0),
    ],
)
def test_parse_is_exact(text: str, unit: str, amount: int) -> None:
    assert parse(text, unit) == amount


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0.5", "token"),
        ("0.0000000001", "CNY"),
        ("-1", "CNY"),
        ("1e3", "CNY"),
        ("nan", "CNY"),
        ("Infinity", "CNY"),
        ("ten", "CNY"),
        ("", "CNY"),
        ("1", "yuan"),
        ("1", "cny"),
    ],
)
def test_parse_refuses_what_is_not_an_exact_amount(text: str, unit: str) -> None:
    with pytest.raises(AmountFault):
        parse(text, unit)


@pytest.mark.parametrize(
    ("amount", "unit", "digits", "text"),
    [
        (9_339_622_642, "CNY", 6, "9.339623 CNY"),
        (560_377_358, "CNY", 6, "0.560377 CNY"),
        (9_900_000_000, "CNY", 2, "9.90 CNY"),
        (-1_500_000_000, "CNY", 2, "-1.50 CNY"),
        (10_000_000, "token", 2, "10,000,000 token"),
        (1_234_500_000_000, "CNY", 0, "1,235 CNY"),
    ],
)
def test_show(amount: int, unit: str, digits: int, text: str) -> None:
    assert show(amount, unit, digits) == text


@given(st.integers(min_value=0, max_value=10**30), UNITS)
def test_exact_text_reads_back(amount: int, unit: str) -> None:
    assert parse(exact(amount, unit), unit) == amount


@given(st.integers(min_value=0, max_value=10**30), st.integers(min_value=1, max_value=10**12))
def test_rounding_stays_within_one(numerator: int, denominator: int) -> None:
    up, half = divide(numerator, denominator, "up"), divide(numerator, denominator, "half_up")
    assert (up - 1) * denominator < numerator <= up * denominator
    assert abs(2 * (half * denominator - numerator)) <= denominator
    assert half <= up


def test_scales() -> None:
    assert [scale(unit) for unit in ("token", "coin", "point", "CNY")] == [1, 1, 1, NANO]
