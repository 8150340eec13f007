"""Coding: the plain bytes of an answer that its endpoint compressed, although it was asked not to.

Knows gzip and deflate, decoded as they come. An answer in any other coding is taken for broken: nobody could count it.
"""

import zlib
from typing import Protocol

from tokenworks.gateway.upstream import Upstream, UpstreamBroken

_INFLATED = frozenset({b"gzip", b"x-gzip", b"deflate"})
_PLAIN = frozenset({b"", b"identity"})
# Of a few bytes that become very many the rest is not looked at: memory is bounded, and no text is so much alike.
_GROWTH_MAX = 200
_SLACK_BYTES = 1 << 20
_HEADER_BY_ITSELF = 32 + zlib.MAX_WBITS


class Body(Protocol):
    """What is read of an answer."""

    async def chunk(self) -> bytes:
        """What has come since the last call; empty at the end."""
        ...


class _Inflated:
    """A compressed body, perhaps of several members."""

    def __init__(self, coded: Body) -> None:
        self._coded = coded
        self._member = zlib.decompressobj(_HEADER_BY_ITSELF)
        self._has_begun = False

    async def chunk(self) -> bytes:
        """What has come since the last call; empty at the end."""
        while data := await self._coded.chunk():
            if plain := self._inflate(data):
                return plain
        if self._has_begun and not self._member.eof:
            raise UpstreamBroken("the answer broke off within its coding")
        return b""

    def _inflate(self, data: bytes) -> bytes:
        plain_max = _SLACK_BYTES + _GROWTH_MAX * len(data)
        plain = b""
        self._has_begun = True
        try:
            while data:
                if self._member.eof:
                    self._member = zlib.decompressobj(_HEADER_BY_ITSELF)
                plain += self._member.decompress(data, plain_max - len(plain) + 1)
                if len(plain) > plain_max:
                    raise UpstreamBroken("a few bytes became very many")
                data = self._member.unused_data
        except zlib.error as fault:
            raise UpstreamBroken(f"the coding of the answer is broken: {fault}") from fault
        return plain


def is_plain(upstream: Upstream) -> bool:
    """Whether the body of this answer says nothing of a coding."""
    return b"content-encoding" not in upstream.headers


def plain(upstream: Upstream) -> Body:
    """The body of this answer as it was before it was compressed."""
    coding = upstream.headers.get(b"content-encoding")
    if coding is None:
        return upstream
    coding = coding.strip().lower()
    if coding in _PLAIN:
        return upstream
    if coding not in _INFLATED:
        raise UpstreamBroken(f"the coding {coding!r} is not understood")
    return _Inflated(upstream)
