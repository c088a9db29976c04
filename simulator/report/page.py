"""The page: an ``Experiment`` arranged for reading, and the template that writes it."""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.experiment import Experiment, Quality
from simulator.report import numbers, spread_view, trust_view
from simulator.report.compare import flat_settings
from simulator.report.inside import inside
from simulator.report.log_alone import ESTIMATORS, agreement_rows, replay_view
from simulator.report.methods import method_groups, series_groups
from simulator.report.metrics_view import headline, metric_groups
from simulator.report.segments import NAMES, Some, place, some
from simulator.result import Segment

_QUALITY = {"auc": "AUC", "gauc": "GAUC", "logloss": "Log loss", "mse": "Squared error"}
_LOWER_IS_BETTER = ("logloss", "mse")

# What stands open of long lists, and what is one click away; the rest is counted, and in the record.
_TASKS, _DAYS, _DRIFT = 40, 60, 12


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


def render(experiment: Experiment) -> str:
    """Write the report of one experiment.

    The same record gives the same bytes.

    Args:
        experiment: The record; the report's copy, or the one that was analysed, whose page has no running series and
            no gates. Nothing else is read.

    Returns:
        One self-contained HTML page without scripts, which loads nothing.
    """
    e, confidence = experiment, numbers.percentage(experiment.confidence)
    primary = [m for m in e.metrics if m.role == "primary"]
    rungs = trust_view.ladder(e.trust)
    page = (
        environment()
        .get_template("report.html")
        .render(
            e=e,
            confidence=confidence,
            segments=NAMES,
            style=style(),
            policy=policy(),
            ladder=rungs,
            ladder_sentence=trust_view.ladder_sentence(rungs),
            models={arm.role: arm.model for arm in e.arms},
            headline=headline(e.metrics),
            primary=metric_groups(e.metrics, "primary", confidence),
            guardrails=metric_groups(e.metrics, "guardrail", confidence),
            secondary=metric_groups(e.metrics, "secondary", confidence),
            methods=method_groups(primary),
            more_methods=method_groups(m for m in e.metrics if m.role != "primary"),
            replay=replay_view(e.replay) if e.replay else None,
            estimators=ESTIMATORS,
            agreement=agreement_rows(e.agreement) if e.agreement else (),
            series=series_groups(e.series) if e.series else None,
            calibration=some(trust_view.calibration_rows(e.calibration, {m.name: m.title for m in e.metrics}), 16),
            backtest=trust_view.backtest_tables(e.certificate),
            sensitivity=trust_view.sensitivity_tables(e.certificate),
            depths=spread_view.depths(e.session_depth),
            app_time=spread_view.app_time(e.app_time),
            quality=_quality(e.quality),
            inside=inside(e.diagnostics, NAMES) if e.diagnostics else None,
            days=some(e.data, _DAYS, 0),
            drift=some(sorted(e.checks.drift, key=_farthest), _DRIFT) if e.checks else None,
            config=some(tuple(flat_settings(e.lineage.config)), 0, 500),
            inputs=some(tuple(e.lineage.inputs.items()), 40),
        )
    )
    # The template opens with its imports, whose line ends would stand before the doctype.
    return page.lstrip()


@dataclass(frozen=True)
class Style:
    """The page's stylesheet, and the source expression that its policy allows it by."""

    css: Markup
    source: str


@cache
def style() -> Style:
    """The stylesheet of all pages: the policy names its hash, so that no other style can be smuggled in."""
    css = environment().get_template("report.css").render()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return Style(Markup(css), f"'sha256-{digest}'")  # noqa: S704 - our own file


def policy() -> str:
    """What a page may load and run: nothing but its own stylesheet. It stands in the page, and serves as a header."""
    return f"default-src 'none'; style-src {style().source}; base-uri 'none'; form-action 'none'"


@cache
def environment() -> Environment:
    """The templates of this package; everything that is filled in is escaped."""
    found = Environment(
        loader=PackageLoader("simulator", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["n"] = numbers
    return found


def _farthest(drift: object) -> float:
    value = getattr(drift, "value", None)
    return float("inf") if value is None else -value


def _quality(results: Iterable[Quality]) -> Some[QualityGroup]:
    found: dict[str, dict[str, dict[Segment, dict[str, Quality]]]] = {}
    for one in results:
        found.setdefault(one.task, {}).setdefault(one.metric, {}).setdefault(one.group, {})[one.arm] = one
    groups = [
        QualityGroup(
            task=task,
            metric=title,
            higher_is_better=metric not in _LOWER_IS_BETTER,
            rows=some([_quality_row(s, metrics[metric][s]) for s in sorted(metrics[metric], key=place)]).first,
        )
        for task, metrics in found.items()
        for metric, title in _QUALITY.items()
        if metric in metrics
    ]
    return some(groups, _TASKS)


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
