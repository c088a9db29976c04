"""The command line: what it writes and prints, and that a mistake costs one sentence and never a traceback."""

import json
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from components.cli import app, main
from components.config import load_pipeline
from components.steps import STEPS

OWN_LOGS = """
name: own
feed:
  kind: files
  folder: {folder}
  first_day: 2024-03-04
  last_day: 2024-03-09
  log:
    path: "{{day}}.parquet"
    columns: {{user_id: u, video_id: v, event_time: t, watch_ms: w, duration_ms: d}}
"""


@pytest.fixture
def own_logs(tmp_path: Path, mfh_home: Path) -> Path:
    """A pipeline over one day of someone's logs, in the folder that Airflow reads."""
    logs, pipelines = tmp_path / "logs", mfh_home / "pipelines"
    logs.mkdir()
    pipelines.mkdir(parents=True)
    rows = {"u": [1, 2], "v": [5, 6], "t": [datetime(2024, 3, 4, 9, tzinfo=UTC)] * 2, "w": [500, 600], "d": [900, 900]}
    pq.write_table(pa.table(rows), logs / "2024-03-04.parquet")
    file = pipelines / "own.yaml"
    file.write_text(OWN_LOGS.format(folder=logs), encoding="utf-8")
    return file


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int | str | None, str]:
    """Exit status of ``mfh`` with these arguments, and what it wrote on standard error."""
    monkeypatch.setattr(sys, "argv", ["mfh", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code, capsys.readouterr().err


def test_init_writes_a_pipeline_that_can_be_read(mfh_home: Path) -> None:
    done = CliRunner().invoke(app, ["init"])
    assert done.exit_code == 0
    file = mfh_home / "pipelines" / "world.yaml"
    assert done.output.strip() == str(file)
    assert load_pipeline(file).name == "world"


def test_init_for_a_folder_names_its_days(mfh_home: Path, test_data: Path) -> None:
    done = CliRunner().invoke(app, ["init", "--data", str(test_data / "kuairand_fixture")])
    assert done.exit_code == 0, done.output
    pipeline = load_pipeline(mfh_home / "pipelines" / "kuairand.yaml")
    assert pipeline.feed.kind == "kuairand"
    assert pipeline.feed.last_day is not None
    assert pipeline.feed.first_day < pipeline.feed.last_day


def test_init_leaves_a_file_that_is_there_unless_forced(mfh_home: Path) -> None:
    file = mfh_home / "pipelines" / "world.yaml"
    CliRunner().invoke(app, ["init"])
    file.write_text("name: mine\n", encoding="utf-8")
    assert CliRunner().invoke(app, ["init"]).exit_code == 0
    assert file.read_text(encoding="utf-8") == "name: mine\n"
    assert CliRunner().invoke(app, ["init", "--force"]).exit_code == 0
    assert load_pipeline(file).name == "world"


def test_init_refuses_a_folder_without_logs(
    tmp_path: Path, mfh_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = told(monkeypatch, capsys, "init", "--data", str(tmp_path))
    assert status == 1
    assert said.startswith("SourceError: ")
    assert str(tmp_path) in said
    assert not (mfh_home / "pipelines").exists()


def test_steps_lists_every_step() -> None:
    done = CliRunner().invoke(app, ["steps"])
    assert done.exit_code == 0
    assert [step.name for step in STEPS if step.name not in done.output] == []


def test_a_step_prints_its_record(own_logs: Path) -> None:
    done = CliRunner().invoke(app, ["step", "ingest", "--date", "2024-03-04"])
    assert done.exit_code == 0, done.output
    record = yaml.safe_load([line for line in done.output.splitlines() if line.startswith("{")][-1])
    assert (record["step"], record["day"], record["facts"]["rows"]) == ("ingest", "2024-03-04", 2)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["step", "cook", "--date", "2024-03-04"], "ConfigError", ["no step 'cook'", "ingest, validate_log"]),
        (["step", "ingest", "--date", "2024-03-03"], "OutsideFeedError", ["2024-03-03 is outside", "to 2024-03-09"]),
        (
            ["run", "--from", "2024-03-09", "--to", "2024-03-10", "-p", "x"],
            "ConfigError",
            ["no pipeline 'x'", "mfh in"],
        ),
        (["run", "--from", "2024-03-10", "--to", "2024-03-11"], "OutsideFeedError", ["2024-03-10"]),
        (["run", "--from", "2024-03-09", "--to", "2024-03-04"], "ConfigError", ["2024-03-04", "before"]),
        (["step", "ingest", "-d", "2024-03-04", "-p", "no.yaml"], "ConfigError", ["no.yaml", "can not be read"]),
        (["step", "ingest", "-d", "2024-03-04", "--param", "speed=9"], "ConfigError", ["unknown parameter 'speed'"]),
        (["step", "ingest", "-d", "2024-03-04", "--param", "shards=0"], "ConfigError", ["simulator.shards"]),
        (["step", "simulate", "-d", "2024-03-04", "--shard", "2"], "ConfigError", ["shard 2 does not exist"]),
        (["step", "ingest", "--date", "2024-03-05"], "EmptyDayError", ["2024-03-05.parquet", "feed.log.path"]),
        (["step", "features", "--date", "2024-03-04"], "MissingPartitionError", ["'log' for 2024-03-04", "mfh run"]),
        (["report", "2024-03-04"], "MissingPartitionError", ["'experiment' for 2024-03-04"]),
        (
            ["bench", "quality", "--train", "2024-03-04", "--valid", "2024-03-04"],
            "ConfigError",
            ["2024-03-04 is not after 2024-03-04"],
        ),
        (["model", "describe", "--model", "mfhh"], "ConfigError", ["no model 'mfhh'", "mfh_equal"]),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_status_1(
    own_logs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    error: str,
    words: list[str],
) -> None:
    status, said = told(monkeypatch, capsys, *arguments)
    assert status == 1
    assert said.startswith(f"{error}: ")
    assert [word for word in words if word not in said] == []
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["step", "ingest", "--date", "yesterday"],
        ["step", "ingest", "--date", "2024-03-04", "--param", "shards"],
        ["step", "ingest"],
        ["cook"],
    ],
)
def test_a_malformed_line_is_a_usage_error(
    own_logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    status, said = told(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "Traceback" not in said
    assert "Usage" in said


def test_without_a_pipeline_the_error_says_how_to_get_one(
    mfh_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = told(monkeypatch, capsys, "source", "check")
    assert (status, str(mfh_home) in said, "'mfh init'" in said) == (1, True, True)


def test_source_check_prints_what_is_missing_and_what_it_costs(own_logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    done = CliRunner().invoke(app, ["source", "check"])
    assert done.exit_code == 0, done.output
    costs = {}
    for line in done.output.splitlines():
        cells = [cell.strip() for cell in line.strip("│┃").split("│")]
        if len(cells) == 3:
            costs[cells[0]] = cells[1:]
    assert costs["log.propensity"] == ["missing", costs["log.propensity"][1]]
    assert "no off-policy estimates" in costs["log.propensity"][1]
    assert "no new users" in costs["users"][1]
    assert "can not be trained" in costs["log.like"][1]
    assert costs["log.watch_ms"][0].startswith("w (")
    assert costs["log.watch_ms"][1] == ""


def test_source_check_of_the_world_finds_everything(mfh_home: Path) -> None:
    CliRunner().invoke(app, ["init"])
    done = CliRunner().invoke(app, ["source", "check"])
    assert done.exit_code == 0
    # Only what a feed without an end or a beginning can not have: nothing lies before the world's first day.
    assert done.output.count("missing") == 1
    assert "users.past" in done.output


def test_feast_env_prints_variables_that_a_shell_can_read(own_logs: Path) -> None:
    done = CliRunner().invoke(app, ["feast-env"])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert all(line.startswith("export MFH_") for line in lines)
    said = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    assert said["MFH_FEAST_ROOT"].startswith("/")
    # A mapping with quotation marks of its own, which the shell must hand on as it is.
    assert json.loads(said["MFH_FEAST_ONLINE"])["type"].endswith("RowSqliteOnlineStore")


def test_the_installed_command_ends_with_the_status(own_logs: Path) -> None:
    command = [sys.executable, "-m", "components.cli", "step", "cook", "--date", "2024-03-04"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ConfigError: no step 'cook'")
    assert done.stdout == ""
