"""Bad input to a pipeline that runs every day: a clear error at once, and the doctor finds it."""

import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.config import Pipeline, Settings, parse_pipeline
from components.context import Context
from components.days import bounds
from components.doctor import check_lake, checkup
from components.doctor_operations import check_dag_folder, check_days, check_pipeline_files, check_registry
from components.errors import ConfigError, LakeError, OutsideFeedError
from components.ingest import ingest
from components.promote import promote
from components.steps import run_step
from tests.registry_lake import analysed
from tests.small_lake import context_at, day_at, settings_at
from tests.test_lake import s3_endpoint

__all__ = ["s3_endpoint"]

pytest_plugins = ["tests.registry_lake"]


def hourly_feed(folder: Path, zone: str, first: date, days: int) -> Pipeline:
    """One file with an impression at every half hour of UTC, from before the first day until after the last."""
    start = bounds(first, parse_zone(zone))[0] - timedelta(hours=30)
    moments = [start + timedelta(minutes=30 * n) for n in range(48 * (days + 3))]
    table = pa.table(
        {
            "u": pa.array([n % 7 for n in range(len(moments))], pa.int64()),
            "v": pa.array(range(len(moments)), pa.int64()),
            "t": pa.array(moments, pa.timestamp("us", tz="UTC")),
            "w": pa.array([500] * len(moments), pa.int64()),
            "d": pa.array([900] * len(moments), pa.int64()),
        }
    )
    folder.mkdir()
    pq.write_table(table, folder / "all.parquet")
    columns = {"user_id": "u", "video_id": "v", "event_time": "t", "watch_ms": "w", "duration_ms": "d"}
    feed = {
        "kind": "files",
        "folder": str(folder),
        "timezone": zone,
        "first_day": first,
        "log": {"path": "all.parquet", "columns": columns},
    }
    return parse_pipeline({"name": "hourly", "feed": feed}, "test")


def parse_zone(name: str) -> Any:
    return parse_pipeline(
        {"name": "x", "feed": {"kind": "world", "first_day": "2024-01-01", "timezone": name}}, "t"
    ).feed.zone


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2024, 3, 31), 23),
        ("Europe/Berlin", date(2024, 10, 27), 25),
        ("America/New_York", date(2024, 11, 3), 25),
        ("Asia/Shanghai", date(2024, 3, 31), 24),
        # Clocks change at midnight itself: the day begins at 01:00.
        ("America/Asuncion", date(2023, 10, 1), 23),
        # And by half an hour.
        ("Australia/Lord_Howe", date(2024, 4, 7), 24.5),
    ],
)
def test_a_day_on_which_clocks_change_has_every_impression_once(
    tmp_path: Path, zone: str, day: date, hours: float
) -> None:
    days = [day - timedelta(days=1), day, day + timedelta(days=1)]
    pipeline = hourly_feed(tmp_path / "feed", zone, days[0], 3)
    context = Context(pipeline, settings_at(tmp_path / "home"))
    seen: Counter[datetime] = Counter()
    for one in days:
        ingest(context, one)
        times = context.data.get("log", one).table(columns=["event_time"])["event_time"].to_pylist()
        start, end = bounds(one, pipeline.feed.zone)
        assert all(start <= moment < end for moment in times)
        seen.update(times)
    assert context.data.get("log", day).rows == 2 * hours
    assert set(seen.values()) == {1}
    whole = bounds(days[-1], pipeline.feed.zone)[1] - bounds(days[0], pipeline.feed.zone)[0]
    assert len(seen) == whole / timedelta(minutes=30)


def test_a_day_before_the_feed_or_after_it_is_refused_by_name(tmp_path: Path) -> None:
    context = context_at(tmp_path, last_day=day_at(5))
    for day in (day_at(-1), day_at(6), date(2199, 1, 1)):
        with pytest.raises(
            OutsideFeedError, match=f"{day} is outside the feed, which runs from 2024-03-04 to 2024-03-09"
        ):
            run_step(context, "ingest", day)


@pytest.mark.parametrize(
    ("first", "last", "ok", "words"),
    [
        (date(2026, 6, 1), None, False, "begins on 2026-06-01, today is 2026-06-01"),
        (date(2027, 1, 1), None, False, "begins on 2027-01-01"),
        (date(2026, 1, 1), date(2026, 7, 1), None, "days from 2026-06-01 on have not ended"),
        (date(2026, 1, 1), date(2026, 5, 31), True, "to 2026-05-31"),
        (date(2026, 1, 1), None, True, "and grows"),
    ],
)
def test_the_doctor_finds_days_that_are_to_come(
    tmp_path: Path, first: date, last: date | None, ok: bool | None, words: str
) -> None:
    # 20:00 UTC is already the next day in Shanghai.
    now = datetime(2026, 5, 31, 20, tzinfo=UTC)
    found = check_days(context_at(tmp_path, first_day=first, last_day=last).pipeline, now)
    assert found.ok is ok
    assert words in found.detail


def test_the_doctor_finds_a_dag_folder_that_was_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_dag_folder().ok
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path / "dags-renamed"))
    found = check_dag_folder()
    assert found.ok is False
    assert "dags-renamed has no mfh_daily.py and no mfh_maintain.py and no mfh_pipeline_files.py" in found.detail
    assert "renamed or moved" in found.mend


