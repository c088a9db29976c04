"""``mfh chaos``: a planted feed that a pipeline runs over, from the command line."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from components.chaos import FAULTS, fault_named
from components.chaos.folder import HOME, PIPELINE, RECORD, write_planted
from components.cli import app
from components.config import Settings, load_pipeline, parse_pipeline
from components.context import Context
from components.errors import ConfigError, OutsideFeedError, SourceError
from components.feed.source import open_source
from components.ingest import ingest

DAY, BEFORE = date(2026, 1, 3), date(2026, 1, 2)
WORLD: dict[str, Any] = {
    "name": "tiny",
    "feed": {
        "kind": "world",
        "first_day": "2026-01-01",
        "last_day": "2026-01-09",
        "users": 60,
        "new_users_per_day": 2,
        "videos": 80,
        "new_videos_per_day": 5,
        "session_gap_min": 20,
    },
    "train": {"window_days": 1},
}


def test_a_folder_reads_back_as_the_feed_with_one_planted_day(tmp_path: Path) -> None:
    pipeline = parse_pipeline(WORLD, "test")
    out = tmp_path / "planted"
    planted = write_planted(pipeline, fault_named("watch_zero"), DAY, 1.0, out, history_days=1)
    assert json.loads((out / RECORD).read_text())["fault"] == "watch_zero"
    assert (planted.day, planted.first_day) == ("2026-01-03", "2026-01-02")
    chosen = load_pipeline(out / PIPELINE)
    assert chosen.name == "tiny_chaos"
    assert chosen.feed.session_gap_min == 20
    assert chosen.train == pipeline.train
    theirs, ours = open_source(pipeline.feed), open_source(chosen.feed)
    assert ours.user_attributes == theirs.user_attributes
    clean, read = theirs.read_day(BEFORE), ours.read_day(BEFORE)
    for name in ("log", "users", "videos", "requests"):
        old, new = getattr(clean, name), getattr(read, name)
        assert new.select(old.column_names).to_pylist() == old.to_pylist()
    day = ours.read_day(DAY)
    assert set(day.log["watch_ms"].to_pylist()) == {0}
    assert day.log.drop_columns(["watch_ms"]).to_pylist() == (
        theirs.read_day(DAY).log.drop_columns(["watch_ms"]).to_pylist()
    )


def test_a_fault_of_text_files_is_written_as_text_and_stops_ingest_on_its_day_alone(tmp_path: Path) -> None:
    pipeline, out = parse_pipeline(WORLD, "test"), tmp_path / "planted"
    planted = write_planted(pipeline, fault_named("half_written_file"), DAY, 0.3, out, history_days=1)
    before, after = planted.rows
    assert after is not None
    assert 0.65 * before < after < 0.72 * before
    context = Context(load_pipeline(out / PIPELINE), Settings(home=tmp_path / "home", lake=""))
    assert ingest(context, BEFORE).facts["refused"] == {}
    with pytest.raises(SourceError, match=f"day={DAY}.csv can not be read"):
        ingest(context, DAY)


def test_the_command_says_what_it_planted_and_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(WORLD), encoding="utf-8")
    monkeypatch.setenv("MFH_HOME", str(tmp_path / "home"))
    out = tmp_path / "planted"
    command = ["chaos", "data", "--date", str(DAY), "--pipeline", str(tmp_path / "tiny.yaml"), "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--fault", "missing_file", "--rate", "1", "--history", "0"])
    assert done.exit_code == 0, done.output
    assert "missing_file at 1 of any: There is no file." in done.output
    assert "now no file" in done.output
    assert f"mfh run --from {DAY} --to {DAY} --pipeline {out / PIPELINE}" in done.output.replace("\n", "")
    again = CliRunner().invoke(app, [*command, "--fault", "missing_file"])
    assert isinstance(again.exception, ConfigError)
    assert "not an empty folder" in str(again.exception)


@pytest.mark.integration
def test_a_fault_of_a_snapshot_is_planted_in_a_lake_of_its_own(tmp_path: Path) -> None:
    pipeline, out = parse_pipeline(WORLD, "test"), tmp_path / "planted"
    planted = write_planted(pipeline, fault_named("snapshot_rows_doubled"), DAY, 0.5, out, history_days=2)
    before, after = planted.rows
    assert after == before + round(before / 2)
    context = Context(load_pipeline(out / PIPELINE), Settings(home=out / HOME, lake="", lake_endpoint=""))
    assert context.data.get("video_features", DAY).rows == after
    assert context.data.get("user_features", DAY).rows > 0


def test_what_can_not_be_planted_is_refused_in_words(tmp_path: Path) -> None:
    pipeline = parse_pipeline(WORLD, "test")
    with pytest.raises(OutsideFeedError, match="2026-02-01 is outside the feed"):
        write_planted(pipeline, fault_named("watch_zero"), date(2026, 2, 1), 1.0, tmp_path / "a")
    with pytest.raises(ConfigError, match="share from 0 to 1"):
        write_planted(pipeline, fault_named("watch_zero"), DAY, 2.0, tmp_path / "a")
    first = date(2026, 1, 1)
    for name in ("replayed_yesterday", "wrong_day_file"):
        with pytest.raises(ConfigError, match="day before 2026-01-01"):
            write_planted(pipeline, fault_named(name), first, 1.0, tmp_path / name)


def test_the_list_names_every_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["chaos", "list"]).output
    assert [fault.name for fault in FAULTS if fault.name not in shown] == []
    rows = json.loads(CliRunner().invoke(app, ["chaos", "list", "--json"]).output)
    assert [row["name"] for row in rows] == [fault.name for fault in FAULTS]
    assert all(row["meaning"] and row["cause"] for row in rows)
