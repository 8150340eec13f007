"""Identifiers: a prefix that says what it names, a time part that sorts, a random part that cannot be guessed."""

import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager

from tokenworks.base import clock

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
# Characters of which no bit is the time's.
_TIMELESS = 16
_randbits = secrets.randbits


def new(prefix: str) -> str:
    """`new("bkt")` → `bkt_06f1v3…`: 26 characters of Crockford base 32, 48 bits of milliseconds and 82 random bits."""
    return _written(prefix, _randbits(82))


def repeatable(prefix: str, digest: bytes) -> str:
    """The same with the last bits of a digest in place of the random ones: made again, only the time part differs."""
    return _written(prefix, int.from_bytes(digest[-11:]) & (1 << 82) - 1)


def timeless(name: str) -> str:
    """An id without its time part: what stays when a repeatable one is made again."""
    prefix, _, rest = name.rpartition("_")
    return f"{prefix}_{rest[-_TIMELESS:]}"


def _written(prefix: str, bits: int) -> str:
    number = (clock.wall_ns() // clock.MS) << 82 | bits
    letters: list[str] = []
    for _ in range(26):
        number, digit = divmod(number, 32)
        letters.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(letters))}"


def secret(prefix: str) -> str:
    """A secret with 256 random bits, for example an API key: `sk-tw-…`."""
    return f"{prefix}-{secrets.token_urlsafe(32)}"


@contextmanager
def seeded(randbits: Callable[[int], int]) -> Generator[None]:
    """Let ids be made of other bits: the simulation's, so that a seed gives the same ids again. Secrets stay secret."""
    global _randbits  # noqa: PLW0603 - the one place where the source is exchanged
    before = _randbits
    _randbits = randbits
    try:
        yield
    finally:
        _randbits = before
