"""The bus of the simulation: request and reply, announcements and a shared value, over lines that fail.

A message is lost, comes twice, comes late or never arrives because of a partition in one or both directions. What a
message holds is between the gateway and the office.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from tokenworks.base.bus import BusFault, Entry, Handler
from tokenworks.sim.chance import Chance
from tokenworks.sim.loop import VirtualLoop
from tokenworks.sim.machines import Machine, Process

Serve = Callable[[bytes], Awaitable[bytes | None]]


class Weather(msgspec.Struct):
    """How bad the lines are now, each in so many of a thousand messages."""

    lost: int = 0
    repeated: int = 0
    delayed: int = 0
    delay_ms: int = 400


class Hub:
    """The server that all lines lead to."""

    def __init__(self, loop: VirtualLoop, seed: int, timeout_ms: int) -> None:
        self.loop = loop
        self.weather = Weather()
        self.faults: Counter[str] = Counter()
        self.timeout_s = timeout_ms / 1000
        self.cut_to: set[str] = set()
        self.cut_from: set[str] = set()
        self.lines: dict[Process, Line] = {}
        self._chance = Chance(seed, "bus")
        self._services: dict[str, tuple[Process, Serve]] = {}
        self._values: dict[str, Entry] = {}

    def line(self, process: Process) -> "Line":
        """A connection of a process."""
        line = self.lines[process] = Line(self, process)
        return line

    def serve(self, process: Process, subject: str, serve: Serve) -> None:
        """Answer requests on a subject from now on."""
        self._services[subject] = (process, serve)

    def put(self, key: str, value: bytes) -> None:
        """Share a value in place of the one before, and tell who watches."""
        before = self._values.get(key)
        self._values[key] = Entry(before.revision + 1 if before else 1, value)
        self.publish("changed." + key, b"")

    def get(self, key: str) -> Entry | None:
        """A shared value."""
        return self._values.get(key)

    def publish(self, subject: str, payload: bytes) -> None:
        """Tell whoever can hear it now; nobody is told later."""
        for process, line in self.lines.items():
            handlers = line.handlers.get(subject, ())
            if handlers and process.is_alive and not self.is_cut_to(process.machine):
                for handler in handlers:
                    self._travel(process, line.announce, handler, subject, payload)

    def is_cut_to(self, machine: Machine) -> bool:
        """Whether messages to a machine are lost now."""
        return machine.name in self.cut_to

    def heal(self, machine: Machine) -> None:
        """End a machine's partition; its lines come back."""
        was_cut = machine.name in self.cut_to or machine.name in self.cut_from
        self.cut_to.discard(machine.name)
        self.cut_from.discard(machine.name)
        if was_cut:
            for process, line in self.lines.items():
                if process.machine is machine and process.is_alive:
                    self.loop.call_later(0.01, line.come_back, context=process.context)

    def ask(self, asker: Process, subject: str, payload: bytes, answer: "asyncio.Future[bytes]") -> None:
        """Carry a request, as well as it goes."""
        if asker.machine.name in self.cut_from:
            self.faults["message lost"] += 1
            return
        found = self._services.get(subject)
        if found is None or not found[0].is_alive:
            self.loop.call_later(0.001, _refuse, answer, subject, context=asker.context)
            return
        process, serve = found
        for _ in range(self._copies()):
            self._travel(process, self._serve, asker, serve, payload, answer)

    def _serve(self, asker: Process, serve: Serve, payload: bytes, answer: Any) -> None:
        self.loop.create_task(self._answer(asker, serve, payload, answer))

    async def _answer(self, asker: Process, serve: Serve, payload: bytes, answer: "asyncio.Future[bytes]") -> None:
        reply = await serve(payload)
        if reply is None or self.is_cut_to(asker.machine):
            return
        for _ in range(self._copies()):
            self._travel(asker, _resolve, answer, reply)

    def _copies(self) -> int:
        """How often a message arrives: mostly once."""
        weather = self.weather
        if self._chance.hits(weather.lost):
            self.faults["message lost"] += 1
            return 0
        if self._chance.hits(weather.repeated):
            self.faults["message repeated"] += 1
            return 2
        return 1

    def _travel(self, to: Process, callback: Callable[..., object], *args: Any) -> None:
        late_ns = self._chance.between(100_000, 1_500_000)
        if self._chance.hits(self.weather.delayed):
            self.faults["message delayed"] += 1
            late_ns += self._chance.between(1, self.weather.delay_ms) * 1_000_000
        self.loop.call_at_ns(self.loop.now_ns + late_ns, callback, *args, context=to.context)


class Line:
    """One process's connection; what `shipping.office` needs of a bus."""

    def __init__(self, hub: Hub, process: Process) -> None:
        self.handlers: dict[str, list[Handler]] = {}
        self._hub = hub
        self._process = process
        self._when_back: list[Callable[[], None]] = []

    def when_back(self, call: Callable[[], None]) -> None:
        """Call this each time a partition is over."""
        self._when_back.append(call)

    async def request(self, subject: str, payload: bytes, *, wait_ms: int = 0, absent_ms: int = 0) -> bytes:
        """Ask and wait for the answer. An office that is away is a fault at once here: the worker must bear that."""
        del absent_ms
        loop = self._hub.loop
        answer: asyncio.Future[bytes] = loop.create_future()
        timer = loop.call_later(self._hub.timeout_s + wait_ms / 1_000, _refuse, answer, subject)
        self._hub.ask(self._process, subject, payload, answer)
        try:
            return await answer
        finally:
            timer.cancel()

    async def publish(self, subject: str, payload: bytes) -> None:
        """Tell whoever can hear it now."""
        if self._process.machine.name not in self._hub.cut_from:
            self._hub.publish(subject, payload)

    async def subscribe(self, subject: str, handler: Handler) -> object:
        """Call the handler for each announcement."""
        self.handlers.setdefault(subject, []).append(handler)
        return handler

    async def watch(self, bucket: str, key: str) -> AsyncIterator[Entry]:
        """The value now, after each change, after each partition, and from time to time."""
        woken = asyncio.Event()
        name = f"{bucket}/{key}"

        async def on_change(_subject: str, _payload: bytes) -> None:
            woken.set()

        await self.subscribe("changed." + name, on_change)
        self.when_back(woken.set)
        while True:
            woken.clear()
            entry = self._hub.get(name)
            if entry is not None and not self._hub.is_cut_to(self._process.machine):
                yield entry
            timer = self._hub.loop.call_later(10, woken.set)
            try:
                await woken.wait()
            finally:
                timer.cancel()

    def come_back(self) -> None:
        """The partition is over."""
        for call in self._when_back:
            call()

    def announce(self, handler: Handler, subject: str, payload: bytes) -> None:
        """An announcement arrives."""
        self._hub.loop.create_task(_handle(handler, subject, payload))


async def _handle(handler: Handler, subject: str, payload: bytes) -> None:
    await handler(subject, payload)


def _resolve(answer: "asyncio.Future[bytes]", reply: bytes) -> None:
    if not answer.done():
        answer.set_result(reply)


def _refuse(answer: "asyncio.Future[bytes]", subject: str) -> None:
    if not answer.done():
        answer.set_exception(BusFault(f"no answer on {subject}"))
