"""Customers: they send requests as the official client does, read slowly, go away, and try again.

A try is one request on one connection; a connection may serve several tries, one after the other. What a customer saw
is witnessed.
"""

import re
from collections.abc import Callable
from typing import Any, cast

import msgspec

from tokenworks.sim.chance import Chance
from tokenworks.sim.loop import Turn, VirtualLoop
from tokenworks.sim.plan import MS_NS, Ask
from tokenworks.sim.scene import MODELS, Account
from tokenworks.sim.sockets import Listener, Network, Socket
from tokenworks.sim.witness import Heard, Witnesses

_PATIENCE_NS = 9_000 * MS_NS
_AGAIN_NS = 150 * MS_NS
_DELTA = b'"delta":{"content":"tok "}'
_USAGE = re.compile(rb'"prompt_tokens":(\d+),"completion_tokens":(\d+).*?"cached_tokens":(\d+)')


class Customers:
    """All customers of a run. `running` counts requests that have not come to their end."""

    def __init__(
        self, loop: VirtualLoop, network: Network, accounts: tuple[Account, ...], witnesses: Witnesses, seed: int
    ) -> None:
        self.loop = loop
        self.network = network
        self.witnesses = witnesses
        self.running = 0
        self.doors: Callable[[], list[Listener]] = list
        self._accounts = accounts
        self._seed = seed
        self._idle: list[Connection] = []

    def begin(self, ask: Ask) -> None:
        """A customer sends a request."""
        self.running += 1
        self._try(ask, Chance(self._seed, "customer", ask.number), 1)

    def _try(self, ask: Ask, chance: Chance, number: int) -> None:
        account = self._accounts[ask.account % len(self._accounts)]
        trying = Try(self, ask, account, chance, number)
        if ask.keeps and self._idle:
            self._idle.pop().send(trying)
            return
        doors = self.doors()
        if not doors:
            trying.heard.code = "no door"
            self.over(trying)
            return
        listener = chance.pick(doors)
        connection = Connection(self, listener.process.name)
        self.network.join(self.network.process, connection, listener)
        connection.send(trying)

    def over(self, trying: "Try") -> None:
        """A try came to its end: it is tried again, or that was it."""
        heard = trying.heard
        heard.ended_ns = self.loop.now_ns
        may_again = heard.status in {0, 429, 500, 502, 503, 504} and not heard.left_ns and not heard.tokens
        if may_again and trying.number < trying.ask.tries:
            wait_ns = _AGAIN_NS << trying.number
            again = trying.number + 1
            self.loop.call_at_ns(self.loop.now_ns + wait_ns, self._try, trying.ask, trying.chance, again)
        else:
            self.running -= 1

    def keep(self, connection: "Connection") -> None:
        """A connection that can serve the next request."""
        self._idle.append(connection)

    def forget(self, connection: "Connection") -> None:
        """A connection is gone."""
        if connection in self._idle:
            self._idle.remove(connection)


class Try:
    """One request on its way."""

    def __init__(self, customers: Customers, ask: Ask, account: Account, chance: Chance, number: int) -> None:
        self.ask = ask
        self.chance = chance
        self.number = number
        self.secret = account.secret
        self.heard = Heard(ask.number, account.id, "", customers.loop.now_ns)
        customers.witnesses.heard.append(self.heard)

    def message(self) -> bytes:
        """The bytes of the request."""
        ask = self.ask
        body: dict[str, Any] = {
            "model": MODELS[ask.model % len(MODELS)],
            "messages": [{"role": "user", "content": f"{ask.number} ".ljust(ask.text_bytes, "x")}],
            "stream": ask.stream,
        }
        if ask.output_max:
            body["max_tokens"] = ask.output_max
        if ask.choices > 1:
            body["n"] = ask.choices
        if ask.stream and ask.wants_usage:
            body["stream_options"] = {"include_usage": True}
        data = msgspec.json.encode(body)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: sim\r\nauthorization: Bearer {self.secret}\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


