"""What the measurements have in common: how they tell what they do, and what the books say of their answers."""

from collections.abc import Callable

import msgspec

Told = Callable[[str], None]
"""Called with what is done now."""


class Booked(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a measurement. `answers` are those that were whole, `records` finished usage records, `other_answers`
    all others by what they were; `failed_checks` names what does not hold.
    """

    answers: int
    records: int
    other_answers: dict[str, int]
    verified: bool
    failed_checks: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Every request was served whole, every answer is in the books once, and the books hold."""
        return self.verified and self.answers == self.records and not self.other_answers
