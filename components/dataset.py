"""Dataset step: point-in-time examples per day through Feast's offline store, and the window made of them.

Examples of a day depend only on that day's log and on snapshots before it, so each day is joined once and
shared by every window that contains it.
"""

from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from components.context import Context, StepResult, inputs_of
from components.days import bounds
from components.errors import WindowError
from components.features import ENTITIES, SHAPE
from components.feed.schema import BEHAVIOURS, TIME
from components.feed.source import features_of
from components.ingest import ensure_days
from components.inputs import activity_threshold, crosses, days_between, log_days, model_inputs, user_group
from components.lake import Partition
from components.locks import exclusive
from components.models.crosses import CrossTable
from components.partials import MAX_COMPLETION
from components.point_in_time import historical_features, seen
from components.store import offline_engine
from components.window import holdout_day, train_days, visible_days

LOG_COLUMNS = ("user_id", "video_id", "session_id", "position", "event_time", "watch_ms", "duration_ms", *BEHAVIOURS)


def dataset(context: Context, day: date) -> StepResult:
    """Join features to every impression of the training window and of the held-out day.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; snapshots of its window must be in the lake.

    Returns:
        Hash of the training set, rows, days, and the activity threshold of the groups.

    Raises:
        WindowError: When no day of the window, or not the held-out day, has a log.
    """
    pipeline = context.pipeline
    held = holdout_day(day)
    wanted = [*train_days(pipeline, day), held]
    days = [date.fromisoformat(p.manifest.day) for p in ensure_days(context, wanted)]
    window = [one for one in days if one != held]
    if not window or held not in days:
        raise WindowError(
            f"{day} trains on days up to {day - timedelta(days=2)} and holds out {held}, but the feed has only "
            f"{', '.join(map(str, days)) or 'none'} of them; choose a day at least two days after the feed's first "
            f"({pipeline.feed.first_day})"
        )
    parts = []
    for done, one in enumerate(days):
        context.notify(done, len(days) + 1, f"point-in-time join {one}")
        parts.append(_ensure_examples(context, one, rebuild=one == held))
    context.notify(len(days), len(days) + 1, "held-out sessions")
    sessions = write_sessions(context, held)
    training = [p for p in parts if p.manifest.day != held.isoformat()]
    threshold = _threshold(context, training)
    context.notify(len(days) + 1, len(days) + 1, "training set")
    with context.runs.write("training_set", day, pipeline.config_hash, inputs_of(*parts, *sessions)) as writer:
        record = {
            "train_days": [p.manifest.day for p in training],
            "holdout_day": held.isoformat(),
            "return_day": day.isoformat(),
            "rows": sum(p.rows for p in training),
            "activity_threshold": threshold,
        }
        writer.json("training_set.json", record)
    return StepResult("dataset", day, inputs_of(context.runs.get("training_set", day)), record)


def _ensure_examples(context: Context, day: date, rebuild: bool) -> Partition:
    lake = context.data
    with exclusive(context.lock("examples", day)):
        inputs = inputs_of(lake.get("log", day), *_visible_snapshots(context, day))
        found = lake.find("examples", day)
        if found is not None and (found.manifest.inputs, found.manifest.config_hash) == (inputs, SHAPE) and not rebuild:
            return found
        table = examples(context, day)
        with lake.write("examples", day, SHAPE, inputs) as writer:
            writer.table(table)
        return lake.get("examples", day)


def _visible_snapshots(context: Context, day: date) -> list[Partition]:
    """The snapshots that a request of ``day`` may see."""
    earlier = visible_days(context.pipeline, day)
    found = [context.data.find(f"{entity}_features", one) for one in earlier for entity in ("user", "video")]
    return [partition for partition in found if partition is not None]


