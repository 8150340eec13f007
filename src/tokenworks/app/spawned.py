"""A whole system of one's own, for as long as it is needed: `tokenworks up` as a child process on free ports.

Used by the demonstration and by tests. What the system does is decided by its settings; this module only starts it,
waits until it is ready and stops it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from tokenworks.app import claim
from tokenworks.base import clock, config, hosts, processes
from tokenworks.base.config import Settings
from tokenworks.base.processes import Program, StartFault

_LOOK_EVERY_S = 0.05
_STOP_PATIENCE_MS = 40_000
_LINES_SHOWN = 8


class Spawned(msgspec.Struct, frozen=True, kw_only=True):
    """A system that is ready: its data folder, its addresses by name, and how long it took."""

    data: Path
    addresses: dict[str, str]
    startup_ms: int


def throwaway(data: Path, given: Settings) -> Settings:
    """Settings of a system that shares nothing with any other: own folder, own embedded parts, free ports."""
    return msgspec.structs.replace(
        given,
        data_dir=str(data),
        host="127.0.0.1",
        gateway_port=0,
        office_port=0,
        engine_port=0,
        nats_port=0,
        database_url="",
        nats_url="",
        nats_token="",
        nats_host=hosts.LOOPBACK,
        nats_cert_file="",
        nats_key_file="",
        gateway_name="",
        admin_token="",
        engine_api_key="",
        master_key_file="",
        tls_cert_file="",
        safety_keywords_file="",
        safety_url="",
        tls_key_file="",
        carrier_url="",
        embedded_engine=True,
        demo_operator=True,
    )


@contextmanager
def spawned(settings: Settings) -> Generator[Spawned]:
    """Start the system, wait until it is ready, and stop it at the end, whatever happens between.

    Its log goes to `log/up.log` in its data folder. Call it from the main thread: the system dies with the thread that
    started it.
    """
    output = settings.data / "log" / "up.log"
    output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with asyncio.Runner() as runner:
        started_ns = clock.boot_ns()
        process = runner.run(processes.spawn(_program(settings, output)))
        try:
            while (running := claim.running_on(settings.data)) is None:
                runner.run(_look(process, output))
            startup_ms = (clock.boot_ns() - started_ns) // clock.MS
            yield Spawned(data=settings.data, addresses=running.addresses, startup_ms=startup_ms)
        finally:
            with _uninterrupted():
                runner.run(processes.stop(process, signal.SIGTERM, _STOP_PATIENCE_MS))


def _program(settings: Settings, output: Path) -> Program:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(config.PREFIX)}
    return Program(
        argv=(sys.executable, "-P", "-m", "tokenworks.cli", "up"),
        environ=inherited | config.environment(settings),
        output=output,
    )


async def _look(process: asyncio.subprocess.Process, output: Path) -> None:
    """Pause until the next look; a system that ended instead of becoming ready is a fault."""
    with suppress(TimeoutError):
        code = await asyncio.wait_for(process.wait(), _LOOK_EVERY_S)
        raise StartFault(f"The system did not start ({processes.how_it_ended(code)}). It said last:{_said(output)}")


def _said(output: Path) -> str:
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    return "".join(f"\n  {line}" for line in lines[-_LINES_SHOWN:])


@contextmanager
def _uninterrupted() -> Generator[None]:
    """A second Ctrl-C does not stop the stopping."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
