"""Header lines that tell customers where their limits stand: OpenAI's names, or Anthropic's for its own clients.

Where several limits hold, the one that has least left is told. Sources: OpenAI API reference, "Rate limits"; Anthropic
API reference, "Rate limits, response headers".
"""

from collections.abc import Sequence

from tokenworks.base import clock
from tokenworks.core.limits import Gauge
from tokenworks.gateway.grant import Gauges

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS


def fields(gauges: Gauges, now_ns: int, *, anthropic: bool = False) -> bytes:
    """The lines for all limits that are set on requests and tokens."""
    lines = b""
    for metric, group in (("requests", gauges.requests), ("tokens", gauges.tokens)):
        if group:
            lines += _lines(metric, group, now_ns, anthropic=anthropic)
    return lines


def duration(ms: int) -> str:
    """As OpenAI writes it: `0s`, `12ms`, `1.5s`, `6m0s`, `23h59m12.5s`."""
    if 0 < ms < 1_000:
        return f"{ms}ms"
    hours, rest = divmod(ms, _HOUR_MS)
    minutes, rest = divmod(rest, _MINUTE_MS)
    seconds = f"{rest // 1_000}.{rest % 1_000:03}".rstrip("0").rstrip(".")
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _lines(metric: str, group: Sequence[Gauge], now_ns: int, *, anthropic: bool) -> bytes:
    tightest = min(group, key=lambda gauge: gauge.left(now_ns))
    left, reset_ns = max(0, tightest.left(now_ns)), tightest.reset_ns(now_ns)
    if anthropic:
        name = f"anthropic-ratelimit-{metric}-"
        values = {"limit": tightest.limit.amount, "remaining": left, "reset": _second(now_ns + reset_ns)}
        return "".join(f"{name}{what}: {value}\r\n" for what, value in values.items()).encode()
    values = {"limit": tightest.limit.amount, "remaining": left, "reset": duration(-(-reset_ns // clock.MS))}
    return "".join(f"x-ratelimit-{what}-{metric}: {value}\r\n" for what, value in values.items()).encode()


def _second(at_ns: int) -> str:
    """RFC 3339 in whole seconds, not before the time."""
    return clock.utc(-(-at_ns // clock.SECOND) * clock.SECOND).isoformat().replace("+00:00", "Z")
