"""A day's log in numbers: one pass for shares and means, a few grouped ones for users, sessions and keys."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from components.config import Pipeline
from components.days import bounds_us
from components.feed.label_rules import FINISH_SLACK_MS
from components.feed.schema import BEHAVIOURS
from components.validation.log_relations import (
    known_samples,
    relation_histograms,
    relation_measures,
    relation_ratios,
    request_measures,
)
from components.validation.outcome import harmless
from components.validation.profiles import categories_of, histogram_of, log_bins, sample_of, unit_bins
from components.validation.ratios import Ratio, mean, measured, share, typical
from components.validation.scan import Rows, literal, micro, scan
from components.validation.summary import Histogram, Measure, Summary

HOUR_US = 3_600_000_000
DAY_HOURS = 24

# Surfaces with less than this share of the rows have no rates of their own.
SURFACE_SHARE = 0.02

# Hours of the evening, in which labels that arrive late are missing first.
LATE_HOUR = 18

NULLABLE = ("creator_id", "duration_ms", *BEHAVIOURS, "surface", "is_random", "propensity")


@dataclass(frozen=True)
class Day:
    """One day as its gate sees it.

    Attributes:
        day: The local day.
        log: Rows of ``schema.LOG``, in memory or as a dataset of files.
        users: ``schema.USERS`` with ``attr_*`` and what else the feed knows.
        videos: ``schema.VIDEOS``.
        refused: Rows that ingest refused, by reason.
        requests: ``schema.REQUESTS`` where the feed logs candidate sets.
    """

    day: date
    log: Rows
    users: pa.Table
    videos: pa.Table
    refused: dict[str, int]
    requests: Rows | None = None


# Ingest's reason for rows that are dated outside their day.
OUTSIDE_DAY = "outside_day"


@dataclass(frozen=True)
class Counts:
    """Exact counts of what no row of a good log does, and of the rows."""

    rows: int
    broken: dict[str, int]


def measure_log(day: Day, pipeline: Pipeline) -> tuple[Summary, Counts]:
    """Measure a day.

    Args:
        day: The day; its log has the columns and types of ``schema.LOG``.
        pipeline: Thresholds of groups and the feed's rules.

    Returns:
        What is kept for later days, and counts of rows that break a rule.
    """
    tables: dict[str, Rows] = {"log": day.log, "users": day.users, "videos": day.videos}
    if day.requests is not None:
        tables["requests"] = day.requests
    with scan(tables) as connection:
        _joined_view(connection, day, pipeline)
        counts = _broken(connection, day, pipeline)
        units, grouped = _of_users_and_sessions(connection)
        surfaces = categories_of(connection, "log", "surface", units)
        ratios = [*_plain(), *_per_hour(day, pipeline), *_rates(surfaces), *relation_ratios()]
        measures = measured(connection, "joined", "user_id", ratios) | grouped
        measures |= _of_tables(connection, day) | _refused(day, counts.rows, units)
        calendar = (*bounds_us(day.day, pipeline.feed.zone), pipeline.feed.session_gap_min)
        measures |= relation_measures(connection, *calendar, pipeline.groups.new_tenure_days)
        measures |= request_measures(connection) if day.requests is not None else {}
        histograms = dict(_histograms(connection, units, surfaces, day))
        histograms |= dict(relation_histograms(connection, day.users.schema, units))
        samples = {name: sample_of(connection, "log", f"{name[:-1]}_id") for name in ("users", "videos")}
        samples |= known_samples(connection, day.users.schema)
    return Summary(day.day, measures, histograms, samples), counts


def _joined_view(connection: duckdb.DuckDBPyConnection, day: Day, pipeline: Pipeline) -> None:
    """The log beside what is known of its users and videos."""
    start, _ = bounds_us(day.day, pipeline.feed.zone)
    tenure = pipeline.groups.new_tenure_days
    connection.execute(
        f"""
        CREATE TEMP VIEW joined AS
        SELECT log.*, epoch_us(event_time) AS at_us, (epoch_us(event_time) - {start}) // {HOUR_US} AS hour,
               u.user_id IS NOT NULL AS user_known, v.video_id IS NOT NULL AS video_known,
               (epoch_us(event_time) - epoch_us(u.registered_at)) // {DAY_HOURS * HOUR_US} AS tenure_days,
               coalesce((epoch_us(event_time) - epoch_us(u.registered_at)) // {DAY_HOURS * HOUR_US} <= {tenure}, FALSE)
                   AS is_new,
               (epoch_us(event_time) - epoch_us(v.uploaded_at)) // {DAY_HOURS * HOUR_US} AS age_days,
               v.duration_ms AS video_duration_ms, v.creator_id AS video_creator_id
        FROM log
        LEFT JOIN (SELECT user_id, min(registered_at) AS registered_at FROM users GROUP BY 1) u USING (user_id)
        LEFT JOIN (SELECT video_id, min(uploaded_at) AS uploaded_at, min(duration_ms) AS duration_ms,
                          min(creator_id) AS creator_id FROM videos GROUP BY 1) v USING (video_id)
        """  # noqa: S608 - numbers of the calendar
    )


def _broken(connection: duckdb.DuckDBPyConnection, day: Day, pipeline: Pipeline) -> Counts:
    """Rows that break a rule of the log, by rule; each is one that ingest refuses."""
    start, end = bounds_us(day.day, pipeline.feed.zone)
    rules = {
        **{f"{name}_null": f'"{name}" IS NULL' for name in _REQUIRED},
        "watch_ms_range": f"watch_ms NOT BETWEEN 0 AND {pipeline.feed.max_watch_ms}",
        "duration_ms_range": "duration_ms < 1",
        "position_range": "position < 0",
        "propensity_range": "NOT coalesce(propensity > 0 AND propensity <= 1 AND NOT isnan(propensity), TRUE)",
        "event_time_day": f"epoch_us(event_time) < {start} OR epoch_us(event_time) >= {end}",
        **{f"{name}_values": f'"{name}" NOT IN (0, 1)' for name in BEHAVIOURS},
        "finish_needs_watch": f"finish = 1 AND watch_ms < duration_ms - {FINISH_SLACK_MS}",
        "long_view_needs_watch": "long_view = 1 AND watch_ms <= 0",
        "skip_is_no_finish": "skip = 1 AND finish = 1",
    }
    sums = ", ".join(f"coalesce(sum(({sql})::INT), 0)" for sql in rules.values())
    rows, *found = _one(connection, f"SELECT count(*), {sums} FROM log")  # noqa: S608 - names of the schema
    broken = dict(zip(rules, (int(one) for one in found), strict=True))
    broken["position_repeats"] = _repeats(connection, "session_id, position")
    return Counts(int(rows), broken)


def _repeats(connection: duckdb.DuckDBPyConnection, keys: str) -> int:
    """Rows of the log whose keys another row has before them."""
    groups = f"SELECT count(*) AS n FROM log GROUP BY {keys} HAVING count(*) > 1"  # noqa: S608 - names of the schema
    (more,) = _one(connection, f"SELECT coalesce(sum(n - 1), 0) FROM ({groups})")  # noqa: S608
    return int(more)


_REQUIRED = ("user_id", "video_id", "session_id", "position", "event_time", "watch_ms")


def _plain() -> Iterator[Ratio]:
    """Shares and means over all rows."""
    for name in NULLABLE:
        yield share(f"{name}_null_share", f'"{name}" IS NULL')
    yield share("unknown_user_share", "NOT user_known")
    yield share("unknown_video_share", "NOT video_known")
    yield share("other_duration_share", "abs(duration_ms - video_duration_ms) > 1", "duration_ms IS NOT NULL")
    yield share("other_creator_share", "creator_id <> video_creator_id")
    yield share("before_registration_share", "tenure_days < 0")
    yield share("before_upload_share", "age_days < 0")
    yield share("new_user_share", "is_new", "tenure_days IS NOT NULL")
    yield share("random_share", "is_random")
    yield share("zero_watch_share", "watch_ms = 0")
    yield share("whole_second_watch_share", "watch_ms % 1000 = 0", "watch_ms > 0")
    yield share("over_duration_share", "watch_ms > duration_ms", "watch_ms > 0")
    yield share("first_position_share", "position = 0")
    yield mean("mean_watch_ms", "watch_ms")
    yield mean("mean_duration_ms", "duration_ms")
    yield typical("typical_watch_ms", "watch_ms")
    yield typical("typical_duration_ms", "duration_ms")
    completion = micro("least(watch_ms / duration_ms, 2)")
    yield mean("mean_completion", f"CASE WHEN duration_ms > 0 THEN {completion} END", 1e6)
    yield mean("mean_position", "position")
    usable = "propensity > 0 AND propensity <= 1"
    yield mean("mean_propensity", f"CASE WHEN {usable} THEN {micro('propensity')} END", 1e6)
    # What a policy's inverse propensities add up to is the number of its candidates: clipping shows here first.
    inverse = micro("1 / greatest(propensity, 1e-6)")
    yield mean("mean_inverse_propensity", f"CASE WHEN {usable} THEN {inverse} END", 1e6)


def _per_hour(day: Day, pipeline: Pipeline) -> Iterator[Ratio]:
    """The profile of the day; none on a day on which clocks change, which no earlier day is like."""
    start, end = bounds_us(day.day, pipeline.feed.zone)
    if end - start == DAY_HOURS * HOUR_US:
        for hour in range(DAY_HOURS):
            yield share(f"hour_share[{hour:02d}]", f"hour = {hour}")


def _rates(surfaces: Histogram) -> Iterator[Ratio]:
    """Positive rates per behaviour, of all rows and per group."""
    total = sum(surfaces.counts.values())
    large = [
        name for name, count in surfaces.counts.items() if count >= SURFACE_SHARE * total and not name.startswith("(")
    ]
    groups = {
        "": "TRUE",
        "[new]": "is_new",
        "[known]": "NOT is_new",
        "[random]": "coalesce(is_random, FALSE)",
        "[evening]": f"hour >= {LATE_HOUR}",
    }
    if len(large) > 1:
        groups |= {f"[surface {name}]": f"surface = {literal(name)}" for name in large if name == harmless(name, 60)}
    for name in BEHAVIOURS:
        for group, condition in groups.items():
            yield share(f"{name}_rate{group}", f'"{name}" = 1', condition)
    for group, condition in groups.items():
        if group:
            yield share(f"zero_watch_share{group}", "watch_ms = 0", condition)


def _of_users_and_sessions(connection: duckdb.DuckDBPyConnection) -> tuple[int, dict[str, Measure]]:
    """Numbers of users and sessions, how much one user does, how long a session is."""
    rows, users, videos, sessions = _one(
        connection,
        "SELECT count(*), count(DISTINCT user_id), count(DISTINCT video_id), count(DISTINCT session_id) FROM log",
    )
    top, busy, heavy = _one(
        connection,
        "SELECT max(n), quantile_disc(n, 0.99), coalesce(sum(n) FILTER (WHERE n >= 10 * m), 0) FROM "
        "(SELECT n, median(n) OVER () AS m FROM (SELECT count(*) AS n FROM log GROUP BY user_id))",
    )
    single, holes, shared, long = _one(
        connection,
        "SELECT sum((n = 1)::INT), sum((last + 1 <> n)::INT), sum(shared::INT), quantile_disc(n, 0.99) FROM "
        "(SELECT count(*) AS n, max(position) AS last, min(user_id) <> max(user_id) AS shared FROM log "
        "GROUP BY session_id)",
    )
    # Everybody's next impression begins when the last one has been watched; what overlaps came from two machines.
    overlapping, same_moment, followed = _one(
        connection,
        "SELECT coalesce(sum((gap < watch_ms)::INT), 0), coalesce(sum((gap <= 0)::INT), 0), count(gap) FROM "
        "(SELECT watch_ms, epoch_ms(lead(event_time) OVER (PARTITION BY user_id ORDER BY event_time)) "
        "- epoch_ms(event_time) AS gap FROM log)",
    )
    # As if one user's rows were as uncertain as one event.
    by_user, by_session = 1 / max(users, 1) ** 0.5, 1 / max(sessions, 1) ** 0.5
    found = {
        "rows": Measure(rows, "count", users, by_user),
        "users": Measure(users, "count", users, by_user),
        "videos": Measure(videos, "count", users, by_user),
        "sessions": Measure(sessions, "count", users, by_user),
        "rows_per_user": Measure(rows / max(users, 1), "mean", users, by_user),
        "sessions_per_user": Measure(sessions / max(users, 1), "mean", users, by_user),
        "rows_per_session": Measure(rows / max(sessions, 1), "mean", sessions, by_session),
        "rows_of_busiest_user": Measure(top or 0, "distance", users, by_user),
        "rows_of_busy_user": Measure(busy or 0, "count", users, by_user),
        "heavy_user_share": _share(heavy, rows, users),
        "long_session": Measure(long or 0, "count", sessions, by_session),
        "single_session_share": _share(single, sessions, users),
        "holed_session_share": _share(holes, sessions, users),
        "shared_session_share": _share(shared, sessions, users),
        "overlapping_share": _share(overlapping, followed, users),
        "same_moment_share": _share(same_moment, followed, users),
        # Real logs hold a few: one video twice in a millisecond, with two watch times.
        "event_repeat_share": _share(_repeats(connection, "user_id, event_time, video_id"), rows, users),
    }
    return int(users), found


def _of_tables(connection: duckdb.DuckDBPyConnection, day: Day) -> dict[str, Measure]:
    """Sizes and freshness of users and videos."""
    found: dict[str, Measure] = {}
    for name, key, since in (("users", "user_id", "registered_at"), ("videos", "video_id", "uploaded_at")):
        rows, repeats, unborn, newest = _one(
            connection,
            f"SELECT count(*), count({key}) - count(DISTINCT {key}), coalesce(sum(({since} IS NULL)::INT), 0), "  # noqa: S608
            f"max(epoch_us({since})) FROM {name}",
        )
        found[f"{name}_table_rows"] = Measure(rows, "count")
        found[f"{name}_{since}_null_share"] = _share(unborn, rows, rows)
        found[f"{name}_repeat_share"] = _share(repeats, rows, rows)
        if newest is not None:
            found[f"{name}_behind_days"] = Measure(max(_end_us(day) - newest, 0) / HOUR_US / DAY_HOURS, "count")
    return found | measured(connection, "videos", "video_id", [typical("videos_typical_duration_ms", "duration_ms")])


def _end_us(day: Day) -> int:
    # To the hour: the feed's zone moves all days alike.
    return (day.day.toordinal() - date(1970, 1, 1).toordinal() + 1) * DAY_HOURS * HOUR_US


def _refused(day: Day, rows: int, users: int) -> dict[str, Measure]:
    delivered = rows + sum(day.refused.values())
    # None of another day's rows is a measure too: the first ones tell of clocks that are wrong.
    reasons = {OUTSIDE_DAY: 0, **day.refused}
    found = {f"refused_share[{reason}]": _share(count, delivered, users) for reason, count in reasons.items()}
    return found | {"refused_share": _share(sum(day.refused.values()), delivered, users)}


def _histograms(
    connection: duckdb.DuckDBPyConnection, users: int, surfaces: Histogram, day: Day
) -> Iterator[tuple[str, Histogram]]:
    """Distributions whose shape matters."""
    yield "surface", surfaces
    yield "watch_ms", histogram_of(connection, "log", log_bins("watch_ms"), users)
    yield "duration_ms", histogram_of(connection, "log", log_bins("duration_ms"), users)
    ratio = unit_bins("least(watch_ms / nullif(duration_ms, 0), 2.0)", 2.0)
    yield "completion", histogram_of(connection, "log", ratio, users)
    yield "propensity", histogram_of(connection, "log", log_bins("1 / nullif(propensity, 0)"), users)
    per_user = "(SELECT count(*) AS n FROM log GROUP BY user_id)"
    yield "rows_per_user", histogram_of(connection, per_user, log_bins("n"), users)
    per_session = "(SELECT count(*) AS n FROM log GROUP BY session_id)"
    yield "rows_per_session", histogram_of(connection, per_session, log_bins("n"), users)
    yield "tenure_days", histogram_of(connection, "(SELECT tenure_days FROM joined)", log_bins("tenure_days"), users)
    if pc.count(day.videos["topic"]).as_py():
        topics = "(SELECT topic FROM log JOIN videos USING (video_id))"
        yield "topic", categories_of(connection, topics, "topic", users)
    for name in day.users.column_names:
        if name.startswith("attr_"):
            yield name, categories_of(connection, "users", name, users)


def _share(events: Any, rows: Any, units: Any) -> Measure:
    """A share of counted events; a user's events go together, so chance counts the users."""
    total = float(rows or 0)
    value = float(events or 0) / total if total else 0.0
    return Measure(value, "share", total, 1 / max(float(units or 1), 1.0) ** 0.5)


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = connection.execute(query).fetchall()[0]
    return row
