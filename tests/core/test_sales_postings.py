"""A sale in two books: tax taken out exactly, revenue recognised to the last token, postings that balance."""

from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core import postings
from tokenworks.core.amounts import parse, show
from tokenworks.core.sales import net_of_tax, owed, recognised

SIX_PERCENT = 600


def test_the_price_of_ten_million_tokens() -> None:
    net, tax = net_of_tax(parse("9.90", "CNY"), SIX_PERCENT)
    assert (show(net, "CNY", 6), show(tax, "CNY", 6)) == ("9.339623 CNY", "0.560377 CNY")
    assert net + tax == parse("9.90", "CNY")
    assert recognised(net, 10_000_000, 10_000_000) == net


@given(st.integers(0, 10**22), st.integers(0, 10_000))
def test_net_and_tax_add_up(gross: int, basis_points: int) -> None:
    net, tax = net_of_tax(gross, basis_points)
    assert net + tax == gross
    assert net >= 0
    assert tax >= 0


@given(st.integers(0, 10**15), st.lists(st.integers(1, 10**6), min_size=1, max_size=20))
def test_recognition_in_steps_reaches_the_net_price_exactly(net: int, steps: list[int]) -> None:
    granted, consumed, earned = sum(steps), 0, 0
    for step in steps:
        part = recognised(net, consumed + step, granted) - recognised(net, consumed, granted)
        assert part >= 0
        consumed, earned = consumed + step, earned + part
    assert earned == net


@given(st.integers(1, 10**15), st.integers(0, 10_000), st.lists(st.integers(1, 10**6), min_size=1, max_size=20))
def test_use_on_credit_in_steps_comes_to_exactly_the_price(price: int, basis_points: int, steps: list[int]) -> None:
    net, tax = net_of_tax(price, basis_points)
    granted, spent = sum(steps), 0
    before = (0, 0)
    for step in steps:
        spent += step
        after = owed(net, tax, spent, granted)
        assert after >= before
        assert after[1] >= before[1]
        before = after
    assert before == (net, tax)


@given(st.integers(1, 10**15), st.integers(0, 10_000), st.integers(0, 10**15))
def test_a_limit_in_money_is_owed_as_it_is_spent(limit: int, basis_points: int, spent: int) -> None:
    net, tax = owed(*net_of_tax(limit, basis_points), min(spent, limit), limit)
    assert net + tax == min(spent, limit)
    assert abs(net - net_of_tax(min(spent, limit), basis_points)[0]) <= 1


def test_package_sold() -> None:
    net, tax = net_of_tax(parse("9.90", "CNY"), SIX_PERCENT)
    posting = postings.package_sold(
        "ord_1", "le_1", 5, bucket_id="bkt_1", unit="token", granted=10_000_000, payer="carrier/sandbox",
        currency="CNY", net=net, tax=tax,
    )  # fmt: skip
    assert [(t.debit, t.credit, t.unit, t.amount) for t in posting.transfers] == [
        ("bucket/bkt_1/issued", "bucket/bkt_1/available", "token", 10_000_000),
        ("receivable/carrier/sandbox", "contract_liability/bkt_1", "CNY", 9_339_622_642),
        ("receivable/carrier/sandbox", "tax/output", "CNY", 560_377_358),
    ]


def test_normal_sides() -> None:
    codes = {
        postings.issued("b"): "debit",
        postings.available("b"): "credit",
        postings.spent("b"): "credit",
        postings.lease(1): "credit",
        postings.liability("b"): "credit",
        postings.receivable("carrier/x"): "debit",
        postings.cost("s"): "debit",
        postings.payable("s"): "credit",
        postings.LOSS_UNPROVEN: "debit",
        postings.TAX_OUTPUT: "credit",
        postings.CASH_CLEARING: "debit",
    }
    assert {code: postings.normal_side(code) for code in codes} == codes
