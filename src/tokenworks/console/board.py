"""The board: what happens in the books, sent to every browser that looks at the live page.

A viewer gets the whole state first, then each record as it moves, the state again after each move and the verification
after each posting. Books are read and verified once for all viewers, at most once per named pause, and not at all while
nobody looks. How events become bytes on the wire is here too; who may see them is not.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from tokenworks.base import log
from tokenworks.console.context import BooksUnreadable, ConsoleContext
from tokenworks.console.view import State, Verification

_log = log.get(__name__)
_QUIET_S = 15
_TROUBLE_PAUSE_S = 1


class Trouble(msgspec.Struct, frozen=True):
    """Why the page cannot be brought up to date now."""

    message: str


def frame(event: str, content: object) -> bytes:
    """One server-sent event. JSON has no raw line breaks, so one `data` line is enough."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(content))


class Board:
    """Follows the books for all viewers. `follow` runs as long as the office does."""

    def __init__(self, context: ConsoleContext) -> None:
        self._context = context
        self._viewers: set[asyncio.Queue[bytes | None]] = set()
        self._state_due = asyncio.Event()
        self._verify_due = asyncio.Event()
        self._verified: bytes | None = None
        self._following = False

    @property
    def open(self) -> bool:
        """Whether a further viewer is taken."""
        return self._following and len(self._viewers) < self._context.settings.live_viewers_max

    async def follow(self) -> None:
        """Relay happenings and keep state and verification fresh until cancelled; then send all viewers away."""
        settings = self._context.settings
        self._following = True
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._relay())
                tasks.create_task(self._keep(self._state_due, settings.live_read_pause_ms, self._read))
                tasks.create_task(self._keep(self._verify_due, settings.live_verify_pause_ms, self._verify))
        finally:
            self._following = False
            self.end()

    async def watch(self) -> AsyncIterator[bytes]:
        """Everything one viewer is sent. Ends when the viewer falls too far behind; the browser then starts anew."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(self._context.settings.live_queue_max)
        self._viewers.add(queue)
        try:
            if self._verified is not None:
                queue.put_nowait(self._verified)
            self._state_due.set()
            self._verify_due.set()
            while (message := await _next(queue)) is not None:
                yield message
        finally:
            self._viewers.discard(queue)

    def end(self) -> None:
        """Send all viewers away, so that the office can stop."""
        for queue in tuple(self._viewers):
            self._dismiss(queue)

    async def _relay(self) -> None:
        async for record in self._context.happenings():
            if not self._viewers:
                continue
            self._send(frame("record", record))
            self._state_due.set()
            if record.stage == "posted":
                self._verify_due.set()

    async def _keep(self, due: asyncio.Event, pause_ms: int, look: Callable[[], Awaitable[bytes]]) -> None:
        while True:
            await due.wait()
            due.clear()
            try:
                self._send(await look())
                await asyncio.sleep(pause_ms / 1000)
            except BooksUnreadable as fault:
                _log.warning("the live page cannot read the books", extra={"fault": str(fault)})
                self._send(frame("trouble", Trouble(str(fault))))
                await asyncio.sleep(_TROUBLE_PAUSE_S)
                if self._viewers:
                    due.set()

    async def _read(self) -> bytes:
        state: State = await self._context.read()
        return frame("state", state)

    async def _verify(self) -> bytes:
        self._send(frame("verifying", None))
        verification: Verification = await self._context.verify()
        self._verified = frame("verified", verification)
        return self._verified

    def _send(self, message: bytes) -> None:
        for queue in tuple(self._viewers):
            if queue.full():
                self._dismiss(queue)
            else:
                queue.put_nowait(message)

    def _dismiss(self, queue: asyncio.Queue[bytes | None]) -> None:
        self._viewers.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)


async def _next(queue: asyncio.Queue[bytes | None]) -> bytes | None:
    """The next message, or a comment after a while of silence so that a vanished browser is noticed."""
    try:
        async with asyncio.timeout(_QUIET_S):
            return await queue.get()
    except TimeoutError:
        return b": quiet\n\n"
