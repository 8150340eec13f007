"""Limits: no window holds more than its limit, counts heard in any way add up, and waits are told as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.bounds import Need
from tokenworks.core.limits import CELLS, ROLLING_NS, Gauge, Limit, Seats, Window, cell_of, least, name_of, within

S = 1_000_000_000
NOON = 1_769_832_000 * S  # 2026-01-31T04:00:00Z, noon in Shanghai


def limit(amount: int, window: Window = "minute", *, rolling: bool = False, timezone: str = "UTC") -> Limit:
    return Limit("key.tokens", "tokens", amount, window, rolling, timezone=timezone)


CELLS_OF = [
    (limit(1), NOON + 61 * S, NOON + 60 * S, 60 * S),
    (limit(1, rolling=True), NOON + 1_500_000_000, NOON + S, S),
    (limit(1, "day"), NOON, NOON - 4 * 3600 * S, 86_400 * S),
    (limit(1, "day", timezone="Asia/Shanghai"), NOON, NOON - 12 * 3600 * S, 86_400 * S),
    (limit(1, "month", timezone="Asia/Shanghai"), NOON, NOON - (30 * 24 + 12) * 3600 * S, 31 * 86_400 * S),
    # The day on which clocks went forward in Berlin has 23 hours.
    (limit(1, "day", timezone="Europe/Berlin"), 1_774_738_800 * S, 1_774_738_800 * S, 23 * 3600 * S),
]


@pytest.mark.parametrize(("given", "now_ns", "from_ns", "length_ns"), CELLS_OF)
def test_where_a_moment_is_counted(given: Limit, now_ns: int, from_ns: int, length_ns: int) -> None:
    assert cell_of(given, now_ns) == (from_ns, from_ns + length_ns)


def test_a_fixed_window_begins_anew_and_a_rolling_one_lets_go_bit_by_bit() -> None:
    fixed, rolling = Gauge(limit(10)), Gauge(limit(10, rolling=True))
    for gauge in (fixed, rolling):
        gauge.take(4, NOON + 50 * S)
        gauge.take(6, NOON + 58 * S)
        assert gauge.left(NOON + 59 * S) == 0
    assert fixed.left(NOON + 60 * S) == 10
    assert rolling.left(NOON + 110 * S) == 0
    assert rolling.left(NOON + 111 * S) == 4
    assert rolling.left(NOON + 119 * S) == 10


WAITS = [
    (limit(10), 1, 10 * S),
    (limit(10), 11, None),
    (limit(10, rolling=True), 1, 51 * S),
    (limit(10, rolling=True), 5, 59 * S),
    (limit(10, rolling=True), 10, 59 * S),
    (limit(20), 10, 0),
]


@pytest.mark.parametrize(("given", "amount", "wait_ns"), WAITS)
def test_how_long_to_wait(given: Limit, amount: int, wait_ns: int | None) -> None:
    gauge = Gauge(given)
    gauge.take(4, NOON + 40 * S)
    gauge.take(6, NOON + 48 * S)
    assert gauge.wait_ns(amount, NOON + 50 * S) == wait_ns
    if wait_ns:
        assert gauge.left(NOON + 50 * S + wait_ns) >= amount


@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 20 * S), st.integers(1, 6)), max_size=60),
)
def test_no_window_ever_holds_more_than_its_limit(rolling: bool, steps: list[tuple[int, int]]) -> None:
    gauge, now_ns = Gauge(limit(10, rolling=rolling)), NOON
    taken: list[tuple[int, int]] = []
    for pause_ns, amount in steps:
        now_ns += pause_ns
        if gauge.left(now_ns) >= amount:
            gauge.take(amount, now_ns)
            taken.append((now_ns, amount))
    for start_ns, _ in taken:
        begin_ns = start_ns if rolling else start_ns // (60 * S) * 60 * S
        held = sum(amount for at_ns, amount in taken if begin_ns <= at_ns < begin_ns + 60 * S)
        assert held <= 10


@given(st.lists(st.tuples(st.integers(0, 20 * S), st.integers(1, 6)), max_size=40))
def test_what_a_rolling_window_lets_go_comes_back_in_time(steps: list[tuple[int, int]]) -> None:
    """It is refused no longer than a sixtieth of the window after it would have fitted exactly."""
    gauge, now_ns = Gauge(limit(10, rolling=True)), NOON
    taken: list[tuple[int, int]] = []
    for pause_ns, amount in steps:
        now_ns += pause_ns
        held = sum(used for at_ns, used in taken if at_ns > now_ns - 61 * S)
        if held + amount <= 10:
            assert gauge.left(now_ns) >= amount
        if gauge.left(now_ns) >= amount:
            gauge.take(amount, now_ns)
            taken.append((now_ns, amount))


HEARD = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 20)), max_size=30)


@given(HEARD, st.booleans(), st.data())
def test_counts_heard_twice_or_late_add_up_to_what_was_said_last(
    heard: list[tuple[str, int, int]], rolling: bool, data: st.DataObject
) -> None:
    gauge = Gauge(limit(1_000, rolling=rolling))
    width_ns = ROLLING_NS["minute"] // (CELLS if rolling else 1)
    last: dict[tuple[str, int], int] = {}
    now_ns = NOON + 3 * width_ns
    for epoch, cell, used in heard:
        for _ in range(data.draw(st.integers(1, 2))):
            gauge.hear(epoch, NOON + cell * width_ns, used, now_ns)
        last[epoch, cell] = used
    counted = sum(used for (_, cell), used in last.items() if rolling or cell == 3)
    assert gauge.left(now_ns) == 1_000 - counted


def test_a_worker_whose_clock_is_ahead_counts_in_its_own_window() -> None:
    gauge = Gauge(limit(10))
    gauge.take(3, NOON + 59 * S)
    gauge.hear("b", NOON + 60 * S, 5, NOON + 59 * S)
    assert gauge.left(NOON + 59 * S) == 7
    assert gauge.left(NOON + 60 * S) == 5


def test_a_clock_that_is_set_back_does_not_give_a_window_twice() -> None:
    gauge = Gauge(limit(10))
    gauge.take(10, NOON + 60 * S)
    assert gauge.left(NOON + 59 * S) == 0
    assert gauge.left(NOON + 119 * S) == 0


def test_corrections_lie_in_the_cell_of_what_they_correct() -> None:
    gauge = Gauge(limit(10))
    cell_ns = gauge.take(8, NOON)
    assert gauge.correct(cell_ns, -5)
    assert gauge.left(NOON) == 7
    assert gauge.told("me", cell_ns).used == 3
    assert gauge.reset_ns(NOON + 20 * S) == 40 * S
    assert gauge.left(NOON + 60 * S) == 10
    assert not gauge.correct(cell_ns, -3)
    assert gauge.left(NOON + 60 * S) == 10
    assert gauge.is_empty(NOON + 60 * S)
    assert gauge.reset_ns(NOON + 60 * S) == 0


def test_seats_are_forgotten_with_those_who_held_them() -> None:
    seats = Seats(Limit("key.concurrency", "concurrency", 5))
    seats.own = 1
    seats.hear("b", 2, 10)
    seats.hear("c", 1, 20)
    assert seats.left() == 1
    seats.hear("b", 1, 30)
    seats.forget(25)
    assert seats.left() == 3
    seats.hear("b", 0, 40)
    assert seats.left() == 4


NEEDS: list[tuple[Need, int, int, int]] = [
    (Need(80, 20), 1, 10_000, 100),
    (Need(80, 4_096), 1, 10_000, 80 + 1_024),
    (Need(80, 4_096), 2, 10_000, 80 + 2_048),
    (Need(80, 4_096), 1, 400, 80 + 100),
    (Need(80, 4_096), 4, 4, 80 + 4),
]


@pytest.mark.parametrize(("asked", "choices", "amount", "wanted"), NEEDS)
def test_what_a_request_must_have(asked: Need, choices: int, amount: int, wanted: int) -> None:
    assert least(asked, choices, 1_024, amount) == wanted
    for room in (wanted, 1 << 40):
        left = within(asked, room)
        assert left.input_max == asked.input_max
        assert left.output_max == min(asked.output_max, room - asked.input_max)


def test_names() -> None:
    assert name_of("key_1", "spend", "month", "CNY") == "key_1.spend.CNY.month"
    assert name_of("cus_1", "concurrency", "", "") == "cus_1.concurrency"
