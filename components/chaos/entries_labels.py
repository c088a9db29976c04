"""Faults of what users did and of what the logging policy says of itself."""

from components.chaos import labels, policy
from components.chaos.fault import Fault

LABELS = (
    Fault(
        "watch_in_seconds", "log", labels.watch_in_seconds,
        "A client version changed the unit of watch times.",
        "critical", "users", 0.05, ("refused.unwatched_finish", "log.*watch_ms*"),
    ),
    Fault(
        "watch_in_microseconds", "log", labels.watch_in_microseconds,
        "A client version uses another clock.",
        "critical", "users", 0.05, ("refused.absurd_watch", "log.*watch_ms*"),
    ),
    Fault(
        "duration_in_seconds", "log", labels.duration_in_seconds,
        "A client version changed the unit of durations.",
        "critical", "users", 0.05, ("log.*duration*", "log.unfinished_share"), needs=("log.duration_ms",),
    ),
    Fault(
        "watch_zero", "log", labels.watch_zero,
        "A client version's player reports before it has played.",
        "critical", "users", 0.05, ("refused.unwatched_*", "log.zero_watch_share*"),
    ),
    Fault(
        "watch_negative", "log", labels.watch_negative,
        "Watch time as a difference of two clocks, in the wrong order.",
        "critical", "rows", 0.01, ("refused.negative_watch",),
    ),
    Fault(
        "watch_above_cap", "log", labels.watch_above_cap,
        "A player that runs on in the background.",
        "critical", "rows", 0.01, ("refused.absurd_watch",),
    ),
    Fault(
        "watch_left_running", "log", labels.watch_left_running,
        "A player that runs on behind a locked screen.",
        "critical", "rows", 0.01, ("log.mean_watch_ms", "log.overlapping_share"),
    ),
    Fault(
        "watch_duration_swapped", "log", labels.watch_duration_swapped,
        "A schema change moved columns that are read by position.",
        "critical", "rows", 0.05, ("refused.unwatched_finish", "log.*duration*"), needs=("log.duration_ms",),
    ),
    Fault(
        "default_duration", "log", labels.default_duration,
        "The player logs a default where it does not know the length yet.",
        "critical", "rows", 0.05,
        ("log.other_duration_share", "refused.unwatched_finish", "log.*duration_ms*"), needs=("log.duration_ms",),
    ),
    Fault(
        "durations_missing", "log", labels.durations_missing,
        "A client that leaves the length to the catalogue.",
        "harmless", "rows", 1.0, (), needs=("log.duration_ms",),
    ),
    Fault(
        "labels_delayed", "log", labels.labels_delayed,
        "The job that joins interactions to exposures was late.",
        "critical", "rows, the last ones", 0.5, ("log.*_rate[[]evening]", "log.like_rate*"), needs=("log.like",),
    ),
    Fault(
        "like_flipped", "log", labels.like_flipped,
        "An 'unlike' flag read as a like.",
        "critical", "rows", 0.05, ("log.like_rate*",), needs=("log.like",),
    ),
    Fault(
        "like_from_click", "log", labels.like_from_click,
        "A mapping that names the neighbouring column.",
        "critical", "rows", 0.2, ("log.like_rate*",), needs=("log.like", "log.click"),
    ),
    Fault(
        "like_null", "log", labels.like_null,
        "A column that an upstream table no longer has.",
        "critical", "rows", 0.2, ("log.like_null_share",), needs=("log.like",),
    ),
    Fault(
        "long_view_zero", "log", labels.long_view_zero,
        "A client version does not send the event.",
        "critical", "users", 0.2, ("log.long_view_rate*",), needs=("log.long_view",),
    ),
    Fault(
        "long_view_redefined", "log", labels.long_view_redefined,
        "A product team changed what counts as a long view.",
        "critical", "users", 0.2, ("log.long_view_rate*",), needs=("log.long_view",),
    ),
    Fault(
        "finish_at_half", "log", labels.finish_at_half,
        "A client version with another definition of a finish.",
        "critical", "users", 0.05, ("refused.unwatched_finish",), needs=("log.finish", "log.duration_ms"),
    ),
    Fault(
        "clicks_counted", "log", labels.clicks_counted,
        "A flag became a counter.",
        "critical", "users", 0.05, ("refused.bad_behaviour",), needs=("log.click",),
    ),
    Fault(
        "behaviours_misjoined", "log", labels.behaviours_misjoined,
        "Two files joined by position after one of them was sorted.",
        "critical", "rows", 0.05, ("refused.unwatched_*", "log.unfinished_share"), needs=("log.finish",),
    ),
)  # fmt: skip

