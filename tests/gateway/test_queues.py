"""Waiting for a place: tiers, fairness, shedding and leaving, and that nothing is charged or stranded by it."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from gateway_bench import BODY, PATH, Bench, bench
from stand_in_office import SECRET, StandInOffice, bucket, catalog, endpoint
from supplier import held, status, whole
from tokenworks.base import clock
from tokenworks.core.limits import Limits
from tokenworks.core.tiers import TIERS
from tokenworks.core.wire import KeyChanged
from tokenworks.gateway.catalog import CatalogInUse
from tokenworks.gateway.exchange import Drained
from tokenworks.gateway.flow import Errands
from tokenworks.gateway.peers import Peers

CREDIT = 100_000


def customers(*tiers: str) -> StandInOffice:
    """An office with a customer for each tier, whose key is called like it, and the test's own in the middle one."""
    office = StandInOffice()
    for tier in tiers:
        terms = msgspec.structs.replace(bucket(f"bkt_{tier}", f"ba_{tier}"), tier=tier)
        office.give(CREDIT, terms)
        office.add_key(tier, f"ba_{tier}", key_id=f"key_{tier}")
    office.give(CREDIT)
    return office


async def ask(gateway: Bench, key: str, name: str = "", **fields: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=10) as client:
        body = BODY | {"user": name or key} | fields
        return await client.post(PATH, json=body, headers={"x-api-key": key})


async def waiting(gateway: Bench, length: int) -> None:
    """So many wait."""
    async with asyncio.timeout(5):
        while sum(queue.length for queue in gateway.gateway.queues.lines.values()) != length:
            await gateway.gateway_turn()


async def one_place(gateway: Bench) -> tuple[asyncio.Event, "asyncio.Task[httpx2.Response]"]:
    """The only place of the endpoint is taken, until the event is set."""
    gateway.gateway.board.limit({"ep_1": 1})
    release = asyncio.Event()
    gateway.supplier.script(held(release, whole("first")))
    first = asyncio.create_task(gateway.ask())
    await gateway.supplier.call(0)
    return release, first


def order(gateway: Bench) -> list[str]:
    """Who was served, after the first."""
    return [str(call.body.get("user", "")) for call in gateway.suppliers[0].calls[1:]]


async def test_higher_tiers_go_first_one_at_a_time(tmp_path: Path) -> None:
    async with bench(tmp_path, office=customers(*TIERS)) as gateway:
        release, first = await one_place(gateway)
        tasks: list[asyncio.Task[httpx2.Response]] = []
        for count, tier in enumerate(TIERS, 1):
            tasks.append(asyncio.create_task(ask(gateway, tier)))
            await waiting(gateway, count)
        assert len(gateway.supplier.calls) == 1
        release.set()
        answers = await asyncio.gather(first, *tasks)
        assert [answer.status_code for answer in answers] == [200] * 6
        assert order(gateway) == list(reversed(TIERS))
        assert gateway.gateway.queues.lines == {}
        assert gateway.held()[1] == 0


async def test_a_request_may_name_a_lower_tier_and_never_a_higher_one(tmp_path: Path) -> None:
    async with bench(tmp_path, office=customers("medium", "high")) as gateway:
        release, first = await one_place(gateway)
        asked = [("high", "low", "free"), ("medium", "same", "auto"), ("medium", "up", "ultra")]
        tasks: list[asyncio.Task[httpx2.Response]] = []
        for count, (key, name, tier) in enumerate(asked, 1):
            tasks.append(asyncio.create_task(ask(gateway, key, name, service_tier=tier)))
            await waiting(gateway, count)
        release.set()
        await asyncio.gather(first, *tasks)
        assert order(gateway) == ["same", "up", "low"]
        assert [call.body.get("service_tier") for call in gateway.supplier.calls] == [None, "auto", None, None]


async def test_customers_of_a_tier_take_turns(tmp_path: Path) -> None:
    async with bench(tmp_path, office=customers("free", "medium")) as gateway:
        release, first = await one_place(gateway)
        tasks: list[asyncio.Task[httpx2.Response]] = []
        names = ["a"] * 6 + ["b"] * 3
        for count, name in enumerate(names, 1):
            key = SECRET if name == "a" else "medium"
            tasks.append(asyncio.create_task(ask(gateway, key, name)))
            await waiting(gateway, count)
        release.set()
        await asyncio.gather(first, *tasks)
        assert "".join(order(gateway)) == "abababaaa"


async def test_a_weight_is_a_share(tmp_path: Path) -> None:
    office = customers("medium")
    digest = office.add_key("medium", "ba_medium", limits=Limits((), weight=2))
    async with bench(tmp_path, office=office) as gateway:
        gateway.gateway.keys.forget(KeyChanged(digest=digest))
        release, first = await one_place(gateway)
        tasks: list[asyncio.Task[httpx2.Response]] = []
        for count, name in enumerate("abbabbabb", 1):
            tasks.append(asyncio.create_task(ask(gateway, SECRET if name == "a" else "medium", name)))
            await waiting(gateway, count)
        release.set()
        await asyncio.gather(first, *tasks)
        served = "".join(order(gateway))
        assert [served[:6].count(name) for name in "ab"] == [2, 4]


