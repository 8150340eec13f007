"""Machines and processes of the simulation: whose clocks are read, and whose turn may run.

Every callback of the loop runs in a context that names its process. A process that died runs nothing any more, not
even a `finally`; one that is suspended runs what waited when it goes on, as after SIGSTOP.
"""

from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextvars import Context

    from tokenworks.sim.loop import Turn

# Boot clocks of different machines have nothing to do with each other.
_WALL_START_NS = 4_000_000_000_000_000_000


class Machine:
    """A computer with its two clocks. `wall_ns` may jump; the boot clock goes on through every suspension."""

    def __init__(self, name: str, boot_ns: int) -> None:
        self.name = name
        self.boot_start_ns = boot_ns
        self.wall_start_ns = _WALL_START_NS
        self.processes: list[Process] = []


class Process:
    """A process: alive or dead, running or suspended. `backlog` is what waits while it is suspended."""

    __slots__ = ("backlog", "context", "is_alive", "is_suspended", "kept", "machine", "name")

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.machine = machine
        self.is_alive = True
        self.is_suspended = False
        self.backlog: list[Turn] = []
        self.kept: list[Any] = []
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)
        machine.processes.append(self)

    def die(self) -> None:
        """From now on nothing of it runs. What it held stays in memory until the run is over."""
        self.is_alive = False
        self.backlog.clear()


PROCESS: ContextVar[Process] = ContextVar("process")