def test_the_doctor_finds_pipeline_files_that_airflow_can_not_use(mfh_home: Path) -> None:
    folder = mfh_home / "pipelines"
    folder.mkdir(parents=True)
    good = "name: good\nfeed: {kind: world, first_day: 2026-01-01}\n"
    (folder / "good.yaml").write_text(good)
    assert check_pipeline_files(Settings()).ok
    (folder / "renamed.yaml").write_text(good)
    (folder / "broken.yaml").write_text("name: broken\nfeed: {kind: world, first_day: 2026-01-01}\nshards: 3\n")
    (folder / "params.yaml").write_text(
        "name: params\nfeed: {kind: world, first_day: 2026-01-01}\ntrain: {window_days: many}\n"
    )
    (folder / "binary.yaml").write_bytes(b"name: \xff\xfe\n")
    found = check_pipeline_files(Settings())
    assert found.ok is False
    assert "binary.yaml is not UTF-8" in found.detail
    assert "renamed.yaml holds the pipeline 'good': name the file good.yaml" in found.detail
    assert "shards: Extra inputs are not permitted" in found.detail
    assert "train.window_days" in found.detail


def blocked(tmp_path: Path) -> Context:
    """A lake below a file, which nobody can write, root included."""
    (tmp_path / "file").write_text("")
    context = context_at(tmp_path)
    return replace(context, settings=context.settings.model_copy(update={"lake": str(tmp_path / "file" / "lake")}))


def test_a_lake_that_can_not_be_written_is_named_by_the_step_and_by_the_doctor(tmp_path: Path) -> None:
    context = blocked(tmp_path)
    words = r"'log' for 2024-03-04 could not be written below .*file/lake.*mfh doctor"
    with pytest.raises(LakeError, match=words), context.data.write("log", day_at(0)) as writer:
        writer.text("x", "y")
    found = check_lake(context.settings)
    assert found.ok is False
    assert "file/lake can not be written" in found.detail


@pytest.fixture
def strict(s3_endpoint: str) -> Iterator[str]:
    """The S3 endpoint, now asking for keys that it knows, which are none."""
    httpx.post(f"{s3_endpoint}/moto-api/reset-auth", content=b"0", trust_env=False).raise_for_status()
    yield s3_endpoint
    httpx.post(f"{s3_endpoint}/moto-api/reset-auth", content=b"inf", trust_env=False).raise_for_status()


@pytest.mark.integration
@pytest.mark.timeout(90)
def test_a_wrong_key_of_the_object_store_is_said_within_a_minute_without_the_key(tmp_path: Path, strict: str) -> None:
    update = {
        "lake": "s3://lake/x",
        "lake_endpoint": strict,
        "lake_access_key": "AKIAWRONG",
        "lake_secret_key": "notthekey",
    }
    context = context_at(tmp_path)
    context = replace(context, settings=context.settings.model_copy(update=update))
    began = datetime.now(UTC)
    with pytest.raises(LakeError, match=r"can not be read.*mfh doctor"):
        context.data.find("log", day_at(0))
    with pytest.raises(LakeError) as caught, context.data.write("log", day_at(0)) as writer:
        writer.text("x", "y")
    assert "notthekey" not in str(caught.value)
    found = check_lake(context.settings)
    assert found.ok is False
    assert "MFH_LAKE_ENDPOINT and the keys" in found.mend
    assert datetime.now(UTC) - began < timedelta(minutes=1)


@pytest.mark.integration
def test_the_doctor_finds_what_the_registry_can_not_serve(registry_context: Context) -> None:
    context = registry_context
    settings, pipeline = context.settings, context.pipeline
    assert check_registry(settings_at(settings.home / "none"), pipeline).ok is None
    assert check_registry(settings, pipeline).detail == "it knows no model of small yet"
    for index in (3, 4):
        analysed(context, day_at(index), "ship")
        promote(context, day_at(index))
    assert check_registry(settings, pipeline).ok
    folder = Path(context.runs.get("model_treatment", day_at(4)).folder)
    shutil.move(folder, settings.home / "aside")
    assert "has no bundle in the lake any more" in check_registry(settings, pipeline).detail
    shutil.move(settings.home / "aside", folder)
    with sqlite3.connect(settings.home / "mlflow" / "mlflow.db") as database:
        database.execute("UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE version = 3")
    found = check_registry(settings, pipeline)
    assert found.ok is False
    assert "points to version 3, which was deleted" in found.detail
    away = settings.model_copy(update={"mlflow_uri": "postgresql://u:hunter2secret@127.0.0.1:1/x"})
    found = check_registry(away, pipeline)
    assert found.ok is False
    assert "does not answer" in found.detail
    assert "hunter2secret" not in found.detail


def test_all_of_it_is_part_of_a_checkup(tmp_path: Path, free_port: Callable[[], int]) -> None:
    context = blocked(tmp_path)
    names = [finding.name for finding in checkup(context.settings, context.pipeline, free_port())]
    assert {"lake", "dag folder", "pipeline files", "days", "registry"} <= set(names)


def test_a_malformed_parameter_names_itself(tmp_path: Path) -> None:
    for params, words in (
        ({"window_days": "many"}, "train.window_days"),
        ({"treatment": "nobody"}, "treatment 'nobody' is neither"),
        ({"treatment": "ple", "baseline": "ple"}, "treatment and baseline are the same model"),
        ({"promote": "perhaps"}, "promote"),
        ({"colour": "red"}, "unknown parameter 'colour'"),
    ):
        with pytest.raises(ConfigError, match=words):
            context_at(tmp_path).pipeline.override(params)
