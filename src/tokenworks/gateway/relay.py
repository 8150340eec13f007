"""Relay: an endpoint's answer to the customer, counted as it passes.

A stream is passed on event by event as it arrives; its last bytes (usage, `[DONE]`) are left to the caller, who first
writes the closing record. A whole answer is read to its end. What the counts cost is decided in `charge`.
"""

from tokenworks.base import clock
from tokenworks.core.refusals import Code, Refusal
from tokenworks.gateway import answers, reading
from tokenworks.gateway.charge import checkpoint
from tokenworks.gateway.delivery import Delivery, Gateway, Outcome
from tokenworks.gateway.sse import Event, EventTooLarge, Splitter
from tokenworks.gateway.upstream import Upstream, UpstreamBroken, UpstreamSilent

_BROKEN = Refusal(Code.ENDPOINT_BROKEN, "The answer of the endpoint broke off.")
_TIMEOUT = Refusal(Code.ENDPOINT_TIMEOUT, "The endpoint fell silent within its answer.")
_NOT_AN_ANSWER = Refusal(Code.ENDPOINT_BROKEN, "The endpoint's answer is not a chat completion.")
_ABOVE_LIMIT = "output_above_limit"


async def relay(delivery: Delivery, gateway: Gateway, upstream: Upstream) -> Outcome:
    """Pass the answer on. The connection is given back in every case."""
    relayed = _relay_stream if delivery.request.stream else _read_whole
    is_at_end = False
    try:
        outcome = await relayed(delivery, gateway, upstream)
        is_at_end = outcome.ending == "finished" and _ABOVE_LIMIT not in delivery.tally.flags
    except UpstreamSilent:
        return Outcome("endpoint_timeout", _TIMEOUT)
    except (UpstreamBroken, EventTooLarge):
        return Outcome("endpoint_broken", _BROKEN)
    finally:
        delivery.exchange.wire.attach(None)
        upstream.let_go(tail=is_at_end)
    return outcome


async def _read_whole(delivery: Delivery, gateway: Gateway, upstream: Upstream) -> Outcome:
    parts: list[bytes] = []
    size = 0
    while data := await upstream.chunk():
        parts.append(data)
        size += len(data)
        if size > gateway.settings.answer_bytes_max:
            return Outcome("endpoint_broken", _NOT_AN_ANSWER)
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    try:
        answer = reading.whole_answer(body)
        delivery.tally.output = answer.count(delivery.route.model.bytes_per_token)
    except reading.UNREADABLE:
        return Outcome("endpoint_broken", _NOT_AN_ANSWER)
    delivery.tally.reported = reading.reported(answer.usage)
    delivery.tally.first_token_ns = clock.boot_ns()
    return Outcome("finished", body=body)


async def _relay_stream(delivery: Delivery, gateway: Gateway, upstream: Upstream) -> Outcome:
    if not upstream.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
        return Outcome("endpoint_broken", _NOT_AN_ANSWER)
    exchange = delivery.exchange
    exchange.wire.attach(upstream)
    splitter = Splitter(gateway.settings.answer_bytes_max)
    stream = _Stream(delivery)
    pace = _Checkpoints(delivery, gateway)
    while True:
        data = await upstream.chunk()
        passed = stream.read(splitter.feed(data) if data else splitter.finish())
        if passed:
            if not exchange.streaming:
                exchange.start_stream(delivery.fields())
            exchange.send(passed)
            pace.advance()
        if stream.error:
            return Outcome("endpoint_broken", stream.error)
        if stream.is_done or not data:
            break
    if not stream.is_done and not stream.is_finishing and not (stream.has_begun and upstream.is_framed):
        return Outcome("endpoint_broken", _BROKEN)
    if not exchange.streaming:
        exchange.start_stream(delivery.fields())
    return Outcome("finished", body=stream.held + answers.DONE)


class _Stream:
    """What a stream's events say. `held` goes out with the last bytes: the usage event, or the end put by us.

    An endpoint that writes on past the limit it was given is not passed on and not read any further: what it writes is
    not paid for. A delta is taken for one token at least, so whoever keeps the limit is not cut short.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._tally = delivery.tally
        self._output_max = delivery.covered.output_max
        self._wants_usage = delivery.request.wants_usage
        self._unfinished = set(range(delivery.request.shape.choices))
        self.has_begun = False
        self.is_finishing = False
        self.is_done = False
        self.held = b""
        self.error: Refusal | None = None

    def read(self, events: list[Event]) -> bytes:
        """Count the events; the bytes to pass on now."""
        passed: list[bytes] = []
        for event in events:
            if event.data == b"[DONE]":
                self.is_done = True
            if self.is_done or self.error:
                break
            if event.data is None or self._is_passed(event.raw, event.data):
                passed.append(event.raw)
        return passed[0] if len(passed) == 1 else b"".join(passed)

    def _is_passed(self, raw: bytes, data: bytes) -> bool:
        try:
            chunk = reading.stream_chunk(data)
        except reading.UNREADABLE:
            self._flag("event_malformed")
            return True
        if chunk.has_error:
            found = reading.error(data)
            text = f" It said: {found.message}" if found else ""
            self.error = Refusal(Code.ENDPOINT_BROKEN, f"The endpoint gave up within its answer.{text}")
            return False
        self.has_begun = True
        self.is_finishing = self.is_finishing or chunk.is_finishing
        count = chunk.count()
        if self._tally.output + count > self._output_max:
            self._flag(_ABOVE_LIMIT)
            self.held = reading.cut_event(data, sorted(self._unfinished))
            self.is_done = True
            return False
        if chunk.is_finishing:
            self._unfinished -= chunk.finished()
        if count:
            self._tally.output += count
            self._tally.first_token_ns = self._tally.first_token_ns or clock.boot_ns()
        if chunk.has_usage:
            self._tally.reported = reading.reported(chunk.usage)
            if not chunk.choices:
                self.held = raw if self._wants_usage else b""
                return False
        return True

    def _flag(self, flag: str) -> None:
        if flag not in self._tally.flags:
            self._tally.flags += (flag,)


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
