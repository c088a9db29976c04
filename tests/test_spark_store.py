"""The Spark offline store gives the rows of the DuckDB store, compared by hash."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from components.context import Context
from components.dataset import examples
from components.errors import ConfigError
from components.features import features
from components.store import open_store
from tests.conftest import give_up
from tests.small_lake import at, context_at, day_at, shown, users_table, videos_table, write_day

pytestmark = pytest.mark.integration

LARGE = 2**60 + 1


@pytest.fixture(scope="module")
def spark() -> Iterator[None]:
    """A Spark session in this process, small enough for a laptop."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        give_up("Spark needs Java: apt-get install default-jre-headless")
    session = pytest.importorskip("pyspark.sql").SparkSession
    conf = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
    }
    builder = session.builder.master("local[1]").appName("tests")
    for name, value in conf.items():
        builder = builder.config(name, value)
    started = builder.getOrCreate()
    yield
    started.stop()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Four days with a newcomer, a video of unknown upload and an id that a float can not hold."""
    context = context_at(tmp_path_factory.mktemp("spark"))
    for index in range(4):
        day = day_at(index)
        rows = [
            shown(user, video, at(day, 2 + 5 * slot, user), like=(user + slot + index) % 2, creator_id=LARGE)
            for slot, video in enumerate((11, 12, 21))
            for user in (1, 2)
        ]
        rows += [shown(3, 99, at(day, 0, 10)), shown(3, 11, at(day, 13))]
        users = users_table([1, 2, 3], {3: at(day_at(2), 12)})
        write_day(context, day, rows, users=users, videos=videos_table([11, 12, 21, 99], {21: None}))
    features(context, day_at(3))
    return context


def spark_of(context: Context) -> Context:
    home = context.settings.home
    update = {"feast_offline": "spark", "feast_registry": f"sqlite:///{home}/spark.db"}
    return replace(context, settings=context.settings.model_copy(update=update))


def digest(table: pa.Table) -> str:
    """Of the values, in order of the columns' names; int64 and float32 as they are."""
    rows = [sorted(row.items()) for row in table.to_pylist()]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def test_both_offline_stores_give_the_same_training_rows(context: Context, spark: None) -> None:
    day = day_at(3)
    by_duckdb = examples(context, day)
    by_spark = examples(spark_of(context), day)
    assert by_spark.num_rows == by_duckdb.num_rows == 8
    assert by_spark.schema.equals(by_duckdb.schema)
    different = [name for name in by_duckdb.column_names if by_duckdb[name].to_pylist() != by_spark[name].to_pylist()]
    assert different == []
    assert digest(by_spark) == digest(by_duckdb)


def test_the_stores_are_told_apart_by_the_setting(context: Context, spark: None) -> None:
    chosen = {
        name: open_store(one).config.offline_store.type
        for name, one in {"duckdb": context, "spark": spark_of(context)}.items()
    }
    assert [chosen[name].rpartition(".")[2] for name in ("duckdb", "spark")] == [
        "LakeOfflineStore",
        "LakeSparkOfflineStore",
    ]


def test_a_day_of_other_rows_has_another_hash(context: Context, spark: None) -> None:
    assert digest(examples(context, day_at(3))) != digest(examples(context, day_at(2)))


def test_spark_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_at(tmp_path)
    chosen = replace(context, settings=context.settings.model_copy(update={"feast_offline": "spark"}))
    monkeypatch.setattr("components.store.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="mfh-pipeline\\[spark\\]"):
        open_store(chosen)
