"""Features step: per user and per video, as of the end of a day.

Two stages, both idempotent. ``partial`` aggregates one day's log once; ``snapshot`` sums the partials of the
rolling windows. A snapshot is stamped with the local midnight that ends its day plus a configured lag: the
moment from which a request may see it.
"""

from datetime import date, timedelta

import duckdb
import pyarrow as pa

from components.context import Context, StepResult, inputs_of
from components.days import bounds, day_range
from components.feature_list import (
    LONGEST_WINDOW,
    PRIOR_STRENGTH,
    RATES,
    SUMS,
    WINDOWS,
    Entity,
    counters,
    feature_list,
)
from components.feed.schema import TIME
from components.ingest import ensure_days
from components.lake import Partition
from components.locks import exclusive
from components.window import snapshot_days

ENTITIES: tuple[Entity, ...] = ("user", "video")

# Completion above twice the length tells no more than twice: loops of very short videos would drown the rest.
MAX_COMPLETION = 2.0

# Ratios are summed in millionths: sums of integers do not depend on how threads split the rows.
MICRO = 1_000_000


def features(context: Context, day: date) -> StepResult:
    """Build the snapshots of ``day`` and of every earlier day that the training window needs.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its log must be in the lake.

    Returns:
        Hashes of the day's two snapshots, and how many earlier days were built on the way.

    Raises:
        MissingPartitionError: When the day's own log is not in the lake.
    """
    context.data.get("log", day)
    first = snapshot_days(context.pipeline, day)[0]
    history = ensure_days(context, list(day_range(first - timedelta(days=LONGEST_WINDOW - 1), day)))
    known = {date.fromisoformat(p.manifest.day) for p in history}
    built = 0
    wanted = [one for one in snapshot_days(context.pipeline, day) if one in known]
    for done, one in enumerate(wanted):
        context.notify(done, len(wanted), f"feature snapshot {one}")
        for entity in ENTITIES:
            built += _ensure_snapshot(context, entity, one, known, rebuild=one == day)
    context.notify(len(wanted), len(wanted), "feature snapshots")
    snapshots = [context.data.get(f"{entity}_features", day) for entity in ENTITIES]
    facts = {f"{e}_rows": p.rows for e, p in zip(ENTITIES, snapshots, strict=True)}
    return StepResult("features", day, inputs_of(*snapshots), {**facts, "snapshots_built": built})


def _ensure_snapshot(context: Context, entity: Entity, day: date, known: set[date], rebuild: bool) -> bool:
    lake, name = context.data, f"{entity}_features"
    window = [one for one in day_range(day - timedelta(days=LONGEST_WINDOW - 1), day) if one in known]
    partials = [_ensure_partial(context, entity, one) for one in window]
    with exclusive(context.lock(name, day)):
        found = lake.find(name, day)
        if found is not None and found.manifest.inputs == inputs_of(*partials) and not rebuild:
            return False
        table = _snapshot(context, entity, day, partials)
        with lake.write(name, day, inputs=inputs_of(*partials)) as writer:
            writer.table(table)
    return True


def _ensure_partial(context: Context, entity: Entity, day: date) -> Partition:
    lake, name = context.data, f"{entity}_partial"
    with exclusive(context.lock(name, day)):
        log = lake.get("log", day)
        found = lake.find(name, day)
        if found is not None and found.manifest.inputs == inputs_of(log):
            return found
        table = partial_of(log.table(), entity, context.pipeline.features.last_videos)
        with lake.write(name, day, inputs=inputs_of(log)) as writer:
            writer.table(table)
        return lake.get(name, day)


