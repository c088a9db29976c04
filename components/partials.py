"""Per-day partials: a day's sums per user, per video, and per user with a topic or a creator.

Each is made from one day's log alone and small against it; snapshots sum them over windows.
"""

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from components.feature_list import MODEL_RATES, RATES, Entity

# Completion above twice the length tells no more than twice: loops of very short videos would drown the rest.
MAX_COMPLETION = 2.0

# Ratios are summed in millionths and watching in milliseconds: sums of integers, which float64 holds exactly, do not
# depend on the order of the rows, nor on how threads split them.
MICRO = 1_000_000

HOURS = range(24)

# The lists of a user's partial and which impressions they hold.
LISTS = {"last_videos": "watch_ms > 0", "last_long_viewed": "long_view = 1", "last_liked": '"like" = 1'}

# The case comes first: least() takes an unknown ratio for the limit.
_LOG = f"""
    SELECT *, CASE WHEN duration_ms > 0
                   THEN round({MICRO} * least(watch_ms / duration_ms, {MAX_COMPLETION}))::BIGINT
              END AS completion
    FROM log
"""  # noqa: S608 - constants


def partial_of(log: pa.Table, entity: Entity, last_videos: int, timezone: str = "UTC") -> pa.Table:
    """One day's sums per entity.

    Args:
        log: The day's log.
        entity: Whose sums.
        last_videos: Length of the lists of videos (users only).
        timezone: Whose hours count (users only).

    Returns:
        One row per entity, by id: ``impressions``, ``watch_ms``, ``sessions``, for each rate ``<name>_sum`` (completion
        in millionths) and ``<name>_n`` (rows where it was recorded); of users also the lists of ``LISTS`` (newest
        first) and impressions by hour, of videos ``creator_id``.
    """
    key = f"{entity}_id"
    if entity == "user":
        columns = [
            f"list(video_id ORDER BY event_time DESC, position DESC) FILTER (WHERE {what})[1:{last_videos}] AS {name}"
            for name, what in LISTS.items()
        ]
        columns += [f"count(*) FILTER (WHERE hour = {hour})::DOUBLE AS hour_{hour}" for hour in HOURS]
        local = pc.cast(log["event_time"], pa.timestamp("us", tz=timezone))
        log = log.append_column("hour", pc.hour(local))
    else:
        columns = ["max(creator_id) AS creator_id"]
    with duckdb.connect() as connection:
        connection.register("log", log)
        return connection.sql(
            f"""
            SELECT {key}, count(*)::DOUBLE AS impressions, sum(watch_ms)::DOUBLE AS watch_ms,
                   count(DISTINCT session_id)::DOUBLE AS sessions, {_rate_sums(RATES)}, {", ".join(columns)}
            FROM ({_LOG}) GROUP BY {key} ORDER BY {key}
            """  # noqa: S608 - every name comes from the feature list
        ).to_arrow_table()


def affinity_partial_of(log: pa.Table, key: pa.ChunkedArray) -> pa.Table:
    """One day's sums per user and topic, or per user and creator.

    Args:
        log: The day's log.
        key: The topic or creator of each row's video, null = unknown.

    Returns:
        Rows by (``user_id``, ``key``) with ``impressions`` and the sums of the rates that models read, without
        unknown keys.
    """
    with duckdb.connect() as connection:
        connection.register("log", log.append_column("key", key))
        return connection.sql(
            f"""
            SELECT user_id, key, count(*)::DOUBLE AS impressions, {_rate_sums(MODEL_RATES)}
            FROM ({_LOG}) WHERE key IS NOT NULL GROUP BY user_id, key ORDER BY user_id, key
            """  # noqa: S608 - every name comes from the feature list
        ).to_arrow_table()


def _rate_sums(names: tuple[str, ...]) -> str:
    return ", ".join(
        f'coalesce(sum("{name}"), 0)::DOUBLE AS {name}_sum, count("{name}")::DOUBLE AS {name}_n' for name in names
    )
