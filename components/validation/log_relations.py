"""What a day's tables say of each other: labels of watching, exposures of requests, users and videos of other days.

Faults that leave every column plausible by itself show here, because what two columns say of each other hardly
varies from day to day.
"""

from collections.abc import Iterator

import duckdb
import pyarrow as pa

from components.feed.schema import USERS, VIDEOS
from components.validation.outcome import harmless
from components.validation.profiles import CATEGORIES, MISSING, OTHER, sample_of
from components.validation.ratios import Ratio, measured, share
from components.validation.scan import quoted_name
from components.validation.summary import Histogram, Measure

DAY_US = 24 * 3_600_000_000
MINUTE_US = 60_000_000

# Labels that follow from watching, so that their rate among finished videos hardly moves.
OF_WATCHING = ("click", "skip", "long_view")

# How rows were watched: no feed calls the brief ones long views, most call the lasting ones so.
_BANDS = {
    "finished": "finish = 1",
    "brief": "finish = 0 AND watch_ms BETWEEN 1 AND 9999",
    "lasting": "finish = 0 AND watch_ms >= 30000",
}

# Propensities are logged in single or double precision.
PROPENSITY_SLACK = 1e-3

# Users' attributes as the log's rows carry them.
LOG_ATTRIBUTE = "log_attr_"


def relation_ratios() -> Iterator[Ratio]:
    """Shares of a day's rows, of the view that joins users and videos to the log."""
    yield share("unfinished_share", "finish = 0 AND watch_ms >= duration_ms", "watch_ms > 0")
    yield share("whole_minute_share", f"at_us % {MINUTE_US} = 0")
    for name in OF_WATCHING:
        for band, condition in _BANDS.items():
            yield share(f"{name}_rate[{band}]", f'"{name}" = 1', f"coalesce({condition}, FALSE)")


def relation_measures(
    connection: duckdb.DuckDBPyConnection, start_us: int, end_us: int, gap_min: int, new_days: int
) -> dict[str, Measure]:
    """Numbers of users, videos and sessions that need more than the rows.

    Args:
        connection: Sees ``log``, ``users``, ``videos`` and, where the feed logs them, ``requests``.
        start_us: The local midnight that begins the day, in microseconds since 1970.
        end_us: The one that ends it.
        gap_min: Pause in minutes that ends a session.
        new_days: Days for which a user counts as new.

    Returns:
        Measures by name.
    """
    connection.execute("CREATE TEMP TABLE rows_of_user AS SELECT user_id, count(*) AS n FROM log GROUP BY user_id")
    found = _of_registrations(connection, start_us, end_us, new_days)
    paused, followed, units = _one(
        connection,
        f"SELECT coalesce(sum((gap >= {gap_min * MINUTE_US})::INT), 0), count(gap), count(DISTINCT user_id) FROM "  # noqa: S608
        "(SELECT user_id, epoch_us(event_time) - lag(epoch_us(event_time)) "
        "OVER (PARTITION BY session_id ORDER BY event_time) AS gap FROM log)",
    )
    found["paused_session_share"] = counted(paused, followed, units)
    for name in ("video", "creator"):
        rows = f"SELECT count(*) AS n FROM log WHERE {name}_id IS NOT NULL GROUP BY {name}_id"  # noqa: S608
        busiest, total = _one(connection, f"SELECT coalesce(max(n), 0), coalesce(sum(n), 0) FROM ({rows})")  # noqa: S608
        if total:
            found[f"busiest_{name}_share"] = counted(busiest, total, units)
    return found


def request_measures(connection: duckdb.DuckDBPyConnection) -> dict[str, Measure]:
    """Whether exposures are those that the logged requests could have led to.

    Args:
        connection: Sees ``log`` and ``requests``.

    Returns:
        Shares of exposures without a request, of ones that were no candidates, and of other propensities than logged.
    """
    listed, unknown, strange, other, stated, units = _one(
        connection,
        f"""
        SELECT count(*), sum((place IS NULL)::INT), sum((place = 0)::INT),
               sum((place > 0 AND abs(p / propensity - 1) > {PROPENSITY_SLACK})::INT),
               sum((place > 0 AND p IS NOT NULL AND propensity IS NOT NULL)::INT), count(DISTINCT user_id)
        FROM (
            SELECT log.user_id, propensity, place, probabilities[place] AS p
            FROM log LEFT JOIN (
                SELECT session_id, slot, candidates, probabilities FROM requests
            ) r ON log.session_id = r.session_id AND log.position = r.slot,
            LATERAL (SELECT CASE WHEN r.session_id IS NOT NULL
                                 THEN coalesce(list_position(r.candidates, log.video_id), 0) END AS place)
        )
        """,  # noqa: S608 - a constant
    )
    found = {
        "unrequested_share": counted(unknown, listed, units),
        "no_candidate_share": counted(strange, listed, units),
    }
    if stated:
        found["other_propensity_share"] = counted(other, stated, units)
    return found


