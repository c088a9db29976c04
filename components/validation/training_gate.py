"""The gate of a training set: its days against each other, its balance, and features that know too much.

The held-out day is the newest that was joined; it is held to the days of the window.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from components.config import Pipeline
from components.feature_list import Feature
from components.inputs import GROUPS, LOGARITHMIC, NUMERIC
from components.partials import MAX_COMPLETION
from components.validation.control import recent
from components.validation.drift import drift
from components.validation.learned import LEVEL_ALPHA, learned
from components.validation.log_gate import Verdict
from components.validation.outcome import Level, Outcome, within
from components.validation.profiles import RATE_EVIDENCE, histogram_of, unit_bins
from components.validation.ratios import Ratio, measured, share
from components.validation.scan import Rows, quoted_name, scan, schema_of
from components.validation.summary import Histogram, Summary

# Rows of the held-out day on which single features are tried.
TRIED_ROWS = 50_000

# A feature that ranks a label so well alone has seen it.
LEAK_LIMITS: tuple[tuple[Level, float], ...] = (("fail", 0.95), ("warn", 0.90))

# A task needs examples of both kinds; fewer than this of either tell nothing from chance. From so many rows on, none at
# all is no chance.
FEW_EXAMPLES, MANY_EXAMPLES = 30, 1_000

# Counts and durations were scaled to log(1 + x): eight bins to a doubling, as of the raw value.
PER_DOUBLING = 8 / math.log(2)


@dataclass(frozen=True)
class TrainingSet:
    """What the gate reads.

    Attributes:
        days: Examples by day, oldest first; the last one is held out. Counts are scaled, as models read them.
        impressions: Rows of each day's log: a join neither loses nor adds any.
        features: The feed's feature list.
        threshold: Activity that divides low from high, on the examples' scale.
        feed_age_days: Days of the feed up to and with the held-out day.
    """

    days: Mapping[date, Rows]
    impressions: Mapping[date, int]
    features: tuple[Feature, ...]
    threshold: float
    feed_age_days: int


def check_training_set(given: TrainingSet, pipeline: Pipeline) -> Verdict:
    """Check the examples of a window and its held-out day.

    Args:
        given: The examples.
        pipeline: Tasks and groups.

    Returns:
        The verdict; its summary is the held-out day's.
    """
    *window, held = sorted(given.days)
    trained = [measure_examples(given, day, pipeline) for day in window]
    today = measure_examples(given, held, pipeline)
    earlier = recent(trained, held)
    fixed = (*_joined(given), *_balance(trained, pipeline), *_leaks(given, held, pipeline))
    taught = (
        *learned("training_set", today, earlier, _level, _column, {"fail": LEVEL_ALPHA / 2, "warn": LEVEL_ALPHA / 2}),
        *drift("training_set", today, earlier, LEVEL_ALPHA / 2),
    )
    return Verdict(fixed, today, taught)


def measure_examples(given: TrainingSet, day: date, pipeline: Pipeline) -> Summary:
    """What is kept of a day's examples.

    Args:
        given: The examples.
        day: One of their days.
        pipeline: Tasks and groups.

    Returns:
        Positive rates per task and group, shares of groups and of missing features, and how features are distributed.
    """
    names = set(schema_of(given.days[day]).names)
    numbers = [one for one in given.features if one.kind in NUMERIC and one.name in names]
    with scan({"examples": given.days[day]}) as connection:
        _grouped_view(connection, given, pipeline)
        measures = measured(connection, "grouped", "user_id", list(_ratios(pipeline, numbers)))
        (users,) = connection.execute("SELECT count(DISTINCT user_id) FROM examples").fetchall()[0]
        # The snapshots that a request sees end on the day before.
        age = given.feed_age_days - (max(given.days) - day).days - 1
        histograms = dict(_histograms(connection, numbers, int(users), age))
    return Summary(day, measures, histograms)


def _grouped_view(connection: duckdb.DuckDBPyConnection, given: TrainingSet, pipeline: Pipeline) -> None:
    activity = quoted_name(f"user_impressions_{pipeline.groups.activity_days}d")
    new = f"coalesce(tenure_days <= {pipeline.groups.new_tenure_days}, FALSE)"
    connection.execute(
        f"CREATE TEMP VIEW grouped AS SELECT *, CASE WHEN {new} THEN 'new' "  # noqa: S608 - names of the feature list
        f"WHEN {activity} > {given.threshold!r} THEN 'high' ELSE 'low' END AS user_group FROM examples"
    )


def _ratios(pipeline: Pipeline, numbers: Sequence[Feature]) -> Iterator[Ratio]:
    for group in GROUPS:
        yield share(f"group_share[{group}]", f"user_group = '{group}'")
    for task in pipeline.tasks:
        column = quoted_name(task.name)
        # Of a completion the mean matters as of a rate: in thousandths of a row.
        top = f"CAST(round(1000 * least({column}, 1)) AS BIGINT)"
        for group in ("", *GROUPS):
            name = f"{task.name}_rate[{group}]" if group else f"{task.name}_rate"
            inside = f"user_group = '{group}'" if group else "TRUE"
            if task.loss == "mse":
                bottom = f"CASE WHEN ({inside}) AND {column} IS NOT NULL THEN 1000 END"
                yield Ratio(name, f"CASE WHEN {inside} THEN {top} END", bottom, "share")
            else:
                yield share(name, f"{column} > 0", inside)
        yield share(f"{task.name}_unlabelled_share", f"{column} IS NULL")
    for feature in numbers:
        yield share(f"{feature.name}_null_share", f"{quoted_name(feature.name)} IS NULL")


def _histograms(
    connection: duckdb.DuckDBPyConnection, numbers: Sequence[Feature], users: int, age: int
) -> Iterator[tuple[str, Histogram]]:
    names = {feature.name for feature in numbers}
    for feature in numbers:
        # A window that is not full yet makes another feature.
        coverage = min(age, feature.window_days or 1)
        source = "examples"
        shown = f"{feature.entity}_impressions_{feature.window_days}d"
        if feature.kind == "rate" and shown in names:
            # Half an impression below, since the examples hold the logarithm in single precision.
            least = math.log(RATE_EVIDENCE + 0.5)
            source = f"(SELECT {quoted_name(feature.name)} FROM examples WHERE {quoted_name(shown)} > {least})"  # noqa: S608
        yield feature.name, histogram_of(connection, source, _bins(feature), users, coverage)


def _bins(feature: Feature) -> str:
    """SQL of a bin of a model's input, as the examples hold it."""
    column = quoted_name(feature.name)
    if feature.kind in LOGARITHMIC:
        return f"CAST(floor({PER_DOUBLING} * {column}) AS INT)"
    if feature.kind == "cross":
        # Lifts are differences of rates, on both sides of zero.
        return f"CAST(floor(20 * {column}) AS INT)"
    return unit_bins(column, MAX_COMPLETION if "completion" in feature.source else 1.0)


