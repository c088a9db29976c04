"""The gate of a day's feature snapshots, generated from the feature list: pure, as the log's."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

import duckdb

from components.feature_list import SUMS, WINDOWS, Entity, Feature, counters
from components.feed.schema import TIME
from components.validation.control import recent
from components.validation.drift import drift
from components.validation.learned import LEVEL_ALPHA, learned
from components.validation.log_gate import Verdict
from components.validation.outcome import Level, Outcome, within
from components.validation.profiles import RATE_EVIDENCE, histogram_of, log_bins, unit_bins
from components.validation.ratios import mean, measured
from components.validation.scan import Rows, micro, quoted_name, scan, schema_of
from components.validation.summary import Histogram, Measure, Summary

# Counts are kept in single precision.
SUM_SLACK = 1e-4

# Single-precision rounding may pass a limit by its last bit.
LAST_BIT = 1e-6

# Kinds with one number to a row.
PLAIN = ("count", "amount", "rate", "level")

# What all videos of a creator share. Where it drifts, a few creators may have moved; what a broken day does to it is
# stopped by the counts of the videos, which it is a sum of.
OF_CREATORS = "video_creator_"

GENERATED = "generated from the feature list"


def check_features(
    day: date,
    snapshots: Mapping[Entity, Rows],
    features: tuple[Feature, ...],
    feed_age_days: int,
    history: Sequence[Summary],
) -> Verdict:
    """Check the snapshots of a day.

    Args:
        day: The snapshots' day.
        snapshots: By entity, one row per user or video.
        features: The feed's feature list.
        feed_age_days: Days of the feed up to and with the day: what a window can reach back to. Days are only compared
            with days whose window is as full.
        history: Summaries of other days; only those shortly before the day count.

    Returns:
        The verdict. Columns that are missing or of another type are judged by that alone.
    """
    shape = [_columns(entity, table, features) for entity, table in snapshots.items()]
    if any(one.stops for one in shape):
        return Verdict(tuple(shape), None)
    fixed = [*shape, *_sums_agree(snapshots, features)]
    taught: list[Outcome] = []
    summary = Summary(day)
    earlier = recent(history, day)
    for entity, table in snapshots.items():
        own, found = _measure(day, entity, table, counters(features, entity), feed_age_days)
        fixed += found
        name = f"{entity}_features"
        alpha = LEVEL_ALPHA / len(snapshots)
        past = [_of(entity, one) for one in earlier]
        taught += learned(
            name,
            own,
            past,
            lambda _: "fail",
            lambda measure: measure.removesuffix("_null_share") if measure.endswith("_null_share") else "",
            {"fail": alpha / 2, "warn": alpha / 2},
        )
        levels: dict[str, Level] = {
            measure: "warn" if measure.startswith(OF_CREATORS) else "fail" for measure in own.histograms
        }
        taught += drift(name, own, past, alpha / 2, fails=levels)
        summary = Summary(day, {**summary.measures, **own.measures}, {**summary.histograms, **own.histograms})
    return Verdict(tuple(fixed), summary, tuple(taught))


def _columns(entity: Entity, table: Rows, features: tuple[Feature, ...]) -> Outcome:
    found = schema_of(table)
    wanted = {f"{entity}_id": "int64", "available_at": str(TIME)}
    wanted |= {f.name: "list" if f.is_list else f.dtype for f in counters(features, entity)}
    kinds = {"float32": "float", "list": "list"}
    wrong = [
        f"{name}: {found.field(name).type if name in found.names else 'missing'}"
        for name, kind in wanted.items()
        if name not in found.names or not str(found.field(name).type).startswith(kinds.get(kind, kind))
    ]
    return within(f"{entity}_features", "columns", len(wrong), high=0, rule=GENERATED, detail=", ".join(wrong))


def _measure(
    day: date, entity: Entity, table: Rows, features: Sequence[Feature], age: int
) -> tuple[Summary, list[Outcome]]:
    """What is kept of a snapshot, and the expectations that hold on any day."""
    name, key = f"{entity}_features", f"{entity}_id"
    plain = [feature for feature in features if feature.kind in PLAIN]
    rules = dict(_rules(entity, plain))
    nulls = {feature.name: f"{quoted_name(feature.name)} IS NULL" for feature in features}
    with scan({name: table}) as connection:
        sums = ", ".join(f"coalesce(sum(({sql})::INT), 0)" for sql in (*rules.values(), *nulls.values()))
        query = f"SELECT count(*), count(*) - count(DISTINCT {key}), {sums} FROM {name}"  # noqa: S608 - the feature list
        rows, repeats, *counted = connection.execute(query).fetchall()[0]
        histograms = dict(_histograms(connection, entity, name, plain, int(rows), age))
        means = _means(connection, entity, name, plain, age)
    broken = dict(zip(rules, counted[: len(rules)], strict=True))
    empty = dict(zip(nulls, counted[len(rules) :], strict=True))
    found = [
        within(name, "enough_rows", rows, low=1, rule=GENERATED),
        within(name, "one_row_per_key", repeats, high=0, column=key, rule=GENERATED),
        *(
            within(name, rule, int(count), high=0, column=rule.split(" ", maxsplit=1)[0], rule=GENERATED)
            for rule, count in broken.items()
        ),
    ]
    return Summary(day, _measures(entity, int(rows), empty, age) | means, histograms), found


def _rules(entity: Entity, features: Sequence[Feature]) -> Iterator[tuple[str, str]]:
    """What no row of a snapshot does, by a name that begins with its column."""
    from components.partials import MAX_COMPLETION

    yield f"{entity}_id is null", f"{entity}_id IS NULL"
    for feature in features:
        column = quoted_name(feature.name)
        yield f"{feature.name} is no number", f"isnan({column}) OR isinf({column})"
        if feature.kind in ("count", "amount"):
            yield f"{feature.name} is negative", f"{column} < 0"
        else:
            top = MAX_COMPLETION if "completion" in feature.source else 1
            yield f"{feature.name} is outside 0 to {top:g}", f"{column} NOT BETWEEN 0 AND {top + LAST_BIT}"
    names = {feature.name for feature in features}
    for source in SUMS:
        for short, long in pairwise(WINDOWS):
            a, b = f"{entity}_{source}_{long}d", f"{entity}_{source}_{short}d"
            if a in names and b in names:
                yield f"{a} is less than {b}", f"{quoted_name(a)} < {quoted_name(b)}"


def _sums_agree(snapshots: Mapping[Entity, Rows], features: Sequence[Feature]) -> list[Outcome]:
    """What all users were shown in a window is what all videos were shown in it: both come from the same log."""
    names = {feature.name for feature in features}
    windows = [f"{source}_{window}d" for source in ("impressions", "watch_s") for window in WINDOWS]
    shared = [one for one in windows if all(f"{entity}_{one}" in names for entity in snapshots)]
    if len(snapshots) < 2 or not shared:
        return []
    totals: dict[Entity, tuple[float, ...]] = {}
    with scan({f"{entity}_features": table for entity, table in snapshots.items()}) as connection:
        for entity in snapshots:
            sums = ", ".join(f"coalesce(sum({quoted_name(f'{entity}_{name}')}::DOUBLE), 0)" for name in shared)
            totals[entity] = connection.execute(f"SELECT {sums} FROM {entity}_features").fetchall()[0]  # noqa: S608
    rule = "users and videos are summed from the same log"
    return [
        within(
            "user_features",
            f"{name} differs from the videos'",
            abs(user - video) / max(user, video, 1.0),
            high=SUM_SLACK,
            column=f"user_{name}",
            rule=rule,
            detail=f"users {user:.6g}, videos {video:.6g}",
        )
        for name, user, video in zip(shared, totals["user"], totals["video"], strict=True)
    ]


def _means(
    connection: duckdb.DuckDBPyConnection, entity: Entity, table: str, features: Sequence[Feature], age: int
) -> dict[str, Measure]:
    """Means of the counts, which a few rows of another unit move although they hardly change a distribution."""
    counts = [mean(f"{one.name}_mean", micro(quoted_name(one.name)), 1e6) for one in features if one.kind == "count"]
    found = measured(connection, table, f"{entity}_id", counts)
    return {f"{name}[{min(age, max(WINDOWS))}d]": one for name, one in found.items()}


def _measures(entity: Entity, rows: int, empty: Mapping[str, Any], age: int) -> dict[str, Measure]:
    error = 1 / max(rows, 1) ** 0.5
    # How many are known grows until the longest window is full.
    found = {f"{entity}_rows[{min(age, max(WINDOWS))}d]": Measure(rows, "count", rows, error)}
    if rows:
        found |= {f"{name}_null_share": Measure(int(n) / rows, "share", rows, error) for name, n in empty.items()}
    return found


def _histograms(
    connection: duckdb.DuckDBPyConnection,
    entity: Entity,
    table: str,
    features: Sequence[Feature],
    rows: int,
    age: int,
) -> Iterator[tuple[str, Histogram]]:
    from components.partials import MAX_COMPLETION

    for feature in features:
        column = quoted_name(feature.name)
        top = MAX_COMPLETION if feature.source == "completion" else 1.0
        bins = log_bins(column) if feature.kind in ("count", "amount") else unit_bins(column, top)
        # One partial less in the window is another distribution.
        coverage = min(age, feature.window_days or 1)
        source, units = table, rows
        if feature.window_days in WINDOWS:
            # Whoever was not there in the window has nothing, of as many as were there before the window.
            shown = quoted_name(f"{entity}_impressions_{feature.window_days}d")
            least = RATE_EVIDENCE if feature.kind == "rate" else 1
            source = f"(SELECT {column} FROM {table} WHERE {shown} >= {least})"  # noqa: S608 - the feature list
            ((units,),) = connection.execute(f"SELECT count(*) FROM {source}").fetchall()  # noqa: S608
        if feature.name.startswith(OF_CREATORS):
            # Not fewer creators than different numbers of impressions.
            shown = quoted_name(f"{OF_CREATORS}impressions_{feature.window_days}d")
            ((units,),) = connection.execute(f"SELECT count(DISTINCT {shown}) FROM {table}").fetchall()  # noqa: S608
        yield feature.name, histogram_of(connection, source, bins, int(units), coverage)


def _of(entity: Entity, summary: Summary) -> Summary:
    """The part of a summary that is about one entity."""
    return Summary(
        summary.day,
        {name: one for name, one in summary.measures.items() if name.startswith(f"{entity}_")},
        {name: one for name, one in summary.histograms.items() if name.startswith(f"{entity}_")},
    )
