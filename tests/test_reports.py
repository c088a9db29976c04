"""Reports of a lake: listed from small files, opened by checked names, and unreadable ones say why."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from components import reports
from components.context import Context
from components.errors import ConfigError, MissingPartitionError, NewerSchemaError, RecordError
from components.lake import Lake
from components.reports import (
    ReportEntry,
    gate_calendar,
    list_reports,
    locate,
    parse_record,
    pipelines_with_reports,
    read_document,
    read_page,
    read_record,
)
from simulator.experiment import Experiment
from simulator.report.summary import summarise
from simulator.surroundings import Run
from tests.simulator.experiment_example import example
from tests.simulator.surroundings_example import checks
from tests.small_lake import context_at, day_at


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_at(tmp_path)


@pytest.fixture
def lake(context: Context) -> Lake:
    return Lake.open(context.settings)


def of(context: Context, day: date, written_at: str = "2026-03-13T01:00:00+00:00") -> Experiment:
    lineage = example().lineage.model_copy(
        update={"pipeline": context.pipeline.name, "config_hash": context.pipeline.config_hash}
    )
    run = Run(run_id="scheduled__x", attempt=1, written_at=written_at)
    return example().model_copy(update={"day": day.isoformat(), "lineage": lineage, "run": run, "checks": checks()})


def write_report(context: Context, day: date, record: Experiment | None = None) -> None:
    """What analyse and report leave, without their work."""
    record = record or of(context, day)
    with context.runs.write("experiment", day) as writer:
        writer.text("experiment.json", record.model_dump_json())
    with context.runs.write("report", day) as writer:
        writer.text("day.html", "the page of the day alone")
        writer.aside["report.html"] = f"the page of {day}".encode()
        writer.aside["experiment.json"] = record.model_dump_json().encode()
        writer.aside["summary.json"] = summarise(record).model_dump_json().encode()


def folder(context: Context, day: date) -> Path:
    return Path(context.runs.path("report", f"ds={day}"))


def test_a_list_opens_one_small_file_per_day(context: Context, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(5):
        write_report(context, day_at(index))
    opened: list[str] = []
    real = lake.fs.cat_file
    monkeypatch.setattr(lake.fs, "cat_file", lambda path, **more: (opened.append(path), real(path, **more))[1])
    found = list_reports(lake, "small")
    assert [one.day for one in found] == [day_at(index) for index in (4, 3, 2, 1, 0)]
    assert {one.state for one in found} == {"ready"}
    assert sorted(path.rsplit("/", 1)[1] for path in opened) == ["summary.json"] * 5
    assert max(Path(path).stat().st_size for path in opened) < 10_000
    summary = found[0].summary
    assert summary is not None
    assert summary.lift is not None
    assert (summary.lift.metric, summary.lift.segment) == ("app_time", "new")
    assert summary.lift.value == pytest.approx(100 * (205.91 / 187.52 - 1))
    assert (summary.run_id, summary.attempt) == ("scheduled__x", 1)
    assert pipelines_with_reports(lake) == ("small",)


def test_a_lake_without_reports_is_empty_and_says_so(context: Context, lake: Lake) -> None:
    assert list_reports(lake) == []
    assert list_reports(lake, "small") == []
    assert pipelines_with_reports(lake) == ()
    assert gate_calendar(lake, "small") == {}
    with pytest.raises(MissingPartitionError, match="'small' has no report yet"):
        locate(lake, "small", day_at(0))


def test_a_missing_day_names_the_newest_one(context: Context, lake: Lake) -> None:
    write_report(context, day_at(1))
    with pytest.raises(MissingPartitionError, match=f"the newest day of 'small' is {day_at(1)}"):
        locate(lake, "small", day_at(7))


@pytest.mark.parametrize(
    ("pipeline", "day", "config_hash"),
    [
        ("../small", "2024-03-04", None),
        ("small/../..", "2024-03-04", None),
        ("", "2024-03-04", None),
        ("<script>", "2024-03-04", None),
        ("small", "../../../etc/passwd", None),
        ("small", "2024-02-30", None),
        ("small", "2024-03-04/..", None),
        ("small", "2024-03-04", "../../secret"),
        ("small", "2024-03-04", "0123456789AB"),
        ("small", "2024-03-04", "0123456789ab\n"),
    ],
)
def test_names_that_can_not_be_ones_are_refused_before_anything_is_read(
    context: Context, lake: Lake, monkeypatch: pytest.MonkeyPatch, pipeline: str, day: str, config_hash: str | None
) -> None:
    write_report(context, day_at(0))

    def read(*_: object, **__: object) -> Iterator[Any]:
        raise AssertionError("something was looked for")

    monkeypatch.setattr(lake.fs, "ls", read)
    monkeypatch.setattr(lake.fs, "cat_file", read)
    with pytest.raises(ConfigError):
        locate(lake, pipeline, day, config_hash)


def test_a_half_written_report_is_named_as_such(context: Context, lake: Lake) -> None:
    write_report(context, day_at(0))
    (folder(context, day_at(0)) / "manifest.json").unlink()
    (entry,) = list_reports(lake, "small")
    assert entry.state == "unreadable"
    assert "half-written" in str(entry.problem)
    assert f"mfh step report --date {day_at(0)}" in str(entry.problem)
    with pytest.raises(RecordError, match="half-written"):
        locate(lake, "small", day_at(0))


def test_a_day_that_was_only_analysed_has_no_report_yet(context: Context, lake: Lake) -> None:
    with context.runs.write("experiment", day_at(0)) as writer:
        writer.text("experiment.json", of(context, day_at(0)).model_dump_json())
    (entry,) = list_reports(lake, "small")
    assert (entry.state, entry.summary) == ("no report", None)
    with pytest.raises(MissingPartitionError, match="no report yet"):
        locate(lake, "small", day_at(0))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": "2"}', '{"schema_version": 1}', "\xff"])
def test_a_damaged_summary_is_unreadable_and_spoils_no_list(context: Context, lake: Lake, text: str) -> None:
    for index in range(2):
        write_report(context, day_at(index))
    (folder(context, day_at(1)) / "summary.json").write_text(text, encoding="latin-1")
    newest, other = list_reports(lake, "small")
    assert (newest.state, other.state) == ("unreadable", "ready")
    assert "summary.json" in str(newest.problem)
    with pytest.raises(RecordError):
        locate(lake, "small", day_at(1))


def test_a_newer_schema_is_refused_by_name(context: Context, lake: Lake) -> None:
    write_report(context, day_at(0))
    path = folder(context, day_at(0))
    entry = locate(lake, "small", day_at(0))
    newer = json.loads((path / "experiment.json").read_text()) | {"schema_version": 99, "unheard": "of"}
    (path / "experiment.json").write_text(json.dumps(newer))
    with pytest.raises(NewerSchemaError, match="has schema version 99, this version reads up to 2"):
        read_record(lake, entry)
    summary = json.loads((path / "summary.json").read_text()) | {"schema_version": 99}
    (path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(NewerSchemaError, match="install the version that wrote it"):
        locate(lake, "small", day_at(0))


def test_a_record_that_is_cut_off_or_has_a_strange_field_says_where() -> None:
    text = example().model_dump_json().encode()
    with pytest.raises(RecordError, match=r"there/experiment\.json is damaged or cut off"):
        parse_record(text[: len(text) // 2], "there/experiment.json")
    strange = json.dumps(json.loads(text) | {"users": "many"}).encode()
    with pytest.raises(RecordError, match="users: Input should be a valid integer"):
        parse_record(strange, "there/experiment.json")


def test_a_record_of_the_first_version_is_read(context: Context, lake: Lake) -> None:
    old = json.loads(of(context, day_at(0)).model_dump_json())
    for name in ("app_time", "certificate", "diagnostics", "checks", "run"):
        del old[name]
    del old["lineage"]["config"]
    record = parse_record(json.dumps(old | {"schema_version": 1}).encode(), "an old lake")
    assert record.app_time is None
    # And a report of that time has neither a copy of the record nor a summary.
    write_report(context, day_at(0), record)
    for name in ("summary.json", "experiment.json"):
        (folder(context, day_at(0)) / name).unlink()
    (entry,) = list_reports(lake, "small")
    assert entry.state == "ready"
    assert entry.summary == summarise(record)
    assert read_record(lake, entry) == record


def test_a_days_newest_report_is_taken_and_an_older_one_can_be_named(context: Context, lake: Lake) -> None:
    other = context_at(context.settings.home, simulator={"seed": 12})
    write_report(context, day_at(0), of(context, day_at(0), "2026-03-13T05:00:00+00:00"))
    write_report(other, day_at(0), of(other, day_at(0), "2026-03-13T04:00:00+00:00"))
    assert len(list_reports(lake, "small")) == 2
    assert locate(lake, "small", day_at(0)).config_hash == context.pipeline.config_hash
    older = locate(lake, "small", str(day_at(0)), other.pipeline.config_hash)
    assert older.config_hash == other.pipeline.config_hash
    assert read_page(lake, older) == f"the page of {day_at(0)}".encode()


def test_a_link_out_of_the_lake_is_not_followed(context: Context, lake: Lake, tmp_path: Path) -> None:
    write_report(context, day_at(0))
    entry = locate(lake, "small", day_at(0))
    secret = tmp_path.parent / f"{tmp_path.name}-secret"
    secret.write_text("not yours")
    page = folder(context, day_at(0)) / "report.html"
    page.unlink()
    page.symlink_to(secret)
    with pytest.raises(RecordError, match="leads out of the lake"):
        read_page(lake, entry)


def test_only_a_page_that_the_report_links_to_is_handed_out(context: Context, lake: Lake) -> None:
    write_report(context, day_at(0))
    entry = locate(lake, "small", day_at(0))
    href = checks().documents[0].href
    with pytest.raises(MissingPartitionError, match="is gone"):
        read_document(lake, entry, href)
    name = href.removeprefix("../../")
    place = Path(context.runs.path(name))
    place.parent.mkdir(parents=True)
    place.write_text("docs")
    assert read_document(lake, entry, href) == b"docs"
    for other in ("../../report/ds=2024-03-04/day.html", "../../../../etc/passwd", "", "/etc/passwd", f"{href}/.."):
        with pytest.raises(MissingPartitionError, match="links to no page"):
            read_document(lake, entry, other)


def test_the_calendar_has_days_that_stopped_at_a_gate(context: Context, lake: Lake) -> None:
    write_report(context, day_at(0))
    outcome = {"table": "log", "expectation": "rows", "column": "", "observed": 3, "severity": "critical"}
    with context.runs.write("validation_log", day_at(1)) as writer:
        writer.json("result.json", {"success": False, "outcomes": [outcome | {"limits": "4", "success": False}]})
    with context.runs.write("validation_log", day_at(2)) as writer:
        writer.json("result.json", {"strange": True})
    found = gate_calendar(lake, "small")
    assert list(found) == [day_at(0), day_at(1), day_at(2)]
    assert {chip.name for chip in found[day_at(0)]} >= {"Log", "V1", "V3"}
    assert [(chip.name, chip.state) for chip in found[day_at(1)]] == [("Log", "failed")]
    assert [(chip.name, chip.state) for chip in found[day_at(2)]] == [("Gates", "missing")]
    assert "is no result of a gate" in found[day_at(2)][0].detail


def test_folders_that_are_none_of_ours_are_passed_over(context: Context, lake: Lake) -> None:
    write_report(context, day_at(0))
    root = Path(lake.root)
    (root / "a file").write_text("x")
    (folder(context, day_at(0)).parent / "notes").mkdir()
    (root / context.pipeline.source_id / "small" / "NOT-A-HASH").mkdir()
    assert len(list_reports(lake)) == 1
    assert isinstance(list_reports(lake)[0], ReportEntry)
    assert reports.PAGE == "report.html"
