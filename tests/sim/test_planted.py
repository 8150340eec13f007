"""Every planted bug is found, by a seed that finds nothing without it."""

import pytest

from sim import planted_ledger  # noqa: F401 - registers its bugs
from sim.planted import BUGS, MORE_REQUESTS, REQUESTS
from tokenworks.sim.plan import plan
from tokenworks.sim.world import run

SEEDS = 500
# The first seeds that find them, as `search.py` prints them.
FOUND_BY = {
    "the rest of a reservation is not released": 0,
    "a slice is closed while a request runs on it": 0,
    "validity is not looked at when reserving": 38,
    "a slice is used past its time": 0,
    "each charge is rounded up": 0,
    "the bound takes the cheaper class": 0,
    "cached tokens are charged twice": 0,
    "a report above the reservation is believed": 0,
    "a customer who leaves pays nothing": 7,
    "a draining worker charges nothing": 47,
    "a request is charged before it is dispatched": 21,
    "a lease's time is measured from the reply": 187,
    "several choices are reserved for as one": 4,
    "an account's cap is not looked at": 3,
    "an unanswered lease request is forgotten": 353,
    "the sequence of a lease request is used twice": 0,
    "a lease that was taken is not written down": 1,
    "entries are written late": 5,
    "the last byte does not wait for the disk": 125,
    "bytes that are not durable are shipped": 9,
    "a sync does not reach the disk": 2,
    "the last checkpoint is dropped": 13,
    "orphans are not closed": 13,
    "what was charged is given back as well": 2,
    "leases of the dead are not given back": 2,
    "a revoked key is remembered": 25,
    "revenue is rounded for each charge": 0,
    "a late record is charged all the same": 1,
    "a repeated lease request is granted again": 353,
    "leases are reclaimed without grace": 0,
    "a bucket expires while it is leased": 1,
    "bytes that come again are posted again": 3,
    "a lost lease is not registered again": 1,
    "a registered lease takes all at once": 54,
    "an epoch is not waited for": 5,
    "ids of lost leases are given again": 1,
    "a ledger that went back is not shipped to again": 9,
    "a part that goes back is not written down": 0,
    "a lease is granted from what others hold": 0,
}


def test_every_bug_has_its_seed() -> None:
    assert FOUND_BY.keys() == BUGS.keys()
    assert max(FOUND_BY.values()) < SEEDS


@pytest.mark.parametrize("name", FOUND_BY)
def test_a_planted_bug_is_found(name: str) -> None:
    """By its seed; where the product has changed and the seed finds it no more, by one of those after it."""
    plans = (plan(seed, MORE_REQUESTS.get(name, REQUESTS)) for seed in range(FOUND_BY[name], SEEDS))
    with BUGS[name]():
        found = next((made for made in plans if run(made).violations), None)
    assert found is not None
    assert run(found).violations == ()
