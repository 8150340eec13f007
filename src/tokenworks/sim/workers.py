"""Slots for gateway workers, each with the worker that lives there now: started, killed, drained and started again.

A slot does what the supervisor and the machine do for a real worker. The worker itself is the product's, whole.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec

from tokenworks.base.bus import BusFault
from tokenworks.base.config import Settings
from tokenworks.base.journal import JournalFault
from tokenworks.gateway.worker import Worker
from tokenworks.shipping.office import BusOffice
from tokenworks.sim.bus import Hub
from tokenworks.sim.disk import SimDisk
from tokenworks.sim.facts import Facts
from tokenworks.sim.loop import Address, VirtualLoop
from tokenworks.sim.machines import Machine, Process
from tokenworks.sim.plan import MS_NS
from tokenworks.sim.sockets import Network

_RESTART_NS = 200 * MS_NS


class Site(msgspec.Struct, frozen=True):
    """What all slots share."""

    loop: VirtualLoop
    network: Network
    hub: Hub
    facts: Facts
    outside: Process
    on_fault: Callable[[str, BaseException], None]
    note: Callable[[str], None]


class Slot:
    """A place for a worker on a machine."""

    def __init__(self, site: Site, name: str, machine: Machine, disk: SimDisk, settings: Settings) -> None:
        self.name = name
        self.machine = machine
        self.disk = disk
        self.process: Process | None = None
        self.is_wanted = True
        self._site = site
        self._settings = msgspec.structs.replace(settings, data_dir=str(disk.folder))
        self._stop = asyncio.Event()
        self._lives = 0
        self._kept: list[Worker] = []

    @property
    def is_alive(self) -> bool:
        """Whether a worker lives here."""
        return self.process is not None and self.process.is_alive

    def start(self) -> None:
        """Start a worker, if none lives here and one is wanted."""
        if self.is_alive or not self.is_wanted:
            return
        self._lives += 1
        process = self.process = self._site.outside.context.copy().run(
            Process, f"{self.name}#{self._lives}", self.machine
        )
        self._stop = asyncio.Event()
        task = self._site.loop.create_task(self._live(process, self._stop), context=process.context)
        task.add_done_callback(partial(self._told, process))

    def stop(self) -> None:
        """Ask the worker to drain and end."""
        self._stop.set()

    def kill(self, *, silent: bool, again_ns: int = _RESTART_NS) -> bool:
        """End the worker in the middle of whatever it does. `silent`: its peers are not told."""
        process = self.process
        if process is None or not process.is_alive:
            return False
        self._bury(process, silent=silent)
        self._site.facts.killed.setdefault(self.name, []).append(self._site.loop.now_ns)
        self._again(again_ns)
        return True

    async def _live(self, process: Process, stop: asyncio.Event) -> None:
        disk = self.disk.used_by(process)
        worker = Worker(self._settings, BusOffice(self._site.hub.line(process)), self.name, disk)
        self._kept.append(worker)
        await worker.serve(Address(process.name), stop, lambda: None)  # pyright: ignore[reportArgumentType]

    def _told(self, process: Process, task: "asyncio.Task[None]") -> None:
        self._site.loop.call_soon(self._over, process, task, context=self._site.outside.context)

    def _over(self, process: Process, task: "asyncio.Task[None]") -> None:
        """The worker ended by itself: drained, or by a fault of its disk or of the bus."""
        fault = None if task.cancelled() else task.exception()
        unforeseen = _unforeseen(fault)
        if unforeseen is not None:
            self._site.on_fault(f"{process.name} ended", unforeseen)
        self._site.note(f"{process.name} ended" + (f": {fault!r}" if fault else ""))
        self._bury(process, silent=False)
        self._again(_RESTART_NS if fault else MS_NS)

    def _bury(self, process: Process, *, silent: bool) -> None:
        process.die()
        self._site.hub.lines.pop(process, None)
        self._site.network.drop(process, silent=silent)
        self.disk.unlock(process)

    def _again(self, after_ns: int) -> None:
        loop = self._site.loop
        loop.call_at_ns(loop.now_ns + after_ns, self.start, context=self._site.outside.context)


def _unforeseen(fault: BaseException | None) -> BaseException | None:
    """What is left of a fault when disk and bus are taken out, which may fail."""
    if isinstance(fault, BaseExceptionGroup):
        each: list[BaseException] = [*fault.exceptions]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        return next((found for found in map(_unforeseen, each) if found is not None), None)
    return None if isinstance(fault, JournalFault | BusFault) else fault
