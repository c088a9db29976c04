"""From features to model inputs: one place for defaults and scales, used offline and online alike."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.config import GroupSettings
from components.feature_list import AFFINITIES, HISTORY_READ, MODEL_RATES, Feature
from components.models.crosses import Cross, cross_columns
from components.models.fields import InputSpec

# A group's code is its index: the same order as ``simulator.metrics.GROUPS``.
GROUPS = ("new", "low", "high")

# Columns of a request that are known when it is made; the rest of an impression is its outcome.
REQUEST_COLUMNS = ("surface", "hour")

# Kinds that the encoder reads as numbers, and those among them that span orders of magnitude.
NUMERIC = ("count", "rate", "number", "amount", "level", "cross")
LOGARITHMIC = ("count", "number", "amount")

HISTORY = "user_last_videos"


def input_spec(features: tuple[Feature, ...]) -> InputSpec:
    """How the encoder reads the columns of the examples.

    Args:
        features: The feed's feature list.

    Returns:
        Id, categorical, numeric and history columns, whose column each one is, and the crosses of user and candidate.
    """
    read = [f for f in features if f.role == "input"]
    numeric = tuple(f.name for f in read if f.kind in NUMERIC)
    categories = tuple(f.name for f in read if f.kind == "category")
    user = ("user_id", *(f.name for f in read if f.entity == "user"), "log_tenure_days")
    video = ("video_id", *(f.name for f in read if f.entity == "video"))
    pair = tuple(f.name for f in read if f.entity == "pair")
    return InputSpec(
        ids=("user_id", "video_id", "video_creator_id"),
        categories=(*categories, *REQUEST_COLUMNS),
        numeric=(*numeric, "log_tenure_days", "log_video_age_days"),
        history=HISTORY,
        user_columns=user,
        video_columns=video,
        context_columns=(*REQUEST_COLUMNS, "log_video_age_days", *pair),
        crosses=crosses() if pair else (),
    )


def crosses() -> tuple[Cross, ...]:
    """How the inputs of (user, candidate) pairs come about: the user's lists at the candidate's topic and creator."""
    found = []
    for one in AFFINITIES:
        found.append(Cross(f"pair_{one.name}_share", one.keys, one.shares, one.item))
        found += [Cross(f"pair_{one.name}_{rate}_lift", one.keys, one.lifts(rate), one.item) for rate in MODEL_RATES]
    return tuple(found)


def crosses_of(table: pa.Table) -> dict[str, pa.Array]:
    """The pair's inputs of rows that hold a user's lists and a video.

    Args:
        table: Rows of (user, video) pairs with their model inputs.

    Returns:
        float32 columns by name.
    """
    return cross_columns(table, crosses())


def model_inputs(table: pa.Table, features: tuple[Feature, ...]) -> pa.Table:
    """Fill defaults and scale counts, so that every reader of features gives a model the same numbers.

    Counts and durations become log(1 + x): they span four orders of magnitude. A missing rate stays null
    and is read as the training window's mean. Of the history the encoder reads the newest entries.

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
        if feature.is_list:
            kind = pa.list_(_arrow(feature.dtype.removeprefix("list<").removesuffix(">")))
            column = pc.coalesce(pc.cast(column, kind), pa.scalar([], kind))
            if feature.name == HISTORY:
                column = pc.list_slice(column, 0, HISTORY_READ)
        elif feature.default is not None:
            column = pc.fill_null(pc.cast(column, _arrow(feature.dtype)), feature.default)
        if feature.kind in LOGARITHMIC:
            column = pc.cast(pc.log1p(pc.cast(column, pa.float64())), pa.float32())
        if feature.kind in ("rate", "level"):
            column = pc.cast(column, pa.float32())
        table = table.set_column(table.column_names.index(feature.name), feature.name, column)
    return table


def _arrow(dtype: str) -> pa.DataType:
    return {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32(), "float": pa.float32()}[dtype]


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
