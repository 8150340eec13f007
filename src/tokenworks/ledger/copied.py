"""PostgreSQL's own text of a row, as `COPY` reads and writes it, built here so that it can be hashed on its way in.

The text must be exactly what `COPY … TO` gives back of the row, because `verify` hashes that: numbers and flags are
written as they are, texts go through `plain` (a column), `element` (in a `text[]`) or `nested` (in a composite value
in an array). Names that come again and again are remembered in the form that they have.
"""

import re
from collections.abc import Iterable

REMEMBERED_MAX = 50_000

_is_plain = re.compile(r"[A-Za-z0-9_.:@/+-]+").fullmatch
_CONTROLS = str.maketrans({"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"})
_QUOTED_IN_ROW = re.compile(r'["\\(), \t\n\r\v\f]')
_QUOTED_IN_ARRAY = re.compile(r'["\\{}, \t\n\r\v\f]')


class _Nested(dict[str, str]):
    """Texts in the form that they have within a composite value in an array, remembered."""

    def __missing__(self, text: str) -> str:
        if len(self) >= REMEMBERED_MAX:
            self.clear()
        form = self[text] = text if _is_plain(text) else _nested(text)
        return form


class _Plain(dict[str, str]):
    """Texts in the form that they have in a column of their own, remembered."""

    def __missing__(self, text: str) -> str:
        if len(self) >= REMEMBERED_MAX:
            self.clear()
        form = self[text] = plain(text)
        return form


nested = _Nested()
remembered = _Plain()


def plain(text: str) -> str:
    """A text in a column: a backslash and the control characters that have a letter are escaped."""
    return text if _is_plain(text) else text.translate(_CONTROLS)


def elements(texts: Iterable[str]) -> str:
    """A `text[]`: `["a", "b c"]` → `{a,"b c"}`."""
    return f"{{{','.join([_element(text) for text in texts])}}}"


def composites(rows: Iterable[str]) -> str:
    """An array of composite values of at least two fields each, each row given as its fields with commas between."""
    joined = ')","('.join(rows)
    return f'{{"({joined})"}}' if joined else "{}"


def _element(text: str) -> str:
    if text and text.upper() != "NULL" and not _QUOTED_IN_ARRAY.search(text):
        return text.translate(_CONTROLS)
    return _in_array(text)


def _nested(text: str) -> str:
    """Quoted by the row, then by the array around it, then by `COPY`. An empty text is quoted, a missing value not."""
    if text and not _QUOTED_IN_ROW.search(text):
        return text.translate(_CONTROLS)
    row = '"' + text.replace("\\", "\\\\").replace('"', '""') + '"'
    return _in_array(row)[1:-1]


def _in_array(text: str) -> str:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return quoted.translate(_CONTROLS)
