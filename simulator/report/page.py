"""The page: an ``Experiment`` arranged for reading, and the template that writes it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.experiment import Estimate, Experiment, MetricResult, Quality, Rung, Series
from simulator.report import charts, numbers
from simulator.report.diagnostics import Diagnostics
from simulator.report.inside import inside
from simulator.report.log_alone import ESTIMATORS, agreement_rows, replay_view
from simulator.report.methods import method_groups, series_groups
from simulator.result import Role, Segment

_SEGMENTS: dict[Segment, str] = {
    "all": "All users",
    "new": "New users",
    "low": "Low activity",
    "high": "High activity",
}
_RUNGS = {
    "V1": "A/A: does it find lifts where there are none?",
    "V2": "Backtest: simulating the logging policy, do the logged numbers come back?",
    "V3": "Known truth: does the interval cover a lift that is known?",
    "V4": "Agreement: do replay and rollouts agree where both can speak?",
    "V5": "Reference: do the estimators equal a public library's?",
    "V6": "Sensitivity: does the verdict survive other assumptions?",
}
_QUALITY = {"auc": "AUC", "gauc": "GAUC", "logloss": "Log loss", "mse": "Squared error"}
_LOWER_IS_BETTER = ("logloss", "mse")


@dataclass(frozen=True)
class Row:
    """One segment of one metric.

    Attributes:
        result: From the record.
        reason: When nothing of the row could be estimated, all for one reason: that reason.
        margin: The allowed worsening, formatted; None without a margin.
        detectable: Smallest difference and lift that the test finds with 80 % power, formatted; empty where unknown.
        against_margin: Where the interval lies relative to the margin.
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
    rows: tuple[Row, ...]
    chart: Markup | None = None


@dataclass(frozen=True)
class QualityRow:
    """One segment of one task's offline metric, both arms side by side, formatted."""

    segment: Segment
    treatment: str
    baseline: str
    difference: str
    rows: str
    positives: str


@dataclass(frozen=True)
class QualityGroup:
    """One offline metric of one task over its segments."""

    task: str
    metric: str
    higher_is_better: bool
    rows: tuple[QualityRow, ...]


@dataclass(frozen=True)
class Depths:
    """Session depths in bins that double: 1, 2, 3-4, 5-8 and so on.

    Attributes:
        names: Arms and ``log``, in the order of the columns.
        totals: Sessions per name, formatted.
        rows: Per bin its label and per name the number and the share of sessions, formatted.
        chart: The drawing; None when no arm has a session.
    """

    names: tuple[str, ...]
    totals: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    chart: Markup | None


