"""Rows of the view ``user_fresh``: what is known of a user's day after each event, by the event's own time."""

from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.feed.schema import TIME

PUSH_SOURCE = "fresh_events"
# Columns of an event; the rest of a log's row is of no use here.
EVENT_COLUMNS = ("user_id", "video_id", "event_time", "watch_ms", "long_view", "like")
# So many last videos of the day are kept.
FRESH_VIDEOS = 20
# Between the end of watching and the moment that the online store has it.
DELIVERY = timedelta(seconds=10)


def fresh_rows(events: pa.Table) -> pa.Table:
    """Values of ``user_fresh`` after each event of a local day: the offline side of the push source.

    Args:
        events: A day's events, each once, with ``EVENT_COLUMNS``.

    Returns:
        Rows by (user_id, known_at): ``user_fresh_impressions``, ``user_fresh_watch_s``, ``user_fresh_long_views``,
        ``user_fresh_likes`` (float32) and ``user_fresh_videos`` (newest first), each with the event and all of its
        user's that were known before it.
    """
    known = pc.cast(events["event_time"], pa.int64()).to_numpy() + events["watch_ms"].to_numpy() * 1000
    known = known + int(DELIVERY / timedelta(microseconds=1))
    user = events["user_id"].to_numpy()
    video = events["video_id"].to_numpy()
    order = np.lexsort((video, known, user))
    user, known, video = user[order], known[order], video[order]
    first = np.append(True, np.diff(user) != 0)[: len(user)]
    start = np.maximum.accumulate(np.where(first, np.arange(len(user)), 0))

    def running(values: Iterable[float]) -> pa.Array:
        total = np.cumsum(np.asarray(values, dtype=np.float64)[order])
        before = np.where(start > 0, total[start - 1], 0.0)
        return pa.array((total - before).astype(np.float32))

    lists = [video[max(begin, at + 1 - FRESH_VIDEOS) : at + 1][::-1] for at, begin in enumerate(start)]
    return pa.table(
        {
            "user_id": user,
            "known_at": pa.array(known).cast(TIME),
            "user_fresh_impressions": running(np.ones(len(user))),
            "user_fresh_watch_s": running(events["watch_ms"].to_numpy() / 1000),
            "user_fresh_long_views": running(pc.fill_null(events["long_view"], 0).to_numpy()),
            "user_fresh_likes": running(pc.fill_null(events["like"], 0).to_numpy()),
            "user_fresh_videos": pa.array(lists, pa.list_(pa.int64())),
        }
    )
