"""Faults of users, videos, feature snapshots and files."""

from components.chaos import beside, raw, snapshots
from components.chaos.fault import Fault

BESIDE = (
    Fault(
        "users_stale", "users", beside.users_stale,
        "The account table's export failed; the last good one was taken.",
        "critical", "users, the newest", 0.02,
        ("log.unknown_user_share", "log.users_behind_days", "log.users_registered_today_share"),
        needs=("users.registered_at",),
    ),
    Fault(
        "users_lost", "users", beside.users_lost,
        "One shard of the account table is missing.",
        "critical", "users", 0.05, ("log.unknown_user_share", "log.*users_are_known"), needs=("users.registered_at",),
    ),
    Fault(
        "users_doubled", "users", beside.users_doubled,
        "A loader appended instead of replacing.",
        "harmless", "users", 1.0, (),
    ),
    Fault(
        "registrations_lost", "users", beside.registrations_lost,
        "Accounts from a merged company have no date.",
        "critical", "users", 0.2, ("log.users_registered_at_null_share",), needs=("users.registered_at",),
    ),
    Fault(
        "registrations_reset", "users", beside.registrations_reset,
        "Accounts were moved, and the moment of the move became their registration.",
        "critical", "users", 0.05,
        ("log.users_registered_today_share", "log.known_users_overlap"), needs=("users.registered_at",),
    ),
    Fault(
        "attribute_recoded", "users", beside.attribute_recoded,
        "An upstream table writes codes instead of names.",
        "critical", "users", 0.2, ("log.attr_*", "log.log_attr_*", "log.known_users_overlap"), needs=("users.attr_",),
    ),
    Fault(
        "attribute_null", "users", beside.attribute_null,
        "A join in the accounts' export lost its right side.",
        "critical", "users", 0.2, ("log.attr_*", "log.log_attr_*", "log.known_users_overlap"), needs=("users.attr_",),
    ),
    Fault(
        "videos_stale", "videos", beside.videos_stale,
        "The catalogue's export failed; the last good one was taken.",
        "critical", "videos, the newest", 0.1,
        ("log.unknown_video_share", "log.videos_behind_days", "log.*videos_are_known"), needs=("videos.uploaded_at",),
    ),
    Fault(
        "videos_lost", "videos", beside.videos_lost,
        "One shard of the catalogue is missing.",
        "critical", "videos", 0.1, ("log.unknown_video_share", "log.*videos_are_known"), needs=("videos.duration_ms",),
    ),
    Fault(
        "uploads_defaulted", "videos", beside.uploads_defaulted,
        "A default of the epoch where the upload time was unknown.",
        "critical", "videos", 0.2, ("log.videos_old_days", "log.known_videos_overlap"), needs=("videos.uploaded_at",),
    ),
    Fault(
        "topics_recoded", "videos", beside.topics_recoded,
        "A new classifier writes codes instead of names.",
        "critical", "videos", 0.2, ("log.topic_*",), needs=("videos.topic",),
    ),
    Fault(
        "topics_misread", "videos", beside.topics_misread,
        "An export in another encoding was read without an error.",
        "critical", "videos", 0.2, ("log.topic_*",), needs=("videos.topic",),
    ),
    Fault(
        "catalogue_in_seconds", "videos", beside.catalogue_in_seconds,
        "The catalogue changed the unit of durations.",
        "critical", "videos", 0.2,
        ("log.other_duration_share", "log.videos_typical_duration_ms"), needs=("videos.duration_ms",),
    ),
)  # fmt: skip

SNAPSHOTS = (
    Fault(
        "counters_zero", "user_features", snapshots.counters_zero,
        "A window's partials were not found and counted as nothing.",
        "critical", "rows", 0.2, ("user_features.*",),
    ),
    Fault(
        "counters_null", "user_features", snapshots.counters_null,
        "A join by keys of another type matched nothing.",
        "critical", "rows", 0.2, ("user_features.*",),
    ),
    Fault(
        "watch_in_ms", "user_features", snapshots.watch_in_ms,
        "A refactoring dropped the division by 1,000.",
        "critical", "rows", 0.05, ("user_features.*watch_s*",),
    ),
    Fault(
        "rates_in_percent", "video_features", snapshots.rates_in_percent,
        "A refactoring multiplied by 100.",
        "critical", "rows", 0.01, ("video_features.*rate*",),
    ),
    Fault(
        "windows_swapped", "video_features", snapshots.windows_swapped,
        "Columns of two windows were named by position.",
        "critical", "rows", 0.05, ("video_features.*",),
    ),
    Fault(
        "snapshot_stale", "user_features", snapshots.snapshot_stale,
        "The snapshot of yesterday was written under today's name.",
        "critical", "rows", 1.0, ("user_features.*",), yesterday=True,
    ),
    Fault(
        "snapshot_rows_lost", "user_features", snapshots.snapshot_rows_lost,
        "An inner join where an outer one was meant.",
        "critical", "rows", 0.2, ("user_features.*",),
    ),
    Fault(
        "snapshot_rows_doubled", "video_features", snapshots.snapshot_rows_doubled,
        "A union of a full and an incremental build.",
        "critical", "rows", 0.01, ("video_features.*",),
    ),
    Fault(
        "snapshot_misjoined", "user_features", snapshots.snapshot_misjoined,
        "Columns computed apart and put together by position.",
        "critical", "rows", 0.2, ("user_features.*",),
    ),
)  # fmt: skip

FILES = (
    Fault(
        "truncated_file", "file", raw.truncated,
        "A copy was interrupted.",
        "critical", "bytes, the last ones", 0.01, ("source",),
    ),
    Fault(
        "half_written_file", "file", raw.half_written,
        "A file is read while it is written.",
        "critical", "bytes, the last ones", 0.01, ("source",), csv=True,
    ),
    Fault(
        "empty_file", "file", raw.empty,
        "A disk was full when the file was made.",
        "critical", "any", 0.01, ("source",),
    ),
    Fault(
        "missing_file", "file", raw.missing,
        "The export did not run.",
        "critical", "any", 0.01, ("source",),
    ),
    Fault(
        "error_page", "file", raw.error_page,
        "A download wrote the object store's answer into the file.",
        "critical", "any", 0.01, ("source",),
    ),
    Fault(
        "wrong_day_file", "file", raw.another_day,
        "A template's date was off by one.",
        "critical", "any", 0.01, ("source", "refused.outside_day"), yesterday=True,
    ),
    Fault(
        "wrong_encoding", "file", raw.utf_16,
        "An export from a spreadsheet or a Windows tool.",
        "critical", "any", 0.01, ("source",), csv=True,
    ),
    Fault(
        "comma_in_text", "file", raw.comma_in_text,
        "A writer that does not quote texts.",
        "critical", "lines", 0.01, ("source",), csv=True,
    ),
)  # fmt: skip
