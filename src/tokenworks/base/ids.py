"""Identifiers: a prefix that says what it names, a time part that sorts, a random part that cannot be guessed."""

import secrets

from tokenworks.base import clock

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new(prefix: str) -> str:
    """`new("bkt")` → `bkt_06f1v3…`: 26 characters of Crockford base 32, 48 bits of milliseconds and 82 random bits."""
    number = (clock.wall_ns() // clock.MS) << 82 | secrets.randbits(82)
    letters: list[str] = []
    for _ in range(26):
        number, digit = divmod(number, 32)
        letters.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(letters))}"


def secret(prefix: str) -> str:
    """A secret with 256 random bits, for example an API key: `sk-tw-…`."""
    return f"{prefix}-{secrets.token_urlsafe(32)}"
