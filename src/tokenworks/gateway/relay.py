"""Relay: an endpoint's answer to the customer, counted as it passes.

A stream is passed on event by event as it arrives; its last bytes (usage, `[DONE]`) are left to the caller, who first
writes the closing record. A whole answer is read to its end. What the counts cost is decided in `charge`.
"""

from tokenworks.base import clock
from tokenworks.core.refusals import Code, Refusal
from tokenworks.dialects import answers, reading
from tokenworks.dialects.other import Splits
from tokenworks.dialects.receipt import reserved_fields
from tokenworks.dialects.sse import EventTooLarge, Splitter
from tokenworks.gateway.charge import CONTENT_FILTER, charged_when_cut, checkpoint
from tokenworks.gateway.coding import is_plain, plain
from tokenworks.gateway.delivery import Delivery, Gateway, Outcome
from tokenworks.gateway.growth import Growth
from tokenworks.gateway.passage import Passage
from tokenworks.gateway.safety import ANSWER_REFUSED
from tokenworks.gateway.upstream import Upstream, UpstreamBroken, UpstreamSilent

_BROKEN = Refusal(Code.ENDPOINT_BROKEN, "The answer of the endpoint broke off.")
_TIMEOUT = Refusal(Code.ENDPOINT_TIMEOUT, "The endpoint fell silent within its answer.")
_NOT_AN_ANSWER = Refusal(Code.ENDPOINT_BROKEN, "The endpoint's answer is not what was asked for.")
_NO_ANSWER = Outcome("endpoint_broken", _NOT_AN_ANSWER)

# So many parts of an answer are kept apart; an answer in very small parts would take many times its size.
_PARTS_MAX = 1_024


async def relay(delivery: Delivery, gateway: Gateway, upstream: Upstream) -> Outcome:
    """Pass the answer on. The connection is given back in every case."""
    is_at_end = False
    try:
        if delivery.request.stream:
            outcome = await _relay_stream(delivery, gateway, upstream)
        else:
            outcome = await _read_whole(delivery, gateway, upstream)
        is_at_end = outcome.ending == "finished" and not delivery.tally.is_cut
    except UpstreamSilent:
        return Outcome("endpoint_timeout", _TIMEOUT)
    except (UpstreamBroken, EventTooLarge):
        return Outcome("endpoint_broken", _BROKEN)
    finally:
        upstream.let_go(tail=is_at_end)
    return outcome


async def _read_whole(delivery: Delivery, gateway: Gateway, upstream: Upstream) -> Outcome:
    body = upstream.whole() if is_plain(upstream) else None
    if body is None:
        body = await _gathered(upstream, gateway.settings.answer_bytes_max)
    if len(body) > gateway.settings.answer_bytes_max:
        return _NO_ANSWER
    tally, dialect = delivery.tally, delivery.exchange.dialect
    try:
        if delivery.speech is not None:
            body = delivery.speech.whole(body)
        answer = reading.whole_answer(body)
        is_shown = delivery.screen is None or await delivery.screen.whole(body)
        if dialect is not None and is_shown:
            dialect.read(body)
        tally.output = answer.count(delivery.route.model.bytes_per_token)
    except reading.UNREADABLE:
        return _NO_ANSWER
    if not is_shown:
        return _withheld(delivery, body)
    tally.reported = reading.reported(answer.usage)
    tally.first_token_ns = clock.boot_ns()
    return Outcome("finished", None, 200, body)


async def _gathered(upstream: Upstream, bytes_max: int) -> bytes:
    """The body of a whole answer that comes in parts, or coded; more than `bytes_max` of it where it is too large."""
    answer_body = plain(upstream)
    parts: list[bytes] = []
    gathered = bytearray()
    size = 0
    while size <= bytes_max and (data := await answer_body.chunk()):
        parts.append(data)
        size += len(data)
        if len(parts) == _PARTS_MAX:
            gathered += b"".join(parts)
            parts.clear()
    return bytes(gathered) + b"".join(parts)


def _withheld(delivery: Delivery, body: bytes) -> Outcome:
    """An answer that nobody may see: nothing of it is passed on, and we pay for what was generated."""
    tally = delivery.tally
    tally.surplus, tally.output = tally.output, 0
    tally.is_cut = True
    tally.flags += (CONTENT_FILTER,)
    if delivery.request.other is not None:
        return Outcome("finished", ANSWER_REFUSED)
    body = reading.emptied(body, charged_when_cut(delivery))
    if delivery.exchange.dialect is not None:
        delivery.exchange.dialect.read(body)
    return Outcome("finished", body=body)