def _joined(given: TrainingSet) -> list[Outcome]:
    """A point-in-time join keeps every impression once."""
    from pyarrow.dataset import Dataset

    found = []
    for day, rows in given.days.items():
        count = rows.count_rows() if isinstance(rows, Dataset) else rows.num_rows
        wanted = given.impressions[day]
        rule = "the day's impressions, each once"
        found.append(within("training_set", f"examples[{day}]", count, wanted, wanted, rule=rule))
    return found


def _balance(trained: Sequence[Summary], pipeline: Pipeline) -> list[Outcome]:
    """Every task has both kinds of examples, every group has examples."""
    found = []
    for task in pipeline.tasks:
        rates = [one.measures[f"{task.name}_rate"] for one in trained if f"{task.name}_rate" in one.measures]
        unit = 1000 if task.loss == "mse" else 1
        rows = sum(one.rows for one in rates) / unit
        positive = sum(one.value * one.rows for one in rates) / unit
        rarer = min(positive, rows - positive)
        rule = "examples of the rarer label in the window"
        # A window this large without any is broken; a smaller one may only be small.
        level: Level = "fail" if rows >= MANY_EXAMPLES else "warn"
        found += [
            within("training_set", f"{task.name}_has_both", rarer, low=1, column=task.name, level=level, rule=rule),
            within(
                *("training_set", f"{task.name}_has_enough", rarer, FEW_EXAMPLES),
                column=task.name,
                level="warn",
                rule=rule,
            ),
        ]
    for group in GROUPS:
        shares = [one.measures[f"group_share[{group}]"] for one in trained if f"group_share[{group}]" in one.measures]
        rows = sum(one.value * one.rows for one in shares)
        rule = "examples of the group in the window"
        found.append(within("training_set", f"{group}_has_enough", rows, low=FEW_EXAMPLES, level="warn", rule=rule))
    return found


