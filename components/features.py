"""Features step: per user and per video, as of the end of a day.

Two stages, both idempotent. Partials aggregate one day's log once; a snapshot sums the partials of the
rolling windows. A snapshot is stamped with the local midnight that ends its day plus a configured lag: the
moment from which a request may see it.
"""

from collections.abc import Callable, Iterable
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds

from components.context import Context, StepResult, inputs_of
from components.days import bounds, day_range
from components.errors import SchemaChangedError
from components.feature_list import LONGEST_WINDOW, Entity, catalogue, fingerprint
from components.feed.schema import LOG, TIME, VIDEOS
from components.ingest import ensure_days
from components.lake import Partition
from components.locks import exclusive
from components.partials import affinity_partial_of, partial_of
from components.snapshots import snapshot_of
from components.window import snapshot_days

ENTITIES: tuple[Entity, ...] = ("user", "video")

# The partials that a snapshot sums.
PARTIALS: dict[Entity, tuple[str, ...]] = {
    "user": ("user_partial", "user_topic_partial", "user_creator_partial"),
    "video": ("video_partial",),
}

# Part of every manifest here: a partition made by another list of features is made anew.
SHAPE = fingerprint(catalogue(()))


def features(context: Context, day: date) -> StepResult:
    """Build the snapshots of ``day`` and of every earlier day that the training window needs.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its log must be in the lake.

    Returns:
        Hashes of the day's two snapshots, how many snapshots were built, and which columns hold nothing but nulls.

    Raises:
        MissingPartitionError: When the day's own log is not in the lake.
        SchemaChangedError: When a source column of the list is missing or of another type; nothing is written then.
    """
    context.data.get("log", day)
    first = snapshot_days(context.pipeline, day)[0]
    history = ensure_days(context, list(day_range(first - timedelta(days=LONGEST_WINDOW - 1), day)))
    require_columns(context, history)
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
    empty = [name for partition in snapshots for name in partition.manifest.facts["all_null"]]
    return StepResult("features", day, inputs_of(*snapshots), {**facts, "snapshots_built": built, "all_null": empty})


def require_columns(context: Context, logs: Iterable[Partition]) -> None:
    """Refuse logs and videos whose columns are not those that the feature list aggregates.

    Only manifests are read, so that the whole history is checked before anything is written.

    Args:
        context: Pipeline and settings.
        logs: Partitions of ``log``.

    Raises:
        SchemaChangedError: Naming dataset, day, column, the type found and the type expected.
    """
    for log in logs:
        videos = context.data.get("videos", date.fromisoformat(log.manifest.day))
        for partition, schema in ((log, LOG), (videos, VIDEOS)):
            found = dict(
                line.split(": ", 1)
                for entry in partition.manifest.files
                for line in (entry.schema or "").splitlines()
                if ": " in line
            )
            for field in schema:
                expected = str(field.type) + ("" if field.nullable else " not null")
                kind = found.get(field.name)
                # A column that was never null may have been written without saying so, and the other way round.
                if kind is None or kind.removesuffix(" not null") != expected.removesuffix(" not null"):
                    raise SchemaChangedError(
                        f"{partition.manifest.dataset} of {partition.manifest.day}: column {field.name!r} is "
                        f"{kind or 'missing'}, the feature list expects {expected}; nothing was written. "
                        "Ingest the day again (mfh step ingest), or mend the feed's mapping"
                    )


def _ensure_snapshot(context: Context, entity: Entity, day: date, known: set[date], rebuild: bool) -> bool:
    lake, name = context.data, f"{entity}_features"
    window = [one for one in day_range(day - timedelta(days=LONGEST_WINDOW - 1), day) if one in known]
    partials = [_ensure_partial(context, kind, one) for one in window for kind in PARTIALS[entity]]
    with exclusive(context.lock(name, day)):
        found = lake.find(name, day)
        if found is not None and _is_current(found, *partials) and not rebuild:
            return False
        table = _snapshot(context, entity, day, partials)
        with lake.write(name, day, SHAPE, inputs=inputs_of(*partials)) as writer:
            writer.table(table)
            columns = zip(table.column_names, table.columns, strict=True)
            writer.facts["all_null"] = [one for one, column in columns if column.null_count == len(column)]
    return True


def _is_current(partition: Partition, *inputs: Partition) -> bool:
    return partition.manifest.inputs == inputs_of(*inputs) and partition.manifest.config_hash == SHAPE


def _ensure_partial(context: Context, name: str, day: date) -> Partition:
    lake = context.data
    with exclusive(context.lock(name, day)):
        inputs = [lake.get("log", day)]
        if name == "user_topic_partial":
            # Topics are the catalogue's: a partial must follow when it is read anew.
            inputs.append(lake.get("videos", day))
        found = lake.find(name, day)
        if found is not None and _is_current(found, *inputs):
            return found
        table = _MAKERS[name](context, day, inputs[0].table())
        with lake.write(name, day, SHAPE, inputs=inputs_of(*inputs)) as writer:
            writer.table(table)
        return lake.get(name, day)


def _users(context: Context, _day: date, log: pa.Table) -> pa.Table:
    return partial_of(log, "user", context.pipeline.features.last_videos, context.pipeline.feed.timezone)


def _videos(context: Context, _day: date, log: pa.Table) -> pa.Table:
    return partial_of(log, "video", context.pipeline.features.last_videos)


def _topics(context: Context, day: date, log: pa.Table) -> pa.Table:
    videos = context.data.get("videos", day).table(columns=["video_id", "topic"])
    return affinity_partial_of(log, videos["topic"].take(pc.index_in(log["video_id"], videos["video_id"])))


def _creators(_context: Context, _day: date, log: pa.Table) -> pa.Table:
    return affinity_partial_of(log, log["creator_id"])


_MAKERS: dict[str, Callable[[Context, date, pa.Table], pa.Table]] = {
    "user_partial": _users,
    "video_partial": _videos,
    "user_topic_partial": _topics,
    "user_creator_partial": _creators,
}


def _snapshot(context: Context, entity: Entity, day: date, partials: list[Partition]) -> pa.Table:
    parts: dict[str, dict[int, pds.Dataset]] = {}
    for one in partials:
        age = (day - date.fromisoformat(one.manifest.day)).days
        # A month of users' topics may be larger than memory: the query scans the files.
        files = [f"{one.folder}/{entry.name}" for entry in one.manifest.files]
        parts.setdefault(one.manifest.dataset, {})[age] = pds.dataset(files, filesystem=one.lake.arrow_fs)
    available = bounds(day, context.pipeline.feed.zone)[1] + timedelta(
        minutes=context.pipeline.features.snapshot_lag_min
    )
    table = snapshot_of(parts, entity, context.pipeline.features.last_videos)
    return table.append_column("available_at", pa.repeat(pa.scalar(available, TIME), table.num_rows))
