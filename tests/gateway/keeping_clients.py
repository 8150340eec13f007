"""Customers who keep their connections and never ask twice: whatever goes wrong for them is a failed request."""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field


@dataclass
class Keeping:
    """One customer: request after request on a connection until it is told that an answer is the last on it."""

    address: tuple[str, int]
    request: bytes
    secure: ssl.SSLContext | None = None
    served: int = 0
    connections: int = 0
    bodies: list[bytes] = field(default_factory=list)
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def ask(self) -> bytes:
        """One request and the body of its answer; any fault of the connection is raised."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self.address, ssl=self.secure)
            self.connections += 1
        self._writer.write(self.request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head + await self._reader.read(2_000)
        if b"transfer-encoding: chunked" in head:
            body = await self._reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = await self._reader.readexactly(length)
        if b"connection: close" in head:
            assert await self._reader.read() == b""
            await self.leave()
        self.served += 1
        self.bodies.append(body)
        return body

    async def go_on(self, enough: asyncio.Event, least: int) -> None:
        """Ask until it is enough, and at least so often."""
        while not enough.is_set() or self.served < least:
            await self.ask()

    async def leave(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
        self._reader = self._writer = None
