"""The lease desk: one transaction for many requests, the same lease for the same request, silent workers."""

import asyncio
from collections.abc import Sequence

import msgspec
import psycopg
import pytest

from ledger.books import GRANTED, SECOND, SETTINGS, TARIFFS, Journal, ask, balances, bucket, charge, faults, lease, sell
from tokenworks.base.bus import Bus
from tokenworks.base.database import Pool
from tokenworks.core.journal import LeaseClose
from tokenworks.core.leasing import LeaseReply, LeaseRequest
from tokenworks.core.refusals import Code
from tokenworks.core.tariff import Tariff
from tokenworks.core.wire import LEASE_REQUEST
from tokenworks.ledger.balance import wallet
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.service import LeaseService
from tokenworks.ledger.waiting import AT_ONCE


async def grant(pool: Pool, *requests: LeaseRequest, now_ns: int = SECOND) -> list[LeaseReply]:
    return await LeaseDesk(pool, SETTINGS).grant(requests, TARIFFS, now_ns)


def amounts(reply: LeaseReply) -> list[int]:
    return [one.amount for one in reply.leases]


def code(reply: LeaseReply) -> Code | None:
    return reply.refusal.code if reply.refusal else None


async def test_a_lease_moves_from_available(database: Pool) -> None:
    await sell(database, bucket("b"))
    (reply,) = await grant(database, ask(1, 1_000))
    assert (amounts(reply), reply.leases[0].use_for_ns) == ([1_000], SECOND)
    left = await balances(database)
    assert (left["bucket/b/available"], left[f"lease/{reply.leases[0].lease_id}"]) == (GRANTED - 1_000, 1_000)
    async with database.connection() as conn:
        assert [(shown.available, shown.leased) for shown in await wallet(conn, "acc")] == [(GRANTED - 1_000, 1_000)]
    assert await faults(database) == []


async def test_the_same_request_gets_the_same_lease_and_less_time(database: Pool) -> None:
    await sell(database, bucket("b"))
    request = ask(1, 1_000)
    first, beside = await grant(database, request, request)
    (again,) = await grant(database, request, now_ns=SECOND + 7)
    assert first == beside
    shorter = tuple(msgspec.structs.replace(one, use_for_ns=one.use_for_ns - 7) for one in first.leases)
    assert again.leases == shorter
    different = ask(1, 1_001)
    assert [code(reply) for reply in await grant(database, different)] == [Code.LEASE_CONFLICT]
    both = await grant(database, ask(2, 5), ask(2, 6))
    assert [code(reply) for reply in both] == [None, Code.LEASE_CONFLICT]
    assert (await balances(database))["bucket/b/available"] == GRANTED - 1_005


async def test_requests_of_one_transaction_share_what_is_there(database: Pool) -> None:
    await sell(database, bucket("b"), granted=100)
    replies = await grant(database, ask(1, 60), ask(2, 60, least=10), ask(3, 1), ask(4, 1, "nobody"))
    assert [amounts(reply) for reply in replies] == [[60], [40], [], []]
    assert [code(reply) for reply in replies] == [None, None, Code.BALANCE_RESERVED, Code.NO_MATCHING_BUCKET]
    assert await faults(database) == []


async def test_nobody_overtakes_who_waits_but_streams_that_run_go_on(database: Pool) -> None:
    await sell(database, bucket("b"), granted=100)
    await lease(database, 1, 60)
    replies = await grant(database, ask(2, 60), ask(3, 10), ask(4, 10, extends=True), ask(5, 1, early=True))
    assert [amounts(reply) for reply in replies] == [[], [], [10], []]
    assert [code(reply) for reply in replies] == [Code.BALANCE_RESERVED] * 2 + [None, None]


async def test_a_lost_disk_costs_at_most_the_cap(database: Pool) -> None:
    """However often a worker asks, and in whatever order, no more is out than the cap says until it is posted."""
    capped = msgspec.structs.replace(SETTINGS, lease_cap_worker="token=250", lease_cap_account="token=180 CNY=1")
    desk = LeaseDesk(database, capped)
    for name in ("b1", "b2"):
        await sell(database, bucket(name, f"acc-{name}"))
    asked = [ask(number, 100, f"acc-b{1 + number % 2}", least=30, wait_ms=9) for number in range(1, 9)]
    replies = await desk.grant(asked, TARIFFS, SECOND)
    assert [amounts(reply) for reply in replies[:4]] == [[100], [100], [50], []]
    assert [code(reply) for reply in replies[3:]] == [Code.LEASE_UNAVAILABLE] * 5
    other = await desk.grant([ask(1, 100, "acc-b1", least=90, worker="gw-1")], TARIFFS, SECOND)
    assert [code(reply) for reply in other] == [Code.BALANCE_RESERVED]
    out = {name: amount for name, amount in (await balances(database)).items() if name.startswith("lease/")}
    assert sum(out.values()) == 250
    book = Journal()
    held = replies[0].leases[0]
    book.close(book.open(held, account="acc-b2"), charge(held, 60))
    book.add(LeaseClose(held.lease_id, 40))
    await book.ship(database)
    (later,) = await desk.grant([ask(20, 200, "acc-b2", least=30)], TARIFFS, 2 * SECOND)
    assert amounts(later) == [100]
    # The disk is lost: nothing more is ever shipped, and what is out comes back.
    await desk.reclaim_due(10 * SECOND)
    assert {name for name in await balances(database) if name.startswith("lease/")} == set()
    assert await faults(database) == []


