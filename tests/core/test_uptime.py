"""Uptime is what was seen, and never more than the time that passed."""

from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.uptime import Uptime

LOOKS = {
    "never looked at": ([], 10, 1, None),
    "one look proves nothing": ([(5, True)], 10, 1, None),
    "up all the time": ([(0, True), (5, True), (10, True)], 10, 10, 10),
    "not up for so long": ([(0, True), (10, True)], 10, 11, None),
    "up, then nothing known for a while": ([(0, True), (10, True)], 14, 4, 8),
    "down in between": ([(0, True), (4, True), (6, False), (7, True), (10, True)], 10, 5, 8),
    "looks too far apart": ([(0, True), (21, True), (22, True)], 22, 1, 1),
    "and nothing from before": ([(0, True), (21, True), (22, True)], 22, 2, None),
    "found down ends what was up at the look before": ([(0, True), (4, True), (10, False)], 10, 4, 10),
}


def test_how_far_back_one_must_go() -> None:
    for name, (looks, now, wanted, expected) in LOOKS.items():
        assert watched(looks).age_ns(now, wanted) == expected, name


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=30), st.integers(0, 200))
def test_uptime_never_exceeds_time(steps: list[tuple[int, bool]], wanted: int) -> None:
    looks: list[tuple[int, bool]] = []
    now = 0
    for step, is_up in steps:
        now += step
        looks.append((now, is_up))
    age = watched(looks).age_ns(now, wanted)
    assert age is None or wanted <= age <= now
    more = watched(looks).age_ns(now, wanted + 1)
    assert more is None or (age is not None and more > age)


def watched(looks: list[tuple[int, bool]]) -> Uptime:
    uptime = Uptime(gap_max_ns=20)
    for at, is_up in looks:
        uptime.look(at, is_up=is_up)
    return uptime