def _leaks(given: TrainingSet, held: date, pipeline: Pipeline) -> list[Outcome]:
    """The best single feature of each task, as sure as the rows allow."""
    rows = given.days[held]
    names = [one for one in schema_of(rows).names if _is_number(schema_of(rows).field(one).type)]
    features = {one.name for one in given.features} | {"log_tenure_days", "log_video_age_days", "hour"}
    columns = [name for name in names if name in features]
    tasks = [task.name for task in pipeline.tasks]
    listed = ", ".join(quoted_name(one) for one in (*columns, *tasks))
    with scan({"examples": rows}) as connection:
        # By a hash of the event, so that the choice depends on no order.
        query = (
            f"SELECT {listed} FROM examples ORDER BY hash(user_id, video_id, session_id, position) "  # noqa: S608
            f"LIMIT {TRIED_ROWS}"
        )
        table: pa.Table = connection.sql(query).to_arrow_table()
    ranks = {name: rankdata(_numbers(table, name)) for name in columns}
    labels = {name: _numbers(table, name) for name in tasks}
    surely = -float(ndtri(LEVEL_ALPHA / max(len(columns) * len(tasks), 1)))
    found = []
    for name, label in labels.items():
        best, which = 0.5, ""
        positive = label > (label[label > -np.inf].mean() if name == "completion" and len(label) else 0.5)
        ones, zeros = int(positive.sum()), int((~positive).sum())
        if not ones or not zeros:
            continue
        for column, rank in ranks.items():
            area = (float(rank[positive].sum()) - ones * (ones + 1) / 2) / (ones * zeros)
            if (area := max(area, 1 - area)) > best:
                best, which = area, column
        for level, allowed in LEAK_LIMITS:
            noise = surely * _area_error(allowed, ones, zeros)
            rule = f"AUC of the best of {len(columns)} features alone: {allowed:g}, and {noise:.2g} for chance"
            found.append(
                within(
                    *("training_set", f"{name}_leak_{level}", best, None, allowed + noise),
                    column=which,
                    level=level,
                    rule=rule,
                    detail=which,
                )
            )
    return found


def _area_error(area: float, ones: int, zeros: int) -> float:
    """Standard error of an AUC (Hanley and McNeil 1982, Radiology 143, eq. 2)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (ones - 1) * (q1 - area**2) + (zeros - 1) * (q2 - area**2)
    return math.sqrt(variance / (ones * zeros))


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as numbers; what is missing ranks below all, since missing can tell as much as a value."""
    values: NDArray[np.float64] = table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.where(np.isnan(values), -np.inf, values)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _level(name: str) -> Level:
    return "fail" if name.endswith("_unlabelled_share") else "warn"


def _column(name: str) -> str:
    for tail in ("_null_share", "_unlabelled_share", "_rate"):
        head, found, _ = name.partition(tail)
        if found:
            return head
    return ""
