"""From features to model inputs: one place for defaults and scales, used offline and online alike."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.config import GroupSettings
from components.feature_list import Feature
from components.models.fields import InputSpec

# A group's code is its index: the same order as ``simulator.metrics.GROUPS``.
GROUPS = ("new", "low", "high")

# Columns of a request that are known when it is made; the rest of an impression is its outcome.
REQUEST_COLUMNS = ("surface", "hour")


def input_spec(features: tuple[Feature, ...]) -> InputSpec:
    """How the encoder reads the columns of the examples.

    Args:
        features: The feed's feature list.

    Returns:
        Id, categorical, numeric and history columns, and whose column each one is.
    """
    numeric = tuple(f.name for f in features if f.kind in ("count", "rate", "number"))
    categories = tuple(f.name for f in features if f.kind == "category")
    user = ("user_id", *(f.name for f in features if f.entity == "user"), "log_tenure_days")
    video = ("video_id", *(f.name for f in features if f.entity == "video"))
    return InputSpec(
        ids=("user_id", "video_id", "video_creator_id"),
        categories=(*categories, *REQUEST_COLUMNS),
        numeric=(*numeric, "log_tenure_days", "log_video_age_days"),
        history="user_last_videos",
        user_columns=user,
        video_columns=video,
        context_columns=(*REQUEST_COLUMNS, "log_video_age_days"),
    )


def model_inputs(table: pa.Table, features: tuple[Feature, ...]) -> pa.Table:
    """Fill defaults and scale counts, so that every reader of features gives a model the same numbers.

    Counts and durations become log(1 + x): they span four orders of magnitude. A missing rate stays null
    and is read as the training window's mean.

    Args:
        table: Raw features as Feast returns them, plus any other columns.
        features: The feature list.

    Returns:
        The same rows with every feature column typed and filled.
    """
    for feature in features:
        if feature.name not in table.column_names:
            continue
        column = table[feature.name].combine_chunks()
        if feature.kind == "list":
            column = pc.coalesce(pc.cast(column, pa.list_(pa.int64())), pa.scalar([], pa.list_(pa.int64())))
        elif feature.default is not None:
            column = pc.fill_null(pc.cast(column, _arrow(feature)), feature.default)
        if feature.kind in ("count", "number"):
            column = pc.cast(pc.log1p(pc.cast(column, pa.float64())), pa.float32())
        if feature.kind == "rate":
            column = pc.cast(column, pa.float32())
        table = table.set_column(table.column_names.index(feature.name), feature.name, column)
    return table


def _arrow(feature: Feature) -> pa.DataType:
    return {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}[feature.dtype]


def log_days(days: pa.ChunkedArray) -> pa.ChunkedArray:
    """log(1 + days), float32; null stays null, negative counts as 0."""
    return pc.cast(pc.log1p(pc.cast(pc.max_element_wise(days, 0, skip_nulls=False), pa.float64())), pa.float32())


def days_between(moment: pa.ChunkedArray, since: pa.ChunkedArray) -> pa.ChunkedArray:
    """Full 24-hour days from ``since`` to ``moment``; int64, null where ``since`` is unknown."""
    micros = pc.cast(pc.subtract(pc.cast(moment, pa.int64()), pc.cast(since, pa.int64())), pa.float64())
    return pc.cast(pc.floor(pc.divide(micros, 86_400_000_000.0)), pa.int64())


def activity_threshold(tenure_days: pa.Array, impressions: pa.Array, groups: GroupSettings) -> float:
    """The impressions that divide low from high activity: the median over rows of users who are not new.

    Args:
        tenure_days: Days since registration at the exposure, null = unknown.
        impressions: The user's impressions in the days before (``groups.activity_days``).
        groups: Thresholds.

    Returns:
        The median, or 0 when every row is of a new user.
    """
    old = ~_is_new(tenure_days, groups)
    values = impressions.to_numpy(zero_copy_only=False)[old]
    return float(np.median(values)) if len(values) else 0.0


def user_group(tenure_days: pa.Array, impressions: pa.Array, threshold: float, groups: GroupSettings) -> pa.Array:
    """Group of each row's user as of the exposure: 0 new, 1 low activity, 2 high activity; int8.

    Args:
        tenure_days: Days since registration at the exposure; unknown is never new.
        impressions: The user's impressions in the days before.
        threshold: From ``activity_threshold`` over the training window.
        groups: Thresholds.

    Returns:
        int8 array, an index into ``GROUPS``.
    """
    values = impressions.to_numpy(zero_copy_only=False)
    group = np.where(values > threshold, 2, 1)
    return pa.array(np.where(_is_new(tenure_days, groups), 0, group).astype(np.int8))


def _is_new(tenure_days: pa.Array, groups: GroupSettings) -> NDArray[np.bool_]:
    tenure: NDArray[np.int64] = pc.fill_null(tenure_days, 1 << 40).to_numpy(zero_copy_only=False)
    return tenure <= groups.new_tenure_days