async def _relay_stream(delivery: Delivery, gateway: Gateway, upstream: Upstream) -> Outcome:
    if not upstream.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
        return _NO_ANSWER
    exchange = delivery.exchange
    exchange.wire.attach(upstream)
    growth = Growth(delivery, gateway)
    try:
        stream = await _pass_on(delivery, gateway, upstream, growth)
    finally:
        growth.stop()
        exchange.wire.attach(None)
    if stream.error:
        return Outcome("endpoint_broken", stream.error)
    if (
        not stream.is_done
        and not stream.is_finishing
        and not (stream.has_begun and upstream.is_framed and not stream.is_torn)
    ):
        return Outcome("endpoint_broken", _BROKEN)
    if not exchange.streaming:
        exchange.start_stream(_fields(delivery))
    return Outcome("finished", body=stream.held + answers.DONE)


def _fields(delivery: Delivery) -> bytes:
    """Headers of a stream."""
    return delivery.fields() + reserved_fields(delivery.reservation.parts)


async def _pass_on(delivery: Delivery, gateway: Gateway, upstream: Upstream, growth: Growth) -> Passage:
    """Pass a stream on to its end, or until what is covered is used up and no more can be had."""
    exchange = delivery.exchange
    body = plain(upstream)
    splitter: Splits = Splitter(gateway.settings.answer_bytes_max)
    if delivery.speech is not None:
        splitter = delivery.speech.splitter(splitter)
    stream = Passage(delivery)
    screen = delivery.screen
    pace = _Checkpoints(delivery, gateway)
    if body is upstream and isinstance(splitter, Splitter) and screen is None:
        upstream.offer_to(_Straight(delivery, splitter, stream, pace, growth).take)
    while True:
        data = await body.chunk()
        events = splitter.feed(data) if data else splitter.finish()
        if screen is not None:
            events = await screen.pass_on(events, upstream, is_end=not data)
        passed = stream.read(events) if data else stream.last(events)
        while True:
            if delivery.may_grow:
                await growth.written()
            if passed:
                if not exchange.streaming:
                    delivery.begin_stream(gateway)
                    exchange.start_stream(_fields(delivery))
                exchange.send(passed if exchange.dialect is None else exchange.dialect.pass_on(passed))
                pace.advance()
            if not stream.rest:
                break
            passed = await _beyond(stream, growth, upstream)
        if screen is not None and screen.is_stopped and not stream.is_done:
            stream.stop(screen.dropped)
        if stream.is_done or stream.error or not data:
            break
        growth.advance()
    if not delivery.tally.is_cut:
        await growth.cover(delivery.tally.reported)
    return stream


async def _beyond(stream: Passage, growth: Growth, upstream: Upstream) -> bytes:
    """What may be passed on of a stream that has come to what is covered: more, if more can be had."""
    if not growth.is_possible:
        return stream.cut(None)
    refusal = await growth.more(upstream)
    return stream.read(stream.rest) if refusal is None else stream.cut(refusal)


class _Straight:
    """The short way of a stream: a piece that nothing stands in the way of is passed on in the callback it came with.

    The flow waits on, unaware of it. To resume it is to go through six coroutines, all of whose memory other streams
    have pushed out of the processor's caches meanwhile; that cost as much as all the rest.
    """

    __slots__ = ("_delivery", "_exchange", "_growth", "_pace", "_splitter", "_stream")

    def __init__(
        self, delivery: Delivery, splitter: Splitter, stream: Passage, pace: "_Checkpoints", growth: Growth
    ) -> None:
        self._delivery = delivery
        self._exchange = delivery.exchange
        self._splitter = splitter
        self._stream = stream
        self._pace = pace
        self._growth = growth

    def take(self, pieces: list[bytes]) -> int:
        """Pass on what needs no other look, from the first piece on; how many pieces that were."""
        exchange, growth = self._exchange, self._growth
        if not exchange.streaming or growth.is_unwritten or not self._splitter.is_between:
            return 0
        taken = 0
        for piece in pieces:
            if not self._stream.at_once(piece):
                break
            taken += 1
        if taken:
            data = pieces[0] if taken == 1 else b"".join(pieces[:taken])
            exchange.send(data if exchange.dialect is None else exchange.dialect.pass_on(data))
            self._pace.advance()
            if self._delivery.may_grow:
                growth.advance()
        return taken


class _Checkpoints:
    """Writes how far the stream has come, every so many tokens or milliseconds, so that a crash loses little."""

    def __init__(self, delivery: Delivery, gateway: Gateway) -> None:
        self._delivery = delivery
        self._gateway = gateway
        self._tokens = 0
        self._at_ns = delivery.opened_ns

    def advance(self) -> None:
        """Called after each piece; a checkpoint that finds no space is left out."""
        settings = self._gateway.settings
        output, now_ns = self._delivery.tally.output, clock.boot_ns()
        new = output - self._tokens
        if new >= settings.checkpoint_tokens or (new and now_ns - self._at_ns >= settings.checkpoint_ms * clock.MS):
            self._tokens, self._at_ns = output, now_ns
            self._gateway.records.append(checkpoint(self._delivery))
