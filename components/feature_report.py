"""Feature report step: what the day's inputs look like, how they moved, and what the models make of them.

All of it from sampled rows of examples that the day has anyway: those of the held-out day, and those of the week before
it that are in the training window.
"""

from dataclasses import asdict, dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray

from components.compute import use_threads
from components.context import Context, StepResult, inputs_of
from components.dataset import read_examples
from components.feature_list import Feature
from components.feature_stats import Distribution, describe, importance, stability
from components.feed.source import features_of
from components.inputs import GROUPS, input_spec
from components.train import ROLES, bundle_files

PAGE, RECORD = "feature_report.html", "feature_report.json"

# Rows that are described and compared, and rows that are scored once per input and arm.
ROWS, SCORED_ROWS = 20_000, 2_048
WEEK = 7
# Above this index a distribution has moved much.
MOVED = 0.25


@dataclass(frozen=True)
class FeatureFacts:
    """One input of the models.

    Attributes:
        name: Column.
        entity: Whose it is; ``request`` for what comes with the request.
        meaning: One sentence.
        all: Its distribution over all sampled impressions.
        groups: The same per user group.
        psi: Drift against the week before; None where there is none to compare with.
        importance: Growth of each arm's loss when it is shuffled; None where it could not be measured.
    """

    name: str
    entity: str
    meaning: str
    all: Distribution
    groups: dict[str, Distribution]
    psi: float | None
    importance: dict[str, float | None]


@dataclass(frozen=True)
class FeatureReport:
    """The record behind the page.

    Attributes:
        day: Interval day.
        holdout_day: Whose impressions are described.
        reference_days: The days before it that it is compared with.
        rows: Sampled impressions.
        scored_rows: Those of them that importance was measured on.
        features: Inputs, those first that matter most to the treatment.
    """

    day: str
    holdout_day: str
    reference_days: tuple[str, ...]
    rows: int
    scored_rows: int
    features: tuple[FeatureFacts, ...]


def feature_report(context: Context, day: date) -> StepResult:
    """Describe the inputs of a day and write the page.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its training set and both bundles must be in the lake.

    Returns:
        Hash of the record, where the page lies, which inputs moved, and what matters most to each arm.

    Raises:
        MissingPartitionError: When the training set or a bundle is not in the lake.
    """
    use_threads(context.pipeline)
    training_set = context.runs.get("training_set", day)
    models = {role: context.runs.get(f"model_{role}", day) for role in ROLES}
    report = measure(context, day, training_set.json("training_set.json"))
    inputs = inputs_of(training_set, *models.values())
    with context.runs.write("feature_report", day, context.pipeline.config_hash, inputs) as writer:
        writer.json(RECORD, asdict(report))
        writer.aside[PAGE] = render(report).encode()
    partition = context.runs.get("feature_report", day)
    facts: dict[str, Any] = {
        "page": partition.aside(PAGE),
        "features": len(report.features),
        "moved": [one.name for one in report.features if one.psi is not None and one.psi > MOVED],
    }
    for role in ROLES:
        ranked = sorted(report.features, key=lambda one, r=role: -(one.importance[r] or 0.0))  # type: ignore[misc]
        facts[f"top_{role}"] = [one.name for one in ranked[:3]]
    return StepResult("feature_report", day, inputs_of(partition), facts)


def measure(context: Context, day: date, record: dict[str, Any]) -> FeatureReport:
    """Everything on the page.

    Args:
        context: Pipeline and settings; both bundles of the day are in the lake.
        day: Interval day.
        record: The training set's.

    Returns:
        The record.
    """
    from components.models import bundle

    held = date.fromisoformat(record["holdout_day"])
    threshold = record["activity_threshold"]
    week = [date.fromisoformat(one) for one in record["train_days"]]
    week = [one for one in week if held - timedelta(days=WEEK) <= one < held]
    features = {feature.name: feature for feature in features_of(context.pipeline.feed)}
    names = [name for name in input_spec(tuple(features.values())).columns if name not in ("user_id", "video_id")]
    table = sampled(read_examples(context, [held], threshold), ROWS)
    before = [sampled(read_examples(context, [one], threshold, names), ROWS // len(week)) for one in week]
    reference = pa.concat_tables(before) if before else None

    scored = sampled(table, SCORED_ROWS)
    labels: dict[str, NDArray[np.float64]] = {
        task.name: scored[task.name].to_numpy(zero_copy_only=False).astype(np.float64)
        for task in context.pipeline.tasks
    }
    matters: dict[str, dict[str, float | None]] = {}
    for done, role in enumerate(ROLES):
        context.notify(done, len(ROLES), f"importance for {role}")
        fitted = bundle.load(bundle_files(context.runs.get(f"model_{role}", day)))
        matters[role] = importance(fitted, scored, labels)
    context.notify(len(ROLES), len(ROLES), "feature report")
    group = table["group"].to_numpy()
    found = []
    for name in names:
        feature, column = features.get(name), table[name]
        default = _default(feature)
        groups = {one: describe(column.filter(pa.array(group == code)), default) for code, one in enumerate(GROUPS)}
        psi = None if reference is None else stability(reference[name], column)
        weights: dict[str, float | None] = {role: matters[role].get(name) for role in ROLES}
        entity, meaning = ("request", _REQUEST.get(name, "")) if feature is None else (feature.entity, feature.meaning)
        found.append(FeatureFacts(name, entity, meaning, describe(column, default), groups, psi, weights))
    found.sort(key=lambda one: (-(one.importance["treatment"] or 0.0), one.name))
    days = tuple(one.isoformat() for one in week)
    return FeatureReport(day.isoformat(), held.isoformat(), days, table.num_rows, scored.num_rows, tuple(found))


_REQUEST = {
    "surface": "Where in the product the request was made",
    "hour": "Local hour of the request",
    "log_tenure_days": "log(1 + days since sign-up)",
    "log_video_age_days": "log(1 + days since upload)",
}


def _default(feature: Feature | None) -> Any:
    """The default as the examples hold it: scaled counts of nothing are 0."""
    return None if feature is None else feature.default


def sampled(table: pa.Table, rows: int) -> pa.Table:
    """At most so many rows, in their order; the same table gives the same rows."""
    if table.num_rows <= rows:
        return table
    return table.take(pa.array(np.sort(np.random.default_rng(3).choice(table.num_rows, rows, replace=False))))


def render(report: FeatureReport) -> str:
    """The page: one file, no network.

    Args:
        report: The record.

    Returns:
        HTML.
    """
    style = files("simulator.report").joinpath("report.css").read_text(encoding="utf-8")
    weights = [w for one in report.features for w in one.importance.values() if w is not None]
    return _template().render(
        report=report, style=style, most=max([*weights, 1e-9]), moved=MOVED, roles=ROLES, groups=GROUPS
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("components", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.4g}"
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
    return environment.get_template("feature_report.html")
