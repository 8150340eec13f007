"""Child processes: start one, wait for it, end it. Every child dies with the process that started it.

What a child is for, when it counts as ready and whether it is started again is decided elsewhere
(`tokenworks.app`). Start children from the main thread only: the kernel ties a child's life to the thread that
started it.
"""

import asyncio
import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class StartFault(Exception):
    """A part of the system cannot start; the text is one sentence that an operator can act on."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A user of the machine that a child runs as."""

    name: str
    uid: int
    gid: int


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """How to start one child. Its output goes to `output`, or to the parent's standard error if there is none."""

    argv: tuple[str, ...]
    environ: dict[str, str]
    descriptors: tuple[int, ...] = ()
    output: Path | None = None
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM


class Service(Protocol):
    """A long-running child: something that can be started, waited for and ended."""

    @property
    def name(self) -> str:
        """What logs and messages call it."""
        ...

    @property
    def stop_signal(self) -> signal.Signals:
        """The signal that asks it to end in good order."""
        ...

    async def spawn(self) -> asyncio.subprocess.Process:
        """Start the process; it need not answer yet."""
        ...

    async def ready(self, process: asyncio.subprocess.Process) -> None:
        """Return when it answers, or raise `StartFault` if it ends before."""
        ...


async def spawn(program: Program) -> asyncio.subprocess.Process:
    """Start a child in its own session, so that Ctrl-C in a terminal reaches the parent alone."""
    output = program.output.open("ab") if program.output else None
    account = program.account
    try:
        return await asyncio.create_subprocess_exec(
            *program.argv,
            env=program.environ,
            cwd="/" if account else None,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output or 2,
            stderr=output,
            pass_fds=program.descriptors,
            start_new_session=True,
            preexec_fn=_die_with_parent(program.stop_signal),
            **_as(account),
        )
    finally:
        if output:
            output.close()


async def run(program: Program, standard_input: bytes = b"") -> tuple[int, str]:
    """Run a short program to its end; gives its exit code and everything it said."""
    account = program.account
    process = await asyncio.create_subprocess_exec(
        *program.argv,
        env=program.environ,
        cwd="/" if account else None,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent(signal.SIGKILL),
        **_as(account),
    )
    try:
        said, _ = await process.communicate(standard_input)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return await process.wait(), said.decode(errors="replace")


async def stop(process: asyncio.subprocess.Process, stop_signal: signal.Signals, patience_ms: int) -> bool:
    """Ask a child to end and wait; kill it when it takes longer than allowed. True if it ended by itself."""
    with suppress(ProcessLookupError):
        process.send_signal(stop_signal)
    try:
        async with asyncio.timeout(patience_ms / 1000):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return False
    return True


def how_it_ended(code: int | None) -> str:
    """`-9` → `killed by SIGKILL`; `3` → `exit code 3`."""
    if code is None:
        return "still running"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def last_line(output: Path) -> str:
    """The last line a child wrote, for a message that says why it ended."""
    with suppress(FileNotFoundError):
        lines = output.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""


def _as(account: Account | None) -> dict[str, Any]:
    """Who the child runs as. Uvloop knows no such arguments, and those who run on it start children as themselves."""
    return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}


def _die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """Runs in the child between fork and exec, after the user was changed (changing it would undo this)."""
    parent = os.getpid()

    def bind() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return bind
