"""The report step: the page with the running series stands aside, the page of the day alone keeps its bytes."""

import json
from pathlib import Path

import pytest

from components.context import Context
from components.report import DAY_PAGE, SERIES, find_report, report
from tests.small_lake import context_at, day_at
from tests.test_series import write


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_at(tmp_path)


def test_earlier_days_change_the_page_that_is_read_and_no_content_hash(context: Context) -> None:
    write(context, day_at(3), 4.0)
    alone = report(context, day_at(3))
    page = Path(find_report(context, day_at(3)))
    assert page.name == "report.html"
    assert "One day is no series yet" in page.read_text()
    write(context, day_at(2), 9.0)
    after = report(context, day_at(3))
    assert after.outputs == alone.outputs
    assert "One day is no series yet" not in page.read_text()
    assert str(day_at(2)) in page.read_text()
    assert "Day after day" not in context.runs.get("report", day_at(3)).bytes(DAY_PAGE).decode()


def test_what_the_series_shows_lies_beside_it(context: Context) -> None:
    for index in (1, 2):
        write(context, day_at(index), float(index))
    facts = report(context, day_at(2)).facts
    assert facts["page"] == find_report(context, day_at(2))
    assert facts["bytes"] == Path(facts["page"]).stat().st_size
    partition = context.runs.get("report", day_at(2))
    found = json.loads(Path(partition.aside(SERIES)).read_text())
    new = next(one for one in found if (one["metric"], one["segment"]) == ("app_time", "new"))
    assert [point["value"] for point in new["points"]] == [1.0, 2.0]
    assert [entry.name for entry in partition.manifest.files] == [DAY_PAGE]


def test_a_later_day_is_not_in_an_earlier_ones_series(context: Context) -> None:
    for index in (1, 2):
        write(context, day_at(index), float(index))
    report(context, day_at(1))
    assert str(day_at(2)) not in Path(find_report(context, day_at(1))).read_text()
