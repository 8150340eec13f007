"""Children of the supervisor: started, watched, started again when they end, and stopped in good order.

Also the contract between the supervisor and the processes it starts with Python:

    python -m tokenworks.app.gateway  --listen-fd N --ready-fd M --index I
    python -m tokenworks.app.office   --listen-fd N --ready-fd M
    python -m tokenworks.plant.engine --ready-fd M

`N` is a listening, non-blocking TCP socket, the same one in every worker and in a worker's successor. When the
process answers, it writes the line `ready` to descriptor `M` and closes it. All settings come through the
environment. With `--go-fd G` a worker or office loads itself and waits for a line with its index on descriptor `G`; at
the end of that it ends (`app.spares`). SIGTERM asks a process to stop: it accepts no more (closing its `N`), finishes
what runs within `drain_ms`, and exits with 0. SIGINT never reaches it. It gets SIGTERM too when the supervisor dies.
SIGUSR2 tells a gateway worker that another one serves in its place: it accepts no more, serves out what is connected
within `handover_ms`, and exits with 0.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from msgspec.structs import replace

from tokenworks.app.spares import Spares
from tokenworks.base import clock, log, processes
from tokenworks.base.config import Settings, environment
from tokenworks.base.processes import Program, Service, StartFault

_HANDOVER_SIGNAL = signal.SIGUSR2
# Until it is seen whether what the process stands on is gone as well.
_FIRST_PAUSE_MS = 20

_log = log.get(__name__)


def program(module: str, settings: Settings, listen_fd: int | None = None) -> Program:
    """How a Python child is started, but for what each process has of its own."""
    argv = [sys.executable, "-P", "-m", module]
    if listen_fd is not None:
        argv += ["--listen-fd", str(listen_fd)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOKENWORKS_")}
    return Program(
        argv=tuple(argv),
        environ=inherited | environment(settings),
        descriptors=() if listen_fd is None else (listen_fd,),
    )


class PythonChild:
    """A Python module run as a process, ready when it says so through a pipe."""

    stop_signal = signal.SIGTERM

    def __init__(
        self,
        name: str,
        module: str,
        settings: Settings,
        *,
        listen_fd: int | None = None,
        index: int | None = None,
        spares: Spares | None = None,
    ):
        self.name = name
        self._program = program(module, settings, listen_fd)
        self._index = index
        self._spares = spares
        self._pipe = -1

    async def spawn(self) -> asyncio.subprocess.Process:
        """Start the module with its descriptors named in the arguments, or send its spare on its way."""
        self._close_pipe()
        taken = self._spares.take(self._index or 0) if self._spares else None
        if taken is not None:
            process, self._pipe = taken
            return process
        self._pipe, ready_fd = os.pipe()
        argv = [*self._program.argv, "--ready-fd", str(ready_fd)]
        if self._index is not None:
            argv += ["--index", str(self._index)]
        descriptors = (*self._program.descriptors, ready_fd)
        try:
            return await processes.spawn(replace(self._program, argv=tuple(argv), descriptors=descriptors))
        finally:
            os.close(ready_fd)

    async def ready(self, process: asyncio.subprocess.Process) -> None:
        """Return when the process wrote its line; a closed pipe without one means that it is ending."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._pipe, readable.set)
        try:
            await readable.wait()
            said = os.read(self._pipe, 64)
        finally:
            loop.remove_reader(self._pipe)
            self._close_pipe()
        if not said.startswith(b"ready"):
            ended = processes.how_it_ended(await process.wait())
            raise StartFault(f"the {self.name} stopped while it was starting ({ended}); the lines above say why")
        if self._spares:
            self._spares.prepare()

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


