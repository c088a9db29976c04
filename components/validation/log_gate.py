"""The gate of a day's log, users and videos: pure, so that it runs on any table, without a lake.

Some expectations hold on any feed's day (schema, keys, ranges, labels, wide limits); the others are learned from
earlier days. Rows that break a rule were refused by ingest, so here not one may be left; how many were refused has
a limit of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from components.config import Pipeline
from components.errors import EmptyDayError, SourceError
from components.feed.canonical import clean
from components.feed.schema import BEHAVIOURS, LOG, USERS, VIDEOS, DayTables
from components.validation.control import recent
from components.validation.drift import drift
from components.validation.learned import LEVEL_ALPHA, learned, with_overlap
from components.validation.log_measures import OUTSIDE_DAY, Counts, Day, measure_log
from components.validation.log_relations import LOG_ATTRIBUTE
from components.validation.outcome import Level, Outcome, within
from components.validation.scan import schema_of
from components.validation.summary import Summary

__all__ = ["Day", "Verdict", "check_delivery", "check_log"]

# Wide limits that only a broken day crosses, from what short-video feeds look like.
RATE_LIMITS = {"click": (0.005, 0.98), "finish": (0.005, 0.95), "skip": (0.005, 0.95), "long_view": (0.005, 0.95)}
MEAN_WATCH_MS = (300.0, 300_000.0)
UNKNOWN_WARN, UNKNOWN_FAIL = 0.05, 0.5

WIDE = "holds on any feed's day"
ROWS = "no row may break it: ingest refuses such rows"

# What a broken day shows first: volume, who and what is in it, times.
SENTINELS = frozenset(
    {
        *("rows", "users", "sessions", "rows_per_user", "unknown_user_share", "unknown_video_share"),
        *("zero_watch_share", "typical_watch_ms", "mean_watch_ms", "typical_duration_ms", "mean_completion"),
        *("overlapping_share", "holed_session_share", "random_share", "new_user_share", "mean_inverse_propensity"),
    }
)

# Unusual, but no reason to stop a day: what few events or a single user can move.
WARN_MEASURES = frozenset(
    {
        *("creator_id_null_share", "surface_null_share", "other_creator_share", "whole_second_watch_share"),
        *("rows_of_busiest_user", "rows_of_busy_user", "long_session", "first_position_share", "mean_position"),
        *("users_behind_days", "videos_behind_days", "videos", "users_table_rows", "videos_table_rows"),
        *("videos_typical_duration_ms", "videos_uploaded_at_null_share", "single_session_share"),
        *("busiest_video_share", "busiest_creator_share", "videos_uploaded_today_share", "known_videos_overlap"),
    }
)

HISTOGRAM_LEVELS: dict[str, Level] = {
    "watch_ms": "fail",
    "duration_ms": "fail",
    "completion": "fail",
    "propensity": "fail",
    "surface": "fail",
    "rows_per_user": "fail",
}


@dataclass(frozen=True)
class Verdict:
    """What a gate found.

    Attributes:
        fixed: Expectations that the day alone decides.
        summary: What the days after this one learn from it; None where the day could not be measured.
        learned: Expectations whose limits other days taught.
    """

    fixed: tuple[Outcome, ...]
    summary: Summary | None
    learned: tuple[Outcome, ...] = ()

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """All expectations."""
        return (*self.fixed, *self.learned)

    @property
    def teaches(self) -> bool:
        """Whether later days learn from this one.

        Only what the day alone decides counts, so that no verdict depends on the order in which days were judged. What
        only a learned limit stopped does teach: medians do not follow a few odd days, and should follow many.
        """
        return self.summary is not None and not any(one.stops for one in self.fixed)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Broken expectations that stop the day."""
        return tuple(one for one in self.outcomes if one.stops)

    @property
    def warned(self) -> tuple[Outcome, ...]:
        """Broken expectations that are only said."""
        return tuple(one for one in self.outcomes if one.level == "warn" and not one.success)

    @property
    def refused(self) -> tuple[Outcome, ...]:
        """Reasons for which rows went to quarantine."""
        return tuple(one for one in self.outcomes if one.level == "refuse" and not one.success)

    @property
    def stops(self) -> bool:
        """Whether the day stops here."""
        return bool(self.failed)


def check_delivery(tables: DayTables, day: date, pipeline: Pipeline, history: Sequence[Summary]) -> Verdict:
    """Clean a day as ingest does, and check what is left.

    Args:
        tables: The day as its source delivers it.
        day: The local day.
        pipeline: The feed's rules and the limits.
        history: Summaries of other days; only those shortly before the day count.

    Returns:
        The verdict. A delivery that ingest refuses as a whole is a failed expectation.
    """
    try:
        cleaned = clean(tables, pipeline.feed, day)
    except (SourceError, EmptyDayError) as error:
        rule = "ingest reads it"
        broken = within("log", "delivery_can_be_read", 0.0, low=1, rule=rule, detail=f"{type(error).__name__}: {error}")
        return Verdict((broken,), None)
    delivered = Day(day, cleaned.log, cleaned.users, cleaned.videos, cleaned.counts, cleaned.requests)
    return check_log(delivered, pipeline, history)


