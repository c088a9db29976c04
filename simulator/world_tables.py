"""The world's days as Arrow tables: what an outsider may know, and nothing else."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.config import WorldFeed
from components.days import bounds_us
from components.feed.schema import ATTRIBUTE_PREFIX, BEHAVIOURS, LOG, REQUESTS, TIME, USERS, VIDEOS, DayTables
from simulator.world_day import DayRun, Slots, Stage, session_starts
from simulator.world_population import ATTRIBUTES, TOPICS, Users, Videos, users_by, videos_by

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

SURFACE = "feed"
# A new user registers this long before the first session.
_SIGN_UP_S = 60.0


def session_id(user_id: I64, day: int, session: I64) -> I64:
    """Id of a session, unique over users, days and the day's sessions: int64 [len(user_id)]."""
    return (user_id * 100_000 + day) * 4 + session


@dataclass(frozen=True)
class Clock:
    """Turns the world's day numbers into moments.

    Attributes:
        settings: Tells the first day and the time zone.
    """

    settings: WorldFeed

    def bounds_us(self, day: int) -> tuple[int, int]:
        """First moment of a day and first after it, microseconds since 1970."""
        return bounds_us(self.settings.first_day + timedelta(days=day), self.settings.zone)

    def moments_us(self, days: I64, share: F64) -> I64:
        """Moments within days, given as a share of each day: int64 microseconds since 1970."""
        distinct, place = np.unique(days, return_inverse=True)
        edges = np.array([self.bounds_us(int(day)) for day in distinct]).reshape(-1, 2)
        start, end = edges[place, 0], edges[place, 1]
        moments: I64 = start + (share * (end - start)).astype(np.int64)
        return moments


def day_tables(clock: Clock, day: int, users: Users, videos: Videos, run: DayRun) -> DayTables:
    """A day of the world in the feed's schema.

    Args:
        clock: The world's calendar.
        day: Day counted from the feed's first day.
        users: At least all users registered by then.
        videos: At least all videos uploaded by then.
        run: The logged day.

    Returns:
        Log and requests in order of time, users and videos in order of their ids.
    """
    log, requests = _impressions(clock, day, users, videos, run.slots)
    return DayTables(log, _users(clock, day, users, videos), _videos(clock, day, videos), requests)


def _impressions(clock: Clock, day: int, users: Users, videos: Videos, slots: Slots) -> tuple[pa.Table, pa.Table]:
    if not slots.columns:
        return LOG.empty_table(), REQUESTS.empty_table()
    start, _ = clock.bounds_us(day)
    user_id = users.user_id[slots.stacked("user").astype(np.int64)]
    slot = slots.stacked("slot").astype(np.int32)
    time = start + np.round(slots.stacked("clock_s").astype(np.float64) * 1e6).astype(np.int64)
    order = np.lexsort((slot, user_id, time))
    user_id, slot, time = user_id[order], slot[order], time[order]
    session = session_id(user_id, day, slots.stacked("session").astype(np.int64)[order])
    video = slots.stacked("video").astype(np.int64)[order]
    place = slots.stacked("place").astype(np.int64)[order]
    probabilities = slots.stacked("probabilities")[order]
    columns = {
        "user_id": user_id,
        "video_id": videos.video_id[video],
        "creator_id": videos.creator[video],
        "session_id": session,
        "position": slot,
        "event_time": pa.array(time).cast(TIME),
        "watch_ms": slots.stacked("watch_ms")[order],
        "duration_ms": videos.duration_ms[video],
        **{name: slots.stacked(name)[order] for name in BEHAVIOURS},
        "surface": pa.repeat(SURFACE, len(order)),
        "is_random": slots.stacked("is_random")[order],
        "propensity": probabilities[np.arange(len(order)), place].astype(np.float64),
    }
    log = pa.table(columns, schema=LOG)

    valid = slots.stacked("valid").astype(bool)[order]
    ends = np.append(0, valid.sum(axis=1).cumsum()).astype(np.int32)
    candidates = videos.video_id[slots.stacked("candidates").astype(np.int64)[order]]
    requests = {
        "session_id": session,
        "slot": slot,
        "user_id": user_id,
        "candidates": pa.ListArray.from_arrays(ends, candidates[valid]),
        "scores": pa.ListArray.from_arrays(ends, slots.stacked("scores")[order][valid]),
        "probabilities": pa.ListArray.from_arrays(ends, probabilities[valid]),
    }
    return log, pa.table(requests, schema=REQUESTS)


def _users(clock: Clock, day: int, users: Users, videos: Videos) -> pa.Table:
    known = users_by(clock.settings, day)
    days = users.registered_day[:known]
    registered = clock.moments_us(days, users.registered_share[:known])
    for number in range(day + 1):
        new = np.flatnonzero(days == number)
        start, end = clock.bounds_us(number)
        stage = Stage(clock.settings, users, videos, number, (end - start) / 1e6, clock.settings.seed)
        first_s = session_starts(stage, new)[:, 0]
        registered[new] = start + np.round((first_s - _SIGN_UP_S) * 1e6).astype(np.int64)
    fields, columns = list(USERS), [pa.array(users.user_id[:known]), pa.array(registered).cast(TIME)]
    for name, values in ATTRIBUTES.items():
        fields.append(pa.field(ATTRIBUTE_PREFIX + name, pa.string()))
        columns.append(pa.array(np.array(values, dtype=object)[users.attributes[name][:known]], pa.string()))
    return pa.table(columns, schema=pa.schema(fields))


def _videos(clock: Clock, day: int, videos: Videos) -> pa.Table:
    known = videos_by(clock.settings, day)
    columns = {
        "video_id": videos.video_id[:known],
        "uploaded_at": pa.array(clock.moments_us(videos.uploaded_day[:known], videos.uploaded_share[:known])).cast(
            TIME
        ),
        "creator_id": videos.creator[:known],
        "topic": pa.array(np.array(TOPICS, dtype=object)[videos.topic[:known]], pa.string()),
        "duration_ms": videos.duration_ms[:known],
    }
    return pa.table(columns, schema=VIDEOS)
