"""Queues: order of tiers, ageing, fairness by weight, shedding; nobody starves, whatever comes."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tokenworks.core.tiers import RANK, TIERS, served_as
from tokenworks.grid.queue import Ticket, TierQueue

AGE = 2_000
FREE, MEDIUM, HIGH, PREMIUM, ULTRA = range(5)


def ticket(tier: int = MEDIUM, account: str = "a", at: int = 0, *, tokens: int = 100, weight: int = 1) -> Ticket:
    return Ticket(tier, account, weight, tokens, at)


def queue(*tickets: Ticket, length_max: int = 1_000) -> TierQueue:
    made = TierQueue(length_max, AGE)
    for each in tickets:
        made.push(each)
    return made


def served(waiting: TierQueue, now: int) -> Ticket:
    found = waiting.next(now)
    assert found is not None
    waiting.take(found, now)
    return found


TURNS = [
    ("the higher tier", [(MEDIUM, 0), (HIGH, 0), (FREE, 0)], 10, [HIGH, MEDIUM, FREE]),
    ("a tier for each age", [(FREE, 0), (MEDIUM, AGE + 1)], AGE + 2, [FREE, MEDIUM]),
    ("of equal claims the higher", [(FREE, 0), (MEDIUM, AGE)], AGE, [MEDIUM, FREE]),
    ("above all after five ages", [(FREE, 0), (ULTRA, AGE)], 5 * AGE, [ULTRA, FREE]),
    ("who came first after that", [(FREE, 0), (ULTRA, 4 * AGE + 1)], 9 * AGE + 2, [FREE, ULTRA]),
]


@pytest.mark.parametrize(("waiting", "now", "order"), [case[1:] for case in TURNS], ids=[case[0] for case in TURNS])
def test_whose_turn_it_is(waiting: list[tuple[int, int]], now: int, order: list[int]) -> None:
    made = queue(*(ticket(tier, f"{tier}", at) for tier, at in waiting))
    assert [served(made, now).tier for _ in waiting] == order
    assert made.next(now) is None


def test_customers_share_a_tier_by_tokens_not_by_requests() -> None:
    made = queue(
        *(ticket(account="long", tokens=300) for _ in range(40)), *(ticket(account="short") for _ in range(40))
    )
    turns = Counter(served(made, 1).account for _ in range(40))
    assert turns == {"long": 10, "short": 30}


def test_twice_the_weight_twice_the_tokens() -> None:
    weights = {"a": 1, "b": 2, "c": 3}
    made = queue(*(ticket(account=name, weight=weight) for name, weight in weights.items() for _ in range(60)))
    assert Counter(served(made, 1).account for _ in range(60)) == {"a": 10, "b": 20, "c": 30}


def test_what_was_used_counts_not_what_was_thought() -> None:
    made = queue(*(ticket(account=name) for name in "ab" for _ in range(40)))
    turns: Counter[str] = Counter()
    for _ in range(40):
        found = served(made, 1)
        turns[found.account] += 1
        made.correct(found, 300 if found.account == "a" else 100)
    assert turns == {"a": 10, "b": 30}


def test_who_comes_later_has_saved_nothing() -> None:
    made = queue(*(ticket(account="a") for _ in range(20)))
    for _ in range(10):
        served(made, 1)
    for _ in range(10):
        made.push(ticket(account="b"))
    assert Counter(served(made, 1).account for _ in range(10)) == {"a": 5, "b": 5}


def test_a_full_queue_sheds_from_below() -> None:
    many, few = ([ticket(FREE, name) for _ in range(count)] for name, count in (("many", 20), ("few", 12)))
    made = queue(*many, *few, length_max=32)
    assert made.push(ticket(HIGH, "high")) is many[-1]
    assert made.push(ticket(MEDIUM, "medium")) is many[-2]
    last = ticket(FREE, "many")
    assert made.push(last) is last
    assert made.push(ticket(FREE, "new")) is many[-3]
    assert made.length == 32
    assert made.lengths() == (30, 1, 1, 0, 0)


def test_each_tier_keeps_its_floor() -> None:
    made = queue(*(ticket(FREE) for _ in range(32)), length_max=32)
    for number in range(64):
        made.push(ticket(ULTRA, f"{number}"))
    assert made.lengths() == (2, 0, 0, 0, 30)
    refused = ticket(HIGH, "new")
    assert made.push(refused) is refused


def test_how_long_it_will_take() -> None:
    made = queue(*(ticket(HIGH) for _ in range(50)), *(ticket(FREE) for _ in range(10)))
    for now in range(0, 40 * 500, 500):
        served(made, now)
    assert 10 * 500 <= made.wait_ns(HIGH) <= made.wait_ns(FREE)


def test_a_request_is_served_as_bought_or_lower_if_it_says_so() -> None:
    assert served_as("high", "") == RANK["high"]
    assert served_as("high", "free") == RANK["free"]
    assert served_as("high", "ultra") == RANK["high"]
    assert served_as("unheard of", "auto") == RANK["medium"]


class Waiting(RuleBasedStateMachine):
    """Arrivals, turns and leaves in any order, beside a list of what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = TierQueue(24, AGE)
        self.waiting: list[Ticket] = []
        self.now = 0

    @rule(tier=st.integers(0, 4), account=st.sampled_from("abc"), tokens=st.integers(1, 500), weight=st.integers(1, 3))
    def arrive(self, tier: int, account: str, tokens: int, weight: int) -> None:
        came = Ticket(tier, account, weight, tokens, self.now)
        shed = self.queue.push(came)
        self.waiting.append(came)
        if shed is not None:
            assert len(self.waiting) > 24
            assert shed.tier <= came.tier
            assert shed.is_over
            self.waiting.remove(shed)

    @rule(by=st.integers(0, 3 * AGE))
    def pass_time(self, by: int) -> None:
        self.now += by

    @precondition(lambda self: self.waiting)
    @rule(tokens=st.integers(0, 1_000))
    def turn(self, tokens: int) -> None:
        found = served(self.queue, self.now)
        self.waiting.remove(found)
        assert not [each for each in self.waiting if each.at_ns + 5 * AGE < found.at_ns], (
            "overtaken by one much younger"
        )
        same = [each for each in self.waiting if (each.tier, each.account) == (found.tier, found.account)]
        assert all(each.at_ns >= found.at_ns for each in same), "a customer's requests keep their order"
        self.queue.correct(found, tokens)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(gone)
        self.queue.drop(gone)
        self.queue.drop(gone)

    @invariant()
    def lengths_add_up(self) -> None:
        assert self.queue.length == len(self.waiting) == sum(self.queue.lengths())
        assert (self.queue.next(self.now) is None) == (not self.waiting)


