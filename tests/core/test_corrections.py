"""Corrections decided: reverse draw order, one rounding each, and liability zero whatever happened in between."""

from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core import corrections
from tokenworks.core.bucket import Bucket
from tokenworks.core.commands import CommandRefused
from tokenworks.core.corrections import BucketBooks, Charged, Head
from tokenworks.core.postings import normal_side

HEAD = Head(
    id="cor_1", kind="usage_refunded", legal_entity_id="le", billing_account_id="acc", about="x", reason="because",
    reference="", used_at_ns=1, at_ns=100,
)  # fmt: skip


def books(name: str = "b", *, until: int = 1_000, kind: Any = "prepaid", **parts: int) -> BucketBooks:
    empty = dict.fromkeys(("available", "leased", "spent", "expired", "withdrawn"), 0)
    amounts = empty | parts
    prices = {"net": amounts.pop("net", 9_339), "tax": amounts.pop("tax", 561)}
    return BucketBooks(
        bucket=Bucket(name, "acc", "le", "token", "plain", 0, until),
        kind=kind, currency="CNY", payer="carrier/x", granted=sum(amounts.values()), **prices, **amounts,
    )  # fmt: skip


def moves(decision: corrections.Decision) -> list[tuple[str, str, int]]:
    return [(each.debit, each.credit, each.amount) for each in decision.posting.transfers]


def test_the_bucket_drawn_last_is_refunded_first() -> None:
    state = {"a": books("a", spent=100, net=1_000), "b": books("b", spent=60, available=40, net=500)}
    charged = [Charged(0, "a", "token", 100), Charged(1, "b", "token", 60)]
    decision = corrections.refund(HEAD, charged, state, {}, (70, "token"), 0)
    assert moves(decision) == [
        ("bucket/b/spent", "bucket/b/available", 60),
        ("revenue/tokens", "contract_liability/b", 300),
        ("bucket/a/spent", "bucket/a/available", 10),
        ("revenue/tokens", "contract_liability/a", 100),
    ]
    assert (decision.posting.kind, decision.posting.event_id) == ("usage_refunded", "correction/cor_1")


def test_an_expired_bucket_is_replaced_by_one_with_its_terms_and_share_of_the_price() -> None:
    old = books("a", until=50, spent=30, expired=70)
    decision = corrections.refund(HEAD, [Charged(0, "a", "token", 30)], {"a": old}, {}, (10, "token"), 900)
    [new] = decision.replacements
    assert new.bucket == msgspec.structs.replace(old.bucket, id="bkt_1-1", valid_from_ns=100, valid_to_ns=900)
    assert (new.granted, new.net, new.tax) == (10, 934, 56)
    assert moves(decision) == [
        ("bucket/a/spent", "bucket/a/withdrawn", 10),
        ("revenue/tokens", "contract_liability/a", 934),
        ("bucket/bkt_1-1/issued", "bucket/bkt_1-1/available", 10),
        ("contract_liability/a", "contract_liability/bkt_1-1", 934),
    ]


def test_use_on_credit_is_owed_no_longer_and_owed_back_if_it_was_paid() -> None:
    running = books("b", spent=50, available=50, net=1_000, tax=60, kind="credit")
    charged = [Charged(0, "b", "token", 50)]
    decision = corrections.refund(HEAD, charged, {"b": running}, {"carrier/x": 420}, (40, "token"), 0)
    assert moves(decision) == [
        ("bucket/b/spent", "bucket/b/available", 40),
        ("revenue/tokens", "receivable/carrier/x", 400),
        ("tax/output", "receivable/carrier/x", 20),
        ("tax/output", "refund_due/carrier/x", 4),
    ]
    over = books("b", until=50, spent=50, expired=50, net=1_000, tax=60, kind="credit")
    decision = corrections.refund(HEAD, charged, {"b": over}, {"carrier/x": 0}, None, 0)
    assert moves(decision) == [
        ("bucket/b/spent", "bucket/b/expired", 50),
        ("revenue/tokens", "refund_due/carrier/x", 500),
        ("tax/output", "refund_due/carrier/x", 30),
    ]
    assert moves(corrections.withdraw(HEAD, running, 20)) == [("bucket/b/available", "bucket/b/withdrawn", 20)]