def relation_histograms(
    connection: duckdb.DuckDBPyConnection, users: pa.Schema, units: int
) -> Iterator[tuple[str, Histogram]]:
    """The log's rows by every attribute of their users.

    Args:
        connection: Sees ``users`` and ``rows_of_user``.
        users: Columns of the users.
        units: How many users the log has.

    Yields:
        Name and histogram.
    """
    for name in users.names:
        if name.startswith("attr_"):
            column = quoted_name(name)
            rows = connection.execute(
                f"SELECT {column}[:200], sum(n) AS m FROM users JOIN rows_of_user USING (user_id) "  # noqa: S608
                f"GROUP BY 1 ORDER BY m DESC, 1"
            ).fetchall()
            counts: dict[str, int] = {}
            for place, (value, count) in enumerate(rows):
                shown = OTHER if place >= CATEGORIES else MISSING if value is None else harmless(value, 60)
                counts[shown] = counts.get(shown, 0) + int(count)
            yield LOG_ATTRIBUTE + name.removeprefix("attr_"), Histogram(dict(sorted(counts.items())), units, False)


def known_samples(connection: duckdb.DuckDBPyConnection, users: pa.Schema) -> dict[str, tuple[int, ...]]:
    """Samples of all known users and videos with what is known of them, which hardly changes from day to day.

    Args:
        connection: Sees ``users`` and ``videos``.
        users: Columns of the users.

    Returns:
        Samples by name; a row of which one value changed is another row.
    """
    facts = {
        "users": [name for name in users.names if name in USERS.names or name.startswith("attr_")],
        "videos": VIDEOS.names,
    }
    found = {}
    for table, columns in facts.items():
        text = ", ".join(f"coalesce({quoted_name(name)}::VARCHAR, '')" for name in columns)
        # Unlike hash(), the same in every version of DuckDB: samples outlive an upgrade.
        key = f"(SELECT (md5_number_lower(concat_ws('|', {text})) >> 1)::BIGINT AS fact FROM {table})"  # noqa: S608
        found[f"known_{table}"] = sample_of(connection, key, "fact")
    return found


def counted(events: float | None, rows: float | None, units: float | None) -> Measure:
    """A share of counted events; a user's events go together, so chance counts the users."""
    total = float(rows or 0)
    value = float(events or 0) / total if total else 0.0
    return Measure(value, "share", total, 1 / max(float(units or 1), 1.0) ** 0.5)


def _of_registrations(
    connection: duckdb.DuckDBPyConnection, start_us: int, end_us: int, new_days: int
) -> dict[str, Measure]:
    """Who registered on the day, who of whom was seen on it, and how old users and videos are."""
    found = {}
    for table, since, what in (("users", "registered_at", "registered"), ("videos", "uploaded_at", "uploaded")):
        today, rows, old = _one(
            connection,
            f"SELECT coalesce(sum((born >= {start_us} AND born < {end_us})::INT), 0), count(born), "  # noqa: S608
            f"quantile_disc(({end_us} - born) / {DAY_US}, 0.95) FROM (SELECT epoch_us({since}) AS born FROM {table})",
        )
        if rows:
            found[f"{table}_{what}_today_share"] = counted(today, rows, rows)
            found[f"{table}_old_days"] = Measure(max(float(old or 0), 0.0), "count")
    recent = f"epoch_us(registered_at) >= {end_us - new_days * DAY_US}"
    seen = [
        share("seen_share[registered today]", "seen", f"coalesce(epoch_us(registered_at) >= {start_us}, FALSE)"),
        share("seen_share[new]", "seen", f"coalesce({recent}, FALSE)"),
        share("seen_share[known]", "seen", f"NOT coalesce({recent}, FALSE)"),
    ]
    source = "(SELECT users.*, n IS NOT NULL AS seen FROM users LEFT JOIN rows_of_user USING (user_id))"
    return found | measured(connection, source, "user_id", seen)


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[float | None, ...]:
    row: tuple[float | None, ...] = connection.execute(query).fetchall()[0]
    return row
