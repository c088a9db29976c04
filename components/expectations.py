"""What a good day looks like, as Great Expectations suites: generated from the schema and the feature list."""

from itertools import pairwise
from typing import TYPE_CHECKING

from components.config import Pipeline
from components.feature_list import SUMS, WINDOWS, Entity, Feature, counters
from components.feed.schema import BEHAVIOURS, LOG

if TYPE_CHECKING:
    from great_expectations.expectations import Expectation

# Wide limits that only a broken day crosses, from what short-video feeds look like.
RATE_LIMITS = {"click": (0.005, 0.98), "finish": (0.005, 0.95), "skip": (0.005, 0.95), "long_view": (0.005, 0.95)}
MEAN_WATCH_MS = (300, 300_000)


def log_suite(pipeline: Pipeline) -> list["Expectation"]:
    """Expectations on the rows of a day's log.

    Args:
        pipeline: Gives limits of the feed.

    Returns:
        Expectations for a frame with the log's columns.
    """
    import great_expectations.expectations as gxe

    limit = pipeline.feed.max_watch_ms
    suite: list[Expectation] = [gxe.ExpectTableColumnsToMatchSet(column_set=list(LOG.names), exact_match=True)]
    suite += [gxe.ExpectColumnValuesToNotBeNull(column=f.name) for f in LOG if not f.nullable]
    suite += [
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["session_id", "position"]),
        gxe.ExpectColumnValuesToBeBetween(column="watch_ms", min_value=0, max_value=limit),
        gxe.ExpectColumnValuesToBeBetween(column="duration_ms", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="position", min_value=0),
        gxe.ExpectColumnValuesToBeBetween(column="propensity", min_value=0, max_value=1, strict_min=True),
    ]
    suite += [gxe.ExpectColumnValuesToBeInSet(column=name, value_set=[0, 1]) for name in BEHAVIOURS]
    return suite


def day_suite(pipeline: Pipeline, recorded: set[str]) -> list["Expectation"]:
    """Expectations on the one-row table of a day's totals (see ``validate.day_totals``).

    Args:
        pipeline: Gives limits.
        recorded: Behaviours that the feed records on this day.

    Returns:
        Expectations for a frame of one row.
    """
    import great_expectations.expectations as gxe

    limits = pipeline.validation
    suite: list[Expectation] = [
        gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=limits.min_rows),
        gxe.ExpectColumnValuesToBeBetween(column="refused_share", min_value=0, max_value=limits.max_refused_share),
        gxe.ExpectColumnValuesToBeBetween(column="users", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(
            column="mean_watch_ms", min_value=MEAN_WATCH_MS[0], max_value=MEAN_WATCH_MS[1]
        ),
        gxe.ExpectColumnValuesToBeBetween(column="unknown_user_share", max_value=0.05, severity="warning"),
        gxe.ExpectColumnValuesToBeBetween(column="unknown_video_share", max_value=0.05, severity="warning"),
    ]
    for name, (low, high) in RATE_LIMITS.items():
        if name in recorded:
            suite.append(gxe.ExpectColumnValuesToBeBetween(column=f"{name}_rate", min_value=low, max_value=high))
    # A behaviour that nobody shows all day is more often a broken client than a quiet audience.
    suite += [
        gxe.ExpectColumnValuesToBeBetween(column=f"{name}_rate", min_value=0, strict_min=True, severity="warning")
        for name in sorted(recorded)
    ]
    return suite


def feature_suite(features: tuple[Feature, ...], entity: Entity) -> list["Expectation"]:
    """Expectations on a day's snapshot of one entity.

    Args:
        features: The feature list.
        entity: Whose snapshot.

    Returns:
        Expectations for a frame with the snapshot's columns.
    """
    import great_expectations.expectations as gxe

    from components.features import MAX_COMPLETION

    key = f"{entity}_id"
    suite: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToNotBeNull(column=key),
        gxe.ExpectColumnValuesToBeUnique(column=key),
    ]
    chosen = counters(features, entity)
    for feature in chosen:
        if feature.kind == "count":
            suite.append(gxe.ExpectColumnValuesToBeBetween(column=feature.name, min_value=0))
        elif feature.kind == "rate":
            top = MAX_COMPLETION if feature.source == "completion" else 1
            # Single-precision rounding may pass the limit by its last bit.
            suite.append(gxe.ExpectColumnValuesToBeBetween(column=feature.name, min_value=0, max_value=top + 1e-6))
    names = {feature.name for feature in chosen}
    for column in SUMS:
        for short, long in pairwise(WINDOWS):
            a, b = f"{entity}_{column}_{long}d", f"{entity}_{column}_{short}d"
            if a in names:
                suite.append(gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A=a, column_B=b, or_equal=True))
    return suite
