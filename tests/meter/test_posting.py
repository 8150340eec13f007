"""Shipments: posted exactly once, with the right transfers, and never to the customer what cannot be confirmed."""

import msgspec
import pytest

from ledger.books import (
    GRANTED,
    NET,
    SECOND,
    SETTINGS,
    TAX,
    Journal,
    ask,
    balances,
    bucket,
    charge,
    faults,
    grant,
    lease,
    sell,
)
from tokenworks.base.database import Pool
from tokenworks.base.journal_frames import frame
from tokenworks.core import journal
from tokenworks.core.journal import Checkpoint, Head, LeaseClose, LeaseReturn
from tokenworks.core.usage import NONE
from tokenworks.core.wire import ShipRequest
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.meter.posting import post_batch
from tokenworks.meter.usage import records


async def test_one_request_moves_both_books(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 1_000)
    book = Journal()
    book.close(book.open(held), charge(held, 400))
    book.add(LeaseClose(held.lease_id, 600))
    reply = await book.ship(database, final=True)
    assert (reply.posted_through, reply.fault) == (len(book.data), "")
    assert await balances(database) == {
        "bucket/b/issued": GRANTED,
        "bucket/b/available": GRANTED - 400,
        "bucket/b/spent": 400,
        "contract_liability/b": NET - 373_585,
        "revenue/tokens": 373_585,
        "receivable/carrier/sandbox": NET + TAX,
        "tax/output": TAX,
        "cost/tokens/sup": 3,
        "payable/sup": 3,
    }
    assert await faults(database) == []


async def test_the_last_token_brings_the_liability_to_zero(database: Pool) -> None:
    await sell(database, bucket("b"), granted=7, net=100)
    held = await lease(database, 1, 7)
    book = Journal()
    for _ in range(7):
        book.close(book.open(held), charge(held, 1))
        await book.ship(database)
    async with database.connection() as conn:
        found = await records(conn)
    assert [line.revenue for record in reversed(found) for line in record.charges] == [14, 15, 14, 14, 14, 15, 14]
    left = await balances(database)
    assert (left.get("contract_liability/b"), left["revenue/tokens"], left["bucket/b/spent"]) == (None, 100, 7)
    assert await faults(database) == []


async def test_every_way_of_cutting_and_repeating_gives_the_same(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 1_000)
    book = Journal()
    first = book.open(held)
    second = book.open(held)
    book.add(Checkpoint(second, NONE, (), ()))
    book.close(second, charge(held, 20))
    third = book.close(first, charge(held, 10))
    for through in (third, len(book.data)):
        part = ShipRequest(book.name, book.worker, 0, book.data[:through])
        for _ in range(2):
            assert (await post_batch(database, part, SECOND)).reply.posted_through == through
    assert (await balances(database))["bucket/b/spent"] == 30
    async with database.connection() as conn:
        assert [record.request_id for record in await records(conn)] == ["req-j1-1", "req-j1-2"]
    assert await faults(database) == []


async def test_a_closing_that_comes_again_is_skipped(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 100)
    book = Journal()
    opening = book.open(held)
    book.close(opening, charge(held, 10))
    book.close(opening, charge(held, 10))
    await book.ship(database)
    book.close(opening, charge(held, 10))
    assert (await book.ship(database)).fault == ""
    assert (await balances(database))["bucket/b/spent"] == 10
    async with database.connection() as conn:
        counts = await (await conn.execute("SELECT repeats, closings FROM shipment ORDER BY ordinal")).fetchall()
    assert counts == [(1, 1), (1, 0)]
    assert await faults(database) == []


async def test_a_record_after_reclaim_is_our_loss(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 100)
    assert await LeaseDesk(database, SETTINGS).reclaim_due(3 * SECOND) == 0
    assert await LeaseDesk(database, SETTINGS).reclaim_due(4 * SECOND) == 1
    book = Journal()
    book.close(book.open(held), charge(held, 40))
    book.add(LeaseClose(held.lease_id, 60))
    assert (await book.ship(database)).fault == ""
    left = await balances(database)
    assert (left["bucket/b/available"], left["loss/unproven"], left["unproven/delivered"]) == (GRANTED, 40, 40)
    assert left["contract_liability/b"] == NET
    assert left["payable/sup"] == 3
    async with database.connection() as conn:
        (record,) = await records(conn, request_id="req-j1-1")
    assert record.flags == ("odd", "unproven")
    assert [(line.amount, line.proven, line.revenue) for line in record.charges] == [(40, False, 0)]
    assert await faults(database) == []


async def test_what_is_not_this_accounts_or_above_the_lease_is_our_loss(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 100)
    book = Journal()
    book.close(book.open(held), charge(held, 101))
    book.close(book.open(held, account="other"), charge(held, 5))
    book.close(book.open(held), msgspec.structs.replace(charge(held, 5), lease_id=held.lease_id + 1))
    book.close(book.open(held), charge(held, 5, unit="coin"))
    book.close(book.open(held), charge(held, 5))
    assert (await book.ship(database)).fault == ""
    left = await balances(database)
    assert (left["bucket/b/spent"], left[f"lease/{held.lease_id}"]) == (5, 95)
    assert await faults(database) == []


async def test_a_part_of_a_lease_goes_back_and_the_lease_stays(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 100)
    book = Journal()
    opening = book.open(held, amount=60)
    book.add(LeaseReturn(held.lease_id, 40))
    await book.ship(database)
    assert (await balances(database))["bucket/b/available"] == GRANTED - 60
    book.close(opening, charge(held, 25))
    book.add(LeaseReturn(held.lease_id, 0))
    book.add(LeaseClose(held.lease_id, 35))
    book.add(LeaseReturn(held.lease_id, 9))
    book.add(LeaseReturn(held.lease_id + 1, 9))
    await book.ship(database)
    left = await balances(database)
    assert (left["bucket/b/available"], left["bucket/b/spent"]) == (GRANTED - 25, 25)
    assert await faults(database) == []


