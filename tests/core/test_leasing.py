"""Lease decisions as a table: who gets how much of which bucket, and every refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.amounts import MILLION
from tokenworks.core.bounds import Need
from tokenworks.core.bucket import Bucket
from tokenworks.core.leasing import Held, LeaseRequest, Rooms, decide
from tokenworks.core.refusals import Code
from tokenworks.core.tariff import Tariff, flat

NOTHING = Need(0, 0)
TARIFFS = {"plain": Tariff("plain", 1, "token", {"*/*": flat(MILLION)})}


def bucket(name: str = "b", **terms: int) -> Bucket:
    return Bucket(name, "acc", "le", "token", "plain", 0, terms.get("valid_to_ns", 100), terms.get("priority", 100))


def request(
    need: Need,
    least: Need | None = None,
    pace: Need = NOTHING,
    *,
    likely: Need | None = None,
    free: int = 0,
    early: bool = False,
) -> LeaseRequest:
    idle = (("b", free),) if free else ()
    return LeaseRequest("gw-0", "e1", 1, "acc", "m", need, least or need, pace, likely or need, idle, early)


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
        ([Held(bucket(), 15, 5)], Need(10, 10), Need(10, 1), Code.BALANCE_RESERVED),
        ([Held(bucket(), 10, 0)], Need(10, 10), Need(10, 1), Code.BALANCE_USED_UP),
    ],
)
def test_refusals(held: list[Held], need: Need, least: Need, code: Code) -> None:
    decision = decide(request(need, least), held, TARIFFS, 2, 10)
    assert decision.refusal is not None
    assert (decision.refusal.code, decision.grants) == (code, ())


FULL, LIKELY, LEAST = Need(10, 100), Need(10, 20), Need(10, 1)


@pytest.mark.parametrize(
    ("available", "elsewhere", "granted"),
    [
        (110, 0, 110),
        (110, 5, 110),
        (109, 5, 109),
        (30, 5, 30),
        (29, 5, Code.BALANCE_RESERVED),
        (29, 0, 29),
        (11, 0, 11),
        (10, 5, Code.BALANCE_RESERVED),
        (10, 0, Code.BALANCE_USED_UP),
    ],
    ids=[
        *("all of it", "all of it, others hold some", "enough for a likely answer", "just enough for one"),
        *("too little, more may come", "too little, and no more", "one token", "less, more may come", "less"),
    ],
)
def test_who_gets_what(available: int, elsewhere: int, granted: int | Code) -> None:
    decision = decide(request(FULL, LEAST, likely=LIKELY), [Held(bucket(), available, elsewhere)], TARIFFS, 2, 10)
    if decision.refusal is not None:
        assert (decision.refusal.code, decision.grants) == (granted, ())
    else:
        assert [grant.amount for grant in decision.grants] == [granted]


@pytest.mark.parametrize(("leased", "free", "waits"), [(40, 40, False), (41, 40, True), (40, 0, True)])
def test_what_the_asking_worker_holds_idle_is_not_elsewhere(leased: int, free: int, waits: bool) -> None:
    asked = request(FULL, LEAST, likely=LIKELY, free=free)
    decision = decide(asked, [Held(bucket(), 15, leased)], TARIFFS, 2, 10)
    assert (decision.refusal is not None, decision.elsewhere) == (waits, waits)


def test_the_first_of_many_that_wait_is_looked_at_by_itself() -> None:
    """Input of all comes before output of any where a sum is covered; that must not refuse the first."""
    many = request(Need(1_000, 10_000), LEAST, likely=LIKELY)
    decision = decide(many, [Held(bucket(), 500, 5)], TARIFFS, 2, 10)
    assert [grant.amount for grant in decision.grants] == [500]


@pytest.mark.parametrize(
    ("available", "pace", "amounts"),
    [
        (100_000, Need(500, 500), [1_110]),
        (100_000, Need(10**6, 10**6), [2_000]),
        (5_500, Need(500, 500), [110]),
        (5_499, Need(500, 500), []),
        (0, Need(500, 500), []),
    ],
    ids=["the pace", "at most the share", "a share of one request", "low: nothing", "empty"],
)
def test_a_slice_asked_for_early(available: int, pace: Need, amounts: list[int]) -> None:
    asked = request(FULL, NOTHING, pace, early=True)
    decision = decide(asked, [Held(bucket(), available, 7)], TARIFFS, 2, 10)
    assert ([grant.amount for grant in decision.grants], decision.refusal) == (amounts, None)


def test_an_early_slice_keeps_the_draw_order() -> None:
    low_then_large = [Held(bucket("b1", priority=1), 30, 0), Held(bucket("b2"), 10**6, 0)]
    asked = request(FULL, NOTHING, Need(500, 500), early=True)
    assert decide(asked, low_then_large, TARIFFS, 2, 10).grants == ()
    empty_then_large = [Held(bucket("b1", priority=1), 0, 30), low_then_large[1]]
    assert [grant.bucket.id for grant in decide(asked, empty_then_large, TARIFFS, 2, 10).grants] == ["b2"]


@pytest.mark.parametrize(
    ("account", "worker", "outcome"),
    [
        (1_000, 1_000, 110),
        (80, 1_000, 80),
        (1_000, 80, 80),
        (29, 1_000, Code.BALANCE_RESERVED),
        (0, 1_000, Code.BALANCE_RESERVED),
        (1_000, 29, Code.LEASE_UNAVAILABLE),
        (29, 29, Code.BALANCE_RESERVED),
    ],
)
def test_caps(account: int, worker: int, outcome: int | Code) -> None:
    rooms = Rooms({"token": account}, {"token": worker, "CNY": 0})
    decision = decide(request(FULL, LEAST, likely=LIKELY), [Held(bucket(), 10**6, 5)], TARIFFS, 2, 10, rooms)
    found = decision.refusal.code if decision.refusal else sum(grant.amount for grant in decision.grants)
    assert found == outcome


def test_a_cap_counts_all_buckets_of_its_unit_together() -> None:
    held = [Held(bucket("b1", priority=1), 60, 5), Held(bucket("b2"), 10**6, 5)]
    decision = decide(request(FULL, LEAST, likely=LIKELY), held, TARIFFS, 2, 10, Rooms({"token": 70}))
    assert [grant.amount for grant in decision.grants] == [60, 10]


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
    likely = Need(read, max(min(1, written), written // 2))
    asked = request(Need(read, written), Need(read, min(1, written)), Need(10**6, 10**6), likely=likely)
    decision = decide(asked, held, TARIFFS, share, 10)
    left = {state.bucket.id: state.available for state in held}
    for grant in decision.grants:
        assert 0 < grant.amount <= left.pop(grant.bucket.id)
    if decision.refusal is None and held:
        assert sum(grant.amount for grant in decision.grants) >= min(read + written, read + min(1, written))
