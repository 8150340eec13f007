"""Server-sent events, incrementally: bytes in any pieces go in, whole events come out.

Takes any of the three line ends, comments, and events of several data lines. Events come out with their text as it was
sent (line ends inside an event included) and one form of terminator, the same for any way the bytes were cut. What the
data says is not looked at. Source: WHATWG HTML, "Server-sent events".
"""

import re

import msgspec

# A line end followed by another. The groups are atomic, or a lone CRLF would be taken for CR and LF.
_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE = re.compile(rb"\r\n|\n|\r")
_LINE_ENDS = b"\r\n"


class Event(msgspec.Struct, frozen=True, array_like=True):
    """`raw` is what to pass on. `data` is the joined data lines, None for an event without any (a comment)."""

    raw: bytes
    data: bytes | None


class EventTooLarge(Exception):
    """An event that does not end within the limit."""


class Splitter:
    """Holds the bytes of the event that is not complete yet, at most `bytes_max` of them."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        if not self._held and data.endswith(b"\n\n") and b"\r" not in data:
            if is_one_event(data):
                return [Event(data, data[6:-2])]
            return [_event(block) for text in data.split(b"\n\n") if (block := text.strip(_LINE_ENDS))]
        held = self._held
        held += data
        events: list[Event] = []
        start = 0
        at = self._scanned
        while (end := _END.search(held, at)) is not None:
            block = bytes(held[start : end.start()]).strip(_LINE_ENDS)
            if block:
                events.append(_event(block))
            start = at = end.end()
        del held[:start]
        # A terminator has at most four bytes, of which up to three may already be here.
        self._scanned = max(0, len(held) - 3)
        # What is whole comes out first; the next bytes find an event that is too large already.
        if len(held) > self._bytes_max and not events:
            raise EventTooLarge(f"an event of more than {self._bytes_max} bytes")
        return events

    @property
    def is_between(self) -> bool:
        """Whether what came last ended an event."""
        return not self._held

    def finish(self) -> list[Event]:
        """At the end of the stream: the event whose terminator never came, if any."""
        block = bytes(self._held).strip(_LINE_ENDS)
        self._held.clear()
        return [_event(block)] if block else []


def is_one_event(data: bytes) -> bool:
    """Whether these bytes are one whole event of one data line, as most endpoints write it."""
    return (
        data.startswith(b"data: ") and data.find(b"\n") == len(data) - 2 and data.endswith(b"\n") and b"\r" not in data
    )


def _event(block: bytes) -> Event:
    if block.startswith(b"data:") and b"\n" not in block and b"\r" not in block:
        return Event(block + b"\n\n", block[6:] if block[5:6] == b" " else block[5:])
    lines = [_value(line) for line in _LINE.split(block) if line == b"data" or line.startswith(b"data:")]
    return Event(block + b"\n\n", b"\n".join(lines) if lines else None)


def _value(line: bytes) -> bytes:
    value = line[5:]
    return value[1:] if value.startswith(b" ") else value
