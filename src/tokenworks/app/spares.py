"""Spares: a process that has loaded its module and waits; when a child of that kind dies, it takes its place at once.

Most of a Python process's start is loading, and where a process was killed under load everybody waits for it. A spare
listens to nothing, connects to nothing and names itself only when it is told who it is to be. The processes read their
part of the contract with `told`; the rest of it is in `app.children`.
"""

import asyncio
import os
from contextlib import suppress

import msgspec

from tokenworks.base import log, processes
from tokenworks.base.processes import Program

_PATIENCE_MS = 1_000

_log = log.get(__name__)


class Spare(msgspec.Struct, frozen=True):
    """A process that waits: what it will say `ready` on is read from `ready_fd`, `go_fd` tells it to begin."""

    process: asyncio.subprocess.Process
    ready_fd: int
    go_fd: int


class Spares:
    """At most one spare process of a program, whose command line gets the descriptors of the spare's own.

    It is prepared so long after somebody became ready: who has just lost a process has better things to do first.
    """

    def __init__(self, program: Program, after_ms: int) -> None:
        self._program = program
        self._after_ms = after_ms
        self._spare: Spare | None = None
        self._preparing: asyncio.Task[None] | None = None

    def take(self, index: int) -> tuple[asyncio.subprocess.Process, int] | None:
        """The spare, told who it is, with the descriptor that it says `ready` on; None if there is none."""
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        with suppress(BrokenPipeError):
            os.write(spare.go_fd, b"%d\n" % index)
        os.close(spare.go_fd)
        if spare.process.returncode is not None:
            os.close(spare.ready_fd)
            return None
        return spare.process, spare.ready_fd

    def prepare(self) -> None:
        """Have a spare again, soon."""
        if self._after_ms and self._spare is None and (self._preparing is None or self._preparing.done()):
            self._preparing = asyncio.create_task(self._prepare())

    async def stop(self) -> None:
        """End the spare. Another comes only when it is prepared."""
        if self._preparing is not None:
            self._preparing.cancel()
            with suppress(asyncio.CancelledError):
                await self._preparing
        spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare.go_fd)
            os.close(spare.ready_fd)
            await processes.stop(spare.process, self._program.stop_signal, _PATIENCE_MS)

    async def _prepare(self) -> None:
        await asyncio.sleep(self._after_ms / 1_000)
        ready_fd, says_ready_fd = os.pipe()
        is_told_fd, go_fd = os.pipe()
        argv = (*self._program.argv, "--ready-fd", str(says_ready_fd), "--go-fd", str(is_told_fd))
        descriptors = (*self._program.descriptors, says_ready_fd, is_told_fd)
        try:
            process = await processes.spawn(msgspec.structs.replace(self._program, argv=argv, descriptors=descriptors))
        except OSError as fault:
            os.close(ready_fd)
            os.close(go_fd)
            _log.warning("a spare process does not start", extra={"reason": str(fault)})
            return
        finally:
            os.close(says_ready_fd)
            os.close(is_told_fd)
        self._spare = Spare(process, ready_fd, go_fd)


def told(go_fd: int) -> int | None:
    """In a spare: wait until it is needed; the index that it is to have, None if it never is."""
    with os.fdopen(go_fd, "rb", buffering=0) as go:
        said = go.readline()
    return int(said) if said else None
