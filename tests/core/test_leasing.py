"""Lease decisions as a table: who gets how much of which bucket, and every refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.amounts import MILLION
from tokenworks.core.bounds import Need
from tokenworks.core.bucket import Bucket
from tokenworks.core.leasing import Held, LeaseRequest, decide
from tokenworks.core.refusals import Code
from tokenworks.core.tariff import Tariff, flat

NOTHING = Need(0, 0)
TARIFFS = {"plain": Tariff("plain", 1, "token", {"*/*": flat(MILLION)})}


def bucket(name: str = "b", **terms: int) -> Bucket:
    return Bucket(name, "acc", "le", "token", "plain", 0, terms.get("valid_to_ns", 100), terms.get("priority", 100))


def request(need: Need, least: Need | None = None, pace: Need = NOTHING) -> LeaseRequest:
    return LeaseRequest("gw-0", "e1", 1, "acc", "m", need, least or need, pace)


@pytest.mark.parametrize(
    ("available", "need", "pace", "amount", "linger"),
    [
        (10_000_000, Need(100, 900), Need(0, 0), 1_000, True),
        (10_000_000, Need(100, 900), Need(4_000, 5_000), 10_000, True),
        (10_000_000, Need(100, 900), Need(10**6, 10**6), 200_000, True),
        (20_000, Need(100, 900), Need(10**6, 10**6), 1_000, False),
        (1_000, Need(100, 900), Need(10**6, 10**6), 1_000, False),
    ],
    ids=["need", "need and pace", "share caps the pace", "low: exact need", "last of it"],
)
def test_slice_size(available: int, need: Need, pace: Need, amount: int, linger: bool) -> None:
    decision = decide(request(need, pace=pace), [Held(bucket(), available, 0)], TARIFFS, 2, 10)
    assert [(grant.amount, grant.linger) for grant in decision.grants] == [(amount, linger)]


@pytest.mark.parametrize(
    ("held", "need", "least", "code"),
    [
        ([], Need(10, 10), Need(10, 1), Code.NO_MATCHING_BUCKET),
        ([Held(bucket(valid_to_ns=10), 100, 0)], Need(10, 10), Need(10, 1), Code.NO_MATCHING_BUCKET),
        ([Held(bucket(), 0, 0)], Need(10, 10), Need(10, 1), Code.BALANCE_USED_UP),
        ([Held(bucket(), 0, 5)], Need(10, 10), Need(10, 1), Code.BALANCE_RESERVED),
        ([Held(bucket(), 10, 0)], Need(10, 10), Need(10, 1), Code.BALANCE_USED_UP),
    ],
)
def test_refusals(held: list[Held], need: Need, least: Need, code: Code) -> None:
    decision = decide(request(need, least), held, TARIFFS, 2, 10)
    assert decision.refusal is not None
    assert (decision.refusal.code, decision.grants) == (code, ())


def test_a_partial_cover_is_granted_when_the_least_is_met() -> None:
    decision = decide(request(Need(10, 100), Need(10, 1)), [Held(bucket(), 11, 0)], TARIFFS, 2, 10)
    assert [grant.amount for grant in decision.grants] == [11]


def test_a_second_bucket_covers_what_the_first_cannot() -> None:
    held = [Held(bucket("late"), 10**6, 0), Held(bucket("early", valid_to_ns=50), 30, 0)]
    decision = decide(request(Need(20, 20)), held, TARIFFS, 2, 10)
    assert [(grant.bucket.id, grant.amount) for grant in decision.grants] == [("early", 30), ("late", 10)]


def test_a_free_model_still_gets_a_slice_to_draw_from() -> None:
    tariffs = {"plain": Tariff("plain", 1, "token", {"*/*": flat(0)})}
    decision = decide(request(Need(10, 10)), [Held(bucket(), 100, 0)], tariffs, 2, 10)
    assert [grant.amount for grant in decision.grants] == [1]


amounts = st.integers(min_value=0, max_value=10**8)


@given(st.lists(amounts, max_size=4), amounts, amounts, st.integers(1, 10))
def test_never_more_than_available(available: list[int], read: int, written: int, share: int) -> None:
    held = [Held(bucket(f"b{i}"), amount, 0) for i, amount in enumerate(available)]
    asked = request(Need(read, written), Need(read, min(1, written)), Need(10**6, 10**6))
    decision = decide(asked, held, TARIFFS, share, 10)
    left = {state.bucket.id: state.available for state in held}
    for grant in decision.grants:
        assert 0 < grant.amount <= left.pop(grant.bucket.id)
    if decision.refusal is None and held:
        assert sum(grant.amount for grant in decision.grants) >= min(read + written, read + min(1, written))