async def test_used_up_when_nothing_can_come_back(database: Pool) -> None:
    await sell(database, bucket("b"), granted=100)
    held = await lease(database, 1, 100)
    book = Journal()
    book.close(book.open(held), charge(held, 100))
    book.add(LeaseClose(held.lease_id, 0))
    await book.ship(database)
    assert [code(reply) for reply in await grant(database, ask(2, 1))] == [Code.BALANCE_USED_UP]
    assert await faults(database) == []


async def test_draw_order_over_buckets_and_validity(database: Pool) -> None:
    await sell(database, bucket("late", until_s=90), granted=10)
    await sell(database, bucket("soon", until_s=80), granted=10)
    await sell(database, bucket("first", priority=1), granted=10)
    await sell(database, bucket("past", until_s=1, priority=0), granted=10)
    (reply,) = await grant(database, ask(1, 25))
    assert [(one.bucket.id, one.amount) for one in reply.leases] == [("first", 10), ("soon", 10), ("late", 5)]
    (edge,) = await grant(database, ask(2, 1), now_ns=90 * SECOND - 3)
    assert [one.use_for_ns for one in edge.leases] == [3]


async def test_many_workers_at_once_never_lease_more_than_there_is(database: Pool) -> None:
    await sell(database, bucket("b"), granted=100)
    replies = await asyncio.gather(*(grant(database, ask(n, 30, least=1)) for n in range(1, 9)))
    assert sum(sum(amounts(reply)) for (reply,) in replies) == 100
    assert await faults(database) == []


async def test_a_silent_worker_loses_its_lease_with_what_is_on_it(database: Pool) -> None:
    await sell(database, bucket("b"), granted=100)
    held = await lease(database, 1, 50)
    spent = await lease(database, 2, 50)
    book = Journal()
    book.close(book.open(held), charge(held, 20))
    book.close(book.open(spent), charge(spent, 50))
    await book.ship(database)
    desk = LeaseDesk(database, SETTINGS)
    assert [await desk.reclaim_due(at * SECOND) for at in (3, 4, 5)] == [0, 2, 0]
    assert (await balances(database))["bucket/b/available"] == 30
    book.add(LeaseClose(held.lease_id, 30))
    await book.ship(database)
    assert (await balances(database))["bucket/b/available"] == 30
    assert await faults(database) == []


async def test_requests_over_the_bus_are_answered_together(database: Pool, bus: Bus) -> None:
    await sell(database, bucket("b"))
    service = LeaseService(LeaseDesk(database, SETTINGS), bus, lambda: TARIFFS, 100)
    await service.start()
    asked = [bus.request(LEASE_REQUEST, msgspec.msgpack.encode(ask(n, 10))) for n in range(40)]
    replies = [msgspec.msgpack.decode(answer, type=LeaseReply) for answer in await asyncio.gather(*asked)]
    await service.stop()
    # The clock of the service is real and these buckets are long past: what matters is that each got its answer.
    assert {code(reply) for reply in replies} == {Code.NO_MATCHING_BUCKET}


async def test_waiting_requests_share_a_transaction(database: Pool, bus: Bus) -> None:
    await sell(database, msgspec.structs.replace(bucket("b"), valid_to_ns=1 << 62))
    service = LeaseService(LeaseDesk(database, SETTINGS), bus, lambda: TARIFFS, 100)
    replies = await asyncio.gather(*(service.ask(ask(n, 10)) for n in range(20)))
    assert {tuple(amounts(reply)) for reply in replies} == {(10,)}
    async with database.connection() as conn:
        rows = await conn.execute("SELECT count(*) FROM seal WHERE stream = 'lease'")
        assert await rows.fetchall() == [(1,)]


class BrokenOnce(LeaseDesk):
    """A desk whose first transaction ends with something that nobody expects."""

    grants = 0

    async def grant(
        self, requests: Sequence[LeaseRequest], tariffs: dict[str, Tariff], now_ns: int
    ) -> list[LeaseReply]:
        self.grants += 1
        if self.grants == 1:
            raise OSError("too many open files")
        return await super().grant(requests, tariffs, now_ns)


async def test_whoever_waits_is_answered_whatever_happens(
    database: Pool, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    await sell(database, msgspec.structs.replace(bucket("b"), valid_to_ns=1 << 62))
    service = LeaseService(BrokenOnce(database, SETTINGS), bus, lambda: TARIFFS, 100)
    async with asyncio.timeout(5):
        replies = await asyncio.gather(*(service.ask(ask(n, 10)) for n in range(AT_ONCE + 3)))
    assert {code(reply) for reply in replies[:AT_ONCE]} == {Code.LEASE_UNAVAILABLE}
    assert [amounts(reply) for reply in replies[AT_ONCE:]] == [[10]] * 3
    assert "too many open files" in caplog.text


async def test_a_database_that_is_away_is_a_refusal(database_url: str, database: Pool, bus: Bus) -> None:
    await sell(database, msgspec.structs.replace(bucket("b"), valid_to_ns=1 << 62))
    service = LeaseService(LeaseDesk(database, SETTINGS), bus, lambda: TARIFFS, 100)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute("ALTER TABLE seal_stream RENAME TO away")
        assert code(await service.ask(ask(1, 10))) == Code.LEASE_UNAVAILABLE
        await conn.execute("ALTER TABLE away RENAME TO seal_stream")
    assert amounts(await service.ask(ask(1, 10))) == [10]
