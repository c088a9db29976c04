"""The list of reports: what is in it, in which order, and what a reader finds on it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.deploy.airflow_ui.conftest import DAG, Site
from tests.small_lake import day_at

Text = Callable[[Any], str]


def days_of(html: str) -> list[str]:
    """The days of the table, from top to bottom."""
    rows = html.partition('<table class="list">')[2].partition("</table>")[0].split("<tr>")[2:]
    return [row.partition("days/")[2][:10] for row in rows]


@pytest.fixture
def week(site: Site) -> Site:
    """Five days with lifts of 3, -8, 20, none, and 1 percent."""
    context = site.context()
    for index, lift in enumerate((3.0, -8.0, 20.0, None, 1.0)):
        site.report(context, day_at(index), lift)
    return site


def test_a_day_shows_its_verdict_its_lift_with_interval_and_a_link(week: Site, text_of: Text) -> None:
    answer = week.get("/")
    assert answer.status_code == 200
    text = text_of(answer)
    assert "5 days" in text
    assert "+20.0 %" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "+17.0 to +23.0 %" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "not estimable: only one user: a variance needs two" in text
    assert f'href="/airflow/mfh/dags/{DAG}/days/{day_at(2)}?settings=' in answer.text


def test_the_newest_day_comes_first_and_columns_sort_both_ways(week: Site) -> None:
    newest = [str(day_at(index)) for index in (4, 3, 2, 1, 0)]
    assert days_of(week.get("/").text) == newest
    assert days_of(week.get("/?order=asc").text) == newest[::-1]
    # The day without a number comes last, whichever the direction.
    by_lift = [str(day_at(index)) for index in (2, 0, 4, 1, 3)]
    assert days_of(week.get("/?sort=lift").text) == by_lift
    assert days_of(week.get("/?sort=lift&order=asc").text) == [*by_lift[:4][::-1], by_lift[4]]
    assert 'aria-sort="ascending" class="lift"' in week.get("/?sort=lift&order=asc").text


def test_a_click_on_the_sorted_column_turns_it_round(week: Site) -> None:
    page = week.get("/?sort=lift&q=small").text
    assert 'href="/airflow/mfh/?q=small&amp;sort=lift&amp;order=asc"' in page
    assert 'href="/airflow/mfh/?q=small&amp;sort=users"' in page


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=2024-03-06", [2]),
        ("q=SMALL+2024-03-05", [1]),
        ("q=nowhere", []),
        ("verdict=hold", []),
        (f"dag={DAG}", [4, 3, 2, 1, 0]),
        ("dag=mfh_daily_other", []),
    ],
)
def test_search_and_filters_leave_what_fits(week: Site, query: str, found: list[int]) -> None:
    page = week.get(f"/?{query}").text
    assert days_of(page) == [str(day_at(index)) for index in found]
    assert ("No day has these words and this verdict." in page) is not found


@pytest.mark.parametrize(
    "query", ["sort=; drop", "page=-1", "page=٣", "page=99999999999999999999", "order=%00", "verdict=x"]
)
def test_nonsense_in_the_address_is_the_whole_list(week: Site, query: str) -> None:
    answer = week.get(f"/?{query}")
    assert answer.status_code == 200
    assert len(days_of(answer.text)) == 5


def test_the_card_draws_the_lifts_of_earlier_days_and_skips_days_without_a_number(week: Site) -> None:
    page = week.get("/").text
    points = page.partition('<polyline points="')[2].partition('"')[0].split()
    assert len(points) == 4
    heights = [float(point.split(",")[1]) for point in points]
    # Days 0, 1, 2 and 4: 3, -8, 20 and 1 percent; pixels count downwards.
    assert heights[2] < heights[0] < heights[3] < heights[1]


def test_a_long_list_has_pages(site: Site) -> None:
    context = site.context()
    site.report(context, day_at(0), 1.0)
    folder = context.runs.path("report", f"ds={day_at(0)}")
    copies(folder, 119)
    first, third = site.get("/").text, site.get("/?page=3").text
    assert len(days_of(first)) == 50
    assert len(days_of(third)) == 20
    assert "page 3 of 3" in third
    assert 'rel="next"' not in third
    assert days_of(site.get("/?page=77").text) == days_of(third)


def test_reports_under_other_settings_say_so(site: Site, text_of: Text) -> None:
    site.report(site.context(train_seed=5), day_at(0), 2.0)
    site.report(site.context(), day_at(0), 1.0)
    text = text_of(site.get("/"))
    assert "2 days" in text
    assert text.count("other settings") == 1


def test_names_with_markup_are_text(site: Site) -> None:
    evil = "<script>alert(1)</script>"
    verdict = {"decision": "ship", "sentence": f"New users: {evil}", "reasons": ()}
    context = site.context()
    from simulator.experiment import Verdict

    site.report(context, day_at(0), 1.0, verdict=Verdict.model_validate(verdict))
    for path in ("/", f"/dags/{DAG}/days/{day_at(0)}", f"/?q={evil}"):
        page = site.get(path).text
        assert "<script>alert" not in page
    assert "&lt;script&gt;" in site.get("/").text


def test_an_empty_lake_says_what_to_do(site: Site, text_of: Text) -> None:
    site.context()
    assert "No day has a report yet: run one first." in text_of(site.get("/"))


def copies(folder: str, count: int) -> None:
    """The report of one day as those of the days after it: enough to be listed."""
    import json
    from datetime import date
    from pathlib import Path

    of = Path(folder)
    first = date.fromisoformat(of.name.removeprefix("ds="))
    summary = json.loads((of / "summary.json").read_text())
    for index in range(1, count + 1):
        day = first + timedelta(days=index)
        target = of.parent / f"ds={day}"
        target.mkdir()
        (target / "summary.json").write_text(json.dumps(summary | {"day": str(day)}))
        (target / "manifest.json").write_text("{}")
