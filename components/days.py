"""Days of a feed as moments in time. A day runs from local midnight to local midnight in the feed's zone."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

# Before anything that a feed or a store knows.
EVER = datetime(1970, 1, 1, tzinfo=UTC)


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The moment in UTC at which ``day`` begins in ``zone``."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """First moment of ``day`` and first moment after it, in UTC. 23 to 25 hours where clocks change."""
    return midnight(day, zone), midnight(day + timedelta(days=1), zone)


def bounds_us(day: date, zone: ZoneInfo) -> tuple[int, int]:
    """``bounds`` as microseconds since 1970."""
    start, end = bounds(day, zone)
    return int(start.timestamp()) * 1_000_000, int(end.timestamp()) * 1_000_000


def day_range(first: date, last: date) -> Iterator[date]:
    """Every day from ``first`` to ``last``, both included; none when ``last`` is earlier."""
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


def parse_range(text: str) -> tuple[date, date]:
    """``A:B`` as two days, both included; a single day stands for itself.

    Args:
        text: For example ``2022-04-28:2022-05-01``.

    Returns:
        First and last day.

    Raises:
        ValueError: When a part is no ISO date, or B is before A.
    """
    first, _, last = text.partition(":")
    a, b = date.fromisoformat(first), date.fromisoformat(last or first)
    if b < a:
        raise ValueError(f"{text}: the second day is before the first")
    return a, b
