import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.config import Settings, parse_pipeline
from components.context import Context
from components.errors import ConfigError, EmptyDayError, LakeError, OutsideFeedError, SourceError
from components.feed.schema import LOG
from components.ingest import ensure_days, ingest
from components.lake import Lake

FIRST = date(2024, 3, 4)
DAY = date(2024, 3, 5)
COLUMNS = {"user_id": "u", "video_id": "v", "event_time": "t", "watch_ms": "w", "duration_ms": "d"}


def write_day(folder: Path, day: date, watched: list[int]) -> None:
    start = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
    times = [start + timedelta(minutes=i) for i in range(len(watched))]
    n = len(watched)
    table = pa.table({"u": list(range(n)), "v": [5] * n, "t": times, "w": watched, "d": [1_000] * n})
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / f"{day}.parquet")


def context_of(tmp_path: Path, **feed: Any) -> Context:
    log = {"path": "{day}.parquet", "columns": COLUMNS}
    settings = {
        "kind": "files",
        "folder": str(tmp_path / "logs"),
        "first_day": FIRST,
        "last_day": date(2024, 3, 9),
        "log": log,
    }
    pipeline = parse_pipeline({"name": "own", "feed": settings | feed}, where="test")
    return Context(pipeline, Settings(home=tmp_path / "home"), run={"run_id": "r1"})


@pytest.fixture
def context(tmp_path: Path) -> Context:
    write_day(tmp_path / "logs", FIRST, [500, 600])
    write_day(tmp_path / "logs", DAY, [500, -1, 700])
    return context_of(tmp_path)


def partitions(context: Context) -> set[str]:
    root = Path(context.settings.lake_root)
    return {str(path.relative_to(root).parent) for path in root.rglob("manifest.json")}


def leftovers(context: Context) -> list[Path]:
    """Files of the lake that no manifest owns."""
    root = Path(context.settings.lake_root)
    return [
        path
        for path in root.rglob("*")
        if path.is_file()
        and not (path.parent.parent / "manifest.json").is_file()
        and not (path.parent / "manifest.json").is_file()
    ]


def test_a_day_is_written_whole(context: Context) -> None:
    result = ingest(context, DAY)
    log = context.data.get("log", DAY)
    assert log.table().schema.equals(LOG)
    assert log.rows == 2
    assert result.step == "ingest"
    assert set(result.outputs) == {f"{name}/{DAY}" for name in ("users", "videos", "quarantine", "log")}
    assert result.outputs[f"log/{DAY}"] == log.content_hash
    assert result.facts["refused"] == {"negative_watch": 1}
    assert result.facts["refused_share"] == pytest.approx(1 / 3)
    assert (result.facts["rows"], result.facts["delivered"], result.facts["requests"]) == (2, 3, None)
    assert log.manifest.facts == result.facts
    assert context.data.get("quarantine", DAY).table().column("reason").to_pylist() == ["negative_watch"]
    assert context.data.get("users", DAY).rows == 3
    assert context.data.find("requests", DAY) is None


def test_the_log_records_what_was_written_beside_it(context: Context) -> None:
    outputs = ingest(context, DAY).outputs
    inputs = context.data.get("log", DAY).manifest.inputs
    assert inputs == {name: digest for name, digest in outputs.items() if not name.startswith("log/")}
    assert context.data.get("log", DAY).manifest.config_hash == context.pipeline.source_id


def test_a_clean_day_has_no_quarantine(context: Context) -> None:
    assert f"quarantine/{FIRST}" not in ingest(context, FIRST).outputs
    assert context.data.find("quarantine", FIRST) is None


def test_the_same_day_gives_the_same_hashes_and_the_run_stands_outside(context: Context, tmp_path: Path) -> None:
    first = ingest(context, DAY)
    again = ingest(Context(context.pipeline, Settings(home=tmp_path / "other"), run={"run_id": "r2"}), DAY)
    assert first.record() == again.record()
    assert ingest(context, DAY).record() == first.record()


@pytest.mark.parametrize("day", [FIRST - timedelta(days=1), date(2024, 3, 10)])
def test_a_day_outside_the_feed_is_an_error(context: Context, day: date) -> None:
    with pytest.raises(OutsideFeedError, match=str(day)):
        ingest(context, day)
    assert partitions(context) == set()