def check_log(day: Day, pipeline: Pipeline, history: Sequence[Summary]) -> Verdict:
    """Check a day's log, users and videos.

    Args:
        day: The day after ingest.
        pipeline: The feed's rules and the limits.
        history: Summaries of other days, in any order; only those shortly before the day count.

    Returns:
        The verdict. A table with missing columns or wrong types is judged by that alone.
    """
    shape = [
        _columns("log", schema_of(day.log), LOG, exact=True),
        _columns("users", day.users.schema, USERS),
        _columns("videos", day.videos.schema, VIDEOS),
    ]
    if any(one.stops for one in shape):
        return Verdict(tuple(shape), None)
    summary, counts = measure_log(day, pipeline)
    today, earlier = with_overlap(summary, recent(history, day.day))
    found = [
        *learned(
            "log",
            today,
            earlier,
            lambda name: _level(name, pipeline),
            _column,
            {"fail": 0.8 * LEVEL_ALPHA, "warn": 0.8 * LEVEL_ALPHA},
            SENTINELS,
        ),
        *drift("log", summary, earlier, 0.2 * LEVEL_ALPHA, fails=_histogram_levels(summary)),
    ]
    fixed = (*shape, *_rows(day, counts), *_wide(pipeline, summary, counts))
    return Verdict(fixed, summary, tuple(found))


def _columns(table: str, found: pa.Schema, wanted: pa.Schema, exact: bool = False) -> Outcome:
    """Columns that are missing or of another type, and for the log those that nobody knows."""
    wrong = [
        f"{field.name}: {found.field(field.name).type if field.name in found.names else 'missing'}"
        for field in wanted
        if field.name not in found.names or found.field(field.name).type != field.type
    ]
    if exact:
        wrong += [f"{name}: unknown" for name in found.names if name not in wanted.names]
    rule = f"{len(wanted)} columns of the canonical schema"
    return within(table, "columns", len(wrong), high=0, rule=rule, detail=", ".join(wrong))


def _rows(day: Day, counts: Counts) -> list[Outcome]:
    """No row breaks a rule; rows that did are in quarantine, by reason."""
    found = [
        within("log", name, broken, high=0, column=_column(name), rule=ROWS) for name, broken in counts.broken.items()
    ]
    rule = "rows in quarantine"
    found += [
        within("log", f"refused[{reason}]", rows, high=0, level="refuse", rule=rule)
        for reason, rows in sorted(day.refused.items())
    ]
    return found


def _wide(pipeline: Pipeline, summary: Summary, counts: Counts) -> list[Outcome]:
    """Limits that need no history."""
    setting = "the pipeline's validation settings"
    measures = summary.measures
    found = [
        within("log", "enough_rows", counts.rows, low=pipeline.validation.min_rows, rule=setting),
        within(
            "log",
            "refused_share_allowed",
            measures["refused_share"].value,
            high=pipeline.validation.max_refused_share,
            rule=setting,
        ),
    ]
    if "mean_watch_ms" in measures:
        found.append(
            within(
                "log",
                "plausible_mean_watch",
                measures["mean_watch_ms"].value,
                *MEAN_WATCH_MS,
                column="watch_ms",
                rule=WIDE,
            )
        )
    for entity in ("user", "video"):
        share = measures[f"unknown_{entity}_share"].value
        name, column = f"{entity}s_are_known", f"{entity}_id"
        found.append(within("log", name, share, high=UNKNOWN_FAIL, column=column, rule=WIDE))
        found.append(within("log", f"most_{name}", share, high=UNKNOWN_WARN, column=column, level="warn", rule=WIDE))
        for what, key in ((f"{entity}s", "repeat_share"),):
            repeats = measures[f"{what}_{key}"].value
            found.append(within(what, f"{entity}_ids_are_unique", repeats, high=0, column=f"{entity}_id", rule=WIDE))
    for name in BEHAVIOURS:
        if f"{name}_rate" not in measures:
            continue
        rate = measures[f"{name}_rate"].value
        if name in RATE_LIMITS:
            found.append(within("log", f"plausible_{name}_rate", rate, *RATE_LIMITS[name], column=name, rule=WIDE))
        # A behaviour that nobody shows all day is more often a broken client than a quiet audience.
        least = 1 / max(counts.rows, 1)
        found.append(within("log", f"any_{name}", rate, low=least / 2, column=name, level="warn", rule=WIDE))
    return found


def _histogram_levels(summary: Summary) -> dict[str, Level]:
    """Distributions that stop a day: of what is trained on, and of who is in the log."""
    inputs = [name for name in summary.histograms if name.startswith(("attr_", LOG_ATTRIBUTE, "topic"))]
    return HISTOGRAM_LEVELS | dict.fromkeys(inputs, "fail")


def _column(name: str) -> str:
    """The column that an expectation is about, by its name."""
    known = sorted((column for column in LOG.names if name.startswith(column)), key=len)
    special = {"zero_watch": "watch_ms", "unknown_user": "user_id", "unknown_video": "video_id", "hour": "event_time"}
    special |= {"mean_watch": "watch_ms", "typical_watch": "watch_ms", "random": "is_random", "mean_prop": "propensity"}
    special |= {"mean_inverse": "propensity", "typical_dur": "duration_ms", "over_duration": "watch_ms"}
    return known[-1] if known else next((column for start, column in special.items() if name.startswith(start)), "")


def _level(name: str, pipeline: Pipeline) -> Level:
    """What a measure outside its learned limits means: what is trained or stands for the whole day stops it."""
    trained = {task.name for task in pipeline.tasks}
    behaviour = next((one for one in BEHAVIOURS if name.startswith((f"{one}_rate", f"{one}_null"))), None)
    if behaviour is not None:
        return "fail" if behaviour in trained else "warn"
    # Clocks that move some rows out of the day move others within it, where nothing tells them apart.
    if name == f"refused_share[{OUTSIDE_DAY}]":
        return "fail"
    # Other rows may be refused up to a stated share; more of them than usual is said.
    return "warn" if name in WARN_MEASURES or name.startswith("refused_share") else "fail"
