"""On-demand feature views: what is computed from features when a request is made."""

from collections.abc import Callable
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
from feast import FeatureView, Field, OnDemandFeatureView, RequestSource
from feast.transformation.pandas_transformation import PandasTransformation
from feast.types import Float32, Int64, UnixTimestamp

from components.feature_list import Feature

Udf = Callable[[pd.DataFrame], pd.DataFrame]


def on_demand_views(
    features: tuple[Feature, ...], views: dict[str, FeatureView], zone: ZoneInfo, owner: str
) -> list[OnDemandFeatureView]:
    """The views ``request_features`` and ``pair_crosses``.

    They are no part of a model's service, since a ranker computes the same for many candidates at once
    (``inputs.log_days``, ``models.crosses``); these serve one pair at a time to whoever asks Feast.

    Args:
        features: The feed's whole list.
        views: Feature views by name.
        zone: The feed's zone, whose hours count.
        owner: Of the views.

    Returns:
        The views; their outputs are the list's features of entities ``request`` and ``pair``.
    """
    moment = RequestSource(name="request", schema=[Field(name="request_time", dtype=UnixTimestamp)])
    ages = [
        views["user_profile"][["user_registered_at"]],
        views["video_profile"][["video_uploaded_at"]],
        moment,
    ]
    parts = [f.name for f in features if f.role == "part"]
    crossed = [views["user_counters"][parts], views["video_profile"][["video_topic", "video_creator_id"]]]
    chosen = {name: [f for f in features if f.view == name] for name in ("request_features", "pair_crosses")}
    transformations: dict[str, tuple[list[object], Udf]] = {
        "request_features": (ages, _request_features(zone.key)),
        "pair_crosses": (crossed, _pair_crosses),
    }
    return [
        OnDemandFeatureView(
            name=name,
            sources=sources,
            schema=[Field(name=f.name, dtype=Int64 if f.kind == "id" else Float32) for f in chosen[name]],
            feature_transformation=PandasTransformation(udf=udf, udf_string=f"feature_repo.on_demand:{name}"),
            mode="pandas",
            description="; ".join(f.meaning for f in chosen[name][:3]),
            owner=owner,
        )
        for name, (sources, udf) in transformations.items()
    ]


def _request_features(timezone: str) -> Udf:
    """Tenure, age of the video and local hour of requests, for a feed's zone."""

    def request_features(inputs: pd.DataFrame) -> pd.DataFrame:
        from components.feed.schema import TIME
        from components.inputs import days_between, log_days

        def moments(name: str) -> pa.ChunkedArray:
            return pa.chunked_array([pa.array(pd.to_datetime(inputs[name], utc=True), TIME, from_pandas=True)])

        asked = moments("request_time")
        hours = pd.to_datetime(inputs["request_time"], utc=True).dt.tz_convert(timezone).dt.hour
        return pd.DataFrame(
            {
                "log_tenure_days": log_days(days_between(asked, moments("user_registered_at"))).to_numpy(),
                "log_video_age_days": log_days(days_between(asked, moments("video_uploaded_at"))).to_numpy(),
                "hour": hours.astype("int64").to_numpy(),
            },
            index=inputs.index,
        )

    return request_features


def _pair_crosses(inputs: pd.DataFrame) -> pd.DataFrame:
    """What the users' lists say of the candidates."""
    from components.feature_list import feature_list
    from components.inputs import crosses_of, model_inputs

    filled = {
        name: [None if value is None or value is pd.NA else value for value in inputs[name]] for name in inputs.columns
    }
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in filled.items()})
    found = crosses_of(model_inputs(table, feature_list(())))
    return pd.DataFrame({name: column.to_numpy() for name, column in found.items()}, index=inputs.index)
