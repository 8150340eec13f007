"""Every planted bug is found, by a seed that finds nothing without it."""

import pytest

from sim import planted_ledger  # noqa: F401 - registers its bugs
from sim.planted import BUGS, MORE_REQUESTS, REQUESTS
from tokenworks.sim.plan import plan
from tokenworks.sim.world import run

# The first seeds that find them, as `search.py` prints them.
FOUND_BY = {
    "the rest of a reservation is not released": 0,
    "a slice is closed while a request runs on it": 0,
    "validity is not looked at when reserving": 13,
    "a slice is used past its time": 0,
    "each charge is rounded up": 0,
    "the bound takes the cheaper class": 0,
    "cached tokens are charged twice": 0,
    "a report above the reservation is believed": 0,
    "a customer who leaves pays nothing": 0,
    "a draining worker charges nothing": 8,
    "a request is charged before it is dispatched": 8,
    "several choices are reserved for as one": 6,
    "a lease's time is measured from the reply": 62,
    "an unanswered lease request is forgotten": 47,
    "the sequence of a lease request is used twice": 0,
    "a lease that was taken is not written down": 7,
    "entries are written late": 1,
    "the last byte does not wait for the disk": 82,
    "bytes that are not durable are shipped": 15,
    "a sync does not reach the disk": 2,
    "a full disk is not noticed": 34,
    "the last checkpoint is dropped": 9,
    "orphans are not closed": 3,
    "what was charged is given back as well": 1,
    "leases of the dead are not given back": 1,
    "a revoked key is remembered": 36,
    "revenue is rounded for each charge": 0,
    "a late record is charged all the same": 2,
    "a repeated lease request is granted again": 47,
    "leases are reclaimed without grace": 2,
    "a bucket expires while it is leased": 2,
    "bytes that come again are posted again": 1,
    "a shipment is acknowledged before it is committed": 206,
    "a lease is granted from what others hold": 0,
}


def test_every_bug_has_its_seed() -> None:
    assert FOUND_BY.keys() == BUGS.keys()
    assert max(FOUND_BY.values()) < 500


@pytest.mark.parametrize("name", FOUND_BY)
def test_a_planted_bug_is_found(name: str) -> None:
    made = plan(FOUND_BY[name], MORE_REQUESTS.get(name, REQUESTS))
    with BUGS[name]():
        assert run(made).violations
    assert run(made).violations == ()
