"""What the feature benchmarks measure on: a log of any size in a lake, its snapshots, and Feast stores over both."""

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.config import Feed, Settings, parse_pipeline
from components.context import Context
from components.days import bounds
from components.errors import EmptyDayError
from components.feature_list import LONGEST_WINDOW
from components.feed.schema import BEHAVIOURS, LOG, USERS, VIDEOS, DayTables
from components.feed.source import Finding

if TYPE_CHECKING:
    from feast import FeatureStore

FIRST = date(2026, 1, 1)
# Impressions of a user and of a video on a day, about those of short-video feeds.
PER_USER, PER_VIDEO = 40, 100


class NoSource:
    """A feed whose days are written by the benchmark itself."""

    user_attributes = ()

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def read_day(self, day: date) -> DayTables:
        """There is nothing to read."""
        raise EmptyDayError(f"the benchmark wrote no {day}")

    def check(self) -> list[Finding]:
        """There is nothing to check."""
        return []


def context_at(home: Path, online_store: str = "") -> Context:
    """A pipeline over a lake below one folder, whatever the environment says."""
    feed = {"kind": "python", "factory": "benchmarks.features_data:NoSource", "timezone": "UTC", "first_day": FIRST}
    pipeline = parse_pipeline({"name": "bench", "feed": feed, "train": {"window_days": 1}}, where="benchmark")
    settings = Settings(home=home, lake="", mlflow_uri="", feast_registry="", online_store=online_store)
    return Context(pipeline, settings)


def last_day(history_days: int) -> date:
    """The day that is built: it has so many days before it."""
    return FIRST + timedelta(days=history_days)


