"""The bus on a real NATS server: answers, silence, order, shared values, and a server that goes and comes back."""

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tokenworks.app import ports
from tokenworks.base import bus as buses
from tokenworks.base import processes
from tokenworks.base.bus import Bus, BusFault, Entry
from tokenworks.base.config import Settings
from tokenworks.base.nats_server import PAYLOAD_BYTES_MAX, NatsServer


async def upper(_subject: str, payload: bytes) -> bytes:
    return payload.upper()


@pytest.mark.parametrize("payload", [b"", b"abc", b"x" * (PAYLOAD_BYTES_MAX - 1024)], ids=["empty", "short", "longest"])
async def test_a_request_gets_its_answer(bus: Bus, payload: bytes) -> None:
    await bus.subscribe("test.upper", upper)
    assert await bus.request("test.upper", payload) == payload.upper()


async def test_nobody_listening_is_known_at_once(bus: Bus) -> None:
    with pytest.raises(BusFault, match=r"no answer on test\.nobody: .*no responders"):
        await bus.request("test.nobody", b"")


async def test_somebody_who_is_to_listen_soon_is_waited_for(services: Settings, bus: Bus) -> None:
    question = asyncio.create_task(bus.request("test.soon", b"a", absent_ms=20_000))
    with pytest.raises(BusFault):
        await bus.request("test.soon", b"", absent_ms=1)
    other = await buses.connect(services.nats_url, services.nats_token, "other", timeout_ms=5_000)
    await other.subscribe("test.soon", upper, queue="soon")
    assert await question == b"A"
    await other.close()


async def test_silence_ends_with_the_time_given(bus: Bus) -> None:
    async def silent(_subject: str, _payload: bytes) -> None:
        return None

    await bus.subscribe("test.silent", silent)
    with pytest.raises(BusFault, match=r"no answer on test\.silent"):
        await bus.request("test.silent", b"", timeout_ms=20)


async def test_too_long_a_payload_is_a_fault(bus: Bus) -> None:
    with pytest.raises(BusFault, match=r"cannot publish on test\.long"):
        await bus.publish("test.long", b"x" * (PAYLOAD_BYTES_MAX + 1))


