"""The canonical schema of a feed: what every source delivers and every later step reads.

Times are UTC with microseconds, durations are milliseconds, behaviours are int8 with null = not recorded.
A propensity is the logging policy's probability of showing the video in that slot, null = unknown.
"""

from dataclasses import dataclass

import pyarrow as pa

BEHAVIOURS = (
    "click",
    "finish",
    "skip",
    "long_view",
    "like",
    "follow",
    "comment",
    "share",
    "dislike",
    "profile_enter",
)

TIME = pa.timestamp("us", tz="UTC")

LOG = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("video_id", pa.int64(), nullable=False),
        ("creator_id", pa.int64()),
        pa.field("session_id", pa.int64(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("event_time", TIME, nullable=False),
        pa.field("watch_ms", pa.int64(), nullable=False),
        ("duration_ms", pa.int64()),
        *[(name, pa.int8()) for name in BEHAVIOURS],
        ("surface", pa.string()),
        ("is_random", pa.bool_()),
        ("propensity", pa.float64()),
    ]
)

# What a source must deliver of the log; every other column may be absent and is then null or derived.
LOG_REQUIRED = ("user_id", "video_id", "event_time", "watch_ms")

USERS = pa.schema([pa.field("user_id", pa.int64(), nullable=False), ("registered_at", TIME)])

VIDEOS = pa.schema(
    [
        pa.field("video_id", pa.int64(), nullable=False),
        ("uploaded_at", TIME),
        ("creator_id", pa.int64()),
        ("topic", pa.string()),
        ("duration_ms", pa.int64()),
    ]
)

REQUESTS = pa.schema(
    [
        pa.field("session_id", pa.int64(), nullable=False),
        pa.field("slot", pa.int32(), nullable=False),
        ("user_id", pa.int64()),
        ("candidates", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float32())),
        ("probabilities", pa.list_(pa.float32())),
    ]
)

# Static user attributes travel as string columns with this prefix, behind the columns of USERS.
ATTRIBUTE_PREFIX = "attr_"


# What is known of a user or a video from a history that ends before the day, where a source has one: optional columns
# of users and videos, null for single ones of whom nothing is known.
PAST = {"past_impressions": pa.float32(), "past_long_view_rate": pa.float32(), "past_like_rate": pa.float32()}


@dataclass(frozen=True)
class DayTables:
    """One day of a feed as its source delivers it.

    Attributes:
        log: Rows of the day with canonical names and types; only ``LOG_REQUIRED`` must be there.
        users: All users known at the end of the day: ``USERS``, ``attr_*`` string columns, ``PAST`` where known.
        videos: All videos known at the end of the day: ``VIDEOS``, ``PAST`` where known.
        requests: ``REQUESTS``, or None where the source does not log candidate sets.
    """

    log: pa.Table
    users: pa.Table
    videos: pa.Table
    requests: pa.Table | None = None