def examples(context: Context, day: date) -> pa.Table:
    """Every impression of a day with its labels and the features that its request could see.

    Args:
        context: Pipeline and settings.
        day: A day whose log is in the lake.

    Returns:
        One row per impression in the log's order: ids, time, labels, ``completion`` (watched share, at most 2),
        request columns, model inputs with the pair's, ``tenure_days`` and ``video_age_days`` (int64, null = unknown).
    """
    log = context.data.get("log", day).table()
    features = features_of(context.pipeline.feed)
    table = log.select([*LOG_COLUMNS, "surface", "is_random", "propensity"])
    ratio = pc.divide(pc.cast(log["watch_ms"], pa.float64()), pc.cast(log["duration_ms"], pa.float64()))
    table = table.append_column(
        "completion", pc.cast(pc.min_element_wise(ratio, MAX_COMPLETION, skip_nulls=False), pa.float32())
    )
    table = table.append_column("hour", _local_hour(log["event_time"], context))
    with offline_engine():
        user, video = (seen(context, one, log[f"{one}_id"], log["event_time"], features) for one in ENTITIES)
    users, videos = model_inputs(user.table, features), model_inputs(video.table, features)
    parts = [feature.name for feature in features if feature.role == "part"]
    for inputs, row in ((users.drop_columns(parts), user.row), (videos, video.row)):
        columns = inputs.take(pa.array(row))
        for name in columns.column_names:
            table = table.append_column(name, columns[name])
    for name, column in CrossTable(users, videos, crosses()).columns(user.row, video.row).items():
        table = table.append_column(name, column)
    return _add_ages(context, day, table, table["event_time"])


def _add_ages(context: Context, day: date, table: pa.Table, moment: pa.ChunkedArray) -> pa.Table:
    """Tenure of the user and age of the video at the request, where the table has their ids."""
    known = {
        "user": ("users", "registered_at", "tenure_days", "log_tenure_days"),
        "video": ("videos", "uploaded_at", "video_age_days", "log_video_age_days"),
    }
    for entity, (name, since, raw, scaled) in known.items():
        if f"{entity}_id" not in table.column_names:
            continue
        profile = context.data.get(name, day).table(columns=[f"{entity}_id", since])
        row = pc.index_in(table[f"{entity}_id"], profile[f"{entity}_id"])
        days = days_between(moment, profile[since].take(row))
        table = table.append_column(raw, days).append_column(scaled, log_days(days))
    return table


def _local_hour(moment: pa.ChunkedArray, context: Context) -> pa.ChunkedArray:
    zone = pa.timestamp("us", tz=context.pipeline.feed.timezone)
    return pc.cast(pc.hour(pc.cast(moment, zone)), pa.int8())


def write_sessions(context: Context, day: date) -> tuple[Partition, Partition]:
    """Write the sessions of a day with their users' features, and its videos in each snapshot version.

    Args:
        context: Pipeline and settings.
        day: A day whose log and visible snapshots are in the lake.

    Returns:
        ``sessions`` and ``session_videos``.
    """
    lake = context.data
    log = lake.get("log", day)
    inputs = inputs_of(log, *_visible_snapshots(context, day))
    with lake.write("sessions", day, inputs=inputs) as writer:
        writer.table(sessions_of(context, day, log.table()))
    with lake.write("session_videos", day, inputs=inputs) as writer:
        writer.table(videos_of(context, day, log.table()))
    return lake.get("sessions", day), lake.get("session_videos", day)


def sessions_of(context: Context, day: date, log: pa.Table) -> pa.Table:
    """One row per session of a day, with user features as of the session's start.

    Args:
        context: Pipeline and settings.
        day: The day.
        log: Its log.

    Returns:
        session_id, user_id, started_at, surface, hour, depth (impressions shown), ``version`` (1 when the
        snapshot of the day before was already available, else 0), model inputs of the user.
    """
    table = log.group_by(["session_id", "user_id"], use_threads=False).aggregate(
        [("event_time", "min"), ("surface", "first"), ("video_id", "count")]
    )
    table = table.rename_columns(
        {"event_time_min": "started_at", "surface_first": "surface", "video_id_count": "depth"}
    )
    table = table.select(["session_id", "user_id", "started_at", "surface", "depth"])
    table = table.sort_by([("user_id", "ascending"), ("started_at", "ascending"), ("session_id", "ascending")])
    features = features_of(context.pipeline.feed)
    switch = _version_switch(context, day)
    table = table.append_column("hour", _local_hour(table["started_at"], context))
    table = table.append_column("version", pc.cast(pc.greater_equal(table["started_at"], switch), pa.int8()))
    joined = historical_features(context, table["user_id"], None, table["started_at"], features)
    for name in joined.column_names:
        table = table.append_column(name, joined[name])
    return model_inputs(_add_ages(context, day, table, table["started_at"]), features)


