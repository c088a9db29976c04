"""The point-in-time join over Arrow tables: which row of a view each request saw, then those rows' columns.

Feast's DuckDB store joins requests with *all* rows of their keys and then keeps one, so its cost grows with the rows of
history per key. Here a request's row is found by bisection in the view's rows in order of key and time, and columns are
touched once, when the result is put together. The rows are those of Feast's own join, which a test holds it against.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import OnDemandFeatureView
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from numpy.typing import NDArray

MICROS = pa.timestamp("us", "UTC")


def seen_rows(
    wanted: Sequence[pa.ChunkedArray],
    moments: NDArray[np.int64],
    keys: Sequence[pa.ChunkedArray],
    stamps: NDArray[np.int64],
    ttl: timedelta | None,
    created: NDArray[np.int64] | None = None,
) -> pa.Array:
    """For each request the newest row of its key that is not newer than the request, nor older than it may be.

    Args:
        wanted: Key columns of N requests.
        moments: int64 [N], microseconds since 1970.
        keys: The same key columns of M rows.
        stamps: int64 [M], when each row became visible.
        ttl: How old a row may be, both ends included; None or zero for ever.
        created: int64 [M], decides between rows of one key and time; without it the last of them counts.

    Returns:
        int64 [N], numbers of rows, null where there is none.
    """
    left, right = _codes(wanted, keys)
    order = np.lexsort((stamps, right) if created is None else (created, stamps, right))
    right, stamps = right[order], stamps[order]
    # Key and time as one number that sorts like the pair: times by their place among all times of the rows.
    times = np.unique(stamps)
    steps = len(times) + 1
    place = right * steps + np.searchsorted(times, stamps) + 1
    at = np.searchsorted(place, left * steps + np.searchsorted(times, moments, side="right"), side="right") - 1
    inside = np.maximum(at, 0)
    found = (at >= 0) & (left >= 0)
    if len(right):
        found &= right[inside] == left
        if ttl:
            found &= stamps[inside] >= moments - int(ttl / timedelta(microseconds=1))
        return pa.array(order[inside], mask=~found)
    return pa.nulls(len(moments), pa.int64())


def _codes(
    wanted: Sequence[pa.ChunkedArray], keys: Sequence[pa.ChunkedArray]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys of both sides as numbers, -1 for a request whose key no row has."""
    left = np.zeros(len(wanted[0]), np.int64)
    right = np.zeros(len(keys[0]), np.int64)
    for asked, held in zip(wanted, keys, strict=True):
        values = pc.unique(held)
        codes = pc.fill_null(pc.index_in(pc.cast(asked, held.type), values), -1).to_numpy()
        left = np.where((left < 0) | (codes < 0), -1, left * max(len(values), 1) + codes)
        right = right * max(len(values), 1) + pc.index_in(held, values).to_numpy()
    return left, right


def micros(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Times as microseconds since 1970; without a zone they are UTC, as Feast takes them."""
    numbers: NDArray[np.int64] = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy()
    return numbers


class AsofRetrievalJob(RetrievalJob):
    """A finished join, as Feast hands it to its callers.

    Args:
        table: The result before on-demand views.
        views: On-demand views, which Feast computes from it.
        full_feature_names: Whether columns carry their view's name.
        metadata: What was asked, None where it was no join.
    """

    def __init__(
        self,
        table: pa.Table,
        views: list[OnDemandFeatureView],
        full_feature_names: bool,
        metadata: RetrievalMetadata | None,
    ) -> None:
        self._table, self._views = table, views
        self._full_feature_names, self._metadata = full_feature_names, metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether columns carry their view's name."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Views that Feast computes from the result."""
        return self._views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._table

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._table.to_pandas()
        return frame


def metadata_of(frame: pd.DataFrame, refs: list[str], times: "pd.Series[Any]", time: str) -> RetrievalMetadata:
    """What a join was asked for."""
    first, last = (_moment(one) for one in (times.min(), times.max()))
    return RetrievalMetadata(
        features=refs, keys=sorted(set(frame.columns) - {time}), min_event_timestamp=first, max_event_timestamp=last
    )


def _moment(stamp: Any) -> datetime:
    found: datetime = stamp.to_pydatetime()
    return found
