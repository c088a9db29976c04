"""``mfh report``: the old short form, and what a person sees of lists, comparisons and bad input."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from components.cli import app
from components.context import Context
from simulator.report.compare import Comparison
from simulator.report.schema import experiment_schema
from tests.small_lake import context_at, day_at
from tests.test_reports import of, write_report


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """Two reported days of the small pipeline, which the environment names."""
    found = context_at(tmp_path)
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "small.yaml").write_text(yaml.safe_dump(found.pipeline.model_dump(mode="json")))
    monkeypatch.setenv("MFH_HOME", str(tmp_path))
    # A terminal of 80 columns would break the words that are looked for.
    monkeypatch.setenv("COLUMNS", "240")
    for index in range(2):
        record = of(found, day_at(index))
        arms = tuple(arm.model_copy(update={"bundle": f"bundle-{index}"}) for arm in record.arms)
        write_report(found, day_at(index), record.model_copy(update={"arms": arms, "users": 12_480 + index}))
    return found


def mfh(*words: str) -> Result:
    return CliRunner().invoke(app, ["report", *words])


def test_the_day_alone_is_enough(context: Context) -> None:
    short, whole = mfh(str(day_at(1))), mfh("show", str(day_at(1)), "--pipeline", "small")
    assert short.exit_code == whole.exit_code == 0, short.output
    assert short.output == whole.output
    assert of(context, day_at(1)).verdict.sentence in short.output
    # What could not be estimated stands there with its reason, and markup is text.
    assert "not estimable" in short.output
    assert "<b>of" in short.output
    assert short.output.strip().endswith("report.html")
    # Options may come first, as before.
    assert mfh("--pipeline", "small", str(day_at(1))).output == whole.output


def test_metrics_are_exported_beside_the_verdict(context: Context, tmp_path: Path) -> None:
    done = mfh(str(day_at(0)), "--export", str(tmp_path / "m.parquet"))
    assert done.exit_code == 0, done.output
    assert set(pq.read_table(tmp_path / "m.parquet")["day"].to_pylist()) == {str(day_at(0))}


def test_the_list_has_every_day_and_what_is_wrong_with_it(context: Context) -> None:
    Path(context.runs.path("report", f"ds={day_at(1)}", "manifest.json")).unlink()
    done = mfh("list")
    assert done.exit_code == 0, done.output
    assert "half-written" in done.output
    assert str(day_at(0)) in done.output
    rows = json.loads(mfh("list", "--json", "-").output)
    assert [row["state"] for row in rows] == ["unreadable", "ready"]


def test_a_comparison_shows_what_differs_and_nothing_else(context: Context, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    done = mfh("compare", str(day_at(0)), str(day_at(1)), "--json", str(out))
    assert done.exit_code == 0, done.output
    assert "treatment, bundle" in done.output
    assert "Configuration: the same on both sides" in done.output
    assert "12,481" in done.output
    found = Comparison.model_validate_json(out.read_text())
    assert found.first.day == str(day_at(0))
    assert {one.what for one in found.models} == {"treatment, bundle", "baseline, bundle"}


def test_two_pipelines_are_compared_on_one_day(context: Context, tmp_path: Path) -> None:
    other = context_at(tmp_path, name="other", train={"window_days": 3})
    (tmp_path / "pipelines" / "other.yaml").write_text(yaml.safe_dump(other.pipeline.model_dump(mode="json")))
    write_report(other, day_at(0), of(other, day_at(0)))
    day = str(day_at(0))
    done = mfh("compare", day, day, "--pipeline", "small", "--against", "other", "--json", "-")
    assert done.exit_code == 0, done.output
    found = Comparison.model_validate_json(done.output)
    assert (found.first.pipeline, found.second.pipeline) == ("small", "other")
    assert {one.what for one in found.config} == {"config hash", "pipeline"}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("2031-01-01",), "MissingPartitionError"),
        (("compare", "2024-03-04", "2031-01-01"), "MissingPartitionError"),
        (("compare", "2024-03-04@../../x", "2024-03-05"), "ConfigError"),
        (("compare", "2024-03-04@0123456789ab", "2024-03-05"), "MissingPartitionError"),
        (("2024-03-04", "--export", "x.doc"), "ConfigError"),
        (("compare", "2024-03-04", "2024-03-05", "--json", "no/such/folder/x.json"), "ConfigError"),
    ],
)
def test_what_can_not_be_shown_is_a_named_error(context: Context, words: tuple[str, ...], error: str) -> None:
    done = mfh(*words)
    assert type(done.exception).__name__ == error, done.output


def test_no_day_is_no_stack_trace(context: Context) -> None:
    done = mfh("yesterday")
    assert done.exit_code == 2
    assert "'yesterday' is not a date" in done.output


def test_the_schema_is_printed() -> None:
    assert json.loads(mfh("schema").output) == experiment_schema()