async def test_a_handler_that_raises_is_logged_and_the_next_message_is_served(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async def picky(_subject: str, payload: bytes) -> bytes:
        if payload == b"bad":
            raise KeyError(payload)
        return payload

    for at_once in (1, 4):
        caplog.clear()
        await bus.subscribe(f"test.picky.{at_once}", picky, at_once=at_once)
        with pytest.raises(BusFault):
            await bus.request(f"test.picky.{at_once}", b"bad", timeout_ms=50)
        assert await bus.request(f"test.picky.{at_once}", b"good") == b"good"
        assert "a bus handler failed" in caplog.text
        assert "KeyError" in caplog.text


async def test_messages_are_served_in_order_unless_several_at_once_are_allowed(bus: Bus) -> None:
    second_came = asyncio.Event()

    async def needs_the_second(_subject: str, payload: bytes) -> bytes:
        if payload == b"2":
            second_came.set()
        await second_came.wait()
        return payload

    await bus.subscribe("test.wide", needs_the_second, at_once=2)
    answers = await asyncio.gather(bus.request("test.wide", b"1"), bus.request("test.wide", b"2"))
    assert answers == [b"1", b"2"]
    second_came.clear()
    await bus.subscribe("test.narrow", needs_the_second)
    first, second = await asyncio.gather(
        bus.request("test.narrow", b"1", timeout_ms=50),
        bus.request("test.narrow", b"2", timeout_ms=50),
        return_exceptions=True,
    )
    assert isinstance(first, BusFault)
    assert isinstance(second, BusFault)
    second_came.set()


async def test_one_of_a_queue_gets_a_message(bus: Bus) -> None:
    served: list[bytes] = []

    async def count(_subject: str, payload: bytes) -> bytes:
        served.append(payload)
        return b"done"

    await bus.subscribe("test.queue", count, queue="office")
    await bus.subscribe("test.queue", count, queue="office")
    for number in range(10):
        await bus.request("test.queue", b"%d" % number)
    assert sorted(served) == [b"%d" % number for number in range(10)]


async def test_a_shared_value_is_kept_and_its_revision_grows(bus: Bus) -> None:
    assert await bus.get("shelf", "thing") is None
    first = await bus.put("shelf", "thing", b"one")
    assert await bus.get("shelf", "other") is None
    second = await bus.put("shelf", "thing", b"two")
    assert second > first
    assert await bus.get("shelf", "thing") == Entry(second, b"two")


async def test_a_watcher_sees_the_value_its_changes_and_confirmations(bus: Bus) -> None:
    watch = bus.watch("shelf", "seen", confirm_ms=10_000)
    before = asyncio.ensure_future(anext(watch))
    first = await bus.put("shelf", "seen", b"one")
    assert await before == Entry(first, b"one")
    second = await bus.put("shelf", "seen", b"two")
    while (entry := await anext(watch)).revision != second:
        assert entry == Entry(first, b"one")
    assert entry.value == b"two"
    await watch.aclose()
    often = bus.watch("shelf", "seen", confirm_ms=1)
    assert [await anext(often) for _ in range(3)] == [Entry(second, b"two")] * 3
    await often.aclose()


@pytest.mark.parametrize(
    ("url", "token"),
    [("nats://127.0.0.1:9", ""), ("nats://127.0.0.1:9,nats://127.0.0.1:10", ""), ("", "wrong"), ("nonsense://x", "")],
)
async def test_a_bus_that_cannot_be_used_is_told_in_one_sentence(services: Settings, url: str, token: str) -> None:
    with pytest.raises(BusFault, match="cannot be used: ") as fault:
        await buses.connect(url or services.nats_url, token, "test")
    assert "\n" not in str(fault.value)


async def test_one_of_several_servers_is_enough(services: Settings) -> None:
    bus = await buses.connect(f"nats://127.0.0.1:9,{services.nats_url}", services.nats_token, "test")
    await bus.subscribe("test.some", upper)
    assert await bus.request("test.some", b"a") == b"A"
    await bus.close()


@pytest.fixture
async def server(scratch: Path) -> AsyncGenerator[tuple[NatsServer, Bus]]:
    """A server of the test's own, which it may kill, and a connection to it."""
    own = NatsServer(scratch / "own-nats", port=await ports.free_port(0, ""), token="token")
    process = await own.spawn()
    await own.ready(process)
    bus = await buses.connect(own.url, "token", "test", timeout_ms=5_000)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    yield own, bus
    await bus.close()


async def test_a_connection_comes_back_with_its_subscriptions_and_watchers(
    server: tuple[NatsServer, Bus], caplog: pytest.LogCaptureFixture
) -> None:
    own, bus = server
    caplog.set_level(logging.INFO)
    with pytest.raises(BusFault):
        await bus.request("test.upper", b"a", timeout_ms=300)
    process = await own.spawn()
    await own.ready(process)
    await bus.subscribe("test.upper", upper)
    revision = await bus.put("shelf", "thing", b"one")
    watch = bus.watch("shelf", "thing", confirm_ms=60_000)
    assert await anext(watch) == Entry(revision, b"one")
    await processes.stop(process, signal.SIGKILL, 1_000)
    process = await own.spawn()
    await own.ready(process)
    async with asyncio.timeout(10):
        assert await anext(watch) == Entry(revision, b"one")
    assert await bus.request("test.upper", b"a") == b"A"
    await watch.aclose()
    lines = [record.getMessage() for record in caplog.records if "bus" in record.getMessage()]
    assert lines == ["the bus is back", "lost the bus, reconnecting", "the bus is back"]
    await processes.stop(process, own.stop_signal, 5_000)


async def test_a_question_that_a_restart_of_the_server_swallowed_is_asked_again(
    server: tuple[NatsServer, Bus],
) -> None:
    own, bus = server
    process = await own.spawn()
    await own.ready(process)
    asked: asyncio.Queue[bytes] = asyncio.Queue()
    dies = asyncio.Event()

    async def answer(_subject: str, payload: bytes) -> bytes | None:
        asked.put_nowait(payload)
        return payload.upper() if dies.is_set() else None

    answering = await buses.connect(own.url, "token", "answering", timeout_ms=5_000)
    await answering.subscribe("test.upper", answer, queue="upper")
    question = asyncio.create_task(bus.request("test.upper", b"a", timeout_ms=20_000))
    assert await asked.get() == b"a"
    dies.set()
    await processes.stop(process, signal.SIGKILL, 1_000)
    process = await own.spawn()
    await own.ready(process)
    assert await question == b"A"
    await answering.close()
    await processes.stop(process, own.stop_signal, 5_000)


async def test_a_question_to_a_process_that_died_is_asked_again_of_its_successor(services: Settings, bus: Bus) -> None:
    asked = asyncio.Event()

    async def silent(_subject: str, _payload: bytes) -> None:
        asked.set()

    first = await buses.connect(services.nats_url, services.nats_token, "first", timeout_ms=5_000)
    await first.subscribe("test.again", silent, queue="again")
    question = asyncio.create_task(bus.request("test.again", b"a", timeout_ms=20_000, absent_ms=20_000))
    await asked.wait()
    await first.close()
    second = await buses.connect(services.nats_url, services.nats_token, "second", timeout_ms=5_000)
    await second.subscribe("test.again", upper, queue="again")
    assert await question == b"A"
    await second.close()
