"""Days as moments, where clocks change and where they do not."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from components.days import bounds, bounds_us, day_range, midnight, parse_range

SHANGHAI = ZoneInfo("Asia/Shanghai")
NEW_YORK = ZoneInfo("America/New_York")
# Clocks there change at midnight itself, so that the day begins at one o'clock.
SANTIAGO = ZoneInfo("America/Santiago")


def test_a_day_begins_at_local_midnight() -> None:
    assert midnight(date(2022, 4, 28), SHANGHAI) == datetime(2022, 4, 27, 16, tzinfo=UTC)
    assert midnight(date(2022, 4, 28), NEW_YORK) == datetime(2022, 4, 28, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        (date(2022, 3, 13), NEW_YORK, 23),
        (date(2022, 11, 6), NEW_YORK, 25),
        (date(2022, 7, 1), NEW_YORK, 24),
        (date(2022, 9, 11), SANTIAGO, 23),
        (date(2022, 3, 13), SHANGHAI, 24),
    ],
)
def test_a_day_has_the_hours_that_its_clocks_say(day: date, zone: ZoneInfo, hours: int) -> None:
    start, end = bounds(day, zone)
    assert end - start == timedelta(hours=hours)


@pytest.mark.parametrize("zone", [SHANGHAI, NEW_YORK, SANTIAGO, ZoneInfo("UTC")])
def test_days_leave_no_gap_and_do_not_overlap(zone: ZoneInfo) -> None:
    edges = [bounds_us(day, zone) for day in day_range(date(2022, 1, 1), date(2022, 12, 31))]
    assert all(before[1] == after[0] for before, after in pairwise(edges))
    assert edges[-1][1] - edges[0][0] == 365 * 86_400_000_000


def test_microseconds_are_exact() -> None:
    start, end = bounds_us(date(2022, 4, 28), SHANGHAI)
    assert (start, end - start) == (1_651_075_200_000_000, 86_400_000_000)


def test_ranges_include_both_ends() -> None:
    assert list(day_range(date(2022, 2, 27), date(2022, 3, 1))) == [
        date(2022, 2, 27),
        date(2022, 2, 28),
        date(2022, 3, 1),
    ]
    assert list(day_range(date(2022, 3, 1), date(2022, 2, 27))) == []
    assert parse_range("2022-04-28:2022-05-01") == (date(2022, 4, 28), date(2022, 5, 1))
    assert parse_range("2022-04-28") == (date(2022, 4, 28), date(2022, 4, 28))


@pytest.mark.parametrize("text", ["2022-05-01:2022-04-28", "yesterday", "2022-02-30", ""])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_range(text)
