"""Entities, feature views and the feature service, made from the feature list."""

from datetime import timedelta
from typing import Any, Literal

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.types import Array, FeastType, Float32, Int64, String, UnixTimestamp

from components.config import Pipeline
from components.event_rows import PUSH_SOURCE
from components.feature_list import Feature, fingerprint, service_name
from feature_repo.on_demand import on_demand_views

# Lake dataset and event-time column per view.
SOURCES: dict[str, tuple[str, str]] = {
    "user_counters": ("user_features", "available_at"),
    "user_statistics": ("user_features", "available_at"),
    "user_profile": ("users", "known_at"),
    "video_counters": ("video_features", "available_at"),
    "video_statistics": ("video_features", "available_at"),
    "video_profile": ("videos", "known_at"),
    "user_fresh": ("user_fresh", "known_at"),
}

_TYPES: dict[str, FeastType] = {
    "list<int64>": Array(Int64),
    "list<string>": Array(String),
    "list<float>": Array(Float32),
    "string": String,
    "int64": Int64,
    "float32": Float32,
    "timestamp": UnixTimestamp,
}


Offline = Literal["duckdb", "spark"]


def definitions(pipeline: Pipeline, features: tuple[Feature, ...], offline: Offline = "duckdb") -> list[Any]:
    """Everything that ``feast apply`` registers for a pipeline.

    Args:
        pipeline: Gives owner and time to live.
        features: The feed's whole list (``feature_list.catalogue``).
        offline: Engine of the joins: it decides the kind of the sources.

    Returns:
        Two entities, the feature views, on-demand views, and the service of this version of the models' inputs.
    """
    entities = {
        "user": Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64, owner=pipeline.owner),
        "video": Entity(name="video", join_keys=["video_id"], value_type=ValueType.INT64, owner=pipeline.owner),
    }
    sources: dict[str, DataSource] = {}
    views = {name: _view(name, features, entities, sources, pipeline, offline) for name in SOURCES}
    read = tuple(f for f in features if f.role != "statistic" and f.entity in entities)
    served = {name: [f.name for f in read if f.view == name] for name in SOURCES}
    version = tuple(f for f in features if f.role != "statistic" and f.entity != "request")
    service = FeatureService(
        name=service_name(version),
        features=[views[name][names] for name, names in served.items() if names],
        owner=pipeline.owner,
        description="Inputs of the ranking models that name this service",
        tags={"feature_list": fingerprint(features), "offline": offline},
    )
    computed = on_demand_views(features, views, pipeline.feed.zone, pipeline.owner)
    return [*entities.values(), *(view for view in views.values() if view.features), *computed, service]


def _view(
    name: str,
    features: tuple[Feature, ...],
    entities: dict[str, Entity],
    sources: dict[str, DataSource],
    pipeline: Pipeline,
    offline: Offline,
) -> FeatureView:
    entity = entities[name.split("_", maxsplit=1)[0]]
    chosen = [feature for feature in features if feature.view == name]
    profile = name.endswith("_profile")
    # Profile tables keep their own column names; the feature list says which feature each one is.
    mapping = {f.source: f.name for f in chosen} if profile else {}
    dataset, time_column = SOURCES[name]
    if dataset not in sources:
        sources[dataset] = _source(dataset, time_column, mapping, offline)
    batch = sources[dataset]
    fresh = name == "user_fresh"
    return FeatureView(
        name=name,
        entities=[entity],
        schema=[Field(name=f.name, dtype=_TYPES[f.dtype], description=f.meaning) for f in chosen],
        source=PushSource(name=PUSH_SOURCE, batch_source=batch) if fresh else batch,
        # A profile holds until it changes; a counter older than its time to live is no longer the truth.
        ttl=None if profile else timedelta(days=1 if fresh else pipeline.features.ttl_days),
        # What no model reads is not worth a row in the online store.
        online=not name.endswith("_statistics"),
        owner=pipeline.owner,
    )


def _source(dataset: str, time_column: str, mapping: dict[str, str], offline: Offline) -> DataSource:
    if offline == "spark":
        from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

        # The offline store makes the view of this name from the partitions that a join can touch.
        return SparkSource(
            name=f"lake_{dataset}",
            table=f"lake_{dataset}",
            timestamp_field=time_column,
            field_mapping=mapping,
        )
    return FileSource(
        name=f"lake_{dataset}",
        path=f"{dataset}.parquet",
        file_format=ParquetFormat(),
        timestamp_field=time_column,
        field_mapping=mapping,
    )
