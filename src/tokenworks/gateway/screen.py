"""The screen: holds back what of a stream is not judged yet, lets through what is, and ends it where it must not go on.

What is held back: with keywords, what may still become a listed phrase; with a hook, at most `safety_window_chars` of
text or what came within `safety_window_ms`, for as long as the hook takes. Events keep their order. What is charged for
is what comes out here; `passage` counts it.
"""

import msgspec

from tokenworks.base import clock
from tokenworks.core.refusals import Refusal
from tokenworks.dialects import reading, texts
from tokenworks.dialects.sse import Event
from tokenworks.gateway import keywords
from tokenworks.gateway.safety import Asker, Safety
from tokenworks.gateway.upstream import Upstream

_DONE = b"[DONE]"
_COMMENT = Event(b": \n\n", None)
_Key = tuple[int, str]


class _Said(msgspec.Struct):
    """The text of one field of one choice. Places count from its beginning; `text` lacks what was let through long ago.

    `judged` is how far it is judged, by whichever judge is slower. `is_over`: nothing more comes.
    """

    text: str = ""
    begin: int = 0
    judged: int = 0
    is_over: bool = False

    @property
    def end(self) -> int:
        return self.begin + len(self.text)


class _Held(msgspec.Struct, frozen=True):
    """An event that is held back until these texts are judged so far."""

    event: Event
    until: tuple[tuple[_Key, int], ...]


class Screen:
    """One answer. `dropped` are the events from where it was stopped; `refusal` is that of the request, if any."""

    def __init__(self, safety: Safety, asker: Asker, refusal: Refusal | None) -> None:
        self.refusal = refusal
        self.is_stopped = False
        self.dropped: list[Event] = []
        self._safety = safety
        self._asker = asker
        self._said: dict[_Key, _Said] = {}
        self._held: list[_Held] = []
        self._since_ns = 0

    async def pass_on(self, events: list[Event], upstream: Upstream, *, is_end: bool) -> list[Event]:
        """Of all events so far those that may be passed on now. The endpoint is held back while somebody is asked."""
        passed: list[Event] = []
        for place, sent in enumerate(events):
            event = _plain(sent)
            if event is None:
                continue
            if self._says_aside(event.data):
                return self._stop(passed, events[place:])
            self._held.append(_Held(event, self._listen(event)))
            if not await self._judge_all(upstream):
                passed += self._let_through()
                return self._stop(passed, events[place + 1 :])
            passed += self._let_through()
        if not is_end:
            return passed
        self._end_all()
        if not await self._judge_all(upstream):
            return self._stop(passed + self._let_through(), [])
        # A comment at the very end would be taken for a torn event.
        return [event for event in passed + self._let_through() if event.data is not None]

    async def whole(self, body: bytes) -> bool:
        """Whether an unstreamed answer may be passed on; raises one of `reading.UNREADABLE` where it is none."""
        if self._says_aside(body):
            return False
        for choice in texts.said(body):
            for _, text in choice.texts:
                if self._safety.lists(text):
                    return False
                if not await self._safety.allows(self._asker, choice.index, "", text, is_last=True):
                    return False
        return True

    def _says_aside(self, data: bytes | None) -> bool:
        """Whether a listed phrase stands where no text is expected; the hook is asked about texts only."""
        listed = self._safety.keywords
        if not listed.longest or data is None or data.strip() == _DONE:
            return False
        return listed.find(keywords.plain(texts.aside(data)), is_whole=True) >= 0

    def _listen(self, event: Event) -> tuple[tuple[_Key, int], ...]:
        """Take in what an event says; how far these texts must be judged before it goes out."""
        if event.data is None:
            return ()
        if event.data.strip() == _DONE:
            self._end_all()
            return ()
        try:
            choices = texts.said(event.data)
        except reading.UNREADABLE:
            return ()
        until: list[tuple[_Key, int]] = []
        for choice in choices:
            for field, text in choice.texts:
                said = self._said.setdefault((choice.index, field), _Said())
                if said.judged == said.end:
                    self._since_ns = clock.boot_ns()
                said.text += text
                until.append(((choice.index, field), said.end))
            if choice.is_over:
                for (index, _), said in self._said.items():
                    said.is_over = said.is_over or index == choice.index
        return tuple(until)

    def _stop(self, passed: list[Event], unseen: list[Event]) -> list[Event]:
        self.is_stopped = True
        self.dropped = [held.event for held in self._held] + unseen
        return passed

    async def _judge_all(self, upstream: Upstream) -> bool:
        for key, said in self._said.items():
            if (said.judged < said.end or said.is_over) and not await self._judge(key, said, upstream):
                return False
        return True

    async def _judge(self, key: _Key, said: _Said, upstream: Upstream) -> bool:
        """Judge a text as far as it makes sense now; False where it must not go on."""
        safety = self._safety
        text = keywords.plain(said.text)
        found = safety.keywords.find(text, is_whole=said.is_over)
        settled = len(text) if said.is_over else safety.keywords.settled(text)
        end = said.begin + (found if found >= 0 else settled)
        if end > said.judged and safety.hook is not None:
            if not (said.is_over or found >= 0 or self._is_enough(end - said.judged)):
                return True
            if not await self._ask(key, said, end, upstream):
                return False
        said.judged = max(said.judged, end)
        if said.is_over and found < 0:
            said.text, said.begin = "", said.end
        return found < 0

    def _is_enough(self, chars: int) -> bool:
        return chars >= self._safety.window_chars or (
            clock.boot_ns() - self._since_ns >= self._safety.window_ms * clock.MS
        )

    async def _ask(self, key: _Key, said: _Said, end: int, upstream: Upstream) -> bool:
        place = said.judged - said.begin
        context = said.text[max(0, place - self._safety.window_chars) : place]
        text = said.text[place : end - said.begin]
        upstream.hold()
        try:
            return await self._safety.allows(self._asker, key[0], context, text, is_last=said.is_over)
        finally:
            upstream.release()

    def _let_through(self) -> list[Event]:
        passed: list[Event] = []
        for held in self._held:
            if any(self._said[key].judged < place for key, place in held.until):
                break
            passed.append(held.event)
        del self._held[: len(passed)]
        for said in self._said.values():
            # What was judged stays as context, and for a phrase that begins in it.
            kept = max(self._safety.window_chars, self._safety.keywords.longest)
            surplus = said.judged - said.begin - kept
            if surplus > 0:
                said.text, said.begin = said.text[surplus:], said.begin + surplus
        return passed

    def _end_all(self) -> None:
        for said in self._said.values():
            said.is_over = True


def _plain(event: Event) -> Event | None:
    """The event with nothing but its data, which is judged; without any, a bare comment. None for what nobody reads."""
    if event.data is None:
        return _COMMENT
    if event.data.strip() == _DONE:
        return event
    try:
        reading.stream_chunk(event.data)
    except reading.UNREADABLE:
        return None
    raw = b"data: %b\n\n" % event.data.replace(b"\n", b"\ndata: ")
    return event if event.raw == raw else Event(raw, event.data)
