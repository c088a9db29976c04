"""Metrics by segment, arranged for reading: the headline, and tables with their forest plots."""

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from simulator.experiment import Estimate, MetricResult
from simulator.report import charts, numbers
from simulator.report.segments import NAMES, Some, place, some
from simulator.report.summary import against_margin, shown
from simulator.result import Role, Segment

# Metrics of one role that the page shows; a pipeline has a dozen in all.
_METRICS_SHOWN = 24


@dataclass(frozen=True)
class Row:
    """One segment of one metric.

    Attributes:
        result: From the record.
        reason: When nothing of the row could be estimated, all for one reason: that reason.
        margin: The allowed worsening, formatted; None without a margin.
        against_margin: Where the interval lies relative to the margin.
        detectable: Smallest difference and lift that the test finds with 80 % power, formatted; empty where unknown.
    """

    result: MetricResult
    reason: str | None
    margin: str | None
    against_margin: str | None
    detectable: tuple[str, ...]


@dataclass(frozen=True)
class MetricGroup:
    """One metric over its segments; ``chart`` is None where none is drawn."""

    name: str
    title: str
    higher_is_better: bool
    rows: Some[Row]
    chart: Markup | None = None


def headline(metrics: Iterable[MetricResult]) -> tuple[tuple[MetricResult, Estimate], ...]:
    """New users before all users: the question of the page is about them.

    Args:
        metrics: Of the record.

    Returns:
        Primary metrics with the estimate that stands for each.
    """
    primary = [m for m in metrics if m.role == "primary"]
    order: tuple[Segment, ...] = ("new", "all")
    return tuple((m, shown(m)) for segment in order for m in primary if m.segment == segment)


def metric_groups(metrics: Iterable[MetricResult], role: Role, confidence: str) -> Some[MetricGroup]:
    """Metrics of one role.

    Args:
        metrics: Of the record.
        role: Which ones.
        confidence: Of the intervals, formatted.

    Returns:
        One group per metric, its segments in the page's order.
    """
    found: dict[str, list[MetricResult]] = {}
    for metric in metrics:
        if metric.role == role:
            found.setdefault(metric.name, []).append(metric)
    groups = some(list(found.items()), _METRICS_SHOWN, 0)
    drawn = [_group(index, members, confidence, role) for index, (_, members) in enumerate(groups.first)]
    return Some(tuple(drawn), left_out=groups.left_out)


def _group(index: int, members: list[MetricResult], confidence: str, role: Role) -> MetricGroup:
    members = sorted(members, key=lambda m: place(m.segment))
    rows = some([_row(m) for m in members])
    chart = _forest(f"forest-{index}", members[: len(rows.first)], confidence) if role == "primary" else None
    one = members[0]
    return MetricGroup(one.name, one.title, one.higher_is_better, rows, chart)


def _row(result: MetricResult) -> Row:
    estimates = (result.baseline, result.treatment, result.difference, result.relative)
    reasons = {estimate.reason for estimate in estimates}
    nothing = all(estimate.value is None for estimate in estimates) and len(reasons) == 1
    margin = None if result.margin is None else numbers.number(result.margin, result.difference.unit)
    reason = numbers.not_estimable(reasons.pop()) if nothing else None
    lies = against_margin(result)
    against = None if margin is None else "no interval to compare" if lies is None else f"interval {lies}"
    return Row(result, reason, margin, against, _detectable(result))


def _detectable(result: MetricResult) -> tuple[str, ...]:
    found = []
    if result.detectable is not None:
        found.append(numbers.number(result.detectable, result.difference.unit))
    if result.detectable_percent is not None:
        found.append(numbers.number(result.detectable_percent, "percent"))
    return tuple(found)


def _forest(ident: str, members: list[MetricResult], confidence: str) -> Markup:
    rows = [
        charts.ForestRow(
            label=NAMES[m.segment],
            text="not estimable" if estimate.value is None else numbers.value(estimate, signed=True),
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            exploratory=m.exploratory,
        )
        for m in members
        for estimate in (shown(m),)
    ]
    what = "difference, pp" if shown(members[0]).unit == "pp" else "relative lift, %"
    return charts.forest(
        ident,
        f"{members[0].title} by segment: {what}",
        rows,
        f"{what} ({confidence} interval)",
        higher_is_better=members[0].higher_is_better,
    )
