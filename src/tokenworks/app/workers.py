"""Workers as the office hears of them: what waits in each, and how it finds its endpoints. For metrics and people.

Each worker says so every second; one that is silent for a few is gone. Nothing is kept and nothing depends on it.
"""

from collections.abc import Iterator

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tokenworks.base import clock
from tokenworks.base.bus import Bus, Served
from tokenworks.core.tiers import TIERS
from tokenworks.core.wire import WORKER_STATE, WorkerState

_FORGET_NS = 5 * clock.SECOND
_decode = msgspec.msgpack.Decoder(WorkerState).decode


class Workers(Collector):
    """The workers heard lately. `start` and `stop` frame its life."""

    def __init__(self, bus: Bus, registry: CollectorRegistry) -> None:
        self._bus = bus
        self._heard: dict[str, tuple[WorkerState, int]] = {}
        self._served: Served | None = None
        registry.register(self)

    async def start(self) -> None:
        """Listen."""
        self._served = await self._bus.subscribe(WORKER_STATE, self._on_state)

    async def stop(self) -> None:
        """Listen no more."""
        if self._served is not None:
            await self._served.unsubscribe()

    def states(self) -> list[WorkerState]:
        """The workers that live, by name."""
        before_ns = clock.boot_ns() - _FORGET_NS
        for name in [name for name, (_, heard_ns) in self._heard.items() if heard_ns < before_ns]:
            del self._heard[name]
        return [self._heard[name][0] for name in sorted(self._heard)]

    def collect(self) -> Iterator[Metric]:
        """The numbers as they are now, for a reader."""
        waiting = GaugeMetricFamily(
            "tokenworks_queue_requests",
            "Requests that wait for a place",
            labels=("worker", "model", "tier"),
        )
        running = GaugeMetricFamily(
            "tokenworks_endpoint_requests", "Requests that run at an endpoint", labels=("worker", "endpoint")
        )
        resting = GaugeMetricFamily(
            "tokenworks_endpoint_resting", "1 while a worker leaves an endpoint alone", labels=("worker", "endpoint")
        )
        for state in self.states():
            for model, lengths in state.waiting.items():
                for tier, length in zip(TIERS, lengths, strict=True):
                    waiting.add_metric((state.worker, model, tier), length)
            for endpoint, count in state.running.items():
                running.add_metric((state.worker, endpoint), count)
                resting.add_metric((state.worker, endpoint), endpoint in state.resting)
        yield from (waiting, running, resting)

    async def _on_state(self, _subject: str, payload: bytes) -> None:
        state = _decode(payload)
        self._heard[state.worker] = (state, clock.boot_ns())
