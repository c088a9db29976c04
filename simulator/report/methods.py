"""The same comparisons by other methods, and the running series, arranged for reading."""

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from simulator.experiment import Estimate, MetricResult, Series
from simulator.report import numbers, series_chart
from simulator.result import Segment

_METHODS = {"cuped": "CUPED", "winsorised": "Winsorised", "bootstrap": "Bootstrap"}
_DRAWN: tuple[Segment, ...] = ("new", "all")


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


def method_groups(metrics: Iterable[MetricResult], segments: Iterable[Segment]) -> tuple[MethodGroup, ...]:
    """Metrics that were compared by more than one method.

    Args:
        metrics: Of the record.
        segments: In the order of the page.

    Returns:
        Per metric and segment the plain method first; its note is empty.
    """
    found: dict[str, list[MetricResult]] = {}
    for one in metrics:
        if one.variants:
            found.setdefault(one.name, []).append(one)
    order = list(segments)
    groups = []
    for members in found.values():
        rows: list[MethodRow] = []
        for m in sorted(members, key=lambda one: order.index(one.segment)):
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
        One group per series, in the order given.
    """
    groups = []
    for index, one in enumerate(series):
        drawn = one.segment in _DRAWN and len(one.points) > 1
        groups.append(
            SeriesGroup(
                title=one.title,
                segment=one.segment,
                rows=tuple(_series_row(one, place) for place in range(len(one.points))),
                reason=one.reason,
                left_out=tuple(one.left_out.items()),
                chart=series_chart.draw(f"series-{index}", one) if drawn else None,
            )
        )
    return tuple(groups)


def _series_row(series: Series, place: int) -> SeriesRow:
    point = series.points[place]
    running = Estimate(value=point.estimate, low=point.low, high=point.high, unit=series.unit)
    return SeriesRow(
        day=point.day,
        users=numbers.whole(point.users),
        value=numbers.number(point.value, series.unit, signed=True),
        estimate=numbers.value(running, signed=True),
        interval=numbers.interval(running, signed=True),
    )
