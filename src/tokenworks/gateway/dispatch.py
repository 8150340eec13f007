"""Dispatch: finding an endpoint that begins an answer, trying the next where one cannot serve.

Where all are full the request waits for its turn. After the first byte of an answer nothing is tried again. The choice
among endpoints is `grid.dispatch`'s, whose turn it is `grid.queue`'s.
"""

from collections.abc import Sequence

from tokenworks.base import clock, log
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Endpoint, Key
from tokenworks.dialects import answers, anthropic_body, chat, reading
from tokenworks.dialects.anthropic_answer import AnthropicSpeech
from tokenworks.dialects.messages import Messages
from tokenworks.gateway.coding import plain
from tokenworks.gateway.delivery import Delivery, Gateway, Outcome
from tokenworks.gateway.exchange import ClientGone
from tokenworks.gateway.upstream import Sending, Upstream, UpstreamBroken, UpstreamSilent

_log = log.get(__name__)

# Errors of an endpoint that are about the customer's request. All others are between the endpoint and us.
_CUSTOMERS = frozenset({400, 404, 413, 422})
_ERROR_BYTES_MAX = 64 << 10
_DIGITS_MAX = 16

_UNAVAILABLE = Refusal(
    Code.ENDPOINT_UNAVAILABLE, "No endpoint can serve this model right now. Retry shortly.", retry_after_ms=1_000
)
_REFUSED = Refusal(Code.ENDPOINT_REFUSED, "The endpoint of this model refused the gateway. Contact your operator.")
_TIMEOUT = Refusal(Code.ENDPOINT_TIMEOUT, "The endpoint of this model did not answer in time.")


async def dispatch(delivery: Delivery, gateway: Gateway) -> Upstream | Outcome:
    """An endpoint's answer that has begun well, or how the request ended without one."""
    tried: list[str] = []
    attempts = 0
    refusal = _UNAVAILABLE
    while attempts < gateway.settings.attempts_max:
        endpoint = None
        if delivery.request.model not in gateway.queues.lines:
            endpoint = gateway.board.choose(delivery.route.endpoints, tried, clock.boot_ns())
        if endpoint is None:
            if len(tried) >= len(delivery.route.endpoints):
                break
            endpoint = await _turn(delivery, gateway, tried)
            if isinstance(endpoint, Refusal):
                return Outcome("refused", endpoint)
        tried.append(endpoint.id)
        sending = _sending(delivery, endpoint)
        if isinstance(sending, Refusal):
            # Where another one could be told it, its reason is the one that counts.
            refusal = refusal if attempts else sending
            continue
        attempts += 1
        delivery.begin_attempt(endpoint, sending, gateway)
        delivery.exchange.drains = endpoint.disconnect == "drain"
        answer = await gateway.upstreams.send(endpoint, sending)
        if isinstance(answer, Upstream):
            if 200 <= answer.status < 300:
                return answer
            if answer.status in _CUSTOMERS:
                return await _pass_on(answer)
            refusal = _not_served(delivery, gateway, endpoint, answer)
        else:
            _warn(endpoint, answer.text)
            if answer.silent and not answer.hung:
                return Outcome("endpoint_timeout", _TIMEOUT)
            delivery.end_attempt(gateway, "endpoint_timeout" if answer.hung else "endpoint_broken", clock.boot_ns())
            refusal = _UNAVAILABLE
        # Only what an endpoint has begun is written to its end for nobody.
        delivery.exchange.drains = False
        if delivery.exchange.gone:
            raise ClientGone
    return Outcome("refused", refusal)


async def _turn(delivery: Delivery, gateway: Gateway, tried: Sequence[str]) -> Endpoint | Refusal:
    """A place at an endpoint, when there is one; a refusal also where the key was revoked meanwhile."""
    endpoint, headers = await gateway.queues.turn(delivery, tried), delivery.exchange.headers
    if isinstance(endpoint, Refusal) or isinstance(gateway.keys.known(headers, clock.boot_ns()), Key):
        return endpoint
    # The key changed. While the office is asked, the place is for whoever else waits.
    gateway.queues.freed(delivery.request.model)
    caller = await gateway.keys.asked(headers)
    return caller if isinstance(caller, Refusal) else await gateway.queues.turn(delivery, tried)


