"""Prices and token classes: disjoint counts, one rounding, the most particular rate, bounds that bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.amounts import MILLION
from tokenworks.core.bounds import InputBound, Need, Shape, need
from tokenworks.core.tariff import Rate, Stopped, Tariff, affordable, bound, cost, flat, mildest
from tokenworks.core.usage import Reported, Tokens, clip, from_openai, plausible

counts = st.integers(min_value=0, max_value=2_000_000)
prices = st.integers(min_value=0, max_value=100 * MILLION)
tokens = st.builds(Tokens, counts, counts, counts, counts, counts)
rates = st.builds(Rate, prices, prices, prices, prices, prices)
roundings = st.sampled_from(["up", "half_up"])


@pytest.mark.parametrize(
    ("nested", "expected"),
    [
        ((35, 12, 0, 0), Tokens(35, 0, 0, 12, 0)),
        ((35, 11, 34, 0), Tokens(1, 34, 0, 11, 0)),
        ((100, 50, 100, 50), Tokens(0, 100, 0, 0, 50)),
    ],
)
def test_openai_counts_become_disjoint(nested: tuple[int, int, int, int], expected: Tokens) -> None:
    assert from_openai(*nested) == Reported(expected)


@pytest.mark.parametrize("nested", [(-1, 0, 0, 0), (1, -1, 0, 0), (5, 5, 6, 0), (5, 5, 0, 6)])
def test_impossible_reports_carry_a_fault(nested: tuple[int, int, int, int]) -> None:
    assert from_openai(*nested).fault


@pytest.mark.parametrize(
    ("reported", "counted", "flag"),
    [
        (Reported(Tokens(10, output=5)), 5, ""),
        (Reported(Tokens(10, output=0)), 0, ""),
        (Reported(Tokens(101, output=5)), 5, "usage_above_reservation"),
        (Reported(Tokens(10, output=51)), 5, "usage_above_reservation"),
        (Reported(Tokens(0, output=5)), 5, "usage_zero"),
        (Reported(Tokens(10, output=0)), 5, "usage_zero"),
        (Reported(Tokens(), "negative count"), 5, "usage_malformed"),
    ],
)
def test_plausible(reported: Reported, counted: int, flag: str) -> None:
    assert plausible(reported, input_max=100, output_max=50, counted_output=counted) == flag


@given(tokens, counts, counts)
def test_clipping_stays_within_the_reservation(used: Tokens, input_max: int, output_max: int) -> None:
    clipped = clip(used, input_max, output_max)
    assert clipped.read == min(used.read, input_max)
    assert clipped.written == min(used.written, output_max)
    assert all(a <= b for a, b in zip(clipped.each(), used.each(), strict=True))


@pytest.mark.parametrize(
    ("price_per_million", "used", "charged"),
    [
        (MILLION, Tokens(35, output=12), 47),
        (2 * MILLION, Tokens(35, output=12), 94),
        (624, Tokens(1), 1),
        (0, Tokens(1_000_000), 0),
        (623_750_000, Tokens(80), 49_900),
        (500_000, Tokens(3), 2),
    ],
)
def test_cost_of_a_flat_rate(price_per_million: int, used: Tokens, charged: int) -> None:
    assert cost(used, flat(price_per_million), "half_up") == charged


@given(tokens, rates, roundings)
def test_use_is_free_only_if_its_price_is(used: Tokens, rate: Rate, rounding: str) -> None:
    priced = any(count and price for count, price in zip(used.each(), rate.each(), strict=True))
    assert (cost(used, rate, rounding) > 0) == priced  # pyright: ignore[reportArgumentType]


@given(tokens, rates, roundings)
def test_a_bound_is_never_exceeded(used: Tokens, rate: Rate, rounding: str) -> None:
    price = Tariff("t", 1, "CNY", {"*/*": rate}).price("m", "standard")
    assert price is not None
    assert cost(used, rate, rounding) <= bound(used.read, used.written, price)  # pyright: ignore[reportArgumentType]


@given(tokens, rates, st.integers(min_value=0, max_value=10**9))
def test_an_affordable_prefix_is_affordable_and_longest(used: Tokens, rate: Rate, amount: int) -> None:
    piece = affordable(used, amount, rate)
    exact = sum(count * price for count, price in zip(piece.each(), rate.each(), strict=True))
    assert exact <= amount * MILLION
    rest = (used - piece).each()
    assert min(rest) >= 0
    following = next((price for count, price in zip(rest, rate.each(), strict=True) if count), None)
    assert following is None or exact + following > amount * MILLION


def test_the_most_particular_rate_wins() -> None:
    tariff = Tariff("t", 1, "token", {"*/*": flat(1), "*/high": flat(2), "m/*": flat(3), "m/high": flat(4)})
    found = [tariff.rate(model, tier) for model in ("m", "other") for tier in ("high", "medium")]
    assert found == [flat(4), flat(3), flat(2), flat(1)]
    assert Tariff("t", 1, "token", {"m/high": flat(4)}).rate("m", "low") is None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (Shape(text_bytes=100, messages=2, output_max=50), Need(148, 50)),
        (Shape(text_bytes=100, messages=2, output_max=50, choices=3), Need(148, 150)),
        (Shape(text_bytes=100, messages=2), Need(148, 1024)),
        (Shape(text_bytes=100, messages=2, output_max=9999), Need(148, 1024)),
        (Shape(text_bytes=5000, messages=1, tools=2), Need(2048, 1024)),
    ],
)
def test_need(shape: Shape, expected: Need) -> None:
    assert need(shape, InputBound(), context_window=2048, model_output_max=1024) == expected


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ((), "passed"),
        (("passed",), "passed"),
        (("generated",), "generated"),
        (("generated", "generated"), "generated"),
        (("generated", "passed"), "passed"),
        (("generated", "nothing", "passed"), "nothing"),
    ],
)
def test_of_several_the_mildest_holds(said: tuple[Stopped, ...], holds: Stopped) -> None:
    prices = [Tariff("t", 1, "token", {"*/*": flat(1)}, stopped=stopped).price("m", "medium") for stopped in said]
    assert mildest(price for price in prices if price is not None) == holds
