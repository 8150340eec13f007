"""Flows: coroutines driven by hand, one per request, without an event-loop task.

A flow waits only for what it can be attached to: a `Wait` for one, a `Gate` for many, a connection for what comes on
it. Whoever has what it waits for resumes it, and it goes on at once, in the same callback. A task per request was
rejected: it costs a future, a scheduled callback and a loop turn at each wait, a fifth of the budget of a request. Work
that needs asyncio (the bus, connecting) runs as an errand, a task whose result is handed over through a `Wait`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class Waited(Protocol):
    """What a flow can wait for."""

    def attach(self, flow: "Flow") -> None:
        """Called by the flow that waits; it is resumed with this object, which it compares with what it waits for."""
        ...


class Interrupt(Exception):
    """Thrown into a flow at the point where it waits: it must come to its end now."""


class Wait(Generic[T]):
    """Something a flow waits for; resolved or failed once."""

    __slots__ = ("_fault", "_flow", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._fault: Exception | None = None
        self._flow: Flow | None = None
        self._value: T | None = None

    def resolve(self, value: T) -> bool:
        """Hand over the value; False if nobody waits (any more)."""
        self._value = value
        return self._finish()

    def fail(self, fault: Exception) -> bool:
        """Raise the fault where the flow waits; False if nobody waits (any more)."""
        self._fault = fault
        return self._finish()

    def attach(self, flow: "Flow") -> None:
        """Called by the flow that waits."""
        self._flow = flow

    def _finish(self) -> bool:
        self.done = True
        return self._flow is not None and self._flow.resume(self)

    def __await__(self) -> Generator["Wait[T]", None, T]:
        if not self.done:
            yield self
        if self._fault is not None:
            raise self._fault
        return self._value  # pyright: ignore[reportReturnType] - resolved, so it is a T


class Gate:
    """Something that many flows wait for together; opened once, perhaps with a fault for all of them."""

    __slots__ = ("_fault", "_flows")

    def __init__(self) -> None:
        self._fault: Exception | None = None
        self._flows: deque[Flow] = deque()

    def attach(self, flow: "Flow") -> None:
        """Called by each flow that waits."""
        self._flows.append(flow)

    def open(self, fault: Exception | None = None) -> None:
        """Let the flows go on, each on its own: a fault in one is the loop's to report and must not stop the others."""
        self._fault = fault
        flows = self._flows
        try:
            while flows:
                flows.popleft().resume(self)
        finally:
            if flows:
                asyncio.get_running_loop().call_soon(self.open, fault)

    def __await__(self) -> Generator["Gate", None, None]:
        yield self
        if self._fault is not None:
            raise self._fault


class Flow:
    """One coroutine on its way. `on_end` is called once, also when the coroutine ends by a fault."""

    __slots__ = ("_coroutine", "_on_end", "_wait")

    def __init__(self, coroutine: Coroutine[Waited, None, None], on_end: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._on_end = on_end
        self._wait: Waited | None = None

    def start(self) -> None:
        """Run up to the first wait."""
        self.resume(None)

    def resume(self, wait: Waited | None, reason: Interrupt | None = None) -> bool:
        """Go on after `wait`; False if the flow was interrupted and no longer waits for it."""
        if self._wait is not wait:
            return False
        self._wait = None
        try:
            awaited = self._wait = self._coroutine.send(None) if reason is None else self._coroutine.throw(reason)
        except StopIteration:
            return True
        finally:
            if self._wait is None:
                self._on_end()
        awaited.attach(self)
        return True

    def interrupt(self, reason: Interrupt) -> None:
        """Throw `reason` into the coroutine where it waits."""
        if self._wait is not None:
            self.resume(self._wait, reason)


def resolve_each(waits: deque[Wait[T]], value: T) -> None:
    """Let the flows go on, each on its own: a fault in one is the loop's to report and must not stop the others."""
    try:
        while waits:
            waits.popleft().resolve(value)
    finally:
        if waits:
            asyncio.get_running_loop().call_soon(resolve_each, waits, value)


class Errands:
    """Tasks started on behalf of flows; kept here so that they are not collected while they run."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[None], None] = {}

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine as a task. It hands over its result itself."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running[task] = None
        task.add_done_callback(self._ended)

    async def cancel(self) -> None:
        """Stop what still runs."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)


async def pause(seconds: float) -> None:
    """Let a flow wait for a while."""
    wait: Wait[None] = Wait()
    timer = asyncio.get_running_loop().call_later(seconds, wait.resolve, None)
    try:
        await wait
    finally:
        timer.cancel()
