"""How long an offer is valid: an ISO 8601 duration of whole years, months, weeks and days, added to a moment.

Months and days are those of the seller's calendar: a month bought on 31 January at noon ends on the last day of
February at noon, whatever the clocks did in between. Hours and smaller parts are refused: no offer is sold by them.
"""

import calendar
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from tokenworks.base import clock
from tokenworks.core.commands import invalid

_DURATION = re.compile(r"P(?=\d)(?:(\d{1,2})Y)?(?:(\d{1,3})M)?(?:(\d{1,3})W)?(?:(\d{1,4})D)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check(duration: str) -> str:
    """The duration itself, if it can be used and is longer than nothing."""
    years, months, weeks, days = _parts(duration)
    if years == months == weeks == days == 0:
        raise invalid(f"{duration!r} lasts no time.", "validity")
    return duration


def end_ns(from_ns: int, duration: str, timezone: str, times: int = 1) -> int:
    """When what begins at `from_ns` stops being valid: the first moment at which it no longer is.

    `times` counts periods of that length from the same beginning: two months after 31 January is 31 March, not 28.
    """
    years, months, weeks, days = (times * part for part in _parts(duration))
    whole_s, rest_ns = divmod(from_ns, clock.SECOND)
    local = (_EPOCH + timedelta(seconds=whole_s)).astimezone(ZoneInfo(timezone))
    months += 12 * years + local.month - 1
    year, month = local.year + months // 12, months % 12 + 1
    day = min(local.day, calendar.monthrange(year, month)[1])
    ended = local.replace(year=year, month=month, day=day) + timedelta(weeks=weeks, days=days)
    return int((ended.astimezone(UTC) - _EPOCH).total_seconds()) * clock.SECOND + rest_ns


def _parts(duration: str) -> tuple[int, int, int, int]:
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise invalid(f"{duration!r} is not a duration in years, months, weeks and days such as P1M.", "validity")
    years, months, weeks, days = (int(part or 0) for part in found.groups())
    return years, months, weeks, days