def videos_of(context: Context, day: date, log: pa.Table) -> pa.Table:
    """Videos that a session of the day can be offered, with features in both snapshot versions.

    Args:
        context: Pipeline and settings.
        day: The day.
        log: Its log.

    Returns:
        Rows by (version, video_id): version 0 holds what a request before the day's snapshot sees, version 1
        what a later one sees; uploaded_at, topic and model inputs of the video.
    """
    ids = log["video_id"]
    if (requests := context.data.find("requests", day)) is not None:
        offered = pc.list_flatten(requests.table(columns=["candidates"])["candidates"])
        ids = pa.chunked_array([*ids.chunks, *offered.chunks])
    videos = context.data.get("videos", day).table()
    pool = pc.unique(ids)
    pool = pool.take(pc.sort_indices(pool))
    row = pc.index_in(pool, videos["video_id"])
    uploaded = pc.cast(videos["uploaded_at"].take(row), pa.int64())
    switch = _version_switch(context, day)
    start = bounds(day, context.pipeline.feed.zone)[0]
    features = features_of(context.pipeline.feed)
    versions = []
    # At the switch itself a value of the last version may still be alive.
    instant = timedelta(microseconds=1)
    for version, (first, last) in enumerate(((start, switch - instant), (switch + instant, None))):
        # A video uploaded during the day is known from its upload on.
        moment = pc.max_element_wise(uploaded, _micros(first))
        if last is not None:
            moment = pc.min_element_wise(moment, max(_micros(last), _micros(first)))
        moment = pc.cast(moment, TIME)
        joined = historical_features(context, None, pool, moment, features)
        table = pa.table({"video_id": pool, "version": pa.repeat(pa.scalar(version, pa.int8()), len(pool))})
        table = table.append_column("uploaded_at", pc.cast(uploaded, TIME))
        for name in joined.column_names:
            table = table.append_column(name, joined[name])
        versions.append(model_inputs(table, features))
    return pa.concat_tables(versions)


def _micros(moment: object) -> int:
    return int(pa.scalar(moment, TIME).cast(pa.int64()).as_py())


def _version_switch(context: Context, day: date) -> pa.TimestampScalar:
    """The moment of ``day`` from which requests see the snapshot of the day before."""
    lag = timedelta(minutes=context.pipeline.features.snapshot_lag_min)
    return bounds(day, context.pipeline.feed.zone)[0] + lag


def _threshold(context: Context, parts: list[Partition]) -> float:
    column = f"user_impressions_{context.pipeline.groups.activity_days}d"
    table = pa.concat_tables([p.table(columns=["tenure_days", column]) for p in parts])
    return activity_threshold(table["tenure_days"], table[column], context.pipeline.groups)


def read_examples(context: Context, days: list[date], threshold: float, columns: list[str] | None = None) -> pa.Table:
    """Examples of several days with the ``group`` of each impression's user.

    Args:
        context: Pipeline and settings.
        days: Days whose examples are in the lake.
        threshold: Activity threshold of the training window.
        columns: Columns to read beside those that the group needs, None for all.

    Returns:
        The rows in order of days, with ``group`` int8 (an index into ``inputs.GROUPS``).
    """
    activity = f"user_impressions_{context.pipeline.groups.activity_days}d"
    wanted = None if columns is None else list(dict.fromkeys([*columns, "tenure_days", activity]))
    table = pa.concat_tables([context.data.get("examples", one).table(columns=wanted) for one in days])
    group = user_group(table["tenure_days"], table[activity], threshold, context.pipeline.groups)
    return table.append_column("group", group)
