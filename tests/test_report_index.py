"""The index reads a report once, reads it again when it changes, and agrees with the plain listing."""

import time
from datetime import date
from pathlib import Path

import pytest

from components import report_index
from components.config import Settings
from components.context import Context
from components.errors import ConfigError
from components.lake import Lake
from components.report_index import ReportIndex, configurations, days_of
from components.reports import list_reports, read_entry
from tests import test_lake
from tests.deploy.airflow_ui.conftest import Site, write_report
from tests.small_lake import context_at, day_at
from tests.test_series import record, result

# Fixtures of the lake's own tests.
s3_endpoint, s3_settings = test_lake.s3_endpoint, test_lake.s3_settings


def written(context: Context, day: date, lift: float = 1.0) -> None:
    with context.runs.write("experiment", day) as writer:
        writer.text("experiment.json", record(day, result("app_time", lift)).model_dump_json())
    write_report(context, day, record(day, result("app_time", lift), result("return", 0.1)))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_at(tmp_path)


@pytest.fixture
def lake(context: Context) -> Lake:
    return Lake.open(context.settings)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[date]:
    """Days of the summaries that are read."""
    found: list[date] = []

    def counted(lake: Lake, source: str, pipeline: str, config_hash: str, day: date) -> object:
        found.append(day)
        return read_entry(lake, source, pipeline, config_hash, day)

    monkeypatch.setattr(report_index, "read_entry", counted)
    return found


def test_it_lists_what_the_plain_listing_lists(context: Context, lake: Lake) -> None:
    for index in (0, 2, 1):
        written(context, day_at(index))
    with context.runs.write("experiment", day_at(5)) as writer:
        writer.text("experiment.json", "{}")
    Path(context.runs.path("report", f"ds={day_at(7)}")).mkdir(parents=True)
    found = ReportIndex(lake).reports("small")
    assert [(one.day, one.state) for one in found] == [
        (day_at(7), "unreadable"),
        (day_at(5), "no report"),
        (day_at(2), "ready"),
        (day_at(1), "ready"),
        (day_at(0), "ready"),
    ]
    assert list(found) == list_reports(lake, "small")


def test_only_what_changed_is_read_again(context: Context, lake: Lake, reads: list[date]) -> None:
    index = ReportIndex(lake, fresh_s=0)
    for number in range(4):
        written(context, day_at(number))
    assert len(index.reports("small")) == 4
    assert sorted(reads) == [day_at(number) for number in range(4)]
    reads.clear()
    before = index.reports("small")
    assert index.reports("small") is before
    assert reads == []
    written(context, day_at(2), lift=9.0)
    written(context, day_at(4))
    after = {one.day: one for one in index.reports("small")}
    assert sorted(reads) == [day_at(2), day_at(4)]
    assert after[day_at(2)].summary is not None
    assert after[day_at(2)].summary.lifts[0].value == 9.0


def test_a_report_that_is_removed_is_gone(context: Context, lake: Lake) -> None:
    import shutil

    index = ReportIndex(lake, fresh_s=0)
    written(context, day_at(0))
    written(context, day_at(1))
    assert len(index.reports("small")) == 2
    for dataset in ("report", "experiment"):
        shutil.rmtree(context.runs.path(dataset, f"ds={day_at(0)}"))
    assert [one.day for one in index.reports("small")] == [day_at(1)]


def test_a_young_listing_is_not_made_again(context: Context, lake: Lake) -> None:
    index = ReportIndex(lake, fresh_s=3_600)
    written(context, day_at(0))
    assert index.pipelines() == ("small",)
    assert len(index.reports("small")) == 1
    written(context, day_at(1))
    assert len(index.reports("small")) == 1


def test_many_new_reports_are_read_side_by_side_and_each_once(context: Context, lake: Lake, reads: list[date]) -> None:
    written(context, day_at(0))
    from tests.deploy.airflow_ui.test_list import copies

    copies(context.runs.path("report", f"ds={day_at(0)}"), 40)
    assert len(ReportIndex(lake).reports("small")) == 41
    assert sorted(reads) == [day_at(number) for number in range(41)]


@pytest.mark.parametrize("name", ["../x", "", "A", "small/../../x", "a" * 50, "small\n"])
def test_what_is_no_name_of_a_pipeline_is_not_looked_for(lake: Lake, name: str) -> None:
    with pytest.raises(ConfigError, match="can not be a pipeline"):
        ReportIndex(lake).reports(name)


def test_an_empty_lake_has_nothing(lake: Lake) -> None:
    assert ReportIndex(lake).reports("small") == ()
    assert ReportIndex(lake).pipelines() == ()
    assert configurations(lake, "small") == []
    assert days_of(lake, "report") == []


@pytest.mark.integration
def test_an_object_store_is_listed_like_a_folder(context: Context, s3_settings: Settings, reads: list[date]) -> None:
    over_s3 = Context(context.pipeline, s3_settings)
    index = ReportIndex(Lake.open(s3_settings), fresh_s=0)
    assert index.reports("small") == ()
    for number in range(3):
        written(over_s3, day_at(number))
    assert index.pipelines() == ("small",)
    assert [one.day for one in index.reports("small")] == [day_at(2), day_at(1), day_at(0)]
    assert list(index.reports("small")) == list_reports(Lake.open(s3_settings), "small")
    reads.clear()
    # An object store tells times in whole seconds.
    time.sleep(1.1)
    written(over_s3, day_at(1), lift=7.5)
    assert {one.day: one.state for one in index.reports("small")} == dict.fromkeys(map(day_at, range(3)), "ready")
    assert reads == [day_at(1)]


@pytest.mark.integration
def test_the_pages_read_an_object_store(context: Context, s3_settings: Settings, tmp_path: Path) -> None:
    written(Context(context.pipeline, s3_settings), day_at(0), lift=7.5)
    site = Site(tmp_path, s3_settings)
    page = site.get("/").text
    assert str(day_at(0)) in page
    hash_now = context.pipeline.config_hash
    report = site.get(f"/files/mfh_daily_small/{hash_now}/report/ds={day_at(0)}/report.html")
    assert f"the report of {day_at(0)}" in report.text
    assert site.get("/gates").status_code == 200
