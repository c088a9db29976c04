"""The world's days as Arrow tables: what an outsider may know, and nothing else."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.config import WorldFeed
from components.days import bounds_us
from components.feed.schema import ATTRIBUTE_PREFIX, BEHAVIOURS, LOG, REQUESTS, TIME, USERS, VIDEOS
from simulator.world_day import session_starts
from simulator.world_impressions import Impressions
from simulator.world_population import ATTRIBUTES, TOPICS, Users, Videos, videos_by

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

SURFACE = "feed"
# A new user registers this long before the first session.
_SIGN_UP_S = 60.0


def session_id(user_id: I64, day: int, session: I64) -> I64:
    """Id of a session, unique over users, days and the day's sessions: int64 [len(user_id)]."""
    return (user_id * 100_000 + day) * 4 + session


def in_order_of_time(log: pa.Table, requests: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Log and requests of the same rows, ordered by time, user and position."""
    keys = [log.column(name).cast(pa.int64()).to_numpy() for name in ("position", "user_id", "event_time")]
    order = pa.array(np.lexsort(keys))
    return log.take(order), requests.take(order)


def impression_tables(rows: Impressions, day: int) -> tuple[pa.Table, pa.Table]:
    """Log and requests in the feed's schema; numbers are views where their type allows it.

    Args:
        rows: N impressions.
        day: Day counted from the feed's first day.

    Returns:
        Log and requests [N], in the same order.
    """
    session, slot = session_id(rows.user_id, day, rows.session), pa.array(rows.slot)
    columns = {
        "user_id": rows.user_id,
        "video_id": rows.video_id,
        "creator_id": rows.creator_id,
        "session_id": session,
        "position": slot,
        "event_time": pa.array(rows.event_us).view(TIME),
        "watch_ms": rows.watch_ms,
        "duration_ms": rows.duration_ms,
        **dict(zip(BEHAVIOURS, rows.behaviours, strict=True)),
        "surface": pa.repeat(SURFACE, len(session)),
        "is_random": rows.is_random,
        "propensity": rows.propensity,
    }
    requests = {
        "session_id": session,
        "slot": slot,
        "user_id": rows.user_id,
        "candidates": pa.ListArray.from_arrays(rows.ends, rows.candidates),
        "scores": pa.ListArray.from_arrays(rows.ends, rows.scores),
        "probabilities": pa.ListArray.from_arrays(rows.ends, rows.probabilities),
    }
    return pa.table(columns, schema=LOG), pa.table(requests, schema=REQUESTS)


def user_table(settings: WorldFeed, users: Users, known: int, day: int) -> pa.Table:
    """Users known at the end of a day.

    Args:
        settings: The world's settings.
        users: Users of a range of ids.
        known: How many of them, from the first, are registered by then.
        day: Day counted from the feed's first day.

    Returns:
        ``USERS`` and their attributes, in the order of ids.
    """
    days, user_id = users.registered_day[:known], users.user_id[:known]
    registered = _moments_us(settings, days, users.registered_share[:known])
    for number in range(max(int(days.min(initial=0)), 0), min(int(days.max(initial=-1)), day) + 1):
        new = np.flatnonzero(days == number)
        start, end = bounds_us(settings.first_day + timedelta(days=number), settings.zone)
        first_s = session_starts(settings, user_id[new], number, (end - start) / 1e6)[:, 0]
        registered[new] = start + np.round((first_s - _SIGN_UP_S) * 1e6).astype(np.int64)
    fields, columns = list(USERS), [pa.array(user_id), pa.array(registered).cast(TIME)]
    for name, values in ATTRIBUTES.items():
        fields.append(pa.field(ATTRIBUTE_PREFIX + name, pa.string()))
        columns.append(pa.array(values).take(pa.array(users.attributes[name][:known])))
    return pa.table(columns, schema=pa.schema(fields))


def video_table(settings: WorldFeed, videos: Videos, day: int) -> pa.Table:
    """Videos known at the end of a day.

    Args:
        settings: The world's settings.
        videos: At least all videos uploaded by then.
        day: Day counted from the feed's first day.

    Returns:
        ``VIDEOS`` in the order of ids.
    """
    known = videos_by(settings, day)
    uploaded = _moments_us(settings, videos.uploaded_day[:known], videos.uploaded_share[:known])
    columns = {
        "video_id": videos.video_id[:known],
        "uploaded_at": pa.array(uploaded).cast(TIME),
        "creator_id": videos.creator[:known],
        "topic": pa.array(TOPICS).take(pa.array(videos.topic[:known])),
        "duration_ms": videos.duration_ms[:known],
    }
    return pa.table(columns, schema=VIDEOS)


def _moments_us(settings: WorldFeed, days: I64, share: F64) -> I64:
    """Moments within days, given as a share of each day: int64 microseconds since 1970."""
    distinct, place = np.unique(days, return_inverse=True)
    edges = [bounds_us(settings.first_day + timedelta(days=int(day)), settings.zone) for day in distinct]
    start, end = np.array(edges, dtype=np.int64).reshape(-1, 2)[place].T
    moments: I64 = start + (share * (end - start)).astype(np.int64)
    return moments
