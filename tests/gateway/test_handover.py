"""A worker that another one replaces: what is connected is served out, and no request fails."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import msgspec

from gateway.keeping_clients import Keeping
from gateway.test_process import start
from gateway.test_server import Line, answers, bodies, post
from gateway_bench import raw_request
from stand_in_office import StandInOffice, catalog, endpoint
from supplier import held, supplier, whole
from tokenworks.base.bus import Bus
from tokenworks.base.config import Settings
from tokenworks.base.journal import list_journals
from tokenworks.core import wire
from tokenworks.gateway.exchange import Exchange
from tokenworks.gateway.flow import Wait
from tokenworks.gateway.server import TICK_MS

QUICK = Settings(handover_idle_ms=2_000, client_idle_ms=60_000)
QUIET_TICKS = 2_000 // TICK_MS


class Streaming(Line):
    """Answers with a stream that ends when the test says so."""

    async def handle(self, exchange: Exchange) -> None:
        exchange.start_stream()
        self.waits.append(Wait[None]())
        await self.waits[-1]
        exchange.end_stream(b"over")


def handing_over(line: Line) -> "asyncio.Task[None]":
    line.transport.on_close = lambda: line.connection.connection_lost(None)
    return asyncio.create_task(line.server.hand_over(60_000))


async def test_an_unused_connection_may_ask_once_more_and_is_told_that_it_was_the_last() -> None:
    line = Line(settings=QUICK)
    line.feed(post(b"1"))
    task = handing_over(line)
    await asyncio.sleep(0)
    assert not line.transport.closed
    written = line.feed(post(b"2"))
    assert bodies(written) == [b"[2]"]
    assert b"connection: close" in written
    assert line.transport.closed
    await task


async def test_a_connection_that_stays_unused_is_closed_at_last() -> None:
    line = Line(settings=QUICK)
    task = handing_over(line)
    await asyncio.sleep(0)
    for _ in range(QUIET_TICKS):
        line.server.tick()
    assert not line.transport.closed
    line.server.tick()
    assert line.transport.closed
    await task


async def test_an_answer_under_way_says_that_it_is_the_last() -> None:
    line = Line(at_once=False, settings=QUICK)
    line.feed(post(b"1"))
    task = handing_over(line)
    await asyncio.sleep(0)
    line.waits.pop().resolve(None)
    assert b"connection: close" in line.transport.written
    assert line.transport.closed
    await task


async def test_what_was_sent_ahead_is_answered() -> None:
    line = Line(at_once=False, settings=QUICK)
    line.feed(post(b"1") + post(b"2"))
    task = handing_over(line)
    await asyncio.sleep(0)
    line.waits.pop().resolve(None)
    line.waits.pop().resolve(None)
    first, last = answers(line.transport.written)
    assert (b"connection: close" in first, b"connection: close" in last) == (False, True)
    assert line.transport.closed
    await task


async def test_a_stream_that_promised_to_keep_the_connection_keeps_it_for_one_more_request() -> None:
    line = Streaming(settings=QUICK)
    line.feed(post(b"1"))
    task = handing_over(line)
    await asyncio.sleep(0)
    line.waits.pop().resolve(None)
    assert line.transport.written.endswith(b"4\r\nover\r\n0\r\n\r\n")
    assert not line.transport.closed
    assert b"connection: close" in line.feed(post(b"2"))
    line.waits.pop().resolve(None)
    assert line.transport.closed
    await task


async def test_being_asked_to_stop_meanwhile_closes_what_is_unused() -> None:
    line = Line(settings=QUICK)
    task = handing_over(line)
    await asyncio.sleep(0)
    await line.server.drain(1)
    assert line.transport.closed
    await task


async def test_a_worker_is_replaced_under_load_without_a_failed_request(
    services: Settings, bus: Bus, tmp_path: Path
) -> None:
    settings = msgspec.structs.replace(services, data_dir=str(tmp_path), journal_segment_bytes=1 << 20)
    office = StandInOffice()
    office.give(10_000_000)
    await office.serve_on(bus)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    address = listener.getsockname()
    enough, release = asyncio.Event(), asyncio.Event()
    async with supplier() as made:
        await bus.put(wire.CATALOG_BUCKET, wire.CATALOG_KEY, msgspec.msgpack.encode(catalog(endpoint(made.url))))
        old = await started(settings, listener)
        streams = [Keeping(address, raw_request(stream=True)) for _ in range(3)]
        made.script(*[held(release, whole("a long story"))] * len(streams))
        running = [asyncio.create_task(each.ask()) for each in streams]
        await made.call(len(streams) - 1)
        quick = [Keeping(address, raw_request(stream=number % 2 == 1)) for number in range(8)]
        load = [asyncio.create_task(each.go_on(enough, 40)) for each in quick]
        new = await started(settings, listener)
        old.send_signal(signal.SIGUSR2)
        before = [each.served for each in quick]
        async with asyncio.timeout(20):
            while not all(each.served >= past + 20 for each, past in zip(quick, before, strict=True)):
                await asyncio.sleep(0)
                assert not any(task.done() for task in load)
        assert not any(task.done() for task in running)
        assert old.returncode is None
        release.set()
        assert all(b"story" in body for body in await asyncio.gather(*running))
        # They were promised their connections, and use them once more.
        await asyncio.gather(*(each.ask() for each in streams))
        enough.set()
        await asyncio.gather(*load)
        _, errors = await old.communicate()
        assert (old.returncode, b"Traceback" in errors) == (0, False)
        for each in (*streams, *quick):
            await each.leave()
        new.send_signal(signal.SIGTERM)
        await new.communicate()
    listener.close()
    served = sum(each.served for each in (*streams, *quick))
    assert office.balance() == 10_000_000 - 17 * served
    assert (len(office.final), list_journals(settings.journal_dir)) == (2, [])


async def started(settings: Settings, listener: socket.socket) -> asyncio.subprocess.Process:
    read_fd, ready_fd = os.pipe()
    process = await start(settings, listener, ready_fd)
    assert await asyncio.to_thread(os.read, read_fd, 64) == b"ready\n"
    os.close(read_fd)
    return process
