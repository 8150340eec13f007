"""An asyncio event loop in virtual time: nothing is waited for, the clock moves to the next timer.

It runs the gateway's real coroutines and protocols. Connections are `sim.sockets`'s; work for threads runs inline, as
long as the machine's disk takes. It knows nothing of what it runs.
"""

import asyncio
import heapq
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tokenworks.sim.machines import PROCESS, Process

if TYPE_CHECKING:
    from tokenworks.sim.sockets import Network

T = TypeVar("T")

SECOND_NS = 1_000_000_000
_COMPACT_AT = 512


class Stuck(Exception):
    """Nothing is left that could ever happen, and what was waited for has not come."""


class Turn:
    """A callback with its context; what asyncio calls a handle."""

    __slots__ = ("args", "callback", "context", "is_timer", "loop", "process", "stopped", "when_ns")

    def __init__(
        self, loop: "VirtualLoop", when_ns: int, callback: Callable[..., object], args: Any, context: Context
    ) -> None:
        self.loop = loop
        self.when_ns = when_ns
        self.callback = callback
        self.args = args
        self.context = context
        self.process: Process = context[PROCESS]
        self.is_timer = False
        self.stopped = False

    def cancel(self) -> None:
        """Do not run it."""
        if not self.stopped:
            self.stopped = True
            self.callback = _nothing
            self.args = ()
            if self.is_timer:
                self.loop.count_cancelled()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.stopped

    def when(self) -> float:
        """Its time in seconds, as asyncio's timer handles have it."""
        return self.when_ns / SECOND_NS


