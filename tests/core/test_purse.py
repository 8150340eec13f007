"""The purse: nothing is reserved twice, nothing charged above its reservation, everything charged that was covered."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.amounts import MILLION, Rounding
from tokenworks.core.bounds import Need
from tokenworks.core.bucket import Bucket
from tokenworks.core.purse import Purse, Reservation, Slice, charges_for
from tokenworks.core.tariff import Rate, Tariff, cost, flat
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
    assert mine.returnable(NOW, 0) == mine.slices


def test_release_gives_everything_back() -> None:
    mine = purse(held(1, bucket("b"), 50), held(2, bucket("c"), 50))
    mine.release(mine.reserve(Need(30, 100), "m", TARIFFS, NOW, NOW))
    assert [(each.free, each.reserved) for each in mine.slices] == [(50, 0), (50, 0)]


def test_slices_go_back_when_lapsed_idle_or_not_to_linger() -> None:
    lapsed, keep = held(1, bucket("a"), 5, use_until_ns=NOW), held(2, bucket("b"), 5)
    hasty = Slice(3, bucket("c"), 5, 5, FAR, linger=False)
    busy = Slice(4, bucket("d"), 5, 0, NOW, linger=False, reserved=5, uses=1)
    idle = held(5, bucket("e"), 5)
    lapsed.used_ns = keep.used_ns = hasty.used_ns = busy.used_ns = 800
    idle.used_ns = 700
    assert purse(lapsed, keep, hasty, busy, idle).returnable(NOW, 700) == [lapsed, hasty, idle]


def test_what_is_free_of_a_slice_in_use_can_go_back() -> None:
    mine = purse(held(1, bucket("b"), 1_000), held(2, bucket("c"), 7))
    first = mine.reserve(Need(0, 100), "m", TARIFFS, NOW, NOW)
    assert (mine.spare(NOW, keep=True), mine.spare(NOW, keep=False)) == ([], [mine.slices[0]])
    assert mine.spare(FAR, keep=True) == [mine.slices[0]]
    mine.give_back(mine.slices[0], 900)
    mine.settle(first, charges_for(first, Tokens(output=40)))
    assert (mine.slices[0].free, mine.slices[0].leased) == (60, 1_000)


def test_an_extension_joins_the_slice_it_ended_with() -> None:
    mine = purse(held(1, bucket("b"), 50), held(2, bucket("b"), 1_000))
    reservation = mine.reserve(Need(10, 20), "m", TARIFFS, NOW, NOW)
    full = Reservation(reservation.parts, Need(10, 500), Need(0, 480))
    grown = mine.extend(full, Need(0, 15), "m", TARIFFS, NOW, NOW)
    assert [(part.slice.lease_id, part.amount) for part in grown.parts] == [(1, 45)]
    assert (grown.covered, mine.slices[0].uses) == (Need(10, 35), 1)
    more = mine.extend(grown, Need(0, 15), "m", TARIFFS, NOW, NOW)
    assert [(part.slice.lease_id, part.amount) for part in more.parts] == [(1, 50), (2, 10)]
    mine.shrink(more, full)
    assert [(each.free, each.reserved, each.uses) for each in mine.slices] == [(20, 30, 1), (1_000, 0, 0)]
    mine.release(full)
    assert [(each.free, each.reserved, each.uses) for each in mine.slices] == [(50, 0, 0), (1_000, 0, 0)]


def test_a_slice_stays_while_an_extension_is_not_taken_back() -> None:
    mine = purse(Slice(1, bucket("b"), 1_000, 1_000, FAR, linger=False))
    first = mine.reserve(Need(0, 100), "m", TARIFFS, NOW, NOW)
    asking = Reservation(first.parts, Need(0, 200), Need(0, 100))
    grown = mine.extend(asking, Need(0, 64), "m", TARIFFS, NOW, NOW)
    mine.settle(first, charges_for(first, Tokens(output=40)))
    assert mine.returnable(NOW, 0) == []
    mine.shrink(grown, asking)
    assert [each.free for each in mine.returnable(NOW, 0)] == [960]


def test_a_bucket_is_rounded_once_however_many_slices_pay() -> None:
    tariffs = {"fine": Tariff("fine", 1, "CNY", {"*/*": flat(1_400_000)})}
    terms = Bucket("b", "acc", "le", "CNY", "fine", 0, FAR)
    mine = purse(*(held(number, terms, 7) for number in range(1, 4)))
    reservation = mine.reserve(Need(0, 11), "m", tariffs, NOW, NOW)
    charges = charges_for(reservation, Tokens(output=11))
    assert sum(charge.amount for charge in charges) == 15
    assert sum((charge.tokens for charge in charges), Tokens()) == Tokens(output=11)
    mine.settle(reservation, charges)


prices = st.integers(min_value=0, max_value=5 * MILLION)
rates = st.builds(Rate, prices, prices, prices, prices, prices)


def spread(data: st.DataObject, whole: Need) -> list[Need]:
    """The need in the steps in which it is reserved; all input comes first."""
    steps = data.draw(st.lists(st.integers(0, 200), max_size=4))
    needs = [Need(whole.input_max, min(whole.output_max, data.draw(st.integers(0, 200))))]
    for step in steps:
        left = whole.output_max - sum(need.output_max for need in needs)
        needs.append(Need(0, min(step, left)))
    return needs


@given(
    st.data(),
    st.lists(st.tuples(rates, st.integers(1, 3_000), st.integers(0, 1)), min_size=1, max_size=4),
    st.sampled_from(["up", "half_up"]),
)
def test_covered_use_is_charged_whole_and_within_the_reservation(
    data: st.DataObject, sources: list[tuple[Rate, int, int]], rounding: Rounding
) -> None:
    """Also where the reservation grew in steps, slices came and parts of them went meanwhile."""
    tariffs = {f"t{i}": Tariff(f"t{i}", 1, "token", {"*/*": rate}, rounding) for i, (rate, _, _) in enumerate(sources)}
    mine = purse()
    for i, (_, amount, twice) in enumerate(sources):
        mine.add(held(2 * i, bucket(f"b{i}", f"t{i}"), amount))
        if twice:
            mine.add(held(2 * i + 1, bucket(f"b{i}", f"t{i}"), amount))
    total = sum(each.leased for each in mine.slices)
    need = Need(data.draw(st.integers(0, 500)), data.draw(st.integers(0, 500)))
    reservation = Reservation((), need, need)
    for step in spread(data, need):
        grown = mine.extend(reservation, step, "m", tariffs, NOW, NOW)
        if data.draw(st.booleans()):
            mine.shrink(grown, reservation)
            grown = mine.extend(reservation, step, "m", tariffs, NOW, NOW)
        reservation = grown
        if reservation.short.input_max:
            break
        spare = mine.spare(NOW, keep=False)
        if spare and data.draw(st.booleans()):
            part = data.draw(st.integers(1, spare[0].free))
            mine.give_back(spare[0], part)
            total -= part
    covered = reservation.covered
    read, written = data.draw(st.integers(0, covered.input_max)), data.draw(st.integers(0, covered.output_max))
    cached, reasoning = data.draw(st.integers(0, read)), data.draw(st.integers(0, written))
    used = Tokens(read - cached, cached, 0, written - reasoning, reasoning)
    charges = charges_for(reservation, used)
    amounts: Counter[int] = Counter()
    for part in reservation.parts:
        amounts[part.slice.lease_id] += part.amount
    amounts.subtract({charge.lease_id: 0 for charge in charges})
    for charge in charges:
        amounts[charge.lease_id] -= charge.amount
    assert min(amounts.values(), default=0) >= 0
    assert sum((charge.tokens for charge in charges), Tokens()) == used
    for i, (rate, _, _) in enumerate(sources):
        paid = [charge for charge in charges if charge.bucket_id == f"b{i}"]
        tokens = sum((charge.tokens for charge in paid), Tokens())
        if tokens.total:
            assert sum(charge.amount for charge in paid) == cost(tokens, rate, rounding)
    mine.settle(reservation, charges)
    left = sum(each.free for each in mine.slices)
    assert left == total - sum(charge.amount for charge in charges)
    assert all(each.reserved == each.uses == 0 and each.free >= 0 for each in mine.slices)
