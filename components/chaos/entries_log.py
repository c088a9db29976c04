"""Faults of the log's times, rows and keys."""

from components.chaos import identity, rows, times
from components.chaos.fault import Fault

TIMES = (
    Fault(
        "time_zone_shift", "log", times.time_zone_shift,
        "A client version sends local time as if it were UTC.",
        "critical", "users", 0.2, ("refused.outside_day", "log.refused_share[[]outside_day]", "log.hour_share*"),
    ),
    Fault(
        "clock_skew", "log", times.clock_skew,
        "Phones whose clocks are wrong; the server keeps the client's time.",
        "critical", "users", 0.2, ("refused.outside_day", "log.refused_share[[]outside_day]", "log.hour_share*"),
    ),
    Fault(
        "future_dates", "log", times.future_dates,
        "Clocks set ahead to win in a game, or a year that was parsed with two digits.",
        "critical", "rows", 0.01, ("refused.outside_day",),
    ),
    Fault(
        "missing_hours", "log", times.missing_hours,
        "A collector was down, or one of the hourly files did not arrive.",
        "critical", "hours of the day", 0.05, ("log.hour_share*",),
    ),
    Fault(
        "partial_day", "log", times.partial_day,
        "The export ran before the day was over.",
        "critical", "rows, the last ones", 0.2, ("log.hour_share*", "log.rows"),
    ),
    Fault(
        "hourly_times", "log", times.hourly_times,
        "A loader stamps rows with the hour of their file.",
        "critical", "users", 0.2, ("log.whole_minute_share", "log.same_moment_share"),
    ),
    Fault(
        "upload_times", "log", times.upload_times,
        "Clients collect events offline and the server stamps them on arrival.",
        "critical", "users", 0.2, ("log.same_moment_share", "log.event_repeat_share"),
    ),
    Fault(
        "yesterday_again", "log", times.yesterday_again,
        "A loader took yesterday's partition for a part of the day.",
        "critical", "rows", 0.05, ("refused.outside_day",), yesterday=True,
    ),
    Fault(
        "replayed_yesterday", "log", times.replayed_yesterday,
        "A queue was replayed, and the consumer dates events by arrival.",
        "critical", "rows", 0.2,
        ("log.unrequested_share", "log.holed_session_share", "log.rows_per_session*"), yesterday=True,
    ),
)  # fmt: skip

ROWS = (
    Fault(
        "duplicated_batch", "log", rows.duplicated_batch,
        "A loader was retried after it had written.",
        "critical", "rows", 0.05, ("refused.duplicate",),
    ),
    Fault(
        "retried_batch", "log", rows.retried_batch,
        "A client sent a batch again and stamped it anew.",
        "critical", "rows", 0.05, ("refused.repeated_position", "log.overlapping_share"), needs=("log.position",),
    ),
    Fault(
        "join_explosion", "log", rows.join_explosion,
        "A join with a table that holds several rows of a key.",
        "critical", "rows", 0.05, ("refused.repeated_position", "log.event_repeat_share"), needs=("log.position",),
    ),
    Fault(
        "rows_lost", "log", rows.rows_lost,
        "A sampling setting meant for tests, or a queue that overflowed.",
        "critical", "rows", 0.5, ("log.rows", "log.rows_per_*", "log.holed_session_share"),
    ),
    Fault(
        "group_lost", "log", rows.group_lost,
        "One region's collector, or one app store's release, sends nothing.",
        "critical", "the largest group's users", 0.5, ("log.log_attr_*",),
        needs=("users.attr_",),
    ),
    Fault(
        "new_users_lost", "log", rows.new_users_lost,
        "A join with an account table that lags: rows of accounts it does not hold yet fall out.",
        "critical", "new users", 0.5, ("log.seen_share*", "log.new_user_share"), needs=("users.registered_at",),
    ),
    Fault(
        "unclicked_lost", "log", rows.unclicked_lost,
        "A client logs an exposure only with the click that follows it.",
        "critical", "users", 0.2, ("log.click_rate*", "log.holed_session_share"), needs=("log.click",),
    ),
    Fault(
        "bot_users", "log", rows.bot_users,
        "Click fraud by registered accounts.",
        "critical", "rows, added", 0.05, ("log.heavy_user_share", "log.rows_of_bus*"), needs=("log.click",),
    ),
    Fault(
        "hot_video", "log", rows.hot_video,
        "The ranker fell back to one video for everybody.",
        "critical", "rows", 0.2, ("log.busiest_video_share", "log.no_candidate_share"),
    ),
)  # fmt: skip

IDENTITY = (
    Fault(
        "null_user_ids", "log", identity.null_user_ids,
        "Events sent before the login was done.",
        "critical", "rows", 0.01, ("refused.null_key",),
    ),
    Fault(
        "empty_user_ids", "log", identity.empty_user_ids,
        "A client that writes an empty string where it knows no user.",
        "critical", "rows", 0.05, ("log.unknown_user_share", "log.heavy_user_share", "log.*users_are_known"),
    ),
    Fault(
        "default_user_id", "log", identity.default_user_id,
        "A default of 0 where the account service did not answer.",
        "critical", "users", 0.05, ("log.unknown_user_share", "log.heavy_user_share", "log.*users_are_known"),
    ),
    Fault(
        "user_ids_rehashed", "log", identity.user_ids_rehashed,
        "A client version anonymises ids with another salt than the accounts' table.",
        "critical", "users", 0.05, ("log.unknown_user_share", "log.*users_are_known"), needs=("users.registered_at",),
    ),
    Fault(
        "all_user_ids_rehashed", "log", identity.all_user_ids_rehashed,
        "The salt of all ids was rotated, in every table at once.",
        "critical", "users", 0.2, ("log.known_users_overlap", "log.users_overlap"),
    ),
    Fault(
        "video_ids_rehashed", "log", identity.video_ids_rehashed,
        "The player logs the id of an encoding instead of the video's.",
        "critical", "videos", 0.05, ("log.unknown_video_share", "log.*videos_are_known", "refused.no_duration"),
    ),
    Fault(
        "user_ids_reused", "log", identity.user_ids_reused,
        "Ids of deleted accounts are given to new ones, or cut to too few bits.",
        "critical", "users", 0.5, ("log.users", "log.rows_per_user*", "log.seen_share*"),
    ),
    Fault(
        "swapped_ids", "log", identity.swapped_ids,
        "A schema change moved columns that are read by position.",
        "critical", "rows", 0.05, ("log.unknown_*", "log.*are_known"),
    ),
    Fault(
        "session_ids_rounded", "log", identity.session_ids_rounded,
        "Ids went through a float column of a data frame with gaps.",
        "critical", "users", 0.05, ("refused.repeated_position",), needs=("log.session_id", "log.position"),
    ),
    Fault(
        "sessions_merged", "log", identity.sessions_merged,
        "A client version keeps its session id until the app is restarted.",
        "critical", "users", 0.5,
        ("log.paused_session_share", "log.rows_per_session*"), needs=("log.session_id", "log.position"),
    ),
    Fault(
        "sessions_split", "log", identity.sessions_split,
        "A client version draws a session id for every request.",
        "critical", "users", 0.2,
        ("log.sessions*", "log.rows_per_session*", "log.single_session_share"),
        needs=("log.session_id", "log.position"),
    ),
    Fault(
        "creators_merged", "videos", identity.creators_merged,
        "Creators of deleted accounts become the default 0.",
        "warning", "videos", 0.2,
        ("log.known_videos_overlap", "log.busiest_creator_share"), needs=("videos.creator_id", "log.creator_id"),
    ),
)  # fmt: skip
