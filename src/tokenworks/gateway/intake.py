"""Intake: a client's bytes become requests, one by one, within limits. Whatever could be read in two ways is refused.

Parsing is llhttp's, in its strict mode: bare LF, folded headers, spaces before a colon, lengths and chunk sizes that
are no plain numbers come no further. Here is what it lets pass and a proxy before us might read otherwise. When
requests are served, and what becomes of the connection, is `server`'s affair.
"""

from collections import deque
from collections.abc import Callable

import httptools

from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.core.refusals import Code, Refusal
from tokenworks.gateway.exchange import Exchange, Wire

_WANTED = frozenset({b"host", b"authorization", b"x-api-key", b"content-length", b"transfer-encoding", b"expect"})
# So many parts of a body are kept apart; a body in very small parts would take many times its size.
_PARTS_MAX = 1_024
_BOTH_FRAMINGS = Refusal(
    Code.MALFORMED_REQUEST, "Content-Length and Transfer-Encoding were both given. Send one of them."
)
_OTHER_CODING = Refusal(Code.MALFORMED_REQUEST, "Only the transfer encoding chunked is understood.")
_OLD_CODING = Refusal(Code.MALFORMED_REQUEST, "HTTP/1.0 has no Transfer-Encoding. Send Content-Length.")
_OTHER_VERSION = Refusal(Code.MALFORMED_REQUEST, "Only HTTP/1.1 and HTTP/1.0 are understood.")
_NO_HOST = Refusal(Code.MALFORMED_REQUEST, "The header host is missing.")
_TUNNEL = Refusal(Code.MALFORMED_REQUEST, "Other protocols are not offered. Use plain HTTP/1.1.")


class _Refused(Exception):
    """Stops the parser; the refusal is kept by the intake."""