class SimTask(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks are gone through in the same order in every run."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], *, loop: "VirtualLoop", context: Context | None) -> None:
        self._serial = loop.next_serial()
        super().__init__(coroutine, loop=loop, context=context)

    def __hash__(self) -> int:
        return self._serial


class VirtualLoop(asyncio.AbstractEventLoop):
    """One thread, one clock. `on_fault` is told of exceptions that nobody caught."""

    def __init__(self, on_fault: Callable[[Process, str, BaseException | None], None]) -> None:
        self.now_ns = 0
        self.turns = 0
        self.network: Network = cast("Network", None)
        self.tasks: list[SimTask] = []
        self._on_fault = on_fault
        self._ready: deque[Turn] = deque()
        self._timers: list[tuple[int, int, Turn]] = []
        self._orders = count(1)
        self._serials = count(1)
        self._cancelled = 0
        self._addresses: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._sync_ns: Callable[[Process], int] = lambda _: 0

    # --- clocks

    def wall_ns(self) -> int:
        """The wall clock of the machine whose turn it is."""
        return self.now_ns + PROCESS.get().machine.wall_start_ns

    def boot_ns(self) -> int:
        """Its boot clock."""
        return self.now_ns + PROCESS.get().machine.boot_start_ns

    def time(self) -> float:
        """Seconds since the run began."""
        return self.now_ns / SECOND_NS

    # --- what asyncio asks of a loop

    def get_debug(self) -> bool:
        """No debugging: it costs time."""
        return False

    def is_running(self) -> bool:
        """Always: there is no other loop."""
        return True

    def is_closed(self) -> bool:
        """Never."""
        return False

    def next_serial(self) -> int:
        """The number of the next task."""
        return next(self._serials)

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        """A task of the process whose turn it is, or of the given context's."""
        del name
        task = SimTask(coro, loop=self, context=context)
        # A pending task that is forgotten would be closed, with all its `finally` blocks, whenever Python likes.
        self.tasks.append(task)
        return task

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        """Run it in this instant, after everything that waits."""
        turn = Turn(self, self.now_ns, callback, args, context or copy_context())
        self._ready.append(turn)
        return turn

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        """Run it after so many seconds."""
        return self.call_at_ns(self.now_ns + max(0, round(delay * SECOND_NS)), callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        """Run it at a time of `time`."""
        return self.call_at_ns(max(self.now_ns, round(when * SECOND_NS)), callback, *args, context=context)

    def call_at_ns(
        self, when_ns: int, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Turn:
        """Run it at a virtual time."""
        turn = Turn(self, when_ns, callback, args, context or copy_context())
        turn.is_timer = True
        heapq.heappush(self._timers, (when_ns, next(self._orders), turn))
        return turn

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Work for a thread: done in one instant, after the time that the machine's disk takes."""
        del executor
        done: asyncio.Future[T] = self.create_future()
        self.call_at_ns(self.now_ns + self._sync_ns(PROCESS.get()), _work, done, func, args)
        return done

    async def getaddrinfo(self, host: Any, port: Any, **more: Any) -> Any:
        """A public address for each name, of which `create_connection` knows whose it is."""
        del more
        address = self._addresses.setdefault(str(host), f"1.0.0.{len(self._addresses) + 1}")
        self._names[address] = str(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))]

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **more: Any) -> Any:
        """Connect to a simulated address."""
        del more
        host = self._names.get(host, host)
        protocol = protocol_factory()
        transport = await self.network.connect(PROCESS.get(), protocol, f"{host}:{port}")
        return transport, protocol

    async def create_server(self, protocol_factory: Any, *args: Any, sock: Any = None, **more: Any) -> Any:
        """Listen at the address that stands for the socket."""
        del args, more
        return self.network.listen(cast("Address", sock).address, protocol_factory, PROCESS.get())

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An exception that nobody caught."""
        self._on_fault(PROCESS.get(), str(context.get("message")), context.get("exception"))

    # --- running

    def disk_takes(self, sync_ns: Callable[[Process], int]) -> None:
        """How long a sync takes on a process's machine."""
        self._sync_ns = sync_ns

    def count_cancelled(self) -> None:
        """Timers mostly end by being cancelled; they are swept out when they are many."""
        self._cancelled += 1
        if self._cancelled > _COMPACT_AT and self._cancelled * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if not timer[2].stopped]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def run(self, is_done: Callable[[], bool], until_ns: int) -> bool:
        """Run turns until it is done; False if the time came first. `Stuck` if nothing is left to happen."""
        # A test may run this within a loop of its own.
        before = asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage]
        asyncio._set_running_loop(self)  # pyright: ignore[reportPrivateUsage]
        try:
            while not is_done():
                if not self._ready and not self._advance(until_ns):
                    return False
                self._run_ready()
        finally:
            asyncio._set_running_loop(before)  # pyright: ignore[reportPrivateUsage]
        return True

    def suspend(self, process: Process) -> None:
        """Nothing of the process runs until `resume`."""
        process.is_suspended = True

    def resume(self, process: Process) -> None:
        """What waited runs now, in its order."""
        process.is_suspended = False
        self._ready.extend(process.backlog)
        process.backlog = []

    def unseen_faults(self) -> list[str]:
        """What tasks ended with and nobody asked for."""
        return [
            f"{task.get_coro()!r}: {task.exception()!r}"
            for task in self.tasks
            if task.done() and task._log_traceback  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        ]

    def forget(self) -> None:
        """The run is over: tasks of dead workers go without a word."""
        for task in self.tasks:
            task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
        self._ready.clear()
        self._timers.clear()
        self.tasks.clear()

    def _advance(self, until_ns: int) -> bool:
        """To the next timer, with all timers of that instant."""
        timers = self._timers
        while timers and timers[0][2].stopped:
            heapq.heappop(timers)
            self._cancelled -= 1
        if not timers:
            raise Stuck("nothing is left to happen")
        self.now_ns = timers[0][0]
        if self.now_ns > until_ns:
            return False
        while timers and timers[0][0] <= self.now_ns:
            turn = heapq.heappop(timers)[2]
            turn.is_timer = False
            if turn.stopped:
                self._cancelled -= 1
            else:
                self._ready.append(turn)
        return True

    def _run_ready(self) -> None:
        for _ in range(len(self._ready)):
            turn = self._ready.popleft()
            process = turn.process
            if turn.stopped or not process.is_alive:
                continue
            if process.is_suspended:
                process.backlog.append(turn)
                continue
            self.turns += 1
            turn.context.run(self._run, turn)

    def _run(self, turn: Turn) -> None:
        with _Told(lambda fault: self._on_fault(turn.process, f"in {turn.callback!r}", fault)):
            turn.callback(*turn.args)


class _Told:
    """What is raised inside is told, as a loop does with what its callbacks raise. Ctrl-C goes through."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[Exception], object]) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> bool:
        if not isinstance(fault, Exception):
            return False
        self._tell(fault)
        return True


class Address(socket.socket):
    """Stands for a listening socket; never opened."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.close()


def _nothing() -> None:
    """What a cancelled turn runs."""


def _work(done: "asyncio.Future[T]", func: Callable[..., T], args: tuple[Any, ...]) -> None:
    if done.cancelled():
        return
    with _Told(done.set_exception):
        done.set_result(func(*args))
