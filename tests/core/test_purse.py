"""The purse: nothing is reserved twice, nothing charged above its reservation, everything charged that was covered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.amounts import MILLION
from tokenworks.core.bounds import Need
from tokenworks.core.bucket import Bucket
from tokenworks.core.purse import Purse, Slice, charges_for
from tokenworks.core.tariff import Rate, Tariff, flat
from tokenworks.core.usage import Tokens

NOW = 1_000
FAR = 10_000


def bucket(
    name: str, tariff: str = "plain", priority: int = 100, valid_to_ns: int = FAR, models: tuple[str, ...] = ()
) -> Bucket:
    return Bucket(name, "acc", "le", "token", tariff, 0, valid_to_ns, priority, models=models)


def held(lease_id: int, terms: Bucket, amount: int, use_until_ns: int = FAR) -> Slice:
    return Slice(lease_id, terms, amount, amount, use_until_ns, linger=True)


def purse(*slices: Slice) -> Purse:
    made = Purse()
    for each in slices:
        made.add(each)
    return made


TARIFFS = {
    "plain": Tariff("plain", 1, "token", {"*/*": flat(MILLION)}),
    "double": Tariff("double", 3, "token", {"*/*": flat(2 * MILLION)}),
    "free": Tariff("free", 1, "token", {"*/*": flat(0)}),
    "only-x": Tariff("only-x", 1, "token", {"x/*": flat(MILLION)}),
}


def test_reserve_charge_release() -> None:
    mine = purse(held(1, bucket("b"), 1_000))
    reservation = mine.reserve(Need(100, 200), "m", TARIFFS, NOW, NOW)
    assert (reservation.short, mine.slices[0].free, mine.slices[0].reserved) == (Need(0, 0), 700, 300)
    charges = charges_for(reservation, Tokens(35, output=12))
    mine.settle(reservation, charges)
    assert [(charge.tariff, charge.amount) for charge in charges] == [("plain@1", 47)]
    assert (mine.slices[0].free, mine.slices[0].reserved) == (953, 0)


def test_draw_order_is_priority_then_expiry_then_id() -> None:
    mine = purse(
        held(1, bucket("z", valid_to_ns=FAR - 1), 10),
        held(2, bucket("late"), 10),
        held(3, bucket("first", priority=1), 10),
        held(4, bucket("a", valid_to_ns=FAR - 1), 10),
    )
    reservation = mine.reserve(Need(0, 40), "m", TARIFFS, NOW, NOW)
    assert [part.slice.bucket.id for part in reservation.parts] == ["first", "a", "z", "late"]


def test_two_buckets_with_different_multipliers_share_one_request() -> None:
    mine = purse(held(1, bucket("b1", "double", priority=1), 100), held(2, bucket("b2"), 1_000))
    reservation = mine.reserve(Need(30, 60), "m", TARIFFS, NOW, NOW)
    assert [part.amount for part in reservation.parts] == [100, 40]
    charges = charges_for(reservation, Tokens(30, output=25))
    assert [(charge.amount, charge.tokens.total) for charge in charges] == [(100, 50), (5, 5)]


@pytest.mark.parametrize(
    ("terms", "use_until_ns"),
    [
        (bucket("b", models=("other",)), FAR),
        (bucket("b", valid_to_ns=NOW), FAR),
        (bucket("b"), NOW),
        (bucket("b", "only-x"), FAR),
        (bucket("b", "unknown"), FAR),
    ],
)
def test_slices_that_may_not_be_used_are_passed_over(terms: Bucket, use_until_ns: int) -> None:
    reservation = purse(held(1, terms, 1_000, use_until_ns)).reserve(Need(10, 10), "m", TARIFFS, NOW, NOW)
    assert (reservation.parts, reservation.short) == ((), Need(10, 10))


def test_what_is_short_is_output_before_input() -> None:
    reservation = purse(held(1, bucket("b"), 50)).reserve(Need(30, 100), "m", TARIFFS, NOW, NOW)
    assert (reservation.short, reservation.covered) == (Need(0, 80), Need(30, 20))


def test_the_last_token_can_be_spent() -> None:
    mine = purse(held(1, bucket("b"), 47))
    reservation = mine.reserve(Need(35, 12), "m", TARIFFS, NOW, NOW)
    assert reservation.short == Need(0, 0)
    mine.settle(reservation, charges_for(reservation, Tokens(35, output=12)))
    assert mine.slices[0].free == 0
    assert list(mine.returnable(NOW)) == mine.slices


def test_release_gives_everything_back() -> None:
    mine = purse(held(1, bucket("b"), 50), held(2, bucket("c"), 50))
    mine.release(mine.reserve(Need(30, 100), "m", TARIFFS, NOW, NOW))
    assert [(each.free, each.reserved) for each in mine.slices] == [(50, 0), (50, 0)]


def test_slices_go_back_when_idle_and_lapsed_or_not_to_linger() -> None:
    lapsed, keep = held(1, bucket("a"), 5, use_until_ns=NOW), held(2, bucket("b"), 5)
    hasty = Slice(3, bucket("c"), 5, 5, FAR, linger=False)
    busy = Slice(4, bucket("d"), 5, 0, NOW, linger=False, reserved=5, uses=1)
    assert list(purse(lapsed, keep, hasty, busy).returnable(NOW)) == [lapsed, hasty]


prices = st.integers(min_value=0, max_value=5 * MILLION)
rates = st.builds(Rate, prices, prices, prices, prices, prices)


@given(st.data(), st.lists(st.tuples(rates, st.integers(1, 3_000)), min_size=1, max_size=4))
def test_covered_use_is_charged_whole_and_within_the_reservation(
    data: st.DataObject, sources: list[tuple[Rate, int]]
) -> None:
    tariffs = {f"t{i}": Tariff(f"t{i}", 1, "token", {"*/*": rate}) for i, (rate, _) in enumerate(sources)}
    mine = purse(*(held(i, bucket(f"b{i}", f"t{i}"), amount) for i, (_, amount) in enumerate(sources)))
    reservation = mine.reserve(
        Need(data.draw(st.integers(0, 500)), data.draw(st.integers(0, 500))), "m", tariffs, NOW, NOW
    )
    covered = reservation.covered
    read, written = data.draw(st.integers(0, covered.input_max)), data.draw(st.integers(0, covered.output_max))
    cached, reasoning = data.draw(st.integers(0, read)), data.draw(st.integers(0, written))
    used = Tokens(read - cached, cached, 0, written - reasoning, reasoning)
    charges = charges_for(reservation, used)
    amounts = {part.slice.lease_id: part.amount for part in reservation.parts}
    assert all(charge.amount <= amounts[charge.lease_id] for charge in charges)
    assert sum((charge.tokens for charge in charges), Tokens()) == used
    mine.settle(reservation, charges)
    left = sum(each.free for each in mine.slices)
    assert left == sum(amount for _, amount in sources) - sum(charge.amount for charge in charges)
    assert all(each.reserved == 0 and each.free >= 0 for each in mine.slices)
