"""Two small days, in which every value that a fault could change is known and differs from what it becomes."""

from datetime import date, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from components.chaos import Scene
from components.feed.schema import BEHAVIOURS, REQUESTS, USERS, VIDEOS, DayTables
from tests.small_lake import PLAN, Row, at, log_table, shown

DAY = date(2024, 3, 5)
ZONE = ZoneInfo("Asia/Shanghai")
USER_COUNT, VIDEO_COUNT, ROWS = 20, 40, 200
NEW_USERS = range(16, 21)


def small_day(day: date) -> DayTables:
    """20 users with two sessions of five rows each, at 9 and at 20 o'clock; 40 videos; a request per row."""
    rng = np.random.default_rng(day.toordinal())
    rows: list[Row] = []
    for user in range(1, USER_COUNT + 1):
        for session, hour in enumerate((9, 20)):
            for position in range(5):
                video = int(rng.integers(1, VIDEO_COUNT + 1))
                duration = 20_000 + 1_000 * video
                watch = int(rng.integers(1_500, 2 * duration))
                flags = dict.fromkeys(BEHAVIOURS, 0) | {
                    "click": int(rng.random() < 0.5),
                    "finish": int(watch >= duration),
                    "skip": int(watch < 3_000),
                    "long_view": int(watch >= 18_000),
                    "like": int(rng.random() < 0.3),
                    "follow": int(rng.random() < 0.2),
                }
                rows.append(
                    shown(
                        user,
                        video,
                        at(day, hour, user, 10 * position, 123),
                        **flags,
                        watch_ms=watch,
                        duration_ms=duration,
                        creator_id=100 + video % 7,
                        session_id=((5_000 + user) * 100_000 + day.toordinal() % 1_000) * 4 + session,
                        position=position,
                        is_random=position == 4,
                        propensity=float(np.round(0.01 + 0.07 * rng.random(), 6)),
                    )
                )
    log = log_table(rows)
    users = pa.Table.from_pylist(
        [
            {
                "user_id": user,
                "registered_at": at(DAY - timedelta(days=5 if user in NEW_USERS else 100 + user), 3),
                PLAN: ("basic", "basic", "gold")[user % 3],
            }
            for user in range(1, USER_COUNT + 1)
        ],
        schema=USERS.append(pa.field(PLAN, pa.string())),
    )
    videos = pa.Table.from_pylist(
        [
            {
                "video_id": video,
                "uploaded_at": at(DAY - timedelta(days=50 - video), 2),
                "creator_id": 100 + video % 7,
                "topic": ("cats", "dogs", "news")[video % 3],
                "duration_ms": 20_000 + 1_000 * video,
            }
            for video in range(1, VIDEO_COUNT + 1)
        ],
        schema=VIDEOS,
    )
    requests = pa.Table.from_pylist(
        [
            {
                "session_id": row["session_id"],
                "slot": row["position"],
                "user_id": row["user_id"],
                "candidates": [row["video_id"], 99],
                "scores": [1.0, 0.0],
                "probabilities": [row["propensity"], 1 - row["propensity"]],
            }
            for row in log.to_pylist()
        ],
        schema=REQUESTS,
    )
    return DayTables(log, users, videos, requests)


@pytest.fixture(scope="session")
def scene() -> Scene:
    return Scene(DAY, ZONE, small_day(DAY), small_day(DAY - timedelta(days=1)))
