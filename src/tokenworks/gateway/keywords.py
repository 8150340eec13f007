"""Keywords: the built-in example of content safety, a list of words and phrases that must not be said.

One on a line, `#` begins a comment; upper and lower case are the same. Letters of the Latin alphabet and digits match
as whole words, others (Chinese, for instance) anywhere. It says where a listed phrase stands in a text, and how much of
a text that goes on may still become one. A list is no judge of meaning: that is what a hook is for.
"""

import re
from collections.abc import Iterable
from pathlib import Path

_WORD = re.compile(r"[a-z0-9_]")


class KeywordsFault(Exception):
    """The list cannot be read."""


class Keywords:
    """The phrases, prepared for searching."""

    def __init__(self, phrases: Iterable[str]) -> None:
        known = sorted({plain(phrase) for phrase in phrases}, key=len, reverse=True)
        self.longest = max(map(len, known), default=0)
        self._pattern = re.compile("|".join(map(_bounded, known))) if known else None
        self._beginnings = {phrase[:size] for phrase in known for size in range(1, len(phrase) + 1)}

    def find(self, text: str, *, is_whole: bool) -> int:
        """Where the first phrase begins, -1 for nowhere. A word at the very end may go on, unless the text is whole."""
        if self._pattern is None:
            return -1
        for match in self._pattern.finditer(text):
            if is_whole or match.end() < len(text) or not _WORD.match(text[-1]):
                return match.start()
        return -1

    def settled(self, text: str) -> int:
        """How much of the beginning of a text that goes on cannot become part of a phrase any more."""
        for start in range(max(0, len(text) - self.longest), len(text)):
            if text[start:] in self._beginnings:
                return start
        return len(text)


def read(file: str) -> Keywords:
    """The list in this file."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise KeywordsFault(f"TOKENWORKS_SAFETY_KEYWORDS_FILE: {file} cannot be read: {fault}") from fault
    return Keywords(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def plain(text: str) -> str:
    """In lower case, sign for sign, so that places stay places."""
    lower = text.lower()
    return (
        lower if len(lower) == len(text) else "".join(low if len(low := sign.lower()) == 1 else sign for sign in text)
    )


def _bounded(phrase: str) -> str:
    before = r"(?<![a-z0-9_])" if _WORD.match(phrase[0]) else ""
    after = r"(?![a-z0-9_])" if _WORD.match(phrase[-1]) else ""
    return before + re.escape(phrase) + after
