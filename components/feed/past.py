"""What is known of users and videos from a history before a day: counts and rates from lists without times.

A source hands in only lists that end before the day begins, so that every request of the day may know what they say.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.feature_list import PRIOR_STRENGTH
from components.feed.schema import PAST

_LISTS = [(name, pa.list_(pa.int64())) for name in ("watched", "long_viewed", "liked")]
EMPTY_HISTORY = pa.schema([("user_id", pa.int64()), *_LISTS, ("impressions", pa.int64())]).empty_table()

_RATES = {"past_long_view_rate": "long_viewed", "past_like_rate": "liked"}


def past(history: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Sum lists up by user and by video.

    A rate is that of the watched list: (hits + PRIOR_STRENGTH x mean) / (watched + PRIOR_STRENGTH), the mean being that
    of all users and videos together.

    Args:
        history: One row per user, as ``EMPTY_HISTORY``: how many impressions it had, and lists of video ids that it
            watched, viewed long and liked; null lists count as empty.

    Returns:
        user_id and the columns of ``PAST``, then video_id and the same.
    """
    user, video = _pairs(history, "watched")
    span = int(max(video.max(initial=0), *(_pairs(history, name)[1].max(initial=0) for name in _RATES.values()))) + 1
    hits = {}
    for rate, name in _RATES.items():
        other, liked = _pairs(history, name)
        hits[rate] = np.isin(user * span + video, other * span + liked)
    ids = {"user_id": history["user_id"].to_numpy(), "video_id": np.unique(video)}
    rows = {"user_id": user, "video_id": np.searchsorted(ids["video_id"], video)}
    tables = []
    for key, known in ids.items():
        watched = np.bincount(rows[key], minlength=len(known)).astype(np.float64)
        shown = history["impressions"].to_numpy() if key == "user_id" else watched
        columns = {"past_impressions": shown.astype(np.float32)}
        for rate, hit in hits.items():
            mean = float(hit.mean()) if len(hit) else 0.0
            found = np.bincount(rows[key], weights=hit, minlength=len(known))
            columns[rate] = ((found + PRIOR_STRENGTH * mean) / (watched + PRIOR_STRENGTH)).astype(np.float32)
        tables.append(pa.table({key: known} | {name: columns[name] for name in PAST}))
    return tables[0], tables[1]


def joined(table: pa.Table, found: pa.Table) -> pa.Table:
    """Put the columns of ``PAST`` behind a table of users or videos.

    Args:
        table: Users or videos.
        found: What :func:`past` gave for them.

    Returns:
        The same rows; null where nothing is known.
    """
    key = found.column_names[0]
    place = pc.index_in(table[key], value_set=found[key])
    for name, kind in PAST.items():
        table = table.append_column(pa.field(name, kind), found[name].combine_chunks().take(place))
    return table


def _pairs(history: pa.Table, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of the user and video of every entry of a list column, int64 both."""
    lists = history[name].combine_chunks()
    row = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    return row.astype(np.int64), pc.list_flatten(lists).to_numpy(zero_copy_only=False).astype(np.int64)
