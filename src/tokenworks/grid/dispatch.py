"""Dispatch: which endpoint serves a request now. Fewest running requests among those that are well and have a place.

A circuit breaker for each endpoint: one that fails rests, twice as long after each failure in a row, up to a named
limit. After its rest one request tries it (a probe) while the others still go elsewhere; a success ends it, a failure
is the next rest. The choice is a function of the board's state and of the time passed in, so the simulation can run it
too. Nothing here connects to an endpoint, and prices are not weighed yet.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from tokenworks.core.snapshot import Endpoint

_FIRST_REST_NS = 500_000_000
# An endpoint that is being tried after its rest: to be left alone until that has ended.
_PROBING_NS = 1 << 62


class EndpointState(msgspec.Struct):
    """What a worker knows of an endpoint: requests running there, turns it had, failures in a row, rest until when.

    `places` is how many requests of this worker may run there at once; 0 sets no limit.
    """

    running: int = 0
    turns: int = 0
    failures: int = 0
    rest_until_ns: int = 0
    places: int = 0


def choose(
    endpoints: Sequence[Endpoint], states: Sequence[EndpointState], tried: Collection[str], mono_ns: int
) -> int | None:
    """The index of the endpoint to use, or None when all were tried, or are full.

    Rest is a preference, not a ban: when all that are left rest, the one whose rest ends first is used, because a
    refusal helps nobody and an endpoint may be back. But where one that is well is only full, it is worth waiting for.
    Among equals the one with the fewest turns goes first.
    """
    best: int | None = None
    best_score = (0, 0, 0)
    is_worth_waiting = False
    for index, state in enumerate(states):
        if tried and endpoints[index].id in tried:
            continue
        resting_ns = state.rest_until_ns if state.rest_until_ns > mono_ns else 0
        if state.places and state.running >= state.places:
            is_worth_waiting = is_worth_waiting or not resting_ns
            continue
        score = (resting_ns, state.running, state.turns)
        if best is None or score < best_score:
            best, best_score = index, score
    return None if is_worth_waiting and best_score[0] else best


class _States(dict[str, EndpointState]):
    def __missing__(self, endpoint_id: str) -> EndpointState:
        state = self[endpoint_id] = EndpointState()
        return state


class Board:
    """The states of all endpoints, kept by id so that they outlive a change of the catalog. The only writer of them."""

    def __init__(self, rest_ns_max: int) -> None:
        self._rest_ns_max = rest_ns_max
        self._states = _States()

    def choose(self, endpoints: Sequence[Endpoint], tried: Collection[str], mono_ns: int) -> Endpoint | None:
        """The endpoint for the next attempt; see `choose`."""
        states = self._states
        found = [states[endpoint.id] for endpoint in endpoints]
        index = choose(endpoints, found, tried, mono_ns)
        return None if index is None else endpoints[index]

    def state(self, endpoint_id: str) -> EndpointState:
        """The state of an endpoint, fresh if it is new."""
        return self._states[endpoint_id]

    def begin(self, endpoint_id: str) -> None:
        """A request goes to the endpoint. Where it has failed before, this is the probe."""
        state = self._states[endpoint_id]
        state.running += 1
        state.turns += 1
        if state.failures:
            state.rest_until_ns = _PROBING_NS

    def end(self, endpoint_id: str) -> None:
        """A request left the endpoint, however it went. A probe that showed nothing makes room for the next."""
        self._states[endpoint_id].running -= 1
        self.end_probe(endpoint_id)

    def end_probe(self, endpoint_id: str) -> None:
        """Where this was a probe, another may try as well from now on: a stream that has begun may last long."""
        state = self._states[endpoint_id]
        if state.rest_until_ns == _PROBING_NS:
            state.rest_until_ns = 0

    def succeeded(self, endpoint_id: str) -> None:
        """The endpoint answered as it should."""
        state = self._states[endpoint_id]
        if state.failures:
            state.failures = state.rest_until_ns = 0

    def failed(self, endpoint_id: str, mono_ns: int, asked_ns: int = 0) -> None:
        """The endpoint could not be reached, answered that it cannot serve, broke off or fell silent.

        It may have asked to be left alone for a while; beyond the limit of all rests nobody is.
        """
        state = self.state(endpoint_id)
        state.failures += 1
        rest_ns = max(_FIRST_REST_NS << min(state.failures - 1, 30), asked_ns)
        state.rest_until_ns = mono_ns + min(rest_ns, self._rest_ns_max)

    def has_other(self, endpoints: Sequence[Endpoint], endpoint_id: str, mono_ns: int) -> bool:
        """Whether another endpoint is well and has a place."""
        found = self.choose(endpoints, (endpoint_id,), mono_ns)
        return found is not None and self.state(found.id).rest_until_ns <= mono_ns

    def limit(self, places: Mapping[str, int]) -> None:
        """How many requests may run at once, by endpoint; 0 is no limit.

        One that left the catalog, and so is not named, keeps its limit: somebody may still wait for it.
        """
        for endpoint_id, count in places.items():
            self.state(endpoint_id).places = count

    def running(self) -> dict[str, int]:
        """How many requests run, by endpoint."""
        return {name: state.running for name, state in sorted(self._states.items())}

    def resting(self, mono_ns: int) -> list[str]:
        """The endpoints that are left alone now."""
        return sorted(name for name, state in self._states.items() if state.rest_until_ns > mono_ns)

    def keep(self, endpoint_ids: Collection[str]) -> None:
        """Forget endpoints that left the catalog and serve nothing any more."""
        for endpoint_id, state in list(self._states.items()):
            if endpoint_id not in endpoint_ids and state.running == 0:
                del self._states[endpoint_id]
