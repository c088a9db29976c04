"""Feast's DuckDB offline store, reading lake partitions instead of paths.

Feast's own store reads every file that matches a path. Ours reads only committed partitions (those with a
manifest), only of the days that a join can touch, and through Arrow, so that an object store works like a
folder. The point-in-time join is ours too (``asof``), with the rows of Feast's: theirs grows with the history of a key.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView, OnDemandFeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from components.config import Settings
from components.errors import MissingPartitionError
from components.event_rows import EVENT_COLUMNS, fresh_rows
from components.lake import Lake, Partition
from feature_repo.asof import MICROS, AsofRetrievalJob, metadata_of, micros, seen_rows

PROFILES = ("users", "videos")
# Follows from the log alone, so no partition holds it.
FRESH = "user_fresh"


class LakeLocation(FeastConfigBaseModel):
    """Where the feed's data lies in the lake, and its zone."""

    root: str
    endpoint: str = ""
    access_key: str = ""
    secret_key: str = ""
    timezone: str = "UTC"


class LakeOfflineStoreConfig(LakeLocation, DuckDBOfflineStoreConfig):
    """Settings of the DuckDB store over the lake."""

    type: Literal["feature_repo.lake_offline_store.LakeOfflineStore"] = (
        "feature_repo.lake_offline_store.LakeOfflineStore"
    )


class LakeOfflineStore(DuckDBOfflineStore):
    """DuckDB offline store over lake partitions."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **_: Any,
    ) -> RetrievalJob:
        """Point-in-time join of entity rows; signature and result are Feast's.

        Args:
            config: The repository's configuration.
            feature_views: Views to join.
            feature_refs: ``view:feature`` names to return.
            entity_df: Entity keys and ``event_timestamp`` (UTC).
            registry: Feast's registry.
            project: Feast's project.
            full_feature_names: Prefix columns with the view's name.

        Returns:
            A job whose ``to_arrow`` gives one row per entity row.
        """
        assert isinstance(entity_df, pd.DataFrame)
        time = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        times = pd.to_datetime(entity_df[time], utc=True)
        result = pa.Table.from_pandas(entity_df.assign(**{time: times}), preserve_index=False)
        moments = micros(result[time])
        for view in feature_views:
            name, base = view.projection.name_to_use(), view.projection.name_alias or view.name
            refs = [ref.split(":")[1] for ref in feature_refs if ref.startswith(f"{name}:")]
            rows = _rows_of(config.offline_store, view, refs, times)
            asked = view.projection.join_key_map or {}
            created = view.batch_source.created_timestamp_column
            found = seen_rows(
                [result[asked.get(key, key)] for key in view.join_keys],
                moments,
                [rows[key] for key in view.join_keys],
                micros(rows[view.batch_source.timestamp_field]),
                view.ttl,
                micros(rows[created]) if created else None,
            )
            for ref in refs:
                column = f"{base}__{ref}" if full_feature_names else ref
                result = result.append_column(column, rows[ref].combine_chunks().take(found))
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        metadata = metadata_of(entity_df, feature_refs, times, time)
        return AsofRetrievalJob(result, on_demand, full_feature_names, metadata)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Rows between two moments, both included, for ``materialize``; signature and result are Feast's.

        Args:
            config: The repository's configuration.
            data_source: Names the lake dataset.
            join_key_columns: Entity keys.
            feature_name_columns: Features to return.
            timestamp_field: Event-time column.
            created_timestamp_column: Passed on to Feast.
            start_date: First moment.
            end_date: Last moment.

        Returns:
            A job whose ``to_arrow`` gives the rows.

        Raises:
            ValueError: Without both ends: a day's run must never pull the whole history.
        """
        if start_date is None or end_date is None:
            raise ValueError("the lake is read between two moments; give start_date and end_date")
        stamps = [one for one in (timestamp_field, created_timestamp_column) if one]
        columns = list(dict.fromkeys([*join_key_columns, *feature_name_columns, *stamps]))
        start, end = _utc(start_date), _utc(end_date)
        rows = rows_between(config.offline_store, start, end, dataset_of(data_source), set(columns)).select(columns)
        times = rows[timestamp_field]
        first, last = (pa.scalar(moment, MICROS).cast(times.type) for moment in (start, end))
        inside = pc.and_(pc.greater_equal(times, first), pc.less_equal(times, last))
        return AsofRetrievalJob(rows.filter(inside), [], full_feature_names=False, metadata=None)