async def test_no_more_goes_back_than_there_is_and_verify_says_so(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 100)
    book = Journal()
    book.add(LeaseReturn(held.lease_id, 130))
    assert (await book.ship(database)).fault == ""
    assert (await balances(database))["bucket/b/available"] == GRANTED
    assert [check.detail for check in await faults(database)] == [f"lease {held.lease_id}"]


@pytest.mark.parametrize("together", [True, False], ids=["one shipment", "several"])
async def test_the_last_extension_bounds_what_is_charged(database: Pool, together: bool) -> None:
    await sell(database, bucket("b"))
    first, second = await lease(database, 1, 100), await lease(database, 2, 100)
    book = Journal()
    opening = book.open(first, amount=10)
    for parts in ((first,), (first, second)):
        if not together:
            await book.ship(database)
        book.extend(opening, *parts, amount=30)
    if not together:
        await book.ship(database)
    book.close(opening, charge(first, 30), charge(second, 30))
    book.extend(opening, first, amount=90)
    await book.ship(database)
    async with database.connection() as conn:
        (record,) = await records(conn)
        rows = await (await conn.execute("SELECT count(*) FROM usage_extension")).fetchone()
    assert [(part.lease_id, part.amount) for part in record.reserved] == [(first.lease_id, 30), (second.lease_id, 30)]
    assert rows == ((0 if together else 2),)
    assert await faults(database) == []


async def test_a_charge_above_the_reservation_is_found(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 100)
    book = Journal()
    book.close(book.open(held, amount=10), charge(held, 11))
    await book.ship(database)
    (check,) = await faults(database)
    assert check.detail == f"req-j1-1 lease {held.lease_id}: 11 of 10"


async def test_whose_balance_moved_is_told(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 100)
    book = Journal()
    told: list[set[str]] = []
    book.open(held)
    told.append(set((await post_batch(database, book.rest(), SECOND)).accounts))
    book.add(LeaseReturn(held.lease_id, 40))
    told.append(set((await post_batch(database, book.rest(), SECOND)).accounts))
    assert told == [set(), {"acc"}]


async def test_what_moved_nothing_names_no_posting(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 100)
    book = Journal()
    book.close(book.open(held), charge(held, 10))
    book.close(book.open(held), cost=0)
    await book.ship(database)
    async with database.connection() as conn:
        found = {record.request_id: record.posting_id for record in await records(conn)}
        (posting,) = await (await conn.execute("SELECT id FROM posting WHERE kind = 'usage_posted'")).fetchall()
    assert found == {"req-j1-1": posting[0], "req-j1-2": None}
    assert await faults(database) == []


async def test_several_legal_entities_in_one_journal(database: Pool) -> None:
    await sell(database, bucket("b"))
    other = msgspec.structs.replace(bucket("b2", "acc2"), legal_entity_id="le2")
    await sell(database, other)
    one, two = await lease(database, 1, 100), (await grant(database, ask(2, 50, "acc2"))).leases[0]
    book = Journal()
    book.close(book.open(one), charge(one, 10))
    book.entity = "le2"
    book.close(book.open(two, account="acc2"), charge(two, 20))
    await book.ship(database)
    async with database.connection() as conn:
        rows = await conn.execute("SELECT legal_entity_id FROM posting WHERE kind = 'usage_posted' ORDER BY id")
        assert await rows.fetchall() == [("le",), ("le2",)]
        assert [record.posting_id is not None for record in await records(conn, "acc2")] == [True]
    assert await faults(database) == []


async def test_a_gap_is_refused_and_says_where_to_go_on(database: Pool) -> None:
    book = Journal()
    await book.ship(database)
    through = book.shipped
    reply = (await post_batch(database, ShipRequest("j1", "gw-0", through + 8, b""), SECOND)).reply
    assert reply.posted_through == through
    assert "missing" in reply.fault


@pytest.mark.parametrize(
    "data",
    [
        b"rubbish",
        frame(journal.encode(Head("j2", "gw-0", 1))),
        frame(journal.encode(LeaseClose(1, 1))),
        frame(journal.encode(Head("j1", "gw-0", 1))) + frame(b"\x93\x09\x01\x01"),
        frame(journal.encode(Head("j1", "gw-0", 1))) * 2,
    ],
    ids=["no frame", "another journal", "no head", "unknown entry", "second head"],
)
async def test_what_no_worker_writes_is_refused_whole(database: Pool, data: bytes) -> None:
    reply = (await post_batch(database, ShipRequest("j1", "gw-0", 0, data), SECOND)).reply
    assert reply.posted_through == 0
    assert reply.fault
    async with database.connection() as conn:
        assert await (await conn.execute("SELECT count(*) FROM journal")).fetchall() == [(0,)]


async def test_a_closing_without_opening_is_refused(database: Pool) -> None:
    book = Journal()
    book.close(77)
    reply = await book.ship(database)
    assert reply.posted_through == 0
    assert "names no opening" in reply.fault


async def test_final_only_when_every_request_is_closed(database: Pool) -> None:
    book = Journal()
    opening = book.open()
    assert "1 requests are still open" in (await book.ship(database, final=True)).fault
    book.close(opening)
    assert (await book.ship(database)).fault == ""
    for _ in range(2):
        assert (await book.ship(database, final=True)).fault == ""
    async with database.connection() as conn:
        rows = await conn.execute("SELECT shipments, openings, closings, final FROM journal")
        assert await rows.fetchall() == [(3, 1, 1, True)]
    assert await faults(database) == []
