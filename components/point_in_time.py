"""Point-in-time joins through Feast's offline store: what a request could see, and nothing newer."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.context import Context
from components.days import bounds_us, day_range
from components.errors import WindowError
from components.feature_list import Entity, Feature
from components.feed.schema import TIME
from components.store import offline_engine, open_store

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Seen:
    """What requests see of an entity: every distinct answer once.

    Attributes:
        table: One row per distinct (entity, moment from which nothing changed), with the entity's features.
        row: int64 [N], the row of each request.
    """

    table: pa.Table
    row: NDArray[np.int64]

    def spread(self) -> pa.Table:
        """N rows, one per request."""
        return self.table.take(pa.array(self.row))


def historical_features(
    context: Context,
    user_id: pa.ChunkedArray | None,
    video_id: pa.ChunkedArray | None,
    moment: pa.ChunkedArray,
    features: tuple[Feature, ...],
) -> pa.Table:
    """Feast's point-in-time join for entity rows.

    Args:
        context: Pipeline and settings.
        user_id: int64 ``[N]``, or None when only video features are wanted.
        video_id: int64 ``[N]``, or None when only user features are wanted.
        moment: When each row's request is made, UTC ``[N]``.
        features: The feature list.

    Returns:
        ``[N]`` rows in the order given, one column per feature of the entities that were given.
    """
    given: dict[Entity, pa.ChunkedArray | None] = {"user": user_id, "video": video_id}
    found: dict[str, pa.ChunkedArray] = {}
    with offline_engine():
        for entity, ids in given.items():
            if ids is not None:
                table = seen(context, entity, ids, moment, features).spread()
                found |= zip(table.column_names, table.columns, strict=True)
    return pa.table({feature.name: found[feature.name] for feature in features if feature.name in found})


def seen(
    context: Context, entity: Entity, ids: pa.ChunkedArray, moment: pa.ChunkedArray, features: tuple[Feature, ...]
) -> Seen:
    """Feast's point-in-time join of one entity's features, with every distinct answer joined once.

    What a request sees changes only at an entity's first moment, where a snapshot becomes available, and where one
    expires. Requests between two such moments have the same answer, so each is joined as of the last one before it:
    a day's impressions become a row or two per user and per video. Call it within ``offline_engine``.

    Args:
        context: Pipeline and settings.
        entity: Whose features.
        ids: int64 ``[N]``.
        moment: When each request is made, UTC ``[N]``.
        features: The feature list.

    Returns:
        The distinct answers, and which one each request sees.

    Raises:
        WindowError: When the join lost or made rows.
    """
    chosen = [feature for feature in features if feature.entity == entity]
    asked = ids.to_numpy()
    times = pc.cast(moment, pa.int64()).to_numpy()
    standing = _standing(context, entity, asked, times)
    order = np.lexsort((standing, asked))
    first = np.append(True, (np.diff(asked[order]) != 0) | (np.diff(standing[order]) != 0))[: len(order)]
    row = np.empty(len(order), dtype=np.int64)
    row[order] = np.cumsum(first) - 1
    kept = order[first]
    columns = {"row": np.arange(len(kept)), f"{entity}_id": asked[kept]}
    frame = pa.table({**columns, "event_timestamp": pa.array(standing[kept]).cast(TIME)}).to_pandas()
    job = open_store(context).get_historical_features(
        entity_df=frame, features=[f"{feature.view}:{feature.name}" for feature in chosen]
    )
    joined: pa.Table = job.to_arrow()
    if joined.num_rows != len(kept):
        raise WindowError(f"the feature join gave {joined.num_rows} rows for {len(kept)} {entity}s and moments")
    table = joined.take(pc.sort_indices(joined["row"])).select([feature.name for feature in chosen])
    return Seen(table, row)


def _standing(context: Context, entity: Entity, ids: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [N] microseconds: the last moment up to each request's at which the answer may have changed."""
    lake, lifetime = context.data, context.pipeline.features.ttl_days * DAY_US
    if not len(times):
        return times
    earliest, last = (_local_day(context, int(moment)) for moment in (times.min(), times.max()))
    reach = earliest - timedelta(days=context.pipeline.features.ttl_days + 2)
    stamps = [
        int(pc.cast(one, pa.int64()).as_py())
        for day in lake.days(f"{entity}_features")
        if reach <= day <= last
        for one in pc.unique(lake.get(f"{entity}_features", day).table(columns=["available_at"])["available_at"])
    ]
    # The profile tables that a join reads are those of its last moment's day, so no moment leaves its own day.
    midnights = [bounds_us(day, context.pipeline.feed.zone)[0] for day in day_range(earliest, last)]
    # A value is alive up to the end of its life, that moment included.
    changes = np.unique(np.array([*midnights, *stamps, *(stamp + lifetime + 1 for stamp in stamps)], dtype=np.int64))
    standing = changes[np.searchsorted(changes, times, side="right") - 1]
    name, since = {"user": ("users", "registered_at"), "video": ("videos", "uploaded_at")}[entity]
    profiles = [day for day in lake.days(name) if day <= last]
    if not profiles:
        return standing
    profile = lake.get(name, profiles[-1]).table(columns=[f"{entity}_id", since])
    start = profile[since].take(pc.index_in(pa.array(ids), profile[f"{entity}_id"]))
    begun = pc.fill_null(pc.cast(start, pa.int64()), np.iinfo(np.int64).min).to_numpy()
    return np.where(begun <= times, np.maximum(standing, begun), standing)


def _local_day(context: Context, micros: int) -> date:
    return datetime.fromtimestamp(micros / 1e6, tz=context.pipeline.feed.zone).date()