class Connection:
    """One connection of a customer."""

    def __init__(self, customers: Customers, worker: str) -> None:
        self._customers = customers
        self._loop = customers.loop
        self._worker = worker
        self._socket: Socket = cast("Socket", None)
        self._try: Try | None = None
        self._data = b""
        self._timer: Turn | None = None
        self._is_lost = False

    def send(self, trying: Try) -> None:
        """Send a request and read its answer."""
        self._try = trying
        trying.heard.worker = self._worker
        self._data = b""
        self._socket.write(trying.message())
        ask, now_ns = trying.ask, self._loop.now_ns
        if ask.leave == "before dispatch":
            self._timer = self._loop.call_at_ns(now_ns + trying.chance.between(0, 3) * 300_000, self._leave)
        elif ask.leave == "before the first byte":
            self._timer = self._loop.call_at_ns(now_ns + trying.chance.between(2, 40) * MS_NS, self._leave)
        else:
            self._timer = self._loop.call_at_ns(now_ns + _PATIENCE_NS, self._leave)

    # --- the transport's calls

    def connection_made(self, transport: Any) -> None:
        """Connected."""
        self._socket = transport

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""
        trying = self._try
        if trying is None:
            return
        self._data += data
        if self._is_complete():
            self._done(is_whole=True)
            return
        if trying.ask.leave == "after the first byte" and len(self._data) > 200 and trying.chance.hits(400):
            self._leave()
        elif trying.ask.is_slow:
            self._socket.pause_reading()
            wait_ns = trying.chance.between(20, 700) * MS_NS
            self._loop.call_at_ns(self._loop.now_ns + wait_ns, self._socket.resume_reading)

    def eof_received(self) -> bool:
        """The gateway sends no more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        del exc
        self._is_lost = True
        self._customers.forget(self)
        if self._try is not None:
            self._done(is_whole=False)

    def pause_writing(self) -> None:
        """Requests are small."""

    def resume_writing(self) -> None:
        """Requests are small."""

    # --- inside

    def _leave(self) -> None:
        trying = self._try
        if trying is not None:
            trying.heard.left_ns = self._loop.now_ns
            self._socket.abort()
            self._done(is_whole=False)

    def _is_complete(self) -> bool:
        head, mark, body = self._data.partition(b"\r\n\r\n")
        if not mark:
            return False
        start = head.find(b"content-length: ")
        if start >= 0:
            return len(body) >= int(head[start + 16 :].split(b"\r\n", 1)[0])
        return body.endswith(b"0\r\n\r\n")

    def _done(self, *, is_whole: bool) -> None:
        trying = self._try
        if trying is None:
            return
        self._try = None
        if self._timer is not None:
            self._timer.cancel()
        read(trying.heard, self._data, is_whole=is_whole)
        if is_whole and not self._is_lost and b"connection: close" not in self._data.partition(b"\r\n\r\n")[0]:
            self._customers.keep(self)
        elif not self._is_lost:
            self._socket.abort()
        self._customers.over(trying)


def read(heard: Heard, data: bytes, *, is_whole: bool) -> None:
    """What the customer got."""
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        return
    heard.status = int(head[9:12])
    heard.request_id = _field(head, b"x-request-id: ")
    heard.charged = _field(head, b"x-tokenworks-charged: ")
    heard.is_whole = is_whole
    found = _USAGE.search(body)
    if found is not None:
        heard.usage = (int(found[1]), int(found[2]), int(found[3]))
    if heard.status != 200 or b'data: {"error"' in body:
        heard.is_error = True
        start = body.find(b'"code":"')
        heard.code = body[start + 8 :].split(b'"', 1)[0].decode() if start >= 0 else "?"
    heard.tokens = body.count(_DELTA) or body.count(b"tok ")


def _field(head: bytes, name: bytes) -> str:
    start = head.find(name)
    return head[start + len(name) :].split(b"\r\n", 1)[0].decode() if start >= 0 else ""