class Intake:
    """The requests that came on one connection: `ready` in their order, until `refused` says why no more are read."""

    __slots__ = (
        *("ready", "refused", "owes_continue", "idle_ticks", "reading_ticks"),
        *("_header_bytes_max", "_body_bytes_max", "_pipelined_max", "_wire", "_request_id", "_expected", "_parser"),
        *("_counts_head", "_in_head", "_is_http_11", "_is_without_offer", "_url", "_headers", "_head_bytes", "_fed"),
        *("_parts", "_gathered", "_body_bytes"),
    )

    def __init__(
        self, settings: Settings, wire: Wire, request_id: Callable[[], str], expected: Callable[[], None]
    ) -> None:
        self.ready: deque[Exchange] = deque()
        self.refused: Refusal | None = None
        self.owes_continue = False
        self.idle_ticks = self.reading_ticks = 0
        self._header_bytes_max = settings.header_bytes_max
        self._body_bytes_max = settings.body_bytes_max
        self._pipelined_max = settings.pipelined_max
        self._wire = wire
        self._request_id = request_id
        self._expected = expected
        self._parser = httptools.HttpRequestParser(self)
        self._counts_head = self._is_without_offer = False
        self.on_message_begin()

    @property
    def is_far_ahead(self) -> bool:
        """Whether so much waits to be served that no more should be read."""
        ready = self.ready
        return len(ready) >= self._pipelined_max or sum(len(each.body) for each in ready) > self._body_bytes_max

    def feed(self, data: bytes) -> None:
        """Bytes from the client; they may hold a part of a request or several requests."""
        self._fed += len(data)
        # A head cannot be larger than all that came: mostly nothing needs to be counted.
        self._counts_head = self._fed > self._header_bytes_max
        try:
            self._parser.feed_data(data)
            # The parser keeps what has not ended, of trailers too, and copies it with each piece that comes.
            if self._fed > self._header_bytes_max:
                self.refused = _too_large_headers(self._header_bytes_max)
        except httptools.HttpParserUpgrade as upgrade:
            return self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as fault:
            if self.refused is None:
                self.refused = Refusal(Code.MALFORMED_REQUEST, f"This is not a valid HTTP/1.1 request: {fault}.")
        if self.refused is not None:
            self.ready.append(self._refusal(self.refused))
        return None

    def turn_away(self, refusal: Refusal) -> None:
        """Read nothing of this client, and tell it why."""
        self.refused = refusal
        self.ready.append(self._refusal(refusal))

    # --- the parser's calls

    def on_message_begin(self) -> None:
        """A request begins."""
        self.idle_ticks = self.reading_ticks = 0
        self._in_head = True
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._fed = 0
        self._parts: list[bytes] = []
        self._gathered: bytearray | None = None
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """The target of the request, perhaps in parts."""
        if self._counts_head:
            self._count(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; only those that are read are kept."""
        if self._counts_head:
            self._count(len(name) + len(value) + 4)
        name = name.lower()
        # After the head come trailers; a key in a trailer would be one that a proxy before us never saw.
        if name not in _WANTED or not self._in_head:
            return
        if name in self._headers:
            self._refuse(Refusal(Code.MALFORMED_REQUEST, f"The header {name.decode()} was given twice."))
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        """Decide from the headers whether the body is wanted."""
        self._in_head = False
        headers = self._headers
        self._is_http_11 = True
        if self._parser.get_http_version() != "1.1":
            self._check_version()
        elif b"host" not in headers:
            self._refuse(_NO_HOST)
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if coding is not None:
            if length is not None:
                self._refuse(_BOTH_FRAMINGS)
            if coding.strip().lower() != b"chunked":
                self._refuse(_OTHER_CODING)
        if length is not None and int(length) > self._body_bytes_max:
            self._refuse(_too_large_body(self._body_bytes_max))
        # A client of HTTP/1.0 does not know what to do with an answer before the answer.
        if b"expect" in headers and self._is_http_11 and headers[b"expect"].lower() == b"100-continue":
            self.owes_continue = True
            self._expected()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self.idle_ticks = self._fed = 0
        self._body_bytes += len(body)
        if self._body_bytes > self._body_bytes_max:
            self._refuse(_too_large_body(self._body_bytes_max))
        self._parts.append(body)
        if len(self._parts) == _PARTS_MAX:
            if self._gathered is None:
                self._gathered = bytearray()
            self._gathered += b"".join(self._parts)
            self._parts.clear()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self.owes_continue = False
        self._fed = 0
        parts, parser, url = self._parts, self._parser, self._url
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if self._gathered is not None:
            body = bytes(self._gathered) + body
        query = b""
        if not url.startswith(b"/"):
            url = _origin_form(url)
        if b"?" in url:
            url, _, query = url.partition(b"?")
        self.ready.append(
            Exchange(
                self._wire,
                self._request_id(),
                parser.get_method(),
                url.decode("latin-1"),
                self._headers,
                body,
                self._is_http_11,
                parser.should_keep_alive(),
                clock.boot_ns(),
                query,
            )
        )

    # --- inside

    def _without_upgrade(self, rest: bytes) -> None:
        """Another protocol was offered, as some clients do with every first request: it is not taken up.

        The parser believes the request to be over with its head, whatever it says of a body. It is read once more
        without the offer, and what follows with it.
        """
        offer = self.ready.pop()
        # A client waits for what becomes of its offer; one that does not would have everything read again and again.
        if offer.method == b"CONNECT" or self._is_without_offer:
            self.refused = _TUNNEL
            return self.ready.append(self._refusal(_TUNNEL))
        lines = [b"%b: %b" % header for header in offer.headers.items()]
        lines += [] if offer.keep_alive else [b"connection: close"]
        self._parser = httptools.HttpRequestParser(self)
        self._is_without_offer = True
        self.feed(b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (offer.method, self._url, b"\r\n".join(lines)) + rest)
        self._is_without_offer = False
        return None

    def _check_version(self) -> None:
        self._is_http_11 = False
        if self._parser.get_http_version() != "1.0":
            self._refuse(_OTHER_VERSION)
        if b"transfer-encoding" in self._headers:
            self._refuse(_OLD_CODING)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._header_bytes_max:
            self._refuse(_too_large_headers(self._header_bytes_max))

    def _path(self) -> str:
        return self._url.partition(b"?")[0].decode("latin-1")

    def _refuse(self, refusal: Refusal) -> None:
        self.refused = refusal
        raise _Refused

    def _refusal(self, refusal: Refusal) -> Exchange:
        return Exchange(
            wire=self._wire,
            request_id=self._request_id(),
            method=b"",
            path=self._path(),
            headers={},
            body=b"",
            is_http_11=True,
            keep_alive=False,
            began_ns=clock.boot_ns(),
            refusal=refusal,
        )


def _origin_form(url: bytes) -> bytes:
    """The path of a target that is written whole, as to a proxy (RFC 9112, 3.2.2); others as they are."""
    scheme, is_whole, rest = url.partition(b"://")
    if not is_whole or scheme.lower() not in (b"http", b"https"):
        return url
    _, slash, path = rest.partition(b"/")
    return slash + path or b"/"


def _too_large_headers(limit: int) -> Refusal:
    return Refusal(Code.HEADERS_TOO_LARGE, f"Request line and headers are larger than {limit} bytes. Send less.")


def _too_large_body(limit: int) -> Refusal:
    return Refusal(Code.BODY_TOO_LARGE, f"The body is larger than {limit} bytes. Send less.")