def test_ensure_days_ingests_what_is_missing_and_inside_the_feed(context: Context) -> None:
    ingest(context, DAY)
    before = context.data.get("log", DAY).folder
    found = ensure_days(context, [FIRST - timedelta(days=1), FIRST, DAY, date(2024, 3, 10)])
    assert [partition.manifest.day for partition in found] == [str(FIRST), str(DAY)]
    assert found[1].folder == before


def test_ensure_days_reads_nothing_twice(context: Context, tmp_path: Path) -> None:
    ensure_days(context, [FIRST, DAY])
    for path in (tmp_path / "logs").iterdir():
        path.unlink()
    assert len(ensure_days(context, [DAY, FIRST])) == 2


def test_an_empty_earlier_day_is_noted_and_left_out(
    context: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_day(tmp_path / "logs", date(2024, 3, 7), [-1])
    found = ensure_days(context, [FIRST, DAY, date(2024, 3, 6), date(2024, 3, 7)])
    assert [partition.manifest.day for partition in found] == [str(FIRST), str(DAY)]
    assert "event=empty_day day=2024-03-06" in caplog.text
    assert "event=empty_day day=2024-03-07" in caplog.text


def test_any_order_of_days_gives_the_same_lake(context: Context, tmp_path: Path) -> None:
    forward = ensure_days(context, [FIRST, DAY])
    backward = ensure_days(Context(context.pipeline, Settings(home=tmp_path / "other")), [DAY, FIRST])
    assert [p.content_hash for p in forward] == [p.content_hash for p in reversed(backward)]


def test_a_day_of_refused_rows_writes_nothing(context: Context, tmp_path: Path) -> None:
    write_day(tmp_path / "logs", DAY, [-1, -2])
    with pytest.raises(EmptyDayError, match="negative_watch 2"):
        ingest(context, DAY)
    assert partitions(context) == set()


def test_a_damaged_file_writes_nothing(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "logs" / f"{DAY}.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SourceError, match=path.name):
        ingest(context, DAY)
    assert partitions(context) == set()


def test_a_failure_between_partitions_leaves_no_log(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users are there, the log is not: for readers the day does not exist, and the next run completes it."""
    commit = Lake._commit

    def full_disk(self: Lake, dataset: str, *rest: Any, **named: Any) -> None:
        if dataset == "log":
            raise OSError(28, os.strerror(28))
        commit(self, dataset, *rest, **named)

    monkeypatch.setattr(Lake, "_commit", full_disk)
    with pytest.raises(LakeError, match="log"):
        ingest(context, DAY)
    assert context.data.find("log", DAY) is None
    assert context.data.find("users", DAY) is not None
    assert leftovers(context) == []
    monkeypatch.undo()
    ensure_days(context, [DAY])
    assert context.data.get("log", DAY).rows == 2


def test_progress_and_run_record(context: Context) -> None:
    seen: list[tuple[int, int, str]] = []
    ingest(Context(context.pipeline, context.settings, {"run_id": "r9"}, lambda *step: seen.append(step)), DAY)
    assert seen[-1][:2] == (3, 3)
    folder = Path(context.data.get("log", DAY).folder).parent
    assert '"run_id": "r9"' in (folder / "run.json").read_text()


def test_an_unknown_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="feed"):
        context_of(tmp_path, kind="tape")
    feed = {"kind": "python", "factory": "no.such:Source", "first_day": FIRST}
    pipeline = parse_pipeline({"name": "own", "feed": feed}, where="test")
    with pytest.raises(ConfigError, match=r"no\.such:Source"):
        ingest(Context(pipeline, Settings(home=tmp_path)), DAY)


def test_a_real_day(tmp_path: Path, test_data: Path) -> None:
    feed = {"kind": "kuairand", "folder": str(test_data / "kuairand_fixture"), "first_day": "2022-04-24"}
    pipeline = parse_pipeline({"name": "kuai", "feed": feed}, where="test")
    facts = ingest(Context(pipeline, Settings(home=tmp_path)), date(2022, 4, 28)).facts
    assert (facts["delivered"], facts["rows"]) == (313, 296)
    assert facts["refused"] == {"duplicate": 11, "no_duration": 6}