TestWaiting = Waiting.TestCase


@given(st.randoms(use_true_random=True))
def test_in_a_flood_every_tier_is_served_and_the_lowest_are_shed(chance: Any) -> None:
    """Twice as many come as can be served."""
    made, now, number = TierQueue(160, AGE), 0, 0
    done, shed = Counter[int](), Counter[int]()
    for _ in range(1_000):
        now += chance.randrange(150)
        for _ in range(2):
            number += 1
            gone = made.push(Ticket(number % 5, chance.choice("abc"), 1, chance.randrange(50, 150), now))
            if gone is not None:
                shed[gone.tier] += 1
        done[served(made, now).tier] += 1
    floor = 160 // 16
    for lower, higher in zip(range(4), range(1, 5), strict=True):
        assert shed[lower] + 2 * floor >= shed[higher]
    assert all(done[tier] >= floor for tier in range(len(TIERS)))
    assert done[ULTRA] > 2 * done[FREE]


@given(st.randoms(use_true_random=True))
def test_who_always_waits_gets_his_share_at_every_moment(chance: Any) -> None:
    """The bound of virtual counters: no two are further apart than two of the longest requests."""
    weights = {"a": 1, "b": 2, "c": 5}
    longest = 400
    made = TierQueue(1_000, 1 << 40)
    got: Counter[str] = Counter()

    def arrive(account: str) -> None:
        made.push(Ticket(MEDIUM, account, weights[account], chance.randrange(1, longest), 0))

    for account in weights:
        for _ in range(chance.randrange(1, 5)):
            arrive(account)
    for _ in range(500):
        found = served(made, 1)
        used = chance.randrange(1, longest)
        got[found.account] += used
        arrive(found.account)
        made.correct(found, used)
        shares = [got[account] / weight for account, weight in weights.items()]
        assert max(shares) - min(shares) <= 2 * longest