def _rows_of(config: LakeLocation, view: FeatureView, features: list[str], times: "pd.Series[Any]") -> pa.Table:
    """What of a view's source requests at those times can see, by the view's own names."""
    source = view.batch_source
    # A snapshot has many more columns than one join reads.
    own = {new: old for old, new in source.field_mapping.items()}
    wanted = {own.get(name, name) for name in (*view.join_keys, *features)}
    start = times.min() - (view.ttl or timedelta())
    rows = rows_between(config, start, times.max(), dataset_of(source), wanted)
    return rows.rename_columns([source.field_mapping.get(name, name) for name in rows.column_names])


def dataset_of(source: DataSource) -> str:
    """The lake's dataset behind a source of ours."""
    return str(source.name).removeprefix("lake_")


def rows_between(
    config: LakeLocation, start: datetime, end: datetime, dataset: str, wanted: set[str] | None = None
) -> pa.Table:
    """The rows of committed partitions that a join over two moments can see.

    Args:
        config: Where the lake is.
        start: First moment, the time to live subtracted.
        end: Last moment.
        dataset: A snapshot, ``users``, ``videos`` or ``user_fresh``.
        wanted: Columns of a snapshot to read beside its keys, None for all.

    Returns:
        The rows, with the event-time column of the dataset's view.

    Raises:
        MissingPartitionError: When there is no partition.
    """
    lake = open_lake(config)
    days = days_between(lake, dataset, start, end, ZoneInfo(config.timezone))
    if not days:
        raise MissingPartitionError(f"no partition of {dataset!r} between {start} and {end} in {lake.root}")
    return pa.concat_tables([_one_day(lake, dataset, day, wanted) for day in days])


def days_between(lake: Lake, dataset: str, start: datetime, end: datetime, zone: ZoneInfo) -> list[date]:
    """The days whose partitions a join over two moments can see.

    Args:
        lake: The feed's data.
        dataset: See ``rows_between``.
        start: First moment.
        end: Last moment.
        zone: The feed's.

    Returns:
        Days in order, without those that have no partition.
    """
    first, last = start.astimezone(zone).date(), end.astimezone(zone).date()
    days = lake.days("log" if dataset == FRESH else dataset)
    if dataset in PROFILES:
        # Each partition holds everyone known by its day's end: the newest one that is not after the range.
        return [day for day in days if day <= last][-1:]
    # A snapshot is stamped after its day ends: the one of the day before ``first`` may still be inside.
    return [day for day in days if first - timedelta(days=2) <= day <= last]


def _one_day(lake: Lake, dataset: str, day: date, wanted: set[str] | None) -> pa.Table:
    if dataset == FRESH:
        return fresh_rows(lake.get("log", day).table(columns=list(EVENT_COLUMNS)))
    partition = lake.get(dataset, day)
    if dataset not in PROFILES:
        entity = dataset.removesuffix("_features")
        keys = [f"{entity}_id", "available_at"]
        return partition.table(columns=None if wanted is None else [*keys, *_of(partition, wanted - set(keys))])
    table = partition.table()
    moment = "registered_at" if dataset == "users" else "uploaded_at"
    # Someone whose first day is unknown has always been known.
    known = table[moment].fill_null(pa.scalar(0, table.schema.field(moment).type))
    return table.append_column("known_at", known)


def _of(partition: Partition, wanted: set[str]) -> list[str]:
    schema = partition.manifest.files[0].schema or ""
    names = (line.partition(": ")[0] for line in schema.splitlines())
    return [name for name in names if name in wanted]


def open_lake(config: LakeLocation) -> Lake:
    """The lake below the feed's data folder, as the store's configuration names it."""
    return Lake.open(
        Settings(
            lake=config.root,
            lake_endpoint=config.endpoint,
            lake_access_key=config.access_key,
            lake_secret_key=config.secret_key,
        )
    )


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
