"""Clerks: processes of the office that post shipments, so that neither leases nor people wait behind them.

While one clerk's transaction holds the buckets, another reads. Each has its own connections to the database, and a
socket to the office: frames of four bytes of length and so many of msgpack, a question out, its answer back, in any
order. A clerk that dies takes nothing with it: what it had not committed was not posted, what it had is known by its
journal's position, and the shippers come again. Another process takes its place.
"""

import asyncio
import socket
from contextlib import suppress

import msgspec

from tokenworks.base import log, processes
from tokenworks.base.processes import Program
from tokenworks.core.wire import ShipRequest
from tokenworks.meter.answers import Answer
from tokenworks.meter.desk import Desk, unposted

# Whoever asks over the bus is to hear that there is no clerk before it gives up.
_PART_OF_PATIENCE = 0.8
_PAUSE_S = 0.5
_PATIENCE_MS = 2_000
_LENGTH = 4

_log = log.get(__name__)


class _Asked(msgspec.Struct, frozen=True):
    """A shipment for a clerk, with the number of its answer."""

    number: int
    ship: ShipRequest
    is_watched: bool


class _Told(msgspec.Struct, frozen=True):
    """What came of it."""

    number: int
    answer: Answer


_encode = msgspec.msgpack.Encoder().encode
_decode_asked = msgspec.msgpack.Decoder(_Asked).decode
_decode_told = msgspec.msgpack.Decoder(_Told).decode


class Clerks:
    """So many clerks; `start` and `stop` frame their lives. `program` is told its socket with `--socket-fd`.

    Where none is ready yet, a shipment waits for one, shorter than the `patience_ms` of who shipped it.
    """

    def __init__(self, program: Program, count: int, patience_ms: int) -> None:
        self._wait_s = patience_ms * _PART_OF_PATIENCE / 1_000
        self._clerks = [_Clerk(f"clerk-{number}", program) for number in range(count)]
        self._keeping: list[asyncio.Task[None]] = []

    @property
    def is_ready(self) -> bool:
        """Whether any of them posts now."""
        return any(clerk.ready.is_set() for clerk in self._clerks)

    def start(self) -> None:
        """Begin to start them; what is to be posted waits until one is there."""
        self._keeping = [asyncio.create_task(clerk.keep()) for clerk in self._clerks]

    async def stop(self) -> None:
        """End them; nothing is under way any more."""
        for keeping in self._keeping:
            keeping.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def post(self, ship: ShipRequest, *, is_watched: bool) -> Answer:
        """Post one shipment at the clerk who has least to do."""
        if not self.is_ready and not await self._one_is_ready():
            return unposted(ship, "no clerk is ready to post")
        clerk = min((clerk for clerk in self._clerks if clerk.ready.is_set()), key=lambda clerk: clerk.bytes_under_way)
        return await clerk.post(ship, is_watched=is_watched)

    async def _one_is_ready(self) -> bool:
        waits = [asyncio.create_task(clerk.ready.wait()) for clerk in self._clerks]
        try:
            await asyncio.wait(waits, timeout=self._wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self.is_ready


class _Clerk:
    """One of them, and the processes that are it one after another."""

    def __init__(self, name: str, program: Program) -> None:
        self.ready = asyncio.Event()
        self.bytes_under_way = 0
        self._name = name
        self._program = program
        self._writer: asyncio.StreamWriter | None = None
        self._writing = asyncio.Lock()
        self._under_way: dict[int, asyncio.Future[Answer | None]] = {}
        self._number = 0

    async def keep(self) -> None:
        """Start a process, and another when it ends, for ever, whatever happens."""
        while True:
            (ended,) = await asyncio.gather(self._live(), return_exceptions=True)
            if ended is not None:
                _log.error("a clerk is given up", extra={"clerk": self._name}, exc_info=ended)
            await asyncio.sleep(_PAUSE_S)

    async def post(self, ship: ShipRequest, *, is_watched: bool) -> Answer:
        """Ask the process that there is now; if it ends before it answers, nothing is known of the shipment."""
        self._number += 1
        number, size = self._number, len(ship.frames)
        answer = self._under_way[number] = asyncio.get_running_loop().create_future()
        self.bytes_under_way += size
        try:
            async with self._writing:
                if self._writer is not None and not answer.done():
                    await _write(self._writer, _encode(_Asked(number, ship, is_watched)))
            return await answer or unposted(ship, f"the {self._name} that posted it has ended")
        except (ConnectionError, RuntimeError):
            # The second is how uvloop says that the connection is closed.
            return unposted(ship, f"the {self._name} that was to post it has ended")
        finally:
            self.bytes_under_way -= size
            self._under_way.pop(number, None)

    async def _live(self) -> None:
        """The life of one process."""
        ours, theirs = socket.socketpair()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        process: asyncio.subprocess.Process | None = None
        try:
            with theirs:
                argv = (*self._program.argv, "--socket-fd", str(theirs.fileno()))
                program = msgspec.structs.replace(self._program, argv=argv, descriptors=(theirs.fileno(),))
                process = await processes.spawn(program)
            await self._hear(reader)
            _log.warning("a clerk has ended", extra={"clerk": self._name, "pid": process.pid})
        finally:
            self.ready.clear()
            self._writer.close()
            for answer in self._under_way.values():
                if not answer.done():
                    answer.set_result(None)
            if process is not None:
                await processes.stop(process, self._program.stop_signal, _PATIENCE_MS)

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        """It says that it is ready, and then answers until it ends."""
        if await _read(reader) is not None:
            self.ready.set()
        while (body := await _read(reader)) is not None:
            told = _decode_told(body)
            answer = self._under_way.get(told.number)
            if answer is not None and not answer.done():
                answer.set_result(told.answer)


async def serve(desk: Desk, connection: socket.socket) -> None:
    """In the clerk's process: say that it is ready, and answer until the office is gone."""
    reader, writer = await asyncio.open_connection(sock=connection)
    writing = asyncio.Lock()

    async def answer(asked: _Asked) -> None:
        told = _encode(_Told(asked.number, await desk.post(asked.ship, is_watched=asked.is_watched)))
        with suppress(ConnectionError):
            async with writing:
                await _write(writer, told)

    try:
        with suppress(ConnectionError):
            await _write(writer, b"")
        async with asyncio.TaskGroup() as group:
            while (body := await _read(reader)) is not None:
                group.create_task(answer(_decode_asked(body)))
    finally:
        writer.close()


async def _write(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(len(body).to_bytes(_LENGTH, "big"))
    writer.write(body)
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame; None when the other side is gone."""
    try:
        return await reader.readexactly(int.from_bytes(await reader.readexactly(_LENGTH), "big"))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
