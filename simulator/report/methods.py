"""The same comparisons by other methods, and the running series, arranged for reading."""

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from simulator.experiment import Estimate, MetricResult, Series
from simulator.report import numbers, series_chart
from simulator.report.segments import OPEN, place
from simulator.result import Segment

_METHODS = {"cuped": "CUPED", "winsorised": "Winsorised", "bootstrap": "Bootstrap"}
_DRAWN: tuple[Segment, ...] = ("new", "all")
# Metrics by other methods, series, and days of one, that the page shows: the newest days.
_METRICS_SHOWN, _SERIES_SHOWN, _DAYS_SHOWN = 12, 24, 60


@dataclass(frozen=True)
class MethodRow:
    """One method's difference and lift in one segment; the segment is given on its first row alone."""

    segment: Segment | None
    method: str
    difference: Estimate
    relative: Estimate
    note: str
    rows: int = 1


@dataclass(frozen=True)
class MethodGroup:
    """One metric over its segments and methods."""

    title: str
    rows: tuple[MethodRow, ...]


@dataclass(frozen=True)
class SeriesRow:
    """One day of a running series, formatted."""

    day: str
    users: str
    value: str
    estimate: str
    interval: str


@dataclass(frozen=True)
class SeriesGroup:
    """One metric in one segment over days; ``chart`` is None where none is drawn."""

    title: str
    segment: Segment
    rows: tuple[SeriesRow, ...]
    reason: str | None
    left_out: tuple[tuple[str, str], ...]
    chart: Markup | None


def method_groups(metrics: Iterable[MetricResult]) -> tuple[MethodGroup, ...]:
    """Metrics that were compared by more than one method.

    Args:
        metrics: Of the record.

    Returns:
        Per metric and segment the plain method first; its note is empty. Of many segments the first ones.
    """
    found: dict[str, list[MetricResult]] = {}
    for one in metrics:
        if one.variants:
            found.setdefault(one.name, []).append(one)
    groups = []
    for members in list(found.values())[:_METRICS_SHOWN]:
        rows: list[MethodRow] = []
        for m in sorted(members, key=lambda one: place(one.segment))[:OPEN]:
            count = 1 + len(m.variants)
            rows.append(MethodRow(m.segment, "Plain", m.difference, m.relative, "", count))
            rows += [MethodRow(None, _METHODS[v.method], v.difference, v.relative, v.note) for v in m.variants]
        groups.append(MethodGroup(members[0].title, tuple(rows)))
    return tuple(groups)


def series_groups(series: Iterable[Series]) -> tuple[SeriesGroup, ...]:
    """Running series, drawn for new and all users where there are two days at least.

    Args:
        series: Of the page's day.

    Returns:
        One group per series, in the order given; a long one with its newest days, drawn with all of them.
    """
    groups = []
    for index, one in enumerate(tuple(series)[:_SERIES_SHOWN]):
        drawn = one.segment in _DRAWN and len(one.points) > 1
        groups.append(
            SeriesGroup(
                title=one.title,
                segment=one.segment,
                rows=tuple(
                    _series_row(one, at) for at in range(max(len(one.points) - _DAYS_SHOWN, 0), len(one.points))
                ),
                reason=one.reason,
                left_out=tuple(one.left_out.items())[-_DAYS_SHOWN:],
                chart=series_chart.draw(f"series-{index}", one) if drawn else None,
            )
        )
    return tuple(groups)


def _series_row(series: Series, at: int) -> SeriesRow:
    point = series.points[at]
    running = Estimate(value=point.estimate, low=point.low, high=point.high, unit=series.unit)
    return SeriesRow(
        day=point.day,
        users=numbers.whole(point.users),
        value=numbers.number(point.value, series.unit, signed=True),
        estimate=numbers.value(running, signed=True),
        interval=numbers.interval(running, signed=True),
    )