async def test_who_waits_too_long_is_refused_and_charged_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, queue_wait_ms=1) as gateway:
        release, first = await one_place(gateway)
        refused = await gateway.ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        free, reserved, _ = gateway.held()
        assert reserved == 100
        closing = gateway.closings()[0]
        assert (closing.ending, closing.basis, closing.charges, closing.attempts) == ("refused", "none", (), ())
        release.set()
        assert (await first).status_code == 200
        assert (gateway.held()[0], gateway.held()[1]) == (free + 100 - 17, 0)


async def test_a_full_queue_sheds_the_lowest(tmp_path: Path) -> None:
    async with bench(tmp_path, office=customers("free", "high"), queue_requests_max=2) as gateway:
        release, first = await one_place(gateway)
        low = [asyncio.create_task(ask(gateway, "free", f"free {number}")) for number in range(2)]
        await waiting(gateway, 2)
        high = asyncio.create_task(ask(gateway, "high"))
        done, _ = await asyncio.wait(low, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        (shed,) = done
        assert (shed.result().status_code, shed.result().json()["error"]["code"]) == (429, "overloaded")
        assert "retry-after" in shed.result().headers
        release.set()
        answers = await asyncio.gather(first, high, *low)
        assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 429]
        assert order(gateway)[0] == "high"
        assert len(gateway.closings()) == 4


async def test_who_leaves_the_queue_leaves_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        release, first = await one_place(gateway)
        _, writer = await gateway.connect()
        writer.write(gateway.request())
        await waiting(gateway, 1)
        stays = asyncio.create_task(gateway.ask())
        await waiting(gateway, 2)
        writer.transport.abort()
        await waiting(gateway, 1)
        release.set()
        assert [answer.status_code for answer in await asyncio.gather(first, stays)] == [200, 200]
        assert sorted(closing.ending for closing in gateway.closings()) == ["client_gone", "finished", "finished"]
        assert gateway.held()[1] == 0
        assert len(gateway.supplier.calls) == 2


async def test_a_worker_that_stops_refuses_those_who_wait(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        release, first = await one_place(gateway)
        waits = asyncio.create_task(gateway.ask())
        await waiting(gateway, 1)
        for connection in gateway.server.connections:
            if connection._flow is not None:
                connection._flow.interrupt(Drained())
        assert {answer.status_code for answer in await asyncio.gather(first, waits)} == {503}
        release.set()
        assert gateway.gateway.queues.lines == {}
        assert all(not closing.charges for closing in gateway.closings())


async def test_a_full_endpoint_that_is_well_is_waited_for_rather_than_a_broken_one_tried(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2, endpoint_rest_ms=60_000) as gateway:
        gateway.gateway.board.failed("ep_2", clock.boot_ns(), 60 * clock.SECOND)
        release, first = await one_place(gateway)
        waits = asyncio.create_task(gateway.ask())
        await waiting(gateway, 1)
        assert gateway.suppliers[1].calls == []
        release.set()
        assert [answer.status_code for answer in await asyncio.gather(first, waits)] == [200, 200]


async def test_a_request_whose_endpoint_failed_waits_for_the_other(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2) as gateway:
        release, first = await one_place(gateway)
        gateway.suppliers[1].script(status(500))
        waits = asyncio.create_task(gateway.ask())
        await waiting(gateway, 1)
        release.set()
        assert [answer.status_code for answer in await asyncio.gather(first, waits)] == [200, 200]
        assert [len(each.calls) for each in gateway.suppliers] == [2, 1]


@pytest.mark.parametrize("places", [1, 3])
async def test_no_endpoint_ever_runs_more_than_its_places(tmp_path: Path, places: int) -> None:
    async with bench(tmp_path, suppliers=2) as gateway:
        gateway.gateway.board.limit({"ep_1": places, "ep_2": places})
        seen: list[int] = []
        begin = gateway.gateway.board.begin

        def counted(endpoint_id: str) -> None:
            begin(endpoint_id)
            seen.append(gateway.gateway.board.state(endpoint_id).running)

        gateway.gateway.board.begin = counted  # type: ignore[method-assign]
        answers = await asyncio.gather(*(gateway.ask() for _ in range(30)))
        assert [answer.status_code for answer in answers] == [200] * 30
        assert max(seen) <= places
        assert gateway.gateway.queues.lines == {}


def test_an_endpoint_has_its_limit_whatever_its_model_is_offered_for() -> None:
    in_use = CatalogInUse(1_000)
    assert in_use.concurrency_max == {}
    limited = msgspec.structs.replace(endpoint("http://x/v1"), concurrency_max=3)
    plain = catalog(limited, endpoint("http://x/v1", "ep_2"))
    models = {"m": msgspec.structs.replace(plain.models["m"], apis=("embeddings",))}
    in_use.take(msgspec.structs.replace(plain, models=models))
    assert in_use.concurrency_max == {"ep_1": 3}


async def test_places_are_shared_by_the_workers_that_live() -> None:
    office, errands = StandInOffice(), Errands()
    changes: list[str] = []
    workers = [Peers(office, errands, name, lambda name=name: changes.append(name)) for name in "cab"]
    assert [each.part(10) for each in workers] == [10, 10, 10]
    for one in workers:
        for other in "abc":
            one.hear(other)
            one.hear(other)
    assert sorted(each.part(10) for each in workers) == [3, 3, 4]
    assert sum(each.part(10) for each in workers) == 10
    assert [each.part(2) for each in workers] == [1, 1, 1]
    assert len(changes) == 6
    await errands.cancel()
