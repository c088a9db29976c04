"""Geometry of the list's small pictures: a lift with its interval, and lifts day after day.

A page has up to fifty of them, so they are a line and a dot in the page's markup; charts are the report's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.experiment import Estimate

WIDTH, HEIGHT = 120.0, 16.0
SPARK_WIDTH, SPARK_HEIGHT, MARGIN = 240.0, 48.0, 3.0


@dataclass(frozen=True)
class Bar:
    """A number with its interval on an axis that all rows of a page share; in pixels of ``WIDTH`` × ``HEIGHT``."""

    low: float
    high: float
    value: float
    zero: float


@dataclass(frozen=True)
class Spark:
    """Lifts over days, in pixels of ``SPARK_WIDTH`` × ``SPARK_HEIGHT``: points of a line, of a band; last one; zero."""

    line: str
    band: str
    last: tuple[float, float]
    zero: float


def bars(estimates: Sequence[Estimate | None]) -> list[Bar | None]:
    """Place estimates on one axis that holds zero and every interval.

    Args:
        estimates: One per row; None, or without value, where there is no number.

    Returns:
        One bar per estimate, None where there is nothing to draw. An interval's open end reaches the axis's end.
    """
    numbers = [x for one in estimates if one for x in (one.value, one.low, one.high) if x is not None]
    if not numbers:
        return [None] * len(estimates)
    left, right = _range(numbers)

    def x(value: float) -> float:
        return round(2 + (value - left) / (right - left) * (WIDTH - 4), 1)

    return [
        None
        if one is None or one.value is None
        else Bar(
            low=x(left if one.low is None else one.low),
            high=x(right if one.high is None else one.high),
            value=x(one.value),
            zero=x(0.0),
        )
        for one in estimates
    ]


def spark(estimates: Sequence[Estimate]) -> Spark | None:
    """A line of lifts with the band of their intervals.

    Args:
        estimates: In order of days, each with a value; an open end of an interval is drawn as the value.

    Returns:
        The picture, None for fewer than two days.
    """
    points = [(one.value, one.low, one.high) for one in estimates if one.value is not None]
    if len(points) < 2:
        return None
    left, right = _range([x for point in points for x in point if x is not None])

    def x(index: int) -> float:
        return round(MARGIN + index / (len(points) - 1) * (SPARK_WIDTH - 2 * MARGIN), 1)

    def y(value: float) -> float:
        return round(MARGIN + (right - value) / (right - left) * (SPARK_HEIGHT - 2 * MARGIN), 1)

    upper = [(x(i), y(value if high is None else high)) for i, (value, _, high) in enumerate(points)]
    lower = [(x(i), y(value if low is None else low)) for i, (value, low, _) in enumerate(points)]
    line = [(x(i), y(value)) for i, (value, _, _) in enumerate(points)]
    return Spark(_points(line), _points([*upper, *reversed(lower)]), line[-1], y(0.0))


def _range(numbers: Sequence[float]) -> tuple[float, float]:
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    # All are zero: any axis will do that is not empty.
    return (low, high) if high > low else (-1.0, 1.0)


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
