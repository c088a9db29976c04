"""Entities, feature views and the feature service, made from the feature list."""

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, FeastType, Float32, Int64, String

from components.config import Pipeline
from components.feature_list import Feature, fingerprint

# Lake dataset, event-time column and whether rows expire, per view.
SOURCES: dict[str, tuple[str, str]] = {
    "user_counters": ("user_features", "available_at"),
    "user_profile": ("users", "known_at"),
    "video_counters": ("video_features", "available_at"),
    "video_profile": ("videos", "known_at"),
}

SERVICE = "mfh_ranking_v1"


def definitions(pipeline: Pipeline, features: tuple[Feature, ...]) -> list[Any]:
    """Everything that ``feast apply`` registers for a pipeline.

    Args:
        pipeline: Gives owner and time to live.
        features: The feed's feature list.

    Returns:
        Two entities, four feature views and the feature service.
    """
    entities = {
        "user": Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64, owner=pipeline.owner),
        "video": Entity(name="video", join_keys=["video_id"], value_type=ValueType.INT64, owner=pipeline.owner),
    }
    views = [_view(name, features, entities, pipeline) for name in SOURCES]
    views = [view for view in views if view.features]
    service = FeatureService(
        name=SERVICE,
        features=list(views),
        owner=pipeline.owner,
        description="Inputs of every ranking model",
        tags={"feature_list": fingerprint(features)},
    )
    return [*entities.values(), *views, service]


def _view(name: str, features: tuple[Feature, ...], entities: dict[str, Entity], pipeline: Pipeline) -> FeatureView:
    dataset, time_column = SOURCES[name]
    entity = entities[name.split("_", maxsplit=1)[0]]
    chosen = [feature for feature in features if feature.view == name]
    profile = name.endswith("_profile")
    source = FileSource(
        name=f"lake_{dataset}",
        path=f"{dataset}.parquet",
        file_format=ParquetFormat(),
        timestamp_field=time_column,
        # Profile tables keep their own column names; the feature list says which feature each one is.
        field_mapping={f.source: f.name for f in chosen} if profile else {},
    )
    return FeatureView(
        name=name,
        entities=[entity],
        schema=[Field(name=f.name, dtype=_feast_type(f), description=f.meaning) for f in chosen],
        source=source,
        # A profile holds until it changes; a counter older than its time to live is no longer the truth.
        ttl=None if profile else timedelta(days=pipeline.features.ttl_days),
        owner=pipeline.owner,
    )


def _feast_type(feature: Feature) -> FeastType:
    types: dict[str, FeastType] = {"list<int64>": Array(Int64), "string": String, "int64": Int64, "float32": Float32}
    return types[feature.dtype]
