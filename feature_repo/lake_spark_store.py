"""Feast's Spark offline store, reading lake partitions: for histories that outgrow one machine's memory.

As in ``lake_offline_store``, only committed partitions of the days that a join can touch are given to Feast, as
temporary views that Spark reads from Parquet itself. The point-in-time join is Feast's. Both stores give equal rows.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
from feast import FeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.contrib.spark_offline_store.spark import (
    SparkOfflineStore,
    SparkOfflineStoreConfig,
    SparkRetrievalJob,
    get_spark_session_or_start_new_with_repoconfig,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

from components.errors import MissingPartitionError
from feature_repo.lake_offline_store import (
    FRESH,
    PROFILES,
    LakeLocation,
    dataset_of,
    days_between,
    open_lake,
    rows_between,
)

# Times are UTC everywhere; a session in another zone would shift them silently.
SPARK_CONF = {"spark.sql.session.timeZone": "UTC", "spark.sql.execution.arrow.pyspark.enabled": "true"}


class LakeSparkOfflineStoreConfig(LakeLocation, SparkOfflineStoreConfig):
    """Settings of the Spark store over the lake."""

    type: Literal["feature_repo.lake_spark_store.LakeSparkOfflineStore"] = (
        "feature_repo.lake_spark_store.LakeSparkOfflineStore"
    )


class LakeSparkJob(SparkRetrievalJob):
    """Feast's job, handing Arrow over as it is: by way of pandas large ids with a null among them lose digits."""

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        table: pa.Table = self.to_spark_df().toArrow()
        return table


class LakeSparkOfflineStore(SparkOfflineStore):
    """Spark offline store over lake partitions."""

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
        spark = _session(config)
        for view in feature_views:
            _register(spark, config.offline_store, view.batch_source, times.min() - reach, times.max())
        job = SparkOfflineStore.get_historical_features(
            config, feature_views, feature_refs, entity_df, registry, project, full_feature_names
        )
        assert isinstance(job, SparkRetrievalJob)
        return _lake_job(spark, config, job)

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
        """Rows between two moments, both included; signature and result are Feast's.

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
        spark = _session(config)
        _register(spark, config.offline_store, data_source, start_date, end_date)
        job = SparkOfflineStore.pull_all_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )
        assert isinstance(job, SparkRetrievalJob)
        return _lake_job(spark, config, job)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest row of each key between two moments, for ``materialize``; signature and result are Feast's.

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
        """
        spark = _session(config)
        _register(spark, config.offline_store, data_source, start_date, end_date)
        job = SparkOfflineStore.pull_latest_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )
        assert isinstance(job, SparkRetrievalJob)
        return _lake_job(spark, config, job)


def _session(config: RepoConfig) -> SparkSession:
    spark: SparkSession = get_spark_session_or_start_new_with_repoconfig(config.offline_store)
    for name, value in SPARK_CONF.items():
        spark.conf.set(name, value)
    return spark


def _lake_job(spark: SparkSession, config: RepoConfig, job: SparkRetrievalJob) -> LakeSparkJob:
    return LakeSparkJob(spark, job.query, job.full_feature_names, config, job.on_demand_feature_views, job.metadata)


def _register(
    spark: SparkSession, config: LakeSparkOfflineStoreConfig, source: DataSource, start: datetime, end: datetime
) -> None:
    """Make the temporary view that a source names, from the partitions between two moments."""
    dataset = dataset_of(source)
    begin, finish = (one if one.tzinfo else one.replace(tzinfo=UTC) for one in (start, end))
    if dataset == FRESH or "://" in config.root:
        # Computed rows, and object stores for which Spark may lack a driver, come through Arrow.
        frame = spark.createDataFrame(rows_between(config, begin, finish, dataset))
    else:
        frame = _frame(spark, config, begin, finish, dataset)
    frame.createOrReplaceTempView(source.name)


def _frame(
    spark: SparkSession, config: LakeSparkOfflineStoreConfig, start: datetime, end: datetime, dataset: str
) -> DataFrame:
    lake = open_lake(config)
    days: list[date] = days_between(lake, dataset, start, end, ZoneInfo(config.timezone))
    if not days:
        raise MissingPartitionError(f"no partition of {dataset!r} between {start} and {end} in {lake.root}")
    paths = [f"{lake.get(dataset, day).folder}/part-0.parquet" for day in days]
    frame = spark.read.parquet(*paths)
    if dataset not in PROFILES:
        return frame
    moment = "registered_at" if dataset == "users" else "uploaded_at"
    # Someone whose first day is unknown has always been known.
    always = F.timestamp_seconds(F.lit(0))
    return frame.withColumn("known_at", F.coalesce(F.col(moment), always))
