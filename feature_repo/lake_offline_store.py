"""Feast's DuckDB offline store, reading lake partitions instead of paths.

Feast's own store reads every file that matches a path. Ours reads only committed partitions (those with a
manifest), only of the days that a join can touch, and through Arrow, so that an object store works like a
folder. The point-in-time join itself is Feast's, untouched.
"""

from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Literal
from zoneinfo import ZoneInfo

import ibis
import pandas as pd
import pyarrow as pa
from feast import FeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.ibis import get_historical_features_ibis, pull_all_from_table_or_query_ibis
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig
from ibis.expr.types import Table

from components.config import Settings
from components.errors import MissingPartitionError
from components.lake import Lake

PROFILES = ("users", "videos")


class LakeOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Where the feed's data lies in the lake."""

    type: Literal["feature_repo.lake_offline_store.LakeOfflineStore"] = (
        "feature_repo.lake_offline_store.LakeOfflineStore"
    )
    root: str
    endpoint: str = ""
    access_key: str = ""
    secret_key: str = ""
    timezone: str = "UTC"


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
        times = pd.to_datetime(entity_df["event_timestamp"], utc=True)
        reach = max((view.ttl for view in feature_views if view.ttl), default=timedelta())
        reader = partial(_read, config.offline_store, times.min() - reach, times.max())
        return get_historical_features_ibis(
            config=config,
            feature_views=feature_views,
            feature_refs=feature_refs,
            entity_df=entity_df,
            registry=registry,
            project=project,
            full_feature_names=full_feature_names,
            data_source_reader=reader,
            data_source_writer=_refuse_write,
        )

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
        return pull_all_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=partial(_read, config.offline_store, _utc(start_date), _utc(end_date)),
            data_source_writer=_refuse_write,
        )


def _read(config: LakeOfflineStoreConfig, start: datetime, end: datetime, source: DataSource, _repo: str) -> Table:
    """The rows of a lake dataset that a join over [start, end] can see."""
    assert isinstance(source, FileSource)
    dataset = source.path.rsplit("/", 1)[-1].removesuffix(".parquet")
    lake = open_lake(config)
    zone = ZoneInfo(config.timezone)
    first, last = start.astimezone(zone).date(), end.astimezone(zone).date()
    days = lake.days(dataset)
    if dataset in PROFILES:
        # Each partition holds everyone known by its day's end: the newest one that is not after the range.
        days = [day for day in days if day <= last][-1:]
    else:
        # A snapshot is stamped after its day ends: the one of the day before ``first`` may still be inside.
        days = [day for day in days if first - timedelta(days=2) <= day <= last]
    if not days:
        raise MissingPartitionError(f"no partition of {dataset!r} between {first} and {last} in {lake.root}")
    return ibis.memtable(pa.concat_tables([_one_day(lake, dataset, day) for day in days]))


def _one_day(lake: Lake, dataset: str, day: date) -> pa.Table:
    table = lake.get(dataset, day).table()
    if dataset not in PROFILES:
        return table
    moment = "registered_at" if dataset == "users" else "uploaded_at"
    # Someone whose first day is unknown has always been known.
    known = table[moment].fill_null(pa.scalar(0, table.schema.field(moment).type))
    return table.append_column("known_at", known)


def open_lake(config: LakeOfflineStoreConfig) -> Lake:
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


def _refuse_write(*_: Any) -> None:
    raise PermissionError("the offline store is written by the pipeline's steps, not through Feast")
