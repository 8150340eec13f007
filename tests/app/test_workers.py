"""What workers say of themselves, as the office has it: for people and for Prometheus, until they are silent."""

import asyncio

import msgspec
from prometheus_client import CollectorRegistry, generate_latest

from tokenworks.app.workers import Workers
from tokenworks.base import clock
from tokenworks.base.bus import Bus
from tokenworks.core.wire import WORKER_STATE, WorkerState

STATE = WorkerState("gw-0", {"m": (3, 1, 0, 0, 0)}, {"end_1": 2, "end_2": 0}, ("end_2",))


async def test_a_worker_is_heard_and_forgotten(bus: Bus) -> None:
    registry = CollectorRegistry()
    workers = Workers(bus, registry)
    await workers.start()
    await bus.publish(WORKER_STATE, msgspec.msgpack.encode(STATE))
    never = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(5):
        while not workers.states():
            await asyncio.wait([never], timeout=0.002)
    assert workers.states() == [STATE]
    shown = generate_latest(registry).decode()
    assert 'tokenworks_queue_requests{model="m",tier="free",worker="gw-0"} 3.0' in shown
    assert 'tokenworks_endpoint_requests{endpoint="end_1",worker="gw-0"} 2.0' in shown
    assert 'tokenworks_endpoint_resting{endpoint="end_2",worker="gw-0"} 1.0' in shown
    later_ns = clock.boot_ns() + 6 * clock.SECOND
    with clock.replaced(clock.wall_ns, lambda: later_ns):
        assert workers.states() == []
    await workers.stop()