class Child:
    """One service kept alive. `restarted` is called each time it is ready again after it ended.

    `ground` are the children that it cannot start without: it is not started again before all of them are ready.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        restarted: Callable[[], None] | None = None,
        ground: Sequence["Child"] = (),
    ) -> None:
        self.name = service.name
        self._service = service
        self._settings = settings
        self._restarted = restarted
        self._ground = ground
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._former: asyncio.subprocess.Process | None = None
        self._farewell: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def pid(self) -> int:
        """Its process id; 0 while there is none that is ready."""
        return self._process.pid if self._process and self._ready.is_set() and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start it, wait until it is ready, and watch it from then on."""
        await self._begin()
        self._watch = asyncio.create_task(self._keep_alive())

    async def replace(self) -> None:
        """Start another process beside it; when that is ready, it is the one that is kept alive, and the former one is
        told to hand over. If it does not become ready, that is a fault, and nothing has changed."""
        if self._is_leaving:
            raise StartFault(f"the former {self.name} still finishes what it serves")
        await self.is_ready()
        await _cancelled(self._watch)
        former = self._process
        try:
            self._process = await self._another()
            self._former = former
            self._farewell = asyncio.create_task(self._see_off())
        finally:
            self._watch = asyncio.create_task(self._keep_alive())

    async def stop(self) -> None:
        """Ask it to end and wait for it; also when it never became ready."""
        await _cancelled(self._watch)
        await _cancelled(self._farewell)
        await asyncio.gather(self._end(self._former), self._end(self._process))

    @property
    def _is_leaving(self) -> bool:
        return self._farewell is not None and not self._farewell.done()

    async def _begin(self) -> None:
        self._ready.clear()
        self._process = await self._service.spawn()
        await self._until_ready(self._process)
        self._ready.set()

    async def _another(self) -> asyncio.subprocess.Process:
        process = await self._service.spawn()
        is_kept = False
        try:
            await self._until_ready(process)
            is_kept = True
        finally:
            if not is_kept:
                await self._end(process)
        return process

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self._settings.start_timeout_ms / 1000):
                await self._service.ready(process)
        except TimeoutError as fault:
            raise StartFault(f"the {self.name} was not ready after {self._settings.start_timeout_ms} ms") from fault

    async def _see_off(self) -> None:
        """The former process hands over in its own time; one that outstays all its limits is ended."""
        if self._former is None or self._former.returncode is not None:
            return
        settings = self._settings
        patience_ms = settings.handover_ms + settings.drain_ms + settings.stop_timeout_ms
        if not await processes.stop(self._former, _HANDOVER_SIGNAL, patience_ms):
            _log.warning("killed a former process that did not end", extra={"child": self.name})

    async def _end(self, process: asyncio.subprocess.Process | None) -> None:
        if process is None or process.returncode is not None:
            return
        patience_ms = self._settings.stop_timeout_ms + self._settings.drain_ms
        if not await processes.stop(process, self._service.stop_signal, patience_ms):
            _log.warning("killed a process that did not end", extra={"child": self.name, "after_ms": patience_ms})

    async def _keep_alive(self) -> None:
        first_pause_ms = min(_FIRST_PAUSE_MS, self._settings.restart_pause_ms)
        pause_ms = first_pause_ms
        while self._process:
            since_ns = clock.boot_ns()
            ended = processes.how_it_ended(await self._process.wait())
            self._ready.clear()
            if self._was_well(since_ns):
                pause_ms = first_pause_ms
            _log.warning(
                "a process ended, starting it again", extra={"child": self.name, "ended": ended, "in_ms": pause_ms}
            )
            await asyncio.sleep(pause_ms / 1000)
            for child in self._ground:
                await child.is_ready()
            pause_ms = min(max(pause_ms * 2, self._settings.restart_pause_ms), self._settings.restart_pause_max_ms)
            await self._begin_again()

    async def is_ready(self) -> None:
        """Return when it is."""
        await self._ready.wait()

    def _was_well(self, since_ns: int) -> bool:
        """Whether it had run for a while, or had lost what it stands on: the next one need not wait any longer."""
        lived_ns = clock.boot_ns() - since_ns
        return lived_ns > self._settings.restart_pause_max_ms * clock.MS or not all(each.pid for each in self._ground)

    async def _begin_again(self) -> None:
        try:
            await self._begin()
        except (StartFault, OSError) as fault:
            _log.error("a process did not start: %s", fault, extra={"child": self.name})
            await self._end(self._process)
        else:
            _log.info("a process is ready again", extra={"child": self.name, "pid": self.pid})
            if self._restarted:
                self._restarted()


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def all_of(awaitables: Iterable[Awaitable[None]]) -> None:
    """Wait for all; the first fault ends the others and is raised as it is, not in a group."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            # Once is enough: a second time would keep it from waiting for a process that it has just ended.
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