POLICY = (
    Fault(
        "propensity_clipped", "log", policy.propensity_clipped,
        "Clipping meant for an estimator was put into the logging.",
        "critical", "rows", 0.2, ("log.other_propensity_share", "log.*propensity*"), needs=("log.propensity",),
    ),
    Fault(
        "propensity_constant", "log", policy.propensity_constant,
        "The ranking service logs a default after a timeout.",
        "critical", "rows", 0.2, ("log.other_propensity_share", "log.*propensity*"), needs=("log.propensity",),
    ),
    Fault(
        "propensity_missing", "log", policy.propensity_missing,
        "A fallback ranker that logs no probabilities.",
        "critical", "rows", 0.2, ("log.propensity_null_share",), needs=("log.propensity",),
    ),
    Fault(
        "propensity_in_percent", "log", policy.propensity_in_percent,
        "A dashboard's unit in the log.",
        "critical", "rows", 0.01, ("refused.bad_propensity",), needs=("log.propensity",),
    ),
    Fault(
        "propensity_misjoined", "log", policy.propensity_misjoined,
        "Propensities joined to exposures by arrival, not by request.",
        "critical", "rows", 0.2, ("log.other_propensity_share",), needs=("log.propensity",),
    ),
    Fault(
        "random_flag_lost", "log", policy.random_flag_lost,
        "The exploration service no longer marks what it shows.",
        "critical", "uniform exposures", 0.5, ("log.random_share",), needs=("log.is_random",),
    ),
    Fault(
        "random_flag_spread", "log", policy.random_flag_spread,
        "A whole request is marked although one of its slots was explored.",
        "critical", "other exposures", 0.05, ("log.random_share",), needs=("log.is_random",),
    ),
    Fault(
        "positions_from_one", "log", policy.positions_from_one,
        "A client version counts from 1.",
        "critical", "users", 0.05, ("log.holed_session_share", "log.unrequested_share"), needs=("log.position",),
    ),
    Fault(
        "positions_lost", "log", policy.positions_lost,
        "A client version that has no position and sends 0.",
        "critical", "users", 0.05, ("refused.repeated_position", "log.first_position_share"), needs=("log.position",),
    ),
    Fault(
        "surface_renamed", "log", policy.surface_renamed,
        "A client version spells a surface in another way.",
        "warning", "users", 0.05, ("log.surface_*",), needs=("log.surface",),
    ),
    Fault(
        "surface_null", "log", policy.surface_null,
        "A new client sends a field under another name.",
        "warning", "rows", 0.2, ("log.surface_*",), needs=("log.surface",),
    ),
    Fault(
        "requests_lost", "requests", policy.requests_lost,
        "The candidate log is sampled, or its topic was truncated.",
        "critical", "requests", 0.2, ("log.unrequested_share",), needs=("requests",),
    ),
    Fault(
        "column_renamed", "log", policy.column_renamed,
        "An upstream team renamed a column.",
        "critical", "any", 0.01, ("source",),
    ),
    Fault(
        "rows_shuffled", "log", policy.rows_shuffled,
        "Another number of partitions upstream.",
        "harmless", "rows", 1.0, (),
    ),
)  # fmt: skip