def leave_hung(gateway: Gateway) -> None:
    """Every now and then: requests that wait for the first byte of a hung endpoint go to another that is well."""
    gateway.upstreams.leave_hung(lambda endpoint: _has_other(gateway, endpoint))


def _has_other(gateway: Gateway, endpoint: Endpoint) -> bool:
    now_ns = clock.boot_ns()
    route = gateway.catalog.route(endpoint.model, now_ns)
    return not isinstance(route, Refusal) and gateway.board.has_other(route.endpoints, endpoint.id, now_ns)


def _not_served(delivery: Delivery, gateway: Gateway, endpoint: Endpoint, answer: Upstream) -> Refusal:
    """The endpoint's error is between it and us; another endpoint may be tried."""
    answer.let_go()
    _warn(endpoint, f"status {answer.status}")
    now_ns = clock.boot_ns()
    delivery.end_attempt(gateway, "refused", now_ns)
    is_busy = answer.status == 429 or answer.status >= 500
    refusal = _busy(answer) if is_busy else _REFUSED
    gateway.board.failed(endpoint.id, now_ns, refusal.retry_after_ms * clock.MS)
    return refusal


def _sending(delivery: Delivery, endpoint: Endpoint) -> Sending | Refusal:
    """What the endpoint is sent; a refusal where it cannot be said in what it speaks."""
    request, other = delivery.request, delivery.request.other
    request_id = delivery.exchange.request_id
    if endpoint.dialect == "anthropic":
        delivery.speech = AnthropicSpeech()
        asked = delivery.exchange.body if isinstance(delivery.exchange.dialect, Messages) else None
        said = anthropic_body.body(request, asked, endpoint.upstream_model, delivery.output_limit)
        return said if isinstance(said, Refusal) else Sending(said, request_id, stream=request.stream)
    delivery.speech = other
    if other is not None:
        body = other.body(request.sent, endpoint, delivery.output_limit)
        return Sending(body, request_id, path=other.path, stream=request.stream)
    body = chat.upstream_body(request, endpoint.upstream_model, delivery.output_limit)
    return Sending(body, request_id, stream=request.stream)


async def _pass_on(answer: Upstream) -> Outcome:
    """The endpoint's error about the customer's request, in OpenAI's shape."""
    body = b""
    try:
        coded = plain(answer)
        while len(body) < _ERROR_BYTES_MAX and (data := await coded.chunk()):
            body += data
    except (UpstreamBroken, UpstreamSilent) as fault:
        _log.warning("an endpoint's error could not be read", extra={"reason": str(fault)})
    finally:
        answer.let_go()
    found = reading.error(body)
    if found is None:
        text = f"The endpoint of this model refused the request with status {answer.status}."
        shaped = answers.error_body(text, answers.INVALID, None, Code.ENDPOINT_REFUSED.value)
    else:
        code = found.code if isinstance(found.code, str) else Code.ENDPOINT_REFUSED.value
        shaped = answers.error_body(found.message, found.type or answers.INVALID, found.param, code)
    return Outcome("refused", status=answer.status, body=shaped)


def _busy(answer: Upstream) -> Refusal:
    """The endpoint says when to come back, in seconds; a date is not worth reading here."""
    after = answer.headers.get(b"retry-after", b"")
    # Very many digits are no number to Python.
    retry_after_ms = min(int(after), 3600) * 1000 if after.isdigit() and len(after) < _DIGITS_MAX else 0
    return Refusal(_UNAVAILABLE.code, _UNAVAILABLE.message, retry_after_ms=max(1_000, retry_after_ms))


def _warn(endpoint: Endpoint, reason: str) -> None:
    _log.warning("an endpoint did not serve", extra={"endpoint": endpoint.id, "reason": reason})
