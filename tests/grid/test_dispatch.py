"""Dispatch: fewest running among those that do not rest; rest grows, ends with a success, and is no ban."""

from hypothesis import given
from hypothesis import strategies as st

from stand_in_office import endpoint
from tokenworks.grid.dispatch import Board, EndpointState, choose

MS = 1_000_000
ENDPOINTS = [endpoint("http://x/v1", name) for name in "abc"]


def chosen(*states: EndpointState, tried: tuple[str, ...] = (), now: int = 100) -> int | None:
    return choose(ENDPOINTS[: len(states)], states, tried, now)


def test_fewest_running_then_fewest_turns() -> None:
    assert chosen(EndpointState(running=2), EndpointState(running=1), EndpointState(running=3)) == 1
    assert chosen(EndpointState(turns=2), EndpointState(turns=1)) == 1
    assert chosen(EndpointState(), EndpointState()) == 0


def test_rest_is_a_preference() -> None:
    resting, longer = EndpointState(rest_until_ns=200), EndpointState(rest_until_ns=300)
    assert chosen(resting, EndpointState(running=9)) == 1
    assert chosen(longer, resting) == 1
    assert chosen(resting, EndpointState(running=1), now=200) == 0


def test_none_is_tried_twice() -> None:
    assert chosen(EndpointState(), EndpointState(), tried=("a",)) == 1
    assert chosen(EndpointState(), tried=("a",)) is None
    assert chosen() is None


def test_rest_doubles_up_to_its_limit_and_ends_with_a_success() -> None:
    board = Board(5_000 * MS)
    rests: list[int] = []
    for _ in range(6):
        board.failed("a", 0)
        rests.append(board.state("a").rest_until_ns // MS)
    assert rests == [500, 1_000, 2_000, 4_000, 5_000, 5_000]
    board.succeeded("a")
    board.failed("a", 0)
    assert board.state("a").rest_until_ns == 500 * MS


def test_equal_endpoints_share_the_work() -> None:
    board = Board(1)
    turns: list[str] = []
    for _ in range(6):
        found = board.choose(ENDPOINTS, (), 0)
        assert found is not None
        turns.append(found.id)
        board.begin(found.id)
        board.end(found.id)
    assert turns == ["a", "b", "c"] * 2


def test_what_left_the_catalog_is_forgotten_once_idle() -> None:
    board = Board(1)
    board.begin("a")
    board.keep(["b"])
    assert board.state("a").running == 1
    board.end("a")
    board.keep(["b"])
    assert board.state("a") == EndpointState()


@given(
    st.lists(
        st.builds(EndpointState, st.integers(0, 5), st.integers(0, 5), rest_until_ns=st.integers(0, 200)), max_size=3
    )
)
def test_no_other_would_have_been_better(states: list[EndpointState]) -> None:
    index = chosen(*states)
    assert (index is None) == (not states)
    if index is not None and states[index].rest_until_ns <= 100:
        awake = [state.running for state in states if state.rest_until_ns <= 100]
        assert states[index].running == min(awake)
