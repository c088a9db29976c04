"""The override of a failed gate: who, when, why, for what was seen and nothing else."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from components.analyse import decisions
from components.cli import app
from components.errors import ConfigError, LakeError, ValidationFailedError
from components.ingest import ingest
from components.steps import run_step_past_gates
from components.validate import validate_log
from components.validation.passes import failures, pass_gate, read_passes
from tests.small_lake import FIRST, write, write_day
from tests.test_validate import changed, clean_rows, context_of, failure, plant

pytestmark = pytest.mark.integration

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_passed_expectation_lets_the_day_go_on_and_is_shown(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, changed("like", 2))
    message = failure(context)
    assert f"mfh gate pass --pipeline small --date {FIRST} --table log --expectation 'like_values'" in message
    (made,) = pass_gate(context, FIRST, "log", "like_values", "double taps count twice today", who="ann", when=NOON)
    assert made.when == "2026-03-01T12:00:00+00:00"
    assert failures(context, FIRST) == []
    result = validate_log(context, FIRST)
    (sentence,) = result.facts["passed"]
    assert "passed by ann: double taps count twice today" in sentence
    partition = context.runs.get("validation_log", FIRST)
    assert partition.json("result.json")["success"] is True
    assert partition.manifest.inputs[f"gate_passes/{FIRST}"] == context.runs.get("gate_passes", FIRST).content_hash
    assert "passed by ann" in Path(result.facts["data_docs"]).read_text(encoding="utf-8")
    (shown,) = decisions(context, [FIRST])
    assert "log.like_values was broken and let pass by ann on 2026-03-01: double taps count twice today" in shown


def test_a_pass_holds_for_what_was_seen(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, changed("like", 2))
    failure(context)
    pass_gate(context, FIRST, "log", "all", "known and harmless", who="ann")
    validate_log(context, FIRST)
    plant(context, changed("like", 2, 3))
    assert "like_values" in failure(context)
    assert len(read_passes(context, FIRST)) == 1


def test_a_run_with_a_reason_passes_the_gates_of_its_day(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, changed("like", 2))
    with pytest.raises(ValidationFailedError, match="like_values"):
        run_step_past_gates(context, "validate_log", FIRST)
    with pytest.raises(ConfigError, match="needs a reason"):
        run_step_past_gates(context, "validate_log", FIRST, because="ok", who="ann")
    assert read_passes(context, FIRST) == []
    (result,) = run_step_past_gates(
        context, "validate_log", FIRST, because="double taps count twice", who="ann, who started backfill__1"
    )
    assert result.facts["passed"]
    (sentence,) = decisions(context, [FIRST])
    assert "let pass by ann, who started backfill__1" in sentence
    assert "double taps count twice" in sentence


def test_a_reason_opens_no_gate_that_could_not_judge_or_is_another_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(tmp_path)
    write_day(context, FIRST, clean_rows())

    def another_days(*_: object) -> None:
        raise ValidationFailedError("the day before")

    with monkeypatch.context() as patched:
        patched.setattr("components.steps.run_step", another_days)
        with pytest.raises(ValidationFailedError, match="the day before"):
            run_step_past_gates(context, "features", FIRST, because="a good reason")
    monkeypatch.setattr("components.validate.check_log", lambda *_: 1 / 0)
    with pytest.raises(ConfigError, match="could not be computed"):
        run_step_past_gates(context, "validate_log", FIRST, because="a good reason")


@pytest.mark.parametrize(
    ("table", "expectation", "reason", "says"),
    [
        ("log", "like_values", "  ", "needs a reason"),
        ("log", "like_value", "a good reason", "what has failed is log.like_values"),
        ("users", "all", "a good reason", "no gate of"),
    ],
)
def test_what_has_not_failed_or_has_no_reason_is_not_passed(
    tmp_path: Path, table: str, expectation: str, reason: str, says: str
) -> None:
    context = context_of(tmp_path)
    plant(context, changed("like", 2))
    failure(context)
    with pytest.raises(ConfigError, match=says):
        pass_gate(context, FIRST, table, expectation, reason)
    assert read_passes(context, FIRST) == []


def test_what_could_not_be_computed_can_not_be_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(tmp_path)
    write_day(context, FIRST, clean_rows())
    monkeypatch.setattr("components.validate.check_log", lambda *_: 1 / 0)
    failure(context)
    with pytest.raises(ConfigError, match="could not be computed"):
        pass_gate(context, FIRST, "validation_log", "all", "let us hope for the best")


def test_the_command_line_shows_and_passes(tmp_path: Path, mfh_home: Path) -> None:
    context = context_of(mfh_home)
    folder = mfh_home / "pipelines"
    folder.mkdir(parents=True)
    # JSON is YAML.
    (folder / "small.yaml").write_text(json.dumps(context.pipeline.model_dump(mode="json")), encoding="utf-8")
    plant(context, changed("like", 2))
    failure(context)
    runner = CliRunner()
    shown = runner.invoke(app, ["gate", "show", "--date", str(FIRST)])
    assert shown.exit_code == 0, shown.output
    assert "like_values" in shown.output
    assert "data_docs.html" in shown.output
    options = ["--date", str(FIRST), "--table", "log", "--expectation", "like_values", "--reason", "seen and fine"]
    done = runner.invoke(app, ["gate", "pass", *options, "--who", "bob"])
    assert done.exit_code == 0, done.output
    assert "let pass by bob" in done.output
    validate_log(context, FIRST)


def test_a_quarantine_that_can_not_be_written_stops_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.feed.schema import DayTables
    from components.partition import PartitionWriter
    from tests.small_lake import Ended, log_table, users_table, videos_table

    context = context_of(tmp_path)
    rows = clean_rows()
    table = changed("watch_ms", 0)(log_table(rows))
    tables = DayTables(table, users_table([1, 2, 3]), videos_table([1, 2, 3, 4]))
    monkeypatch.setattr(Ended, "read_day", lambda *_: tables)
    original = PartitionWriter.table

    def full(self: PartitionWriter, table: pa.Table, name: str = "part-0") -> None:
        if "reason" in table.column_names:
            raise OSError(28, "No space left on device")
        original(self, table, name)

    with monkeypatch.context() as patch:
        patch.setattr(PartitionWriter, "table", full)
        with pytest.raises(LakeError, match="quarantine"):
            ingest(context, FIRST)
    assert context.data.find("log", FIRST) is None
    assert ingest(context, FIRST).facts["refused"] == {"unwatched_finish": 1}
    assert context.data.get("quarantine", FIRST).table()["reason"].to_pylist() == ["unwatched_finish"]


def test_an_unpassed_failure_stops_the_day_whatever_else_was_passed(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, lambda table: changed("like", 2)(changed("propensity", 0.0)(table)))
    failure(context)
    pass_gate(context, FIRST, "log", "like_values", "double taps", who="ann")
    with pytest.raises(ValidationFailedError, match="propensity_range"):
        validate_log(context, FIRST)


def test_a_mended_day_needs_no_pass(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, changed("like", 2))
    failure(context)
    from tests.small_lake import log_table

    write(context, "log", FIRST, log_table(clean_rows()), refused={}, refused_share=0.0)
    assert validate_log(context, FIRST).facts["passed"] == []
