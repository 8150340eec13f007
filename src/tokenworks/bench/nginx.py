"""nginx as a plain proxy to the endpoints of a measurement: the yardstick, where it is installed. It meters nothing."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tokenworks.app import ports
from tokenworks.base import processes
from tokenworks.base.processes import Program, StartFault
from tokenworks.bench import machine

_STOP_PATIENCE_MS = 2_000
_LOOK_EVERY_S = 0.02
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

# One worker, connections kept on both sides, no access log: its usual settings as a proxy, and none of its limits on
# how long a connection is used.
_CONFIGURATION = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    {temporary}
    upstream endpoints {{
        {servers}
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://endpoints;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """A running nginx: where it listens, its one worker, its version."""

    port: int
    pid: int
    version: str


@asynccontextmanager
async def running(folder: Path, endpoints: list[int]) -> AsyncGenerator[Proxy | None]:
    """nginx in front of the endpoints on these ports, with its files in `folder`; None if it is not installed."""
    binary = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if binary is None:
        yield None
        return
    port = await ports.free_port(0, "")
    output = folder / "error.log"
    _prepare(folder, port, endpoints)
    argv = (binary, "-p", str(folder), "-e", str(output), "-c", str(folder / "nginx.conf"))
    process = await processes.spawn(Program(argv=argv, environ={}, output=output))
    try:
        yield Proxy(port=port, pid=await _worker(process, port, output), version=await _version(binary))
    finally:
        await processes.stop(process, signal.SIGTERM, _STOP_PATIENCE_MS)


def _prepare(folder: Path, port: int, endpoints: list[int]) -> None:
    configuration = _CONFIGURATION.format(
        folder=folder,
        port=port,
        servers=" ".join(f"server 127.0.0.1:{each};" for each in endpoints),
        temporary=" ".join(f"{name}_temp_path {folder}/{name};" for name in _TEMPORARY),
    )
    # nginx started by root serves as another user, who must be able to pass.
    folder.mkdir(mode=0o711)
    (folder / "nginx.conf").write_text(configuration)


async def _worker(process: asyncio.subprocess.Process, port: int, output: Path) -> int:
    """The process that serves, once it answers."""
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(_LOOK_EVERY_S)
            continue
        writer.close()
        if (worker := machine.only_child(process.pid)) is not None:
            return worker
    raise StartFault(f"nginx did not start: {processes.last_line(output)}")


async def _version(binary: str) -> str:
    _, said = await processes.run(Program(argv=(binary, "-v"), environ={}))
    return said.strip().rpartition("/")[2]
