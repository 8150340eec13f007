"""Turns: live shipments go before a backlog and never wait for more than one turn of it; a backlog always goes on."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from ledger.books import Journal, faults, used_journals
from tokenworks.base.bus import Bus
from tokenworks.base.database import Pool
from tokenworks.core.metering import Named
from tokenworks.core.wire import ShipRequest
from tokenworks.ledger.store import transaction
from tokenworks.meter.desk import Desk
from tokenworks.meter.feed import Feed
from tokenworks.meter.metrics import Metrics
from tokenworks.meter.service import Metering
from tokenworks.meter.shipments import Shipment
from tokenworks.meter.turns import BACKLOG_BYTES, LIVE_BYTES, Turns, Waiting

MIB = 1 << 20


def waiting(name: str, size: int, behind: int) -> Waiting:
    request = ShipRequest(name, "gw", 0, bytes(size), bytes_behind=behind)
    shipment = Shipment(request, [], Named(frozenset(), frozenset()))
    return Waiting(shipment, asyncio.get_running_loop().create_future())


def names(turn: list[Waiting]) -> str:
    return " ".join(each.shipment.request.journal_id for each in turn)


async def test_live_ones_go_together_and_alternate_with_a_backlog() -> None:
    turns = Turns()
    for number in range(5):
        turns.add(waiting(f"b{number}", 3 * BACKLOG_BYTES // 8, behind=9 * MIB))
    for number in range(3):
        turns.add(waiting(f"l{number}", LIVE_BYTES // 2, behind=0))
    taken = [names(turns.next()) for _ in range(6)]
    assert taken == ["l0 l1", "b0 b1", "l2", "b2 b3", "b4", ""]


async def test_one_that_is_larger_than_a_turn_has_a_turn_alone() -> None:
    turns = Turns()
    turns.add(waiting("large", BACKLOG_BYTES + 1, behind=1))
    turns.add(waiting("next", 1, behind=1))
    assert [names(turns.next()) for _ in range(2)] == ["large", "next"]


@settings(max_examples=50, deadline=None)
@given(
    arrivals=st.lists(
        st.lists(st.tuples(st.booleans(), st.integers(1, BACKLOG_BYTES + MIB)), max_size=4), min_size=1, max_size=30
    )
)
def test_nobody_waits_for_ever(arrivals: list[list[tuple[bool, int]]]) -> None:
    """Between two turns with anything live waiting there is one turn of the backlog at most, and the reverse."""

    async def run() -> None:
        turns = Turns()
        left = {"l": 0, "b": 0}
        passed = {"l": 0, "b": 0}
        for number, arriving in enumerate([*arrivals, *[[] for _ in range(200)]]):
            for place, (is_live, size) in enumerate(arriving):
                kind = "l" if is_live else "b"
                turns.add(waiting(f"{kind}{number}-{place}", min(size, MIB) if is_live else size, 0 if is_live else 1))
                left[kind] += 1
            turn = turns.next()
            kinds = {each.shipment.request.journal_id[0] for each in turn}
            assert len(kinds) == (1 if left["l"] + left["b"] else 0)
            for kind, count in left.items():
                passed[kind] = 0 if kind in kinds or not count else passed[kind] + 1
                assert passed[kind] <= 1
            for each in turn:
                left[each.shipment.request.journal_id[0]] -= 1
        assert left == {"l": 0, "b": 0}

    asyncio.run(run())


async def test_journals_that_wait_share_a_transaction(database: Pool, bus: Bus) -> None:
    journals = await used_journals(database, 20)
    metering = Metering(Desk(database), bus, Feed(), Metrics(CollectorRegistry()))
    replies = await asyncio.gather(*(metering.post(each.rest(final=True)) for each in journals))
    assert {reply.fault for reply in replies} == {""}
    async with database.connection() as conn:
        cursor = await conn.execute("SELECT count(DISTINCT seq), count(*), count(DISTINCT id) FROM usage_record")
        (counted,) = await cursor.fetchall()
    assert (counted[0] <= 5, counted[1:]) == (True, (20, 20))
    assert await faults(database) == []


async def test_one_that_is_refused_does_not_keep_the_others_out(database: Pool, bus: Bus) -> None:
    journals = await used_journals(database, 4)
    journals[1].close(1, *())
    journals[2].shipped = len(Journal("j2").data)
    requests = [each.rest() for each in journals]
    requests[3] = msgspec.structs.replace(requests[3], frames=b"rubbish")
    registry = CollectorRegistry()
    metering = Metering(Desk(database), bus, Feed(), Metrics(registry))
    replies = await asyncio.gather(*(metering.post(each) for each in requests))
    assert [bool(reply.fault) for reply in replies] == [False, True, True, True]
    assert [reply.posted_through for reply in replies] == [len(journals[0].data), 0, 0, 0]
    assert "are missing" in replies[2].fault
    assert registry.get_sample_value("tokenworks_shipment_gaps_total") == 1
    assert await faults(database) == []


async def test_what_waits_behind_a_shipment_is_shown(database: Pool, bus: Bus) -> None:
    (book,) = await used_journals(database, 1)
    registry = CollectorRegistry()
    metering = Metering(Desk(database), bus, Feed(), Metrics(registry))
    for behind in (5 * MIB, 0):
        await metering.post(msgspec.structs.replace(book.rest(), bytes_behind=behind))
        assert registry.get_sample_value("tokenworks_usage_waiting_bytes", {"worker": "gw-0"}) == behind
    assert await faults(database) == []


@pytest.mark.parametrize("behind", [0, 1])
async def test_what_one_journal_breaks_in_the_ledger_stays_its_own(database: Pool, bus: Bus, behind: int) -> None:
    """The event of one journal's posting is there already, with another content."""
    journals = await used_journals(database, 3)
    async with transaction(database, "meter", 1) as conn:
        event = f"journal/j1/{len(journals[1].data)}/le"
        await conn.execute(
            """INSERT INTO posting (kind, event_id, body_digest, legal_entity_id, at_ns, used_at_ns, detail)
               VALUES ('usage_posted', %s, 'x', 'le', 1, 1, '{}')""",
            (event,),
        )
    metering = Metering(Desk(database), bus, Feed(), Metrics(CollectorRegistry()))
    requests = [msgspec.structs.replace(each.rest(), bytes_behind=behind) for each in journals]
    replies = await asyncio.gather(*(metering.post(each) for each in requests))
    assert [bool(reply.fault) for reply in replies] == [False, True, False]
    assert "posted before with another content" in replies[1].fault