def partial_of(log: pa.Table, entity: Entity, last_videos: int) -> pa.Table:
    """One day's sums per entity.

    Args:
        log: The day's log.
        entity: Whose sums.
        last_videos: Length of the list of watched videos (users only).

    Returns:
        One row per entity with ``impressions``, ``watch_s``, ``sessions``, for each rate ``<name>_sum`` and
        ``<name>_n`` (rows where it was recorded), and for users ``last_videos`` (newest first); by id.
    """
    key = f"{entity}_id"
    scale = {"completion": MICRO}
    rates = ", ".join(
        f'sum("{name}")::DOUBLE / {scale.get(name, 1)} AS {name}_sum, count("{name}")::DOUBLE AS {name}_n'
        for name in RATES
    )
    watched = (
        ", list(video_id ORDER BY event_time DESC, position DESC) FILTER (WHERE watch_ms > 0)"
        f"[1:{last_videos}] AS last_videos"
        if entity == "user"
        else ""
    )
    with duckdb.connect() as connection:
        connection.register("log", log)
        return connection.sql(
            f"""
            SELECT {key}, count(*)::DOUBLE AS impressions, sum(watch_ms)::DOUBLE / 1000 AS watch_s,
                   count(DISTINCT session_id)::DOUBLE AS sessions, {rates} {watched}
            FROM (
                -- The case comes first: least() takes an unknown ratio for the limit.
                SELECT *, CASE WHEN duration_ms > 0
                               THEN round({MICRO} * least(watch_ms / duration_ms, {MAX_COMPLETION}))::BIGINT
                          END AS completion
                FROM log
            )
            GROUP BY {key} ORDER BY {key}
            """  # noqa: S608 - every name comes from the feature list
        ).to_arrow_table()


def _snapshot(context: Context, entity: Entity, day: date, partials: list[Partition]) -> pa.Table:
    tables = [
        p.table().append_column("age", pa.repeat(pa.scalar((day - date.fromisoformat(p.manifest.day)).days), p.rows))
        for p in partials
    ]
    available = bounds(day, context.pipeline.feed.zone)[1] + timedelta(
        minutes=context.pipeline.features.snapshot_lag_min
    )
    table = window_sums(pa.concat_tables(tables), entity, context.pipeline.features.last_videos)
    stamp = pa.repeat(pa.scalar(available, TIME), table.num_rows)
    names = [f"{entity}_id"] + [f.name for f in counters(feature_list(()), entity)]
    return table.select(names).append_column("available_at", stamp)


def window_sums(partials: pa.Table, entity: Entity, last_videos: int) -> pa.Table:
    """Snapshot columns from per-day partials.

    Args:
        partials: Rows of ``partial_of`` with ``age``: days before the snapshot's day, 0 for the day itself.
        entity: Whose features.
        last_videos: Length of the list of watched videos (users only).

    Returns:
        One row per entity seen in the longest window, by id, columns as in the feature list.
    """
    key = f"{entity}_id"
    sums, shown = [], []
    for window in WINDOWS:
        inside = f"FILTER (WHERE age < {window})"
        for column in SUMS:
            sums.append(f"coalesce(sum({column}) {inside}, 0) AS {column}_{window}")
            shown.append(f"{column}_{window}::FLOAT AS {entity}_{column}_{window}d")
        for column in RATES:
            sums.append(f"coalesce(sum({column}_sum) {inside}, 0) AS {column}_sum_{window}")
            sums.append(f"coalesce(sum({column}_n) {inside}, 0) AS {column}_n_{window}")
            mean = f"sum({column}_sum_{window}) OVER () / nullif(sum({column}_n_{window}) OVER (), 0)"
            shown.append(
                f"(({column}_sum_{window} + {PRIOR_STRENGTH} * ({mean})) / ({column}_n_{window} + {PRIOR_STRENGTH}))"
                f"::FLOAT AS {entity}_{column}_rate_{window}d"
            )
    lists = ""
    if entity == "user":
        lists = "flatten(list(last_videos ORDER BY age) FILTER (WHERE last_videos IS NOT NULL)) AS watched"
        shown.append(f"coalesce(watched, [])[1:{last_videos}] AS user_last_videos")
    with duckdb.connect() as connection:
        # Sums of doubles must not depend on how threads split the rows: equal inputs, equal bytes.
        connection.execute("SET threads TO 1")
        connection.register("partials", partials)
        return connection.sql(
            f"""
            WITH summed AS (SELECT {key}, {", ".join([*sums, lists] if lists else sums)} FROM partials GROUP BY {key})
            SELECT {key}, {", ".join(shown)} FROM summed ORDER BY {key}
            """  # noqa: S608 - every name comes from the feature list
        ).to_arrow_table()
