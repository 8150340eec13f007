"""Rare moments of connections, queues and limits, in which two things meet that each go well alone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.test_growth import low
from gateway.test_queues import ask, customers, one_place, waiting
from gateway.test_server import SETTINGS, Line, Transport, post, status
from gateway.test_smuggling import CHUNKS
from gateway_bench import Bench, bench, summary
from stand_in_office import SECRET, catalog, endpoint
from supplier import STREAM_HEAD, chunk, event, held, stuck_stream, whole
from supplier import status as answer_status
from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.core.limits import Gauge, Limit
from tokenworks.core.snapshot import Endpoint
from tokenworks.core.wire import KeyChanged
from tokenworks.gateway.exchange import Drained
from tokenworks.gateway.server import TICK_MS
from tokenworks.grid.queue import Ticket, TierQueue


@pytest.mark.parametrize("before", [b"0\r\nx: ", b"0\r\n", b"2;"])
def test_a_trailer_or_an_extension_without_end_is_refused(before: bytes) -> None:
    line = Line(settings=Settings())
    written = line.feed(CHUNKS + b"2\r\nhi\r\n" + before, *[b"a" * 65_536] * 8)
    assert written
    assert status(written) == 431


async def test_a_stream_that_grows_still_holds_the_endpoint_back(tmp_path: Path) -> None:
    """A slow reader, and an extension that is waited for: when it comes, the endpoint is read on all the same."""
    async with low(tmp_path, 140, write_buffer_bytes=1024) as gateway:
        sent = 0

        async def flood(call: Any) -> bool:
            nonlocal sent
            await call.send(STREAM_HEAD)
            await call.send(chunk(event({"content": "x" * 12_000_000}) + event({"content": "y"}) * 40))
            for _ in range(1_000):
                await call.send(chunk(event({"uncounted": "x" * 60_000})))
                sent += 1
            return False

        gateway.supplier.script(flood)
        reader, writer = await gateway.connect()
        writer.write(gateway.request(stream=True, max_tokens=100))
        await reader.readuntil(b"x")
        before = -1
        async with asyncio.timeout(20):
            while sent != before:
                before = sent
                await asyncio.sleep(0.2)
        (connection,) = gateway.server.connections
        assert connection._transport.get_write_buffer_size() < 20_000_000
        assert sent < 1_000
        writer.transport.abort()
        assert (await gateway.closing()).ending == "client_gone"


def swap(gateway: Bench, *endpoints: Endpoint, places: dict[str, int]) -> None:
    """What a worker does with another catalog."""
    gateway.use(catalog(*endpoints, version=2))
    gateway.gateway.board.keep({each.id for each in endpoints})
    gateway.gateway.board.limit(dict.fromkeys((each.id for each in endpoints), 0) | places)
    gateway.gateway.queues.freed_all()


async def test_an_endpoint_that_comes_serves_those_who_come_after_it(tmp_path: Path) -> None:
    """Who waits keeps the catalog of his admission, and holds back nobody who knows more endpoints."""
    async with bench(tmp_path, suppliers=2) as gateway:
        one, two = (endpoint(each.url, f"ep_{number}") for number, each in enumerate(gateway.suppliers, 1))
        gateway.use(catalog(one))
        release, first = await one_place(gateway)
        waits = asyncio.create_task(gateway.ask())
        await waiting(gateway, 1)
        swap(gateway, one, two, places={"ep_1": 1})
        late = asyncio.create_task(gateway.ask())
        done, _ = await asyncio.wait([late], timeout=2)
        release.set()
        await asyncio.gather(first, waits, late)
        assert done
        assert len(gateway.suppliers[1].calls) == 1


async def test_an_endpoint_that_was_taken_away_is_not_flooded_by_those_who_wait(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2) as gateway:
        one, two = (endpoint(each.url, f"ep_{number}") for number, each in enumerate(gateway.suppliers, 1))
        gateway.use(catalog(one))
        release, first = await one_place(gateway)
        many = [asyncio.create_task(gateway.ask()) for _ in range(10)]
        await waiting(gateway, 10)
        swap(gateway, two, places={"ep_2": 1})
        await asyncio.sleep(0.3)
        flooded = len(gateway.supplier.calls)
        release.set()
        await asyncio.gather(first, *many)
        assert flooded == 1


async def test_who_waits_for_one_endpoint_holds_nobody_back_from_another(tmp_path: Path) -> None:
    """The first in line has tried the second endpoint already; those behind have not."""
    async with bench(tmp_path, suppliers=2, endpoint_rest_ms=1) as gateway:
        release, first = await one_place(gateway)
        gateway.suppliers[1].script(answer_status(500))
        waits = asyncio.create_task(gateway.ask())
        await waiting(gateway, 1)
        await asyncio.sleep(0.01)
        late = asyncio.create_task(gateway.ask())
        done, _ = await asyncio.wait([late], timeout=2)
        release.set()
        await asyncio.gather(first, waits, late)
        assert done


def test_who_reads_a_whole_answer_slowly_is_not_cut() -> None:
    line = Line()
    line.transport.pending = 1_000
    line.feed(post())
    for _ in range(SETTINGS.client_idle_ms // TICK_MS + 4):
        line.transport.pending -= 10
        line.server.tick()
    assert not line.transport.aborted


async def test_a_drain_does_not_cut_an_answer_that_is_being_read(tmp_path: Path) -> None:
    async with bench(tmp_path, write_buffer_bytes=1024) as gateway:
        gateway.supplier.default = whole("x" * 20_000_000)
        reader, writer = await gateway.connect()
        writer.write(gateway.request())
        await reader.readuntil(b"\r\n\r\n")
        drain = asyncio.create_task(gateway.server.drain(20_000))
        size = 0
        # Ten seconds, in which it reads 300 kB every 250 ms.
        for _ in range(40):
            size += len(await reader.read(300_000))
            await asyncio.sleep(0.005)
            gateway.tick()
        size += len(await reader.read())
        await drain
        assert size > 20_000_000


@pytest.mark.parametrize("is_full", [False, True])
async def test_for_who_is_gone_no_other_endpoint_is_asked(tmp_path: Path, *, is_full: bool) -> None:
    """The first endpoint is one that is drained, and fails; nothing was begun for the customer who left."""
    async with bench(tmp_path, suppliers=2) as gateway:
        urls = enumerate((each.url for each in gateway.suppliers), 1)
        gateway.use(catalog(*(endpoint(url, f"ep_{number}", disconnect="drain") for number, url in urls)))
        release, first = await one_place(gateway) if is_full else (asyncio.Event(), None)
        failing = gateway.suppliers[1 if is_full else 0]
        fails = answer_status(500)
        failing.script(fails if is_full else held(release, fails))
        _, writer = await gateway.connect()
        writer.write(gateway.request())
        await failing.call(0)
        if is_full:
            await waiting(gateway, 1)
        writer.transport.abort()
        await asyncio.sleep(0.1)
        release.set()
        if first is not None:
            await first
        await gateway.closing(1 if is_full else 0)
        gone = [summary(closing) for closing in gateway.closings() if closing.ending == "client_gone"]
        assert [(each[1], each[3]) for each in gone] == [("none", 0)]
        assert sum(len(each.calls) for each in gateway.suppliers) == (2 if is_full else 1)


async def test_a_retry_after_of_very_many_digits_is_no_fault(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2) as gateway:
        gateway.supplier.script(answer_status(429, None, "retry-after: " + "9" * 5_000))
        assert (await gateway.ask()).status_code == 200
        assert len(gateway.suppliers[1].calls) == 1


async def test_a_probe_that_streams_for_long_keeps_nobody_away(tmp_path: Path) -> None:
    async with bench(tmp_path, suppliers=2, endpoint_rest_ms=1) as gateway:
        gateway.gateway.board.limit({"ep_1": 1, "ep_2": 5})
        gateway.gateway.board.failed("ep_2", clock.boot_ns())
        release = asyncio.Event()
        gateway.supplier.default = held(release, whole("a"))
        first = asyncio.create_task(gateway.ask())
        await gateway.supplier.call(0)
        gateway.suppliers[1].script(stuck_stream(["a", "b"]))
        reader, writer = await gateway.connect()
        writer.write(gateway.request(stream=True))
        await reader.readuntil(b"data:")
        late = asyncio.create_task(gateway.ask())
        done, _ = await asyncio.wait([late], timeout=2)
        release.set()
        writer.transport.abort()
        await asyncio.gather(first, late)
        assert done


async def test_a_handover_waits_for_who_was_accepted_last() -> None:
    """All others have gone before; with TLS, shaking hands takes a while."""
    line = Line(at_once=False)
    handing = asyncio.create_task(line.server.hand_over(5_000, 20))
    await asyncio.sleep(0)
    line.connection.connection_lost(None)
    late = line.server.connection()
    late.connection_made(Transport())
    late.data_received(post())
    await asyncio.sleep(0.1)
    assert not handing.done()
    late.connection_lost(None)
    await asyncio.wait_for(handing, 2)


async def test_a_fault_of_the_one_who_is_shed_is_nobody_else_s(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    async with bench(tmp_path, office=customers("free", "high"), queue_requests_max=1) as gateway:
        release, first = await one_place(gateway)
        low = asyncio.create_task(ask(gateway, "free"))
        await waiting(gateway, 1)
        leases = gateway.gateway.leases
        give_back = leases.give_back

        def broken(*_given: Any) -> None:
            leases.give_back = give_back  # type: ignore[method-assign]
            raise RuntimeError("nobody expected this")

        leases.give_back = broken  # type: ignore[method-assign]
        high = asyncio.create_task(ask(gateway, "high"))
        await asyncio.sleep(0.2)
        release.set()
        await first
        assert (await high).status_code == 200
        assert isinstance((await asyncio.gather(low, return_exceptions=True))[0], Exception)
        assert gateway.gateway.queues.lines == {}


async def test_who_is_charged_gets_his_answer_also_when_the_drain_ends(tmp_path: Path) -> None:
    """But not before his closing is as durable as it is to be: here nothing is synced until then."""
    async with bench(tmp_path, durability="every") as gateway:
        asked = asyncio.create_task(gateway.ask())
        assert (await gateway.closing()).ending == "finished"
        for connection in gateway.server.connections:
            assert connection._flow is not None
            connection._flow.interrupt(Drained())
        await gateway.gateway_turn()
        assert not asked.done()
        sync = gateway.gateway.records._sync
        assert sync is not None
        syncing = asyncio.create_task(sync.run())
        assert (await asked).status_code == 200
        syncing.cancel()


@pytest.mark.parametrize("rolling", [False, True])
def test_a_clock_that_was_a_day_ahead_does_not_use_up_a_minute_for_a_day(*, rolling: bool) -> None:
    gauge = Gauge(Limit("x", "requests", 2, "minute", rolling))
    now_ns, day_ns = 1_800_000_000 * clock.SECOND, 86_400 * clock.SECOND
    gauge.take(1, now_ns + day_ns)
    gauge.hear("another", now_ns + day_ns, 1, now_ns + clock.SECOND)
    assert gauge.left(now_ns + 120 * clock.SECOND) == 2


def test_corrections_of_an_earlier_rush_give_nobody_a_start() -> None:
    queue = TierQueue(100, 2 * clock.SECOND)

    def push(account: str) -> Ticket:
        ticket = Ticket(tier=1, account=account, weight=1, tokens=500, at_ns=0)
        queue.push(ticket)
        return ticket

    earlier = [push("a") for _ in range(3)]
    for ticket in earlier:
        queue.take(ticket, 0)
    for _ in range(6):
        push("b")
        push("a")
    for ticket in earlier:
        queue.correct(ticket, 1)
    served = ""
    for _ in range(6):
        found = queue.next(0)
        assert found is not None
        queue.take(found, 0)
        served += found.account
    assert served == "ababab"


async def test_the_absolute_form_of_a_target_is_served(tmp_path: Path) -> None:
    """RFC 9112, 3.2.2: a server must accept it."""
    async with bench(tmp_path) as gateway:
        reader, writer = await gateway.connect()
        key = f"authorization: Bearer {SECRET}\r\nconnection: close\r\n\r\n"
        writer.write(f"GET http://x/v1/models HTTP/1.1\r\nhost: x\r\n{key}".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")


async def test_a_key_that_is_revoked_while_its_request_waits_is_not_served(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        release, first = await one_place(gateway)
        waits = asyncio.create_task(gateway.ask())
        await waiting(gateway, 1)
        gateway.gateway.keys.forget(KeyChanged(digest=gateway.office.add_key(SECRET, refused="key_revoked")))
        release.set()
        assert (await first).status_code == 200
        assert (await waits).status_code == 401
