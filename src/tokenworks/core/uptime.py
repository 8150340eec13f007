"""How long something was up, as far as somebody watched: spans of time, without the times nobody can vouch for.

Pure; times are integer nanoseconds of any one clock. A deadline that must not run out while those who could meet it
were kept from it is counted in uptime.
"""

from collections import deque

_SPELLS_MAX = 1_000


class Uptime:
    """What was seen by looking now and then. Before the first look nothing is known, which counts as down.

    Looks that are further apart than `gap_max_ns` say nothing about the time between them: nobody was there.
    """

    def __init__(self, gap_max_ns: int) -> None:
        self._gap_max_ns = gap_max_ns
        self._spells: deque[tuple[int, int]] = deque(maxlen=_SPELLS_MAX)
        self._was_up = False

    def look(self, now_ns: int, *, is_up: bool) -> None:
        """It is up now, or not. Between two looks that found it up it was up."""
        if is_up and self._was_up and now_ns - self._spells[-1][1] <= self._gap_max_ns:
            begin, _ = self._spells.pop()
            self._spells.append((begin, now_ns))
        elif is_up:
            self._spells.append((now_ns, now_ns))
        self._was_up = is_up

    def age_ns(self, now_ns: int, wanted_ns: int) -> int | None:
        """How far back one must go for `wanted_ns` of uptime; None if there was not so much of it."""
        left = wanted_ns
        for begin, end in reversed(self._spells):
            if end - begin >= left:
                return now_ns - end + left
            left -= end - begin
        return None
