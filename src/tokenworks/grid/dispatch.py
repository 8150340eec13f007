"""Dispatch: which endpoint serves a request now. Fewest running requests among those that are not resting.

An endpoint that fails rests, twice as long after each failure in a row, up to a named limit; one success ends it. The
choice is a function of the board's state and of the time passed in, so the simulation can run it too. Nothing here
connects to an endpoint, and prices are not weighed yet.
"""

from collections.abc import Collection, Sequence

import msgspec

from tokenworks.core.snapshot import Endpoint

_FIRST_REST_NS = 500_000_000


class EndpointState(msgspec.Struct):
    """What a worker knows of an endpoint: requests running there, turns it had, failures in a row, rest until when."""

    running: int = 0
    turns: int = 0
    failures: int = 0
    rest_until_ns: int = 0


def choose(
    endpoints: Sequence[Endpoint], states: Sequence[EndpointState], tried: Collection[str], mono_ns: int
) -> int | None:
    """The index of the endpoint to use, or None when all were tried.

    Rest is a preference, not a ban: when all that are left rest, the one whose rest ends first is used, because a
    refusal helps nobody and an endpoint may be back. Among equals the one with the fewest turns goes first.
    """
    best: int | None = None
    best_score = (0, 0, 0)
    for index, state in enumerate(states):
        if tried and endpoints[index].id in tried:
            continue
        resting_ns = state.rest_until_ns if state.rest_until_ns > mono_ns else 0
        score = (resting_ns, state.running, state.turns)
        if best is None or score < best_score:
            best, best_score = index, score
    return best


class Board:
    """The states of all endpoints, kept by id so that they outlive a change of the catalog. The only writer of them."""

    def __init__(self, rest_ns_max: int) -> None:
        self._rest_ns_max = rest_ns_max
        self._states: dict[str, EndpointState] = {}

    def choose(self, endpoints: Sequence[Endpoint], tried: Collection[str], mono_ns: int) -> Endpoint | None:
        """The endpoint for the next attempt; see `choose`."""
        index = choose(endpoints, [self.state(endpoint.id) for endpoint in endpoints], tried, mono_ns)
        return None if index is None else endpoints[index]

    def state(self, endpoint_id: str) -> EndpointState:
        """The state of an endpoint, fresh if it is new."""
        found = self._states.get(endpoint_id)
        if found is None:
            found = self._states[endpoint_id] = EndpointState()
        return found

    def begin(self, endpoint_id: str) -> None:
        """A request goes to the endpoint."""
        state = self.state(endpoint_id)
        state.running += 1
        state.turns += 1

    def end(self, endpoint_id: str) -> None:
        """A request left the endpoint, however it went."""
        self.state(endpoint_id).running -= 1

    def succeeded(self, endpoint_id: str) -> None:
        """The endpoint answered as it should."""
        self.state(endpoint_id).failures = 0

    def failed(self, endpoint_id: str, mono_ns: int) -> None:
        """The endpoint could not be reached, answered that it cannot serve, broke off or fell silent."""
        state = self.state(endpoint_id)
        state.failures += 1
        rest_ns = min(_FIRST_REST_NS << min(state.failures - 1, 30), self._rest_ns_max)
        state.rest_until_ns = mono_ns + rest_ns

    def keep(self, endpoint_ids: Collection[str]) -> None:
        """Forget endpoints that left the catalog and serve nothing any more."""
        for endpoint_id, state in list(self._states.items()):
            if endpoint_id not in endpoint_ids and state.running == 0:
                del self._states[endpoint_id]