def render(
    experiment: Experiment, diagnostics: Diagnostics | None = None, series: tuple[Series, ...] | None = None
) -> str:
    """Write the report of one experiment.

    The same records give the same bytes.

    Args:
        experiment: The record of the experiment.
        diagnostics: What is known of the inside of its treatment, None to leave that section out.
        series: Running series up to the day, None to leave that section out. Nothing else is read.

    Returns:
        One self-contained HTML page without scripts, which loads nothing.
    """
    confidence = numbers.percentage(experiment.confidence)
    page = (
        _environment()
        .get_template("report.html")
        .render(
            e=experiment,
            confidence=confidence,
            segments=_SEGMENTS,
            ladder=_ladder(experiment.trust),
            models={arm.role: arm.model for arm in experiment.arms},
            headline=_headline(experiment.metrics),
            primary=_metric_groups(experiment.metrics, "primary", confidence),
            guardrails=_metric_groups(experiment.metrics, "guardrail", confidence),
            secondary=_metric_groups(experiment.metrics, "secondary", confidence),
            methods=method_groups((m for m in experiment.metrics if m.role == "primary"), _SEGMENTS),
            more_methods=method_groups((m for m in experiment.metrics if m.role != "primary"), _SEGMENTS),
            replay=replay_view(experiment.replay) if experiment.replay else None,
            estimators=ESTIMATORS,
            agreement=agreement_rows(experiment.agreement) if experiment.agreement else (),
            series=None if series is None else series_groups(series),
            calibration_titles={m.name: m.title for m in experiment.metrics},
            depths=_depths(experiment),
            quality=_quality(experiment.quality),
            inside=inside(diagnostics, _SEGMENTS) if diagnostics else None,
        )
    )
    # The template opens with its macros, whose line ends would stand before the doctype.
    return page.lstrip()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("simulator", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["n"] = numbers
    return environment


def _ladder(rungs: Iterable[Rung]) -> tuple[Rung, ...]:
    """All six rungs: one that the record does not have is missing, and the page says so."""
    given = tuple(rungs)
    known = {rung.name.split(" ")[0].rstrip(":") for rung in given}
    absent = (
        Rung(name=name, question=question, state="missing", detail="The record says nothing about this rung.")
        for name, question in _RUNGS.items()
        if name not in known
    )
    return tuple(sorted((*given, *absent), key=lambda rung: rung.name))


def _shown(result: MetricResult) -> Estimate:
    """The estimate that stands for a metric: points for a share, where a lift of a lift would confuse."""
    return result.difference if result.difference.unit == "pp" else result.relative


def _headline(metrics: Iterable[MetricResult]) -> tuple[tuple[MetricResult, Estimate], ...]:
    """New users before all users: the question of the page is about them."""
    primary = [m for m in metrics if m.role == "primary"]
    order: tuple[Segment, ...] = ("new", "all")
    return tuple((m, _shown(m)) for segment in order for m in primary if m.segment == segment)


def _metric_groups(metrics: Iterable[MetricResult], role: Role, confidence: str) -> tuple[MetricGroup, ...]:
    found: dict[str, list[MetricResult]] = {}
    for metric in metrics:
        if metric.role == role:
            found.setdefault(metric.name, []).append(metric)
    groups = []
    order = list(_SEGMENTS)
    for index, (name, members) in enumerate(found.items()):
        members.sort(key=lambda m: order.index(m.segment))
        groups.append(
            MetricGroup(
                name=name,
                title=members[0].title,
                higher_is_better=members[0].higher_is_better,
                rows=tuple(_row(m) for m in members),
                chart=_forest(f"forest-{index}", members, confidence) if role == "primary" else None,
            )
        )
    return tuple(groups)


def _row(result: MetricResult) -> Row:
    estimates = (result.baseline, result.treatment, result.difference, result.relative)
    reasons = {estimate.reason for estimate in estimates}
    nothing = all(estimate.value is None for estimate in estimates) and len(reasons) == 1
    margin = None if result.margin is None else numbers.number(result.margin, result.difference.unit)
    reason = numbers.not_estimable(reasons.pop()) if nothing else None
    return Row(result, reason, margin, _against_margin(result), _detectable(result))


def _detectable(result: MetricResult) -> tuple[str, ...]:
    found = ((result.detectable, result.difference.unit), (result.detectable_percent, "percent"))
    return tuple(numbers.number(value, unit) for value, unit in found if value is not None)  # type: ignore[arg-type]


def _against_margin(result: MetricResult) -> str | None:
    """A fact about the interval; whether it decides anything is the verdict's business."""
    difference = result.difference
    if result.margin is None:
        return None
    if difference.low is None or difference.high is None:
        return "no interval to compare"
    best, worst = difference.low, difference.high
    if result.higher_is_better:
        best, worst = -difference.high, -difference.low
    if worst <= result.margin:
        return "interval within"
    return "interval beyond" if best > result.margin else "interval across"


def _forest(ident: str, members: list[MetricResult], confidence: str) -> Markup:
    rows = [
        charts.ForestRow(
            label=_SEGMENTS[m.segment],
            text="not estimable" if shown.value is None else numbers.value(shown, signed=True),
            value=shown.value,
            low=shown.low,
            high=shown.high,
            exploratory=m.exploratory,
        )
        for m in members
        for shown in (_shown(m),)
    ]
    what = "difference, pp" if _shown(members[0]).unit == "pp" else "relative lift, %"
    return charts.forest(
        ident,
        f"{members[0].title} by segment: {what}",
        rows,
        f"{what} ({confidence} interval)",
        higher_is_better=members[0].higher_is_better,
    )


def _quality(results: Iterable[Quality]) -> tuple[QualityGroup, ...]:
    found: dict[str, dict[str, dict[Segment, dict[str, Quality]]]] = {}
    for one in results:
        found.setdefault(one.task, {}).setdefault(one.metric, {}).setdefault(one.group, {})[one.arm] = one
    return tuple(
        QualityGroup(
            task=task,
            metric=title,
            higher_is_better=metric not in _LOWER_IS_BETTER,
            rows=tuple(_quality_row(s, metrics[metric][s]) for s in _SEGMENTS if s in metrics[metric]),
        )
        for task, metrics in found.items()
        for metric, title in _QUALITY.items()
        if metric in metrics
    )


def _quality_row(segment: Segment, arms: dict[str, Quality]) -> QualityRow:
    treatment, baseline = arms.get("treatment"), arms.get("baseline")
    first, second = (
        (None, "this arm was not measured") if arm is None else (arm.value, arm.reason) for arm in (treatment, baseline)
    )
    difference = None if first[0] is None or second[0] is None else first[0] - second[0]
    return QualityRow(
        segment=segment,
        treatment=numbers.quality(*first),
        baseline=numbers.quality(*second),
        difference=numbers.quality(difference, "it needs both arms", signed=True),
        rows=_both([arm.rows for arm in (treatment, baseline) if arm]),
        positives=_both([arm.positives for arm in (treatment, baseline) if arm]),
    )


def _both(counts: list[int | None]) -> str:
    """One count when the arms share it, as they should; both, treatment first, when they do not."""
    return " / ".join(dict.fromkeys("not counted" if count is None else numbers.whole(count) for count in counts))


def _depths(experiment: Experiment) -> Depths | None:
    series = experiment.session_depth
    if not series:
        return None
    rank = {"treatment": 0, "baseline": 1, "log": 2}
    names = sorted(series, key=lambda name: (rank.get(name, len(rank)), name))
    bins = _bins(max(len(counts) for counts in series.values()))
    totals = {name: sum(series[name]) for name in names}
    counts = {name: [sum(series[name][first - 1 : last]) for first, last in bins] for name in names}
    labels = [str(first) if first == last else f"{first}–{last}" for first, last in bins]
    shares = {name: [c / totals[name] for c in counts[name]] for name in names if totals[name] > 0}
    rows = tuple(
        (
            label,
            tuple(
                (
                    numbers.whole(counts[name][place]),
                    numbers.number(shares[name][place], "share") if name in shares else "no session",
                )
                for name in names
            ),
        )
        for place, label in enumerate(labels)
    )
    percent = {name: [100 * share for share in values] for name, values in shares.items()}
    title = "Sessions by number of impressions shown, in percent of each arm's sessions"
    chart = charts.depth("depth", title, labels, percent) if percent else None
    return Depths(tuple(names), tuple(numbers.whole(totals[name]) for name in names), rows, chart)


def _bins(deepest: int) -> list[tuple[int, int]]:
    bins, first, last = [], 1, 1
    while first <= deepest:
        bins.append((first, min(last, deepest)))
        first, last = last + 1, 2 * last
    return bins
