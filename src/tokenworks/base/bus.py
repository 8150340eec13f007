"""The bus that the processes talk over: request and reply, subscriptions, and small shared values, all on NATS.

Payloads are bytes here; which msgspec record they hold is the caller's affair. A connection that was made once is
kept for ever: it reconnects by itself, and calls fail with `BusFault` meanwhile. Nothing sent over plain subjects is
remembered by the bus; what must not be lost is acknowledged by a reply or kept in a bucket.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import cast

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import KeyValueConfig
from nats.js.client import JetStreamContext
from nats.js.kv import KeyValue

from tokenworks.base import ids, log
from tokenworks.base.config import Settings

Handler = Callable[[str, bytes], Awaitable[bytes | None]]
_MakeBucket = Callable[[KeyValueConfig], Awaitable[KeyValue]]

_CONNECT_TIMEOUT_S = 3
_RECONNECT_PAUSE_S = 0.25
# A link that swallows everything is given up after three of these, and connected anew when it is back.
_PING_S = 10
_CLOSE_S = 0.5
_PENDING_BYTES_MAX = 16 << 20
# What whoever answers a subject for a queue announces when it begins to, with the subject behind it.
_SERVING = "serving."

_log = log.get(__name__)


class BusFault(Exception):
    """The bus or whoever should have answered cannot be reached now; the text is one sentence."""


class Entry(msgspec.Struct, frozen=True):
    """A shared value; a higher revision is newer."""

    revision: int
    value: bytes


class Served:
    """A subscription and the calls of its handler that run now."""

    def __init__(self, subscription: Subscription, gate: asyncio.Semaphore, at_once: int) -> None:
        self._subscription = subscription
        self._gate = gate
        self._at_once = at_once

    async def finish(self) -> None:
        """Take no more messages and finish those begun; with the bus away they are given up, and will come again."""
        with suppress(nats.errors.Error, TimeoutError):
            await self._subscription.drain()
        for _ in range(self._at_once):
            await self._gate.acquire()

    async def unsubscribe(self) -> None:
        """Take no more messages."""
        await self._subscription.unsubscribe()


class Bus:
    """One connection; made by `connect`."""

    def __init__(self, name: str, timeout_ms: int) -> None:
        self._name = name
        self._id = ids.new("bus").encode()
        self._timeout_s = timeout_ms / 1000
        self._client = Client()
        self._streams = JetStreamContext(self._client, timeout=self._timeout_s)
        self._buckets: dict[str, KeyValue] = {}
        self._reconnected: set[asyncio.Event] = set()
        self._when_back: list[Callable[[], None]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._serving: set[str] = set()
        self._asking: dict[str, set[asyncio.Future[None]]] = {}
        self._connecting = False
        self._tries = 0

    async def open(self, url: str, token: str, tls: ssl.SSLContext | None = None, tls_name: str = "") -> None:
        """The first connection; called once, by `connect`. `url` may be several with commas between.

        With `tls` the handshake comes first: nobody between can make the client show its token in the clear.
        """
        servers = url.split(",")
        self._tries = len(servers)
        self._connecting = True
        try:
            await self._client.connect(
                servers,
                name=self._name,
                token=token or None,
                tls=tls,
                tls_hostname=tls_name or None,
                tls_handshake_first=tls is not None,
                connect_timeout=_CONNECT_TIMEOUT_S,
                ping_interval=_PING_S,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RECONNECT_PAUSE_S,  # pyright: ignore[reportArgumentType] - it is slept, any number will do
                pending_size=_PENDING_BYTES_MAX,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnect,
                reconnected_cb=self._on_reconnect,
            )
        except (OSError, ValueError, nats.errors.Error) as fault:
            self._connecting = False
            # The client waits for ever for the end of a connection whose handshake failed.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._client.close()
            raise _fault(f"NATS at {url} cannot be used", fault) from fault
        self._connecting = False
        await self._client.subscribe(f"{_SERVING}>", cb=self._on_serving)  # pyright: ignore[reportUnknownMemberType]

    @property
    def connected(self) -> bool:
        """Whether the server can be talked to right now."""
        return self._client.is_connected

    def when_back(self, call: Callable[[], None]) -> None:
        """Call this each time the connection is back: what was published meanwhile was missed."""
        self._when_back.append(call)

    async def request(
        self, subject: str, payload: bytes, timeout_ms: int | None = None, *, wait_ms: int = 0, absent_ms: int = 0
    ) -> bytes:
        """Ask and wait for the answer; `BusFault` if nobody listens on the subject or nobody answers in time.

        Within that time it is asked again when the connection was lost, or when somebody else begins to answer: who was
        asked may have died with the question. So only ask what may be asked twice.

        `wait_ms`: how much longer the answer may take because it was asked to wait for something. `absent_ms`: how long
        somebody who listens is waited for; without it, that nobody does is said at once.
        """
        loop = asyncio.get_running_loop()
        comes_until_s = loop.time() + absent_ms / 1000
        give_up_s = loop.time() + (self._timeout_s if timeout_ms is None else timeout_ms / 1000) + wait_ms / 1000
        while True:
            wait_s = max(0.001, give_up_s - loop.time())
            asking = asyncio.ensure_future(self._client.request(subject, payload, timeout=wait_s))
            again = loop.create_future()
            self._asking.setdefault(subject, set()).add(again)
            try:
                await asyncio.wait({asking, again}, return_when=asyncio.FIRST_COMPLETED)
                if asking.done():
                    return asking.result().data
            except nats.errors.NoRespondersError as fault:
                await asyncio.wait({again}, timeout=max(0, comes_until_s - loop.time()))
                if not again.done():
                    raise _fault(f"no answer on {subject}", fault) from fault
            except (nats.errors.Error, TimeoutError) as fault:
                raise _fault(f"no answer on {subject}", fault) from fault
            finally:
                # One that is answered in this very moment is not cancelled any more; its answer is for nobody.
                asking.add_done_callback(_heard)
                asking.cancel()
                self._asking[subject].discard(again)

    async def publish(self, subject: str, payload: bytes) -> None:
        """Tell whoever listens now."""
        try:
            await self._client.publish(subject, payload)
        except nats.errors.Error as fault:
            raise _fault(f"cannot publish on {subject}", fault) from fault

    async def subscribe(self, subject: str, handler: Handler, queue: str = "", at_once: int = 1) -> Served:
        """Call `handler(subject, payload)` for each message; what it returns is the reply.

        Up to `at_once` calls run side by side; with 1 they keep the order of the messages. Of the subscribers with
        the same `queue` only one gets a message. A handler that raises is logged with its trace and gives no reply.
        When this returns, the server knows the subscription.
        """
        gate = asyncio.Semaphore(at_once)

        async def serve(message: Msg) -> None:
            try:
                reply = await handler(message.subject, message.data)
                if reply is not None and message.reply:
                    await message.respond(reply)
            finally:
                gate.release()

        async def on_message(message: Msg) -> None:
            await gate.acquire()
            if at_once == 1:
                await serve(message)
            else:
                self._keep(asyncio.create_task(serve(message)))

        try:
            subscription = await self._client.subscribe(subject, queue=queue, cb=on_message)  # pyright: ignore[reportUnknownMemberType]
            await self._client.flush(timeout=_whole_seconds(self._timeout_s))
        except (nats.errors.Error, TimeoutError) as fault:
            raise _fault(f"cannot subscribe to {subject}", fault) from fault
        if queue:
            self._serving.add(subject)
            await self.publish(_SERVING + subject, self._id)
        return Served(subscription, gate, at_once)

    async def put(self, bucket: str, key: str, value: bytes) -> int:
        """Keep the value on the server's disk in place of the one before, and tell the watchers; gives its revision."""
        try:
            held = await self._bucket(bucket) or await self._make_bucket(bucket)
            revision = await held.put(key, value)
        except (nats.errors.Error, TimeoutError) as fault:
            self._buckets.pop(bucket, None)
            raise _fault(f"cannot store {bucket}/{key}", fault) from fault
        await self.publish(_changed(bucket, key), b"")
        return revision

    async def get(self, bucket: str, key: str) -> Entry | None:
        """The value as it is now; None if nobody has put one."""
        try:
            held = await self._bucket(bucket)
            found = await held.get(key) if held else None
        except nats.js.errors.KeyNotFoundError:
            return None
        except (nats.errors.Error, TimeoutError) as fault:
            self._buckets.pop(bucket, None)
            raise _fault(f"cannot read {bucket}/{key}", fault) from fault
        return Entry(found.revision or 0, found.value or b"") if found else None

    async def watch(self, bucket: str, key: str, confirm_ms: int = 10_000) -> AsyncIterator[Entry]:
        """Yield the value now, after each change, after each reconnection, and at least every `confirm_ms`.

        The same revision comes again when nothing changed: the reader then knows that what it has is current. While
        the bus is away nothing is yielded. A change is announced after it is stored, so what is read here is never
        older than the announcement; this needs no consumer that a restart of the server would forget.
        """
        woken = asyncio.Event()

        async def on_change(_subject: str, _payload: bytes) -> None:
            woken.set()

        subscription = await self.subscribe(_changed(bucket, key), on_change)
        self._reconnected.add(woken)
        try:
            while True:
                woken.clear()
                try:
                    entry = await self.get(bucket, key)
                except BusFault as fault:
                    _log.warning("%s", fault)
                    entry = None
                if entry:
                    yield entry
                await _wait(woken, confirm_ms)
        finally:
            self._reconnected.discard(woken)
            if not self._client.is_closed:
                await subscription.unsubscribe()

    async def close(self) -> None:
        """Send what is still waiting and disconnect."""
        for task in self._running:
            task.cancel()
        await self._client.close()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (fault := task.exception()):
            _log_handler_fault(fault)

    async def _bucket(self, bucket: str) -> KeyValue | None:
        if bucket not in self._buckets:
            try:
                self._buckets[bucket] = await self._streams.key_value(bucket)
            except nats.js.errors.BucketNotFoundError:
                return None
        return self._buckets[bucket]

    async def _make_bucket(self, bucket: str) -> KeyValue:
        make = cast("_MakeBucket", self._streams.create_key_value)  # pyright: ignore[reportUnknownMemberType]
        self._buckets[bucket] = await make(KeyValueConfig(bucket=bucket, history=1, direct=True))
        return self._buckets[bucket]

    async def _on_disconnect(self) -> None:
        if not self._connecting and not self._client.is_closed:
            _log.warning("lost the bus, reconnecting", extra={"connection": self._name})

    async def _on_reconnect(self) -> None:
        """Wake everyone who watches, and ask again: what was said while the connection was away is lost.

        Who answers may come back a moment later than who asks; it says so then.
        """
        _log.info("the bus is back", extra={"connection": self._name})
        for woken in self._reconnected:
            woken.set()
        for call in self._when_back:
            call()
        for subject in self._serving:
            await self.publish(_SERVING + subject, self._id)
        asyncio.get_running_loop().call_later(2 * _RECONNECT_PAUSE_S, self._ask_all_again)

    async def _on_serving(self, message: Msg) -> None:
        if message.data != self._id:
            self._ask_again(message.subject.removeprefix(_SERVING))

    def _ask_all_again(self) -> None:
        for subject in self._asking:
            self._ask_again(subject)

    def _ask_again(self, subject: str) -> None:
        for again in self._asking.get(subject, ()):
            if not again.done():
                again.set_result(None)

    async def _on_error(self, fault: Exception) -> None:
        """Failed attempts to reconnect come here too: one line when the bus went, one when it is back, are enough.

        The client would try for ever at the first connection as well; raising here, once no server is left to try,
        makes it give up.
        """
        self._tries -= 1
        if self._connecting and self._tries <= 0:
            raise fault
        if not isinstance(fault, OSError | nats.errors.Error):
            _log_handler_fault(fault)


