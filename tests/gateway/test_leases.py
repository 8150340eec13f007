"""What a worker holds for an account is not forgotten: not while a request waits, not while nobody knows what it is."""

import asyncio
from pathlib import Path

from gateway_bench import Bench, bench
from tokenworks.base.clock import MS

# Input bound 80 and 20 output tokens for the request of the bench.
WHOLE = 100


def available(gateway: Bench) -> int:
    return gateway.office.buckets["bkt_1"][1]


async def tick_until_nothing_is_held(gateway: Bench, balance: int) -> None:
    """Ticks, and ships what was closed, until the whole balance is where it was."""
    async with asyncio.timeout(5):
        while gateway.held()[2] or available(gateway) < balance:
            gateway.tick()
            await gateway.gateway_turn()
            await gateway.ship()


async def test_an_account_is_not_forgotten_while_a_request_waits_to_ask_again(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=0, lease_use_ms=1, lease_wait_ms=5_000) as gateway:
        terms, _ = gateway.office.buckets["bkt_1"]
        gateway.office.leased[99] = ("bkt_1", WHOLE)
        before = gateway.gateway.leases.holding("ba_1")
        asked = asyncio.create_task(gateway.ask())
        async with asyncio.timeout(5):
            while len(gateway.office.asked) < 3:
                gateway.tick()
                await gateway.gateway_turn()
        assert gateway.gateway.leases.holding("ba_1") is before
        gateway.office.leased[99] = ("bkt_1", 0)
        gateway.office.buckets["bkt_1"] = (terms, WHOLE)
        assert (await asked).status_code == 200
        await tick_until_nothing_is_held(gateway, WHOLE - 17)


async def test_what_the_ledger_cannot_tell_is_asked_for_again_under_the_same_name(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=WHOLE) as gateway:
        gateway.office.doubt_replies = 2
        for _ in range(2):
            answer = await gateway.ask()
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "lease_unavailable")
        assert (await gateway.ask()).status_code == 200
        assert len({request.sequence for request in gateway.office.asked[:3]}) == 1


async def test_a_grant_whose_reply_was_lost_goes_back_though_nobody_asks_again(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=WHOLE, lease_use_ms=1) as gateway:
        gateway.office.lose_replies = 2
        assert (await gateway.ask()).status_code == 503
        assert available(gateway) == 0
        await tick_until_nothing_is_held(gateway, WHOLE)


async def test_a_worker_that_stops_gives_back_what_may_have_been_granted(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=WHOLE) as gateway:
        gateway.office.lose_replies = 1
        assert (await gateway.ask()).status_code == 503
        await gateway.gateway.leases.close_all()
        await gateway.ship()
        assert (available(gateway), gateway.held()) == (WHOLE, (0, 0, 0))


async def test_a_slice_for_a_customer_who_left_goes_back_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=WHOLE) as gateway:
        gateway.office.release = asyncio.Event()
        _, writer = await gateway.connect()
        writer.write(gateway.request())
        async with asyncio.timeout(5):
            while not gateway.office.asked:
                await gateway.gateway_turn()
            writer.transport.abort()
            while gateway.server.connections:
                await gateway.gateway_turn()
            gateway.office.release.set()
            while gateway.gateway.leases.holding("ba_1").is_asking:
                await gateway.gateway_turn()
        await gateway.ship()
        assert (available(gateway), gateway.held()) == (WHOLE, (0, 0, 0))


async def test_a_slice_that_lapses_before_the_account_was_to_be_looked_at_goes_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.office.life_ns = 100 * MS
        assert (await gateway.ask()).status_code == 200
        await tick_until_nothing_is_held(gateway, 1_000_000 - 17)
