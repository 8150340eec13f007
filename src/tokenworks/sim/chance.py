"""Chance: numbers that look random and come from a seed (splitmix64). The same seed gives the same numbers everywhere.

Whoever draws has a chance of its own, named after itself: leaving one request out of a run changes nothing for the
others, which is what makes a failing run shrink.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


class Chance:
    """A stream of draws."""

    __slots__ = ("_state",)

    def __init__(self, *names: int | str) -> None:
        state = _STEP
        for name in names:
            number = name if isinstance(name, int) else int.from_bytes(name.encode(), "little")
            while True:
                state = _mix(state ^ (number & _MASK))
                number >>= 64
                if not number:
                    break
        self._state = state

    def bits(self, count: int) -> int:
        """A number below 2 to the power of `count`."""
        number = 0
        for _ in range(0, count, 64):
            number = number << 64 | self._next()
        return number & ((1 << count) - 1)

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1."""
        return self._next() % limit

    def between(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both included."""
        return low + self._next() % (high - low + 1)

    def hits(self, per_mille: int) -> bool:
        """True so many times in a thousand."""
        return per_mille > 0 and self._next() % 1000 < per_mille

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self._next() % len(choices)]

    def some(self, choices: Sequence[T], per_mille: int) -> list[T]:
        """Each of them with this chance."""
        return [choice for choice in choices if self.hits(per_mille)]

    def _next(self) -> int:
        self._state = (self._state + _STEP) & _MASK
        return _mix(self._state)


def _mix(number: int) -> int:
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
