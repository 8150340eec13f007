"""What the auditor knows of a reservation's steps, and of the clock by which each was judged."""

import pytest

from tokenworks.base.journal_frames import frame
from tokenworks.core import journal
from tokenworks.core.journal import Entry, Extension, Opening, Reserved
from tokenworks.core.wire import ShipRequest
from tokenworks.sim.commands import Ship
from tokenworks.sim.extensions import Extensions
from tokenworks.sim.facts import Facts

SECOND = 1_000_000_000


def part(lease_id: int, amount: int) -> Reserved:
    return Reserved(lease_id, f"bkt-{lease_id}", "token", amount)


def ship(at: int, *entries: Entry) -> Ship:
    frames = b"".join(frame(journal.encode(entry)) for entry in entries)
    return Ship(1, ShipRequest("jrn", "gw-0-0", at, frames))


def test_each_step_of_a_reservation_says_what_it_drew_and_when_that_was_known() -> None:
    opening = Opening("req", 5, "le", "acc", "key", "m", True, 10, 10, (part(1, 20),))
    first = ship(0, opening)
    place = len(first.request.frames)
    steps = Extensions()
    steps.take(first, 100)
    steps.take(ship(place, Extension(0, 10, 20, (part(1, 25), part(2, 5)))), 200)
    steps.take(ship(0, opening), 300)
    third = ship(place + 500, Extension(0, 10, 30, (part(1, 25), part(2, 15))))
    steps.take(third, 400)
    steps.take(third, 500)
    drawn = [
        (step.known_ns, step.is_first, [each.lease_id for each in step.reserved]) for step in steps.drawn("jrn", 0)
    ]
    assert drawn == [(100, True, [1]), (200, False, [1, 2]), (400, False, [2])]


@pytest.mark.parametrize(
    ("between_s", "valid_s", "showed"),
    [
        ((1, 2), (0, 100), True),
        ((1, 2), (2, 100), True),
        ((1, 2), (3, 100), False),  # not valid yet
        ((1, 2), (0, 1), False),  # over
        ((6, 7), (50, 100), True),  # it jumped a minute ahead at second 5
        ((6, 7), (0, 50), False),
        ((4, 6), (0, 5), True),  # before it jumped
        ((12, 13), (0, 13), True),  # it was set right at second 10
        ((12, 13), (60, 100), False),
        ((9, 11), (69, 100), True),
    ],
)
def test_a_worker_s_clock_showed_what_it_did_then(
    between_s: tuple[int, int], valid_s: tuple[int, int], showed: bool
) -> None:
    facts = Facts(machine_of={"gw-0-0": "m0"}, clocks={"m0": [(0, 0)]})
    facts.clock_set("m0", 5 * SECOND, 60 * SECOND)
    facts.clock_set("m0", 10 * SECOND, 0)
    between_ns = (between_s[0] * SECOND, between_s[1] * SECOND)
    assert facts.showed("gw-0-0", between_ns, (valid_s[0] * SECOND, valid_s[1] * SECOND)) is showed
