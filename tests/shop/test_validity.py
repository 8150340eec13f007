"""How long offers are valid, in the seller's calendar."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from tokenworks.core.commands import CommandRefused
from tokenworks.shop.validity import check, end_ns

SECOND = 1_000_000_000


def moment(text: str, zone: str = "Asia/Shanghai") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("begins", "duration", "ends"),
    [
        ("2026-01-31T12:00", "P1M", "2026-02-28T12:00"),
        ("2028-01-31T12:00", "P1M", "2028-02-29T12:00"),
        ("2026-07-10T00:00", "P1M", "2026-08-10T00:00"),
        ("2026-12-15T08:30", "P1M", "2027-01-15T08:30"),
        ("2026-11-30T23:59", "P3M", "2027-02-28T23:59"),
        ("2028-02-29T01:00", "P1Y", "2029-02-28T01:00"),
        ("2026-03-01T10:00", "P30D", "2026-03-31T10:00"),
        ("2026-03-01T10:00", "P1M2W1D", "2026-04-16T10:00"),
        ("2026-03-01T10:00", "P5Y", "2031-03-01T10:00"),
    ],
)
def test_the_end_is_a_calendar_day_of_the_seller(begins: str, duration: str, ends: str) -> None:
    assert end_ns(moment(begins) + 7, duration, "Asia/Shanghai") == moment(ends) + 7


def test_the_clocks_may_change_in_between() -> None:
    zone = "Europe/Berlin"
    assert end_ns(moment("2026-03-01T09:00", zone), "P1M", zone) == moment("2026-04-01T09:00", zone)


@pytest.mark.parametrize("duration", ["", "P", "1M", "PT1H", "P1M ", "P-1M", "P1.5M", "P0M", "P1D1M", "p1m"])
def test_other_durations_are_refused(duration: str) -> None:
    with pytest.raises(CommandRefused) as refused:
        check(duration)
    assert refused.value.field == "validity"