def write_logs(context: Context, impressions: int, days: Iterable[date]) -> None:
    """Logs of random users who watch random videos, a few of each far more than the rest.

    Args:
        context: Pipeline and settings.
        impressions: Rows of each day.
        days: Which days.
    """
    users, videos = max(20, impressions // PER_USER), max(20, impressions // PER_VIDEO)
    for day in days:
        draw = np.random.default_rng(day.toordinal())
        log = _log(draw, day, impressions, users, videos)
        start = bounds(FIRST, context.pipeline.feed.zone)[0] - timedelta(days=100)
        known = pa.array([start] * users, pa.timestamp("us", "UTC"))
        user_table = {"user_id": np.arange(users), "registered_at": known}
        video_table = {
            "video_id": np.arange(videos),
            "uploaded_at": known[:1].take(pa.array(np.zeros(videos, np.int64))),
            "creator_id": np.arange(videos) // 5,
            "topic": [f"topic {one % 40}" for one in range(videos)],
            "duration_ms": np.full(videos, 20_000),
        }
        for name, columns, schema in (("users", user_table, USERS), ("videos", video_table, VIDEOS)):
            _write(context, name, day, pa.table({f.name: pa.array(columns[f.name], f.type) for f in schema}))
        _write(context, "log", day, log)


def _log(draw: np.random.Generator, day: date, rows: int, users: int, videos: int) -> pa.Table:
    start = np.datetime64(day.isoformat(), "us").astype(np.int64)
    user = (users * draw.random(rows) ** 2).astype(np.int64)
    video = (videos * draw.random(rows) ** 3).astype(np.int64)
    seconds = np.sort(draw.integers(0, 86_400_000_000, rows))
    watched = draw.exponential(8_000, rows).astype(np.int64)
    columns: dict[str, Any] = {
        "user_id": user,
        "video_id": video,
        "creator_id": video // 5,
        "session_id": user * 100 + seconds // 14_400_000_000,
        "position": np.arange(rows) % 10_000,
        "event_time": start + seconds,
        "watch_ms": watched,
        "duration_ms": np.full(rows, 20_000),
        **{name: (draw.random(rows) < 0.2).astype(np.int8) for name in BEHAVIOURS},
        "surface": ["feed"] * rows,
        "is_random": np.zeros(rows, bool),
        "propensity": np.full(rows, 0.5),
    }
    return pa.table({field.name: _column(columns[field.name], field.type) for field in LOG})


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(pa.timestamp("us")).cast(kind)
    return pa.array(values).cast(kind)


def _write(context: Context, dataset: str, day: date, table: pa.Table) -> None:
    with context.data.write(dataset, day) as writer:
        writer.table(table)
        writer.facts.update({"refused": {}, "refused_share": 0.0})


def build(context: Context, impressions: int) -> date:
    """A lake with the full history of one day and the snapshots that its requests can see; that day."""
    from components.features import features

    day = last_day(LONGEST_WINDOW)
    write_logs(context, impressions, [FIRST + timedelta(days=one) for one in range(LONGEST_WINDOW + 1)])
    features(context, day)
    return day


def requests(context: Context, day: date, rows: int) -> pa.Table:
    """Requests of the day after: user, video and a time of their own, so that no store takes two for one."""
    draw = np.random.default_rng(3)
    counts = [context.data.get(name, day).rows for name in ("users", "videos")]
    start = bounds(day, context.pipeline.feed.zone)[1] + timedelta(hours=2)
    moments = int(start.timestamp()) * 1_000_000 + np.sort(draw.choice(70_000_000_000, rows, replace=False))
    return pa.table(
        {
            "user_id": draw.integers(0, counts[0], rows),
            "video_id": draw.integers(0, counts[1], rows),
            "event_timestamp": pa.array(moments, pa.int64()).cast(pa.timestamp("us", "UTC")),
        }
    )


def export(context: Context, day: date, folder: Path) -> dict[str, Path]:
    """What each view's requests of the day after can see, as one Parquet file with the view's own column names.

    Args:
        context: Pipeline and settings.
        day: The newest snapshot.
        folder: Where the files go.

    Returns:
        File by view.
    """
    from components.store import open_store
    from feature_repo.lake_offline_store import dataset_of, rows_between

    store = open_store(context)
    end = bounds(day, context.pipeline.feed.zone)[1] + timedelta(hours=23)
    files = {}
    for view in _views(store):
        source = view.batch_source
        start = end - timedelta(days=context.pipeline.features.ttl_days)
        rows = rows_between(store.config.offline_store, start, end, dataset_of(source))
        rows = rows.rename_columns([source.field_mapping.get(name, name) for name in rows.column_names])
        files[view.name] = folder / f"{view.name}.parquet"
        names = [*view.join_keys, *(field.name for field in view.features), source.timestamp_field]
        pq.write_table(rows.select(names).combine_chunks(), files[view.name])
    return files


def _views(store: "FeatureStore") -> list[Any]:
    """The views whose values are joined and served."""
    return [view for view in store.list_feature_views() if view.online and view.stream_source is None]


def feast_store(
    context: Context, folder: Path, online: dict[str, Any], files: dict[str, Path] | None
) -> "FeatureStore":
    """A store as Feast comes: its own engine, its own online store, and its file store over exported Parquet files.

    Args:
        context: Gives views, and the lake where ``files`` is None.
        folder: For registry and files.
        online: Feast's configuration of one of its own online stores.
        files: Source of each view; None for the lake.

    Returns:
        The store, with the views registered.
    """
    from feast import FeatureStore, FeatureView, FileSource, RepoConfig

    from components.store import open_store

    ours = open_store(context)
    offline = {"type": "file"} if files is not None else ours.config.offline_store.model_dump()
    config = RepoConfig(
        project="feast_as_it_comes",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder / 'feast_registry.db'}"},
        offline_store=offline,
        online_store=online,
        batch_engine="local",
        entity_key_serialization_version=3,
        repo_path=str(folder),
    )
    store = FeatureStore(config=config)
    entities = {entity.name: entity for entity in ours.list_entities()}
    views = []
    for view in _views(ours):
        source = view.batch_source
        if files is not None:
            source = FileSource(path=str(files[view.name]), timestamp_field=source.timestamp_field)
        schema = [*view.entity_columns, *view.features]
        members = [entities[name] for name in view.entities]
        views.append(FeatureView(name=view.name, entities=members, schema=schema, source=source, ttl=view.ttl))
    store.apply([*entities.values(), *views])
    return store


def references(store: "FeatureStore") -> list[str]:
    """The whole service: every feature of the views, as Feast names them."""
    return [f"{view.name}:{field.name}" for view in _views(store) for field in view.features]