def test_a_chargeback_takes_what_is_left_and_the_rest_is_owed() -> None:
    decision = corrections.charge_back(HEAD, [books(spent=25, available=75)], 10**6)
    assert moves(decision) == [
        ("bucket/b/available", "bucket/b/withdrawn", 75),
        ("contract_liability/b", "receivable/carrier/x", 7_004),
        ("tax/output", "receivable/carrier/x", 421),
        ("receivable/customer/acc", "receivable/carrier/x", 2_475),
    ]
    paid_already = corrections.charge_back(HEAD, [books(spent=25, available=75)], 9_899)
    assert {credit for _, credit, _ in moves(paid_already)} == {"bucket/b/withdrawn", "refund_due/carrier/x"}


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: corrections.refund(HEAD, [Charged(0, "b", "token", 0)], {"b": books(spent=5)}, {}, None, 0),
        lambda: corrections.refund(HEAD, [Charged(0, "b", "token", 5)], {"b": books(spent=5)}, {}, (6, "token"), 0),
        lambda: corrections.refund(HEAD, [Charged(0, "b", "token", 5)], {"b": books(spent=5)}, {}, (1, "coin"), 0),
        lambda: corrections.withdraw(HEAD, books(available=5, leased=1), None),
        lambda: corrections.withdraw(HEAD, books(available=5), 6),
        lambda: corrections.withdraw(HEAD, books(available=5), 0),
        lambda: corrections.withdraw(HEAD, books(available=5, until=100), None),
        lambda: corrections.charge_back(HEAD, [books(available=5, leased=1)], 10**6),
        lambda: corrections.charge_back(HEAD, [books(withdrawn=5)], 10**6),
        lambda: corrections.write_off(HEAD, "CNY", 5, 6),
        lambda: corrections.write_off(HEAD, "CNY", 0, None),
        lambda: corrections.settle_refund(HEAD, "CNY", 5, 9, 6),
        lambda: corrections.settle_refund(HEAD, "CNY", 9, 5, 6),
        lambda: corrections.credit_supplier(HEAD, "CNY", 5, 9, 6),
        lambda: corrections.check_reason(" "),
    ],
)
def test_what_cannot_be_is_refused(attempt: Any) -> None:
    with pytest.raises(CommandRefused):
        attempt()


STEP = st.tuples(st.sampled_from(["spend", "refund", "withdraw", "expire", "replace"]), st.integers(1, 400))


@given(st.integers(1, 1_000), st.integers(0, 5_000), st.integers(0, 900), st.lists(STEP, max_size=25))
def test_no_order_of_use_refunds_and_withdrawals_leaves_a_residue(
    granted: int, net: int, tax: int, steps: list[tuple[str, int]]
) -> None:
    """Balances of money, kept apart by a model that only adds up transfers, follow the bucket's two figures."""
    state = books(available=granted, net=net, tax=tax)
    money: dict[str, int] = {"contract_liability/b": net, "tax/output": tax}
    for kind, number in steps:
        state = _step(state, kind, number, money)
        assert min(money.values()) >= 0
        assert money["contract_liability/b"] == _half_up(net, granted - state.withdrawn, granted) - _half_up(
            net, state.spent + state.expired, granted
        )
    sold = money["contract_liability/b"] + money.get("revenue", 0)
    gone = sum(amount for code, amount in money.items() if code.startswith(("refund_due", "contract_liability/bkt")))
    assert sold + gone + money["tax/output"] == net + tax
    if state.available == 0:
        assert money["contract_liability/b"] == 0
    if state.withdrawn == granted:
        assert money.get("revenue", 0) == 0


def _step(state: BucketBooks, kind: str, number: int, money: dict[str, int]) -> BucketBooks:
    if kind in {"spend", "expire"} and state.available:
        part = "spent" if kind == "spend" else "expired"
        amount = min(number, state.available) if kind == "spend" else state.available
        after = msgspec.structs.replace(
            state, available=state.available - amount, **{part: getattr(state, part) + amount}
        )
        _move(money, "contract_liability/b", "revenue", after.earned - state.earned)
        return after
    if kind == "withdraw" and state.available:
        amount = min(number, state.available)
        decision = corrections.withdraw(HEAD, state, amount)
        after = msgspec.structs.replace(state, available=state.available - amount, withdrawn=state.withdrawn + amount)
    elif kind in {"refund", "replace"} and state.spent:
        amount, into = min(number, state.spent), "available" if kind == "refund" else "withdrawn"
        at = HEAD if kind == "refund" else msgspec.structs.replace(HEAD, at_ns=2_000)
        decision = corrections.refund(
            at, [Charged(0, "b", "token", state.spent)], {"b": state}, {}, (amount, "token"), 9_999
        )
        after = msgspec.structs.replace(state, spent=state.spent - amount, **{into: getattr(state, into) + amount})
    else:
        return state
    for transfer in decision.posting.transfers:
        if transfer.unit == "CNY":
            debit, credit = (code.replace("/tokens", "") for code in (transfer.debit, transfer.credit))
            assert (normal_side(transfer.debit), normal_side(transfer.credit)) == ("credit", "credit")
            _move(money, debit, credit, transfer.amount)
    return after


def _move(money: dict[str, int], debit: str, credit: str, amount: int) -> None:
    money[debit] = money.get(debit, 0) - amount
    money[credit] = money.get(credit, 0) + amount


def _half_up(price: int, part: int, whole: int) -> int:
    return int(Fraction(price * part, whole) + Fraction(1, 2))