async def connect(url: str, token: str, name: str, *, timeout_ms: int = 5_000) -> Bus:
    """Connect, or raise `BusFault` at once; from then on the connection comes back by itself, for ever."""
    bus = Bus(name, timeout_ms)
    await bus.open(url, token)
    return bus


def _heard(asking: asyncio.Task[Msg]) -> None:
    if not asking.cancelled():
        asking.exception()


async def connect_as(settings: Settings, name: str) -> Bus:
    """Connect to the bus that the settings name, with TLS if its URL begins with `tls://`."""
    bus = Bus(name, settings.bus_timeout_ms)
    await bus.open(settings.nats_url, settings.nats_token, _tls(settings), settings.nats_tls_name)
    return bus


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.nats_url.startswith("tls://"):
        return None
    try:
        return ssl.create_default_context(cafile=settings.nats_ca_file or None)
    except OSError as fault:
        raise _fault(f"TOKENWORKS_NATS_CA_FILE={settings.nats_ca_file!r} cannot be used", fault) from fault


async def _wait(woken: asyncio.Event, wait_ms: int) -> None:
    try:
        async with asyncio.timeout(wait_ms / 1000):
            await woken.wait()
    except TimeoutError:
        return


def _log_handler_fault(fault: BaseException) -> None:
    _log.error("a bus handler failed", exc_info=fault)


def _changed(bucket: str, key: str) -> str:
    return f"changed.{bucket}.{key}"


def _whole_seconds(wait_s: float) -> int:
    return max(1, round(wait_s))


def _fault(what: str, cause: BaseException) -> BusFault:
    reason = str(cause).strip() or type(cause).__name__
    return BusFault(f"{what}: {reason}")
