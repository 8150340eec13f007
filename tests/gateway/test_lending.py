"""What a worker holds: asked for early, kept while it is used, given back when idle or when others need it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

import virtual_time
from gateway_bench import Bench, bench
from stand_in_office import ACCOUNT, bucket
from supplier import held, whole
from tokenworks.base import clock
from tokenworks.core.bounds import Need
from tokenworks.core.journal import LeaseClose, LeaseReturn, LeaseTaken, Opening
from tokenworks.core.purse import Reservation
from tokenworks.core.wire import Recall
from tokenworks.gateway.flow import Flow

# Input bound 80 and 20 output tokens for the request of the bench.
WHOLE = 100


def available(gateway: Bench) -> int:
    return gateway.office.buckets["bkt_1"][1]


async def until(gateway: Bench, is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await gateway.gateway_turn()


def journaled(gateway: Bench, kind: type) -> int:
    gateway.writer.flush()
    return sum(isinstance(entry, kind) for entry in gateway.entries())


async def reserved(gateway: Bench) -> Reservation:
    """What a request of the bench reserves, without the request."""
    found: list[Reservation] = []
    done = asyncio.Event()

    async def flow() -> None:
        leases, tariffs = gateway.gateway.leases, gateway.gateway.catalog.tariffs
        result = await leases.reserve(leases.holding(ACCOUNT), Need(80, 20), 1, "m", tariffs)
        assert isinstance(result, Reservation)
        found.append(result)

    Flow(flow(), done.set).start()
    await done.wait()
    return found[0]


def test_a_warm_account_asks_for_less_than_one_lease_in_a_thousand_requests(tmp_path: Path) -> None:
    """Fifty requests a second for two minutes, of slices that are at most 2 % of the balance, and none ever waits."""

    async def run() -> None:
        async with bench(tmp_path, balance=50_000_000) as gateway:
            leases = gateway.gateway.leases
            holding = leases.holding(ACCOUNT)
            warm = 0
            for number in range(6_000):
                before = len(gateway.office.asked)
                reservation = await reserved(gateway)
                leases.settle(holding, reservation, ())
                leases.give_back(holding, clock.boot_ns())
                await virtual_time.passes(20)
                if number % 12 == 0:
                    gateway.tick()
                    await gateway.ship()
                if number >= 1_000:
                    new = gateway.office.asked[before:]
                    warm += len(new)
                    assert all(request.early for request in new)
            assert 0 < warm < 5
            granted = [lease.amount for reply in gateway.office.answered.values() for lease in reply.leases]
            assert max(granted) <= 50_000_000 // 50

    virtual_time.run(run())


async def test_no_slice_is_asked_for_early_of_an_account_that_is_low(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=4_000) as gateway:
        for _ in range(10):
            await gateway.ask()
            await gateway.ship()
        assert not any(request.early for request in gateway.office.asked)


async def test_slices_that_nobody_uses_go_back(tmp_path: Path) -> None:
    async with bench(tmp_path, lease_idle_ms=1) as gateway:
        assert (await gateway.ask()).status_code == 200
        async with asyncio.timeout(5):
            while gateway.held()[2]:
                gateway.tick()
                await gateway.gateway_turn()
        await gateway.ship()
        assert available(gateway) == 1_000_000 - 17


async def test_a_recalled_account_keeps_nothing_free(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with bench(tmp_path) as gateway:
        await gateway.ask()
        gateway.supplier.script(held(release, whole("x")))
        running = asyncio.create_task(gateway.ask())
        await gateway.supplier.call(1)
        free, reserved, _ = gateway.held()
        assert (free > 0, reserved) == (True, WHOLE)
        gateway.gateway.leases.recall(Recall(ACCOUNT, "gw-1"))
        assert gateway.held()[:2] == (0, WHOLE)
        await gateway.ship()
        assert available(gateway) == 1_000_000 - 17 - WHOLE
        release.set()
        assert (await running).status_code == 200
        assert gateway.held() == (0, 0, 0)
        await gateway.ship()
        assert available(gateway) == 1_000_000 - 34


async def test_a_recall_of_an_account_not_held_is_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.gateway.leases.recall(Recall("ba_other", "gw-1"))
        await gateway.ask()
        gateway.gateway.leases.recall(Recall("ba_other", "gw-1"))
        assert gateway.held()[0] > 0


async def test_what_gets_free_here_goes_to_who_waits_here(tmp_path: Path) -> None:
    """No way through the ledger is needed: nothing is posted in this test."""
    release = asyncio.Event()
    async with bench(tmp_path, balance=WHOLE + 20, lease_wait_ms=5_000) as gateway:
        gateway.office.let_wait()
        gateway.supplier.script(held(release, whole("x")))
        first = asyncio.create_task(gateway.ask())
        await gateway.supplier.call(0)
        second = asyncio.create_task(gateway.ask(max_tokens=1))
        await until(gateway, lambda: len(gateway.office.asked) == 2)
        release.set()
        assert [(await task).status_code for task in (first, second)] == [200, 200]


async def test_those_who_wait_are_served_in_their_order(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with bench(tmp_path, balance=WHOLE, lease_wait_ms=5_000) as gateway:
        gateway.office.let_wait()
        gateway.supplier.script(held(release, whole("x")))
        running = asyncio.create_task(gateway.ask())
        await gateway.supplier.call(0)
        holding = gateway.gateway.leases.holding(ACCOUNT)
        waiting: list[asyncio.Task[httpx2.Response]] = []
        for number in range(3):
            waiting.append(asyncio.create_task(gateway.ask(max_tokens=3 - number)))
            await until(gateway, lambda number=number: holding.waiting == number + 1)
        gateway.office.give(1_000_000, bucket())
        assert gateway.office.line is not None
        gateway.office.line.came_back([ACCOUNT])
        assert [(await task).status_code for task in waiting] == [200, 200, 200]
        # When clients have their answers also depends on their connections; when requests were opened does not.
        opened = [entry.output_max for entry in gateway.entries() if isinstance(entry, Opening)]
        assert opened[1:] == [3, 2, 1]
        release.set()
        await running


async def test_who_waited_in_vain_is_told_when_to_come_again_not_all_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=WHOLE, lease_wait_ms=1) as gateway:
        gateway.office.let_wait()
        gateway.office.give(0)
        gateway.office.leased[99] = ("bkt_1", WHOLE)
        answers = [await gateway.ask() for _ in range(5)]
        assert {answer.json()["error"]["code"] for answer in answers} == {"balance_reserved"}
        assert sorted(int(answer.headers["retry-after"]) for answer in answers) == [1, 2, 3, 5, 8]


async def test_a_lease_is_written_down_so_that_it_can_be_registered_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        await gateway.ask()
        (taken,) = [entry for entry in gateway.entries() if isinstance(entry, LeaseTaken)]
        (asked,) = gateway.office.asked
        assert (taken.bucket_id, taken.sequence, taken.ordinal) == ("bkt_1", asked.sequence, 0)
        assert taken.use_until_ns > 1_600_000_000_000_000_000


@pytest.mark.parametrize("is_stopping", [False, True])
async def test_nothing_is_left_behind(tmp_path: Path, is_stopping: bool) -> None:
    """A worker that stops while a request waits for what others hold learns at once that there is nothing."""
    async with bench(tmp_path, balance=WHOLE, lease_wait_ms=60_000) as gateway:
        gateway.office.let_wait()
        gateway.office.give(WHOLE // 2)
        gateway.office.leased[99] = ("bkt_1", WHOLE)
        _, writer = await gateway.connect()
        writer.write(gateway.request())
        await until(gateway, lambda: len(gateway.office.asked) == 1)
        writer.transport.abort()
        await until(gateway, lambda: not gateway.server.connections)
        if is_stopping:
            async with asyncio.timeout(5):
                await gateway.gateway.leases.close_all()
        else:
            gateway.office.leased[99] = ("bkt_1", 0)
            gateway.office.give(WHOLE)
            assert gateway.office.line is not None
            gateway.office.line.came_back([ACCOUNT])
            await until(gateway, lambda: not gateway.gateway.leases.holding(ACCOUNT).is_asking)
        await gateway.ship()
        assert gateway.held() == (0, 0, 0)
        assert available(gateway) == (WHOLE // 2 if is_stopping else WHOLE)
        assert journaled(gateway, LeaseReturn) == 0
        assert journaled(gateway, LeaseClose) == (0 if is_stopping else 1)
