"""Passage: what the events of a stream say, and which of them are passed on.

Counts what is passed and reads the usage. It stops at what is paid for; whether more can be reserved is `growth`'s
affair, and when bytes are sent is `relay`'s.
"""

from tokenworks.base import clock
from tokenworks.core.refusals import Code, Refusal
from tokenworks.dialects import reading
from tokenworks.dialects.sse import Event, is_one_event
from tokenworks.gateway.charge import CONTENT_FILTER, charged_when_cut
from tokenworks.gateway.delivery import Delivery

_DONE = b"[DONE]"
_MALFORMED = "event_malformed"
_ABOVE_LIMIT = "output_above_limit"
_BALANCE_SHORT = "balance_short"


class Passage:
    """One stream. `held` goes out with the last bytes: the usage event, or the end put by us.

    An event that passes what is covered waits in `rest`, with those behind it, until more is reserved or it is cut
    off: what an endpoint writes beyond that is not paid for. A delta is taken for one token at least, so whoever keeps
    the limit is not cut short; one who splits tokens over deltas and says how many there are is believed.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._tally = delivery.tally
        self._wants_usage = delivery.request.wants_usage
        self._unfinished = set(range(delivery.request.shape.choices))
        self.has_begun = False
        self.is_finishing = False
        self.is_done = False
        self.is_torn = False
        self.rest: list[Event] = []
        self.held = b""
        self.error: Refusal | None = None

    def read(self, events: list[Event]) -> bytes:
        """Count the events; the bytes to pass on now."""
        passed: list[bytes] = []
        self.rest = []
        for place, event in enumerate(events):
            if event.data == _DONE:
                self.is_done = True
            if self.is_done or self.error:
                break
            verdict = True if event.data is None else self._take(event.raw, event.data)
            if verdict is None:
                self.rest = events[place:]
                break
            if verdict:
                passed.append(event.raw)
        return passed[0] if len(passed) == 1 else b"".join(passed)

    def at_once(self, data: bytes) -> bool:
        """Count a piece that is one whole event with one delta, of a stream under way, all of it covered: it can be
        passed on as it is. False, and nothing is done, for any other.
        """
        if not self._tally.first_token_ns or not is_one_event(data):
            return False
        try:
            chunk = reading.stream_chunk(data[6:-2])
        except reading.UNREADABLE:
            return False
        tally = self._tally
        if not chunk.is_delta or tally.output >= self._delivery.covered.output_max:
            return False
        tally.output += 1
        if self._delivery.may_grow:
            tally.text_bytes += chunk.text_bytes()
        return True

    def last(self, events: list[Event]) -> bytes:
        """What stood at the end without its blank line: an event all the same, or what is left of one."""
        whole = [event for event in events if event.data == _DONE or (event.data and _is_readable(event.data))]
        self.is_torn = len(whole) < len(events)
        if self.is_torn:
            self._flag(_MALFORMED)
        return self.read(whole)

    def cut(self, refusal: Refusal | None) -> bytes:
        """End the stream here: at the limit that was set, or for the refusal of more. Nothing more is passed on."""
        rest, self.rest = self.rest, []
        self._flag(_BALANCE_SHORT if refusal else _ABOVE_LIMIT)
        self._end_before(rest, rest[0].data or b"", refusal.code.value if refusal else "", "length")
        return b""

    def stop(self, dropped: list[Event]) -> None:
        """End the stream before these events, which nobody may see."""
        self._flag(CONTENT_FILTER)
        data = next((event.data for event in dropped if event.data and _is_readable(event.data)), b"{}")
        self._end_before(dropped, data, CONTENT_FILTER, CONTENT_FILTER)

    def _end_before(self, dropped: list[Event], data: bytes, code: str, reason: str) -> None:
        for event in dropped:
            self._tally.surplus += _count(event.data or b"")
        self.held = reading.cut_event(data, sorted(self._unfinished), code, reason)
        if self._wants_usage:
            self.held += reading.usage_event(data, charged_when_cut(self._delivery))
        self._tally.is_cut = self.is_done = True

    def _take(self, raw: bytes, data: bytes) -> bool | None:
        """Count an event. Whether it is passed on; None where that is more than is covered, and nothing is counted."""
        try:
            chunk = reading.stream_chunk(data)
        except reading.UNREADABLE:
            return self._take_unreadable(data)
        if chunk.has_error:
            return self._give_up(data)
        count, finished, has_usage, tally = chunk.count(), chunk.finished(), chunk.has_usage, self._tally
        if not count and chunk.choices is None and not has_usage and reading.error(data) is not None:
            return self._give_up(data)
        self.has_begun = True
        if finished:
            self.is_finishing = True
        output = tally.output + count
        if count and has_usage:
            output = self._told(chunk, output)
        if output > self._delivery.covered.output_max:
            return None
        if finished:
            self._unfinished.difference_update(finished)
        if count:
            tally.output = output
            if not tally.first_token_ns:
                tally.first_token_ns = clock.boot_ns()
            if self._delivery.may_grow:
                tally.text_bytes += chunk.text_bytes()
        if has_usage:
            tally.reported = reading.reported(chunk.usage)
            if not chunk.choices:
                self.held = raw if self._wants_usage else b""
                return False
        return True

    def _take_unreadable(self, data: bytes) -> bool:
        """What is no JSON: an end with spaces, a keep-alive without anything, or what only the customer may know."""
        text = data.strip()
        if text == _DONE:
            self.is_done = True
        elif text:
            self._flag(_MALFORMED)
        return bool(text) and not self.is_done

    def _give_up(self, data: bytes) -> bool:
        """The endpoint says that nothing more comes."""
        found = reading.error(data)
        text = f" It said: {found.message}" if found else ""
        self.error = Refusal(Code.ENDPOINT_BROKEN, f"The endpoint gave up within its answer.{text}")
        return False

    def _told(self, chunk: reading.StreamChunk, output: int) -> int:
        """The output so far where the endpoint says with each delta how much it was, and that is less."""
        reported = reading.reported(chunk.usage)
        if reported is None or reported.fault or not reported.tokens.written:
            return output
        return max(self._tally.output, min(output, reported.tokens.written))

    def _flag(self, flag: str) -> None:
        if flag not in self._tally.flags:
            self._tally.flags += (flag,)


def _count(data: bytes) -> int:
    try:
        return reading.stream_chunk(data).count()
    except reading.UNREADABLE:
        return 0


def _is_readable(data: bytes) -> bool:
    try:
        reading.stream_chunk(data)
    except reading.UNREADABLE:
        return False
    return True
