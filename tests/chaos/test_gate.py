"""A planted day meets the real steps: its gate stops it, says why, and nothing downstream starts."""

import copy
from datetime import date
from pathlib import Path

import pytest

from components.chaos import fault_named
from components.chaos.folder import PIPELINE, write_planted
from components.config import Settings, load_pipeline, parse_pipeline
from components.context import Context
from components.errors import ValidationFailedError
from components.steps import STEPS, run_day
from tests.chaos.test_folder import WORLD

# Steps import much, and a busy machine takes its time.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

# What comes after the log's gate, by the datasets that it would leave behind.
DATA = ("user_partial", "video_partial", "user_features", "video_features")
RUNS = ("validation_features", "dataset", "model_treatment", "model_baseline", "experiment", "report")


def planted(
    home: Path, fault: str, rate: float, day: date, history_days: int, window_days: int, users: int = 60
) -> Context:
    """A pipeline over a feed whose last day has the fault."""
    world = copy.deepcopy(WORLD)
    world["feed"]["users"] = users
    world["train"]["window_days"] = window_days
    pipeline = parse_pipeline(world, "test")
    write_planted(pipeline, fault_named(fault), day, rate, home / "planted", history_days=history_days)
    settings = Settings(home=home / "home", lake="", lake_endpoint="", pipelines="", mlflow_uri="", feast_registry="")
    return Context(load_pipeline(home / "planted" / PIPELINE), settings)


def stopped(context: Context, day: date) -> str:
    """What the day says as it stops; only the steps before the gate, and the gate, left anything behind."""
    with pytest.raises(ValidationFailedError) as caught:
        run_day(context, day)
    assert [one.name for one in STEPS[:2]] == ["ingest", "validate_log"]
    assert context.data.find("log", day) is not None
    assert context.runs.get("validation_log", day).json("result.json")["success"] is False
    assert [name for name in DATA if context.data.find(name, day) is not None] == []
    assert [name for name in RUNS if context.runs.find(name, day) is not None] == []
    message = str(caught.value)
    page = Path(message.split("Full record: ")[1].split(". Mend", maxsplit=1)[0])
    assert "<html" in page.read_text(encoding="utf-8")
    return message


def test_watch_times_in_seconds_stop_the_day_by_a_limit_that_holds_everywhere(tmp_path: Path) -> None:
    day = date(2026, 1, 2)
    message = stopped(planted(tmp_path, "watch_in_seconds", 1.0, day, 1, 1), day)
    # Expectation, column, limits, observed value, each in the words of the person's page.
    (line,) = [line for line in message.splitlines() if "plausible_mean_watch expects" in line]
    assert line.strip().startswith("log.watch_ms: plausible_mean_watch expects 300 to 300000")
    observed = float(line.split("observed ")[1].split(";")[0])
    assert 1 < observed < 300
    assert f"validation_log of {day}" in message


def test_lost_requests_stop_the_day_by_a_limit_that_its_window_taught(tmp_path: Path) -> None:
    day = date(2026, 1, 5)
    # Among some dozens of users one alone may miss all requests: chance is given room for that.
    context = planted(tmp_path, "requests_lost", 0.5, day, 4, 3, users=600)
    message = stopped(context, day)
    (line,) = [line for line in message.splitlines() if "unrequested_share expects" in line]
    assert "learned from 4 earlier days" in line
    assert float(line.split("observed ")[1].split(";")[0]) == pytest.approx(0.5, abs=0.01)
    for earlier in range(1, 5):
        one = context.runs.get("validation_log", date(2026, 1, earlier)).json("result.json")
        assert one["success"] is True


def test_the_same_day_without_the_fault_passes_its_gate(tmp_path: Path) -> None:
    from components.steps import run_step

    day = date(2026, 1, 2)
    context = planted(tmp_path, "watch_in_seconds", 0.0, day, 1, 1)
    run_step(context, "ingest", day)
    (result,) = run_step(context, "validate_log", day)
    assert result.facts["expectations"] > 30
