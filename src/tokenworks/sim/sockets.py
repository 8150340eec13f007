"""Connections of the simulation: asyncio transports between two protocols, with latency, pieces and back-pressure.

Bytes arrive in order, later, cut anywhere. A process that dies resets its connections; a machine that loses its power
says nothing any more. What travels is nobody's concern here.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from tokenworks.sim.chance import Chance
from tokenworks.sim.loop import VirtualLoop
from tokenworks.sim.machines import Process

_WINDOW_BYTES = 16 << 10


class Listener:
    """An address where connections are taken."""

    def __init__(self, network: "Network", address: str, factory: Callable[[], Any], process: Process) -> None:
        self.address = address
        self.factory = factory
        self.process = process
        self._network = network

    def close(self) -> None:
        """Take no more."""
        self._network.unlisten(self)


class Socket(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network: "Network", process: Process, protocol: Any, chance: Chance) -> None:
        super().__init__()
        self.process = process
        self.protocol = protocol
        self.peer: Socket = cast("Socket", None)
        self._network = network
        self._loop = network.loop
        self._chance = chance
        self._arrives_ns = 0
        self._in_flight = 0
        self._high = 64 << 10
        self._writing_paused = False
        self._reading_paused = False
        self._held: list[tuple[str, bytes]] = []
        self._is_closing = False
        self._is_lost = False

    # --- what protocols call

    def write(self, data: Any) -> None:
        """Send; dropped when closing."""
        if self._is_closing or not data:
            return
        data = bytes(data)
        self._in_flight += len(data)
        cut = self._chance.between(1, len(data)) if self._chance.hits(self._network.cut_per_mille) else len(data)
        self._send("data", data[:cut])
        if cut < len(data):
            self._send("data", data[cut:])
        if self._in_flight > self._high + _WINDOW_BYTES and not self._writing_paused:
            self._writing_paused = True
            self.protocol.pause_writing()

    def close(self) -> None:
        """Send what was written, then end."""
        if not self._is_closing:
            self._is_closing = True
            self._send("end", b"")
            self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """End at once."""
        if not self._is_lost:
            if not self._is_closing:
                self._is_closing = True
                self._send("reset", b"")
            self._loop.call_soon(self._lose, None)

    def write_eof(self) -> None:
        """Say that nothing more comes."""
        self._send("end", b"")

    def can_write_eof(self) -> bool:
        """Yes."""
        return True

    def is_closing(self) -> bool:
        """Whether it was closed or lost."""
        return self._is_closing

    def pause_reading(self) -> None:
        """Hand over nothing until `resume_reading`."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Hand over what waits."""
        if self._reading_paused:
            self._reading_paused = False
            self._loop.call_soon(self._take_held)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """How many bytes may wait before the protocol is told to pause."""
        del low
        self._high = high or 0

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for the reader, as far as the sender's kernel would keep them."""
        return max(0, self._in_flight - _WINDOW_BYTES)

    # --- what the network does

    def start(self) -> None:
        """Both ends are there."""
        if self.process.is_alive:
            self.protocol.connection_made(self)

    def reset(self) -> None:
        """The other end's process died: its kernel says so."""
        self._arrive("reset", b"")

    def _send(self, kind: str, data: bytes) -> None:
        self._arrives_ns = max(self._arrives_ns, self._loop.now_ns + self._network.latency_ns(self._chance))
        peer = self.peer
        self._loop.call_at_ns(self._arrives_ns, peer._arrive, kind, data, context=peer.process.context)

    def _arrive(self, kind: str, data: bytes) -> None:
        if self._is_lost or not self.process.is_alive:
            return
        if kind == "reset":
            self._held.clear()
            self._lose(ConnectionResetError("reset by peer"))
        elif self._reading_paused or self._held:
            self._held.append((kind, data))
        else:
            self._hand_over(kind, data)

    def _take_held(self) -> None:
        while self._held and not self._reading_paused and not self._is_lost:
            self._hand_over(*self._held.pop(0))

    def _hand_over(self, kind: str, data: bytes) -> None:
        if self._is_closing:
            return
        if kind == "end":
            if not self.protocol.eof_received():
                self.close()
            return
        peer = self.peer
        peer._in_flight -= len(data)
        if peer._writing_paused:
            self._loop.call_soon(peer._caught_up, context=peer.process.context)
        self.protocol.data_received(data)

    def _caught_up(self) -> None:
        """The other side has read something."""
        if self._writing_paused and not self._is_lost and self._in_flight <= self._high // 4 + _WINDOW_BYTES:
            self._writing_paused = False
            self.protocol.resume_writing()

    def _lose(self, fault: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = self._is_closing = True
            self._network.forget(self)
            self.protocol.connection_lost(fault)


class Network:
    """All connections of a run. `process` is the outside world; `latency_us` the least and most time a piece takes."""

    def __init__(self, loop: VirtualLoop, outside: Process, seed: int) -> None:
        self.loop = loop
        self.process = outside
        self.latency_us = (50, 800)
        self.cut_per_mille = 30
        self._seed = seed
        self._listeners: dict[str, list[Listener]] = {}
        self._open: dict[Process, dict[Socket, None]] = {}
        self._count = 0

    def latency_ns(self, chance: Chance) -> int:
        """How long the next piece takes."""
        low, high = self.latency_us
        return chance.between(low, high) * 1_000

    def listen(self, address: str, factory: Callable[[], Any], process: Process) -> Listener:
        """Take connections. Several may listen at one address, as workers do."""
        listener = Listener(self, address, factory, process)
        self._listeners.setdefault(address, []).append(listener)
        return listener

    def unlisten(self, listener: Listener) -> None:
        """Take none any more."""
        there = self._listeners.get(listener.address, [])
        if listener in there:
            there.remove(listener)

    def listeners(self, address: str) -> list[Listener]:
        """Those that take connections there."""
        return self._listeners.get(address, [])

    async def connect(self, process: Process, protocol: Any, address: str) -> Socket:
        """Connect to who listens there; refused if nobody does."""
        done: asyncio.Future[Socket] = self.loop.create_future()
        self.loop.call_later(0.0003, self._connect, process, protocol, address, done)
        return await done

    def _connect(self, process: Process, protocol: Any, address: str, done: "asyncio.Future[Socket]") -> None:
        there = self.listeners(address)
        if done.done():
            return
        if not there:
            done.set_exception(ConnectionRefusedError(f"nobody listens at {address}"))
        else:
            done.set_result(self.join(process, protocol, there[0]))

    def join(self, process: Process, protocol: Any, listener: Listener) -> Socket:
        """A connection between a protocol and a new one of the listener's."""
        self._count += 1
        near = Socket(self, process, protocol, Chance(self._seed, "near", self._count))
        far = Socket(self, listener.process, None, Chance(self._seed, "far", self._count))
        near.peer, far.peer = far, near
        for end in (near, far):
            self._open.setdefault(end.process, {})[end] = None
        far.process.context.copy().run(_make, far, listener.factory)
        near.start()
        return near

    def forget(self, end: Socket) -> None:
        """A connection is lost at this end."""
        self._open.get(end.process, {}).pop(end, None)

    def drop(self, process: Process, *, silent: bool) -> None:
        """A process died: the other ends of its connections are reset, or hear nothing ever again."""
        for listeners in self._listeners.values():
            listeners[:] = [listener for listener in listeners if listener.process is not process]
        ends = self._open.pop(process, {})
        if not silent:
            for end in ends:
                peer = end.peer
                self.loop.call_later(self.latency_us[1] / 1e6, peer.reset, context=peer.process.context)


def _make(end: Socket, factory: Callable[[], Any]) -> None:
    end.protocol = factory()
    end.start()
