"""The documents tell the truth: the README's mapping works; every command, setting and error is in the reference."""

import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from components import cli_bench, cli_check, cli_gate, cli_model, cli_report, errors
from components.cli import app, source_app
from components.config import PARAMS, Settings, parse_pipeline
from components.context import Context
from components.feed.canonical import REASONS
from components.feed.source import open_source
from components.ingest import ingest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = README + (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
DAY = date(2026, 3, 2)


def own_logs_yaml() -> str:
    (block,) = [b for b in re.findall(r"```yaml\n(.*?)```", README, re.S) if "name: own_logs" in b]
    return block


@pytest.fixture
def own_logs(tmp_path: Path) -> Path:
    """Two days of a feed whose columns have the names of the README's example."""
    for offset in range(2):
        day = date(2026, 3, 1) + timedelta(days=offset)
        # 09:00 UTC is 10:00 in Berlin in winter.
        start = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
        shown = [int((start + timedelta(minutes=i)).timestamp() * 1000) for i in range(6)]
        events = pa.table(
            {
                "uid": ["ann", "ann", "ann", "bob", "bob", "ann"],
                "item": [1, 2, 3, 1, 4, 3],
                "shown_at": shown,
                "seconds_watched": [12.5, 0.0, 30.0, 4.0, 1.0, 9.0],
                "seconds_long": [10.0, 20.0, 60.0, 10.0, 15.0, 60.0],
                "hearted": [True, False, False, False, False, True],
                "watched_long": [1, 0, 1, 0, 0, 0],
                "tab": ["home"] * 6,
                "explored": [False, True, False, False, False, False],
                "p_shown": [0.5, 0.1, 0.2, 0.3, 0.4, 0.9],
            }
        )
        folder = tmp_path / "events" / f"day={day}"
        folder.mkdir(parents=True)
        pq.write_table(events, folder / "part.parquet")
    accounts = {
        "uid": ["ann", "bob"],
        "signed_up": [datetime(2026, 2, 27, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)],
        "country": ["de", "fr"],
        "device": ["ios", "android"],
    }
    pq.write_table(pa.table(accounts), tmp_path / "accounts.parquet")
    catalogue = {
        "item": [1, 2, 3, 4],
        "published": [datetime(2026, 2, 1, tzinfo=UTC)] * 4,
        "author": [7, 7, 8, 9],
        "theme": ["cats", "dogs", "cats", "news"],
        "length": [10.0, 20.0, 60.0, 15.0],
    }
    pq.write_table(pa.table(catalogue), tmp_path / "catalogue.parquet")
    return tmp_path


def test_the_own_logs_example_ingests_a_feed_with_those_columns(own_logs: Path, tmp_path: Path) -> None:
    pipeline = parse_pipeline(yaml.safe_load(own_logs_yaml().replace("${LOGS}", str(own_logs))), "README")
    context = Context(pipeline, Settings(home=tmp_path / "home"))
    result = ingest(context, DAY)
    assert result.facts["rows"] == 6
    assert result.facts["refused"] == {}
    log = context.data.get("log", DAY).table()
    assert sorted(log["watch_ms"].to_pylist()) == [0, 1000, 4000, 9000, 12500, 30000]
    assert sum(log["finish"].to_pylist()) == 1
    assert sum(log["like"].to_pylist()) == 2
    users = context.data.get("users", DAY).table()
    assert users.num_rows == 2
    assert set(users["attr_country"].to_pylist()) == {"de", "fr"}


def test_the_source_check_of_the_example_says_what_is_missing_and_what_it_costs(own_logs: Path) -> None:
    pipeline = parse_pipeline(yaml.safe_load(own_logs_yaml().replace("${LOGS}", str(own_logs))), "README")
    findings = {finding.part: finding for finding in open_source(pipeline.feed).check()}
    assert findings["log.like"].found is not None
    assert findings["log.like"].found.startswith("hearted")
    assert findings["requests"].found is None
    assert "candidate sets" in findings["requests"].cost
    assert findings["users.registered_at"].found is not None


def test_the_example_is_the_file_that_ships() -> None:
    assert own_logs_yaml() == (ROOT / "deploy" / "pipelines" / "own_logs.yaml").read_text(encoding="utf-8")


def test_source_check_runs_from_the_command_line_on_the_example(own_logs: Path, tmp_path: Path) -> None:
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    (pipelines / "own_logs.yaml").write_text(own_logs_yaml(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "components.cli", "source", "check", "--pipeline", "own_logs"],
        env=os.environ | {"MFH_HOME": str(tmp_path / "home"), "MFH_PIPELINES": str(pipelines), "LOGS": str(own_logs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "requests" in done.stdout
    assert "missing" in done.stdout


def test_every_command_is_in_the_reference() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    for group, commands in (
        ("source", source_app),
        ("bench", cli_bench.app),
        ("model", cli_model.app),
        ("report", cli_report.app),
        ("gate", cli_gate.app),
    ):
        found = commands.registered_commands
        names |= {f"{group} {one.name or one.callback.__name__}" for one in found if one.callback}
    assert {name for name in names if f"`mfh {name}" not in REFERENCE} == set()


def test_every_check_is_in_the_reference() -> None:
    """One line may name several: ``mfh check truth``, then ``aa`` alone."""
    lines = [line for line in REFERENCE.splitlines() if "`mfh check" in line]
    names = [one.name or one.callback.__name__ for one in cli_check.app.registered_commands if one.callback]
    found = {name for name in names for line in lines if f"`mfh check {name}" in line or f"`{name}`" in line}
    assert set(names) - found == set()


def test_every_parameter_and_environment_variable_is_in_the_reference() -> None:
    wanted = {*PARAMS, *(f"MFH_{name.upper()}" for name in Settings.model_fields)}
    assert {name for name in wanted if f"`{name}`" not in REFERENCE} == set()


def test_every_error_and_reason_of_refusal_is_in_the_troubleshooting_table() -> None:
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.MfhError) and value is not errors.MfhError
    }
    assert {name for name in {*classes, *REASONS} if f"`{name}`" not in REFERENCE} == set()


def test_every_make_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.*##", makefile, re.M))
    text = README + (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert {target for target in targets - {"help", "install"} if f"make {target}" not in text} == set()


def test_local_links_and_pictures_of_the_documents_exist() -> None:
    for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (ROOT / target).exists(), f"{name} links to {target}"
