"""Circuit breakers, whatever happens in whatever order: left at once, probed by one, back with one success."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stand_in_office import endpoint
from tokenworks.core.snapshot import Endpoint
from tokenworks.grid.dispatch import Board

MS = 1_000_000
REST_MAX = 5_000 * MS
ENDPOINTS = [endpoint("http://x/v1", name) for name in "abc"]
Running = list[Endpoint]


class Breakers(RuleBasedStateMachine):
    """Requests that begin and end at three endpoints, beside a plain record of what was seen of each."""

    def __init__(self) -> None:
        super().__init__()
        self.board = Board(REST_MAX)
        self.now = 1
        self.running: Running = []
        self.failures = dict.fromkeys("abc", 0)
        self.failed_at = dict.fromkeys("abc", 0)
        self.probing = dict.fromkeys("abc", False)
        self.places = dict.fromkeys("abc", 0)

    def rests(self, name: str) -> bool:
        """As the page of the room says it."""
        rest = min(500 * MS << max(self.failures[name] - 1, 0), REST_MAX)
        return bool(self.failures[name]) and (self.probing[name] or self.now < self.failed_at[name] + rest)

    def full(self, name: str) -> bool:
        return 0 < self.places[name] <= sum(each.id == name for each in self.running)

    @rule(by=st.integers(0, 3_000))
    def pass_time(self, by: int) -> None:
        self.now += by * MS

    @rule(name=st.sampled_from("abc"), places=st.integers(0, 2))
    def limit(self, name: str, places: int) -> None:
        self.places[name] = places
        self.board.limit(self.places)

    @rule(tried=st.sets(st.sampled_from("abc"), max_size=2))
    def begin(self, tried: set[str]) -> None:
        left = [name for name in "abc" if name not in tried]
        found = self.board.choose(ENDPOINTS, tried, self.now)
        well = [name for name in left if not self.rests(name)]
        if found is None:
            assert all(self.full(name) for name in left) or (well and all(self.full(name) for name in well))
            return
        assert found.id in left
        assert not self.full(found.id)
        assert found.id in well or not well, "one that rests is used only where none is well"
        self.board.begin(found.id)
        self.running.append(found)
        if self.failures[found.id]:
            self.probing[found.id] = True

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "neither"]))
    def end(self, data: st.DataObject, how: str) -> None:
        gone = data.draw(st.sampled_from(self.running))
        self.running.remove(gone)
        self.board.end(gone.id)
        if self.probing[gone.id]:
            # A probe of which nothing was learnt makes room for the next at once.
            self.probing[gone.id] = False
            self.failed_at[gone.id] = -REST_MAX
        if how == "succeeded":
            self.board.succeeded(gone.id)
            self.failures[gone.id] = 0
        elif how == "failed":
            self.board.failed(gone.id, self.now)
            self.failures[gone.id] += 1
            self.failed_at[gone.id] = self.now

    @invariant()
    def who_rests_is_known(self) -> None:
        assert self.board.resting(self.now) == [name for name in "abc" if self.rests(name)]


TestBreakers = Breakers.TestCase


def test_an_endpoint_may_ask_for_a_rest_within_the_limit() -> None:
    board = Board(REST_MAX)
    board.failed("a", 0, 2_000 * MS)
    assert board.state("a").rest_until_ns == 2_000 * MS
    board.failed("a", 0, 3_600_000 * MS)
    assert board.state("a").rest_until_ns == REST_MAX


def test_after_its_rest_one_request_probes_while_the_others_go_elsewhere() -> None:
    board = Board(REST_MAX)
    for _ in range(3):
        board.begin("b")
    board.failed("a", 0)
    chosen: list[str] = []
    for now in (100 * MS, 600 * MS, 600 * MS, 600 * MS):
        found = board.choose(ENDPOINTS[:2], (), now)
        assert found is not None
        chosen.append(found.id)
        board.begin(found.id)
    assert chosen == ["b", "a", "b", "b"]
    board.end("a")
    board.succeeded("a")
    found = board.choose(ENDPOINTS[:2], (), 600 * MS)
    assert found is not None
    assert found.id == "a"


def test_another_that_is_well() -> None:
    board = Board(REST_MAX)
    assert board.has_other(ENDPOINTS[:2], "a", 0)
    assert not board.has_other(ENDPOINTS[:1], "a", 0)
    board.failed("b", 0)
    assert not board.has_other(ENDPOINTS[:2], "a", 100 * MS)
    assert board.has_other(ENDPOINTS, "a", 100 * MS)
    board.limit({"c": 1})
    board.begin("c")
    assert not board.has_other(ENDPOINTS, "a", 100 * MS)
