"""Single pages: a report in its frame, the report itself, the comparison, the gates."""

from collections.abc import Callable
from datetime import date
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.deploy.airflow_ui.conftest import DAG, Site
from tests.small_lake import day_at

Text = Callable[[Any], str]
DAY = day_at(1)


def settings(site: Site) -> str:
    return site.context().pipeline.config_hash


def key(site: Site, day: date) -> str:
    return f"{DAG}~{day}~{settings(site)}"


@pytest.fixture
def three(site: Site) -> Site:
    for index, lift in enumerate((3.0, -8.0, 20.0)):
        site.report(site.context(), day_at(index), lift)
    return site


def test_a_report_is_framed_between_its_neighbours(three: Site, text_of: Text) -> None:
    answer = three.get(f"/dags/{DAG}/days/{DAY}")
    assert answer.status_code == 200
    source = f"/airflow/mfh/files/{DAG}/{settings(three)}/report/ds={DAY}/report.html"
    assert f'<iframe class="report" src="{source}"' in answer.text
    assert f'rel="prev" href="/airflow/mfh/dags/{DAG}/days/{day_at(0)}?settings={settings(three)}"' in answer.text
    assert f'rel="next" href="/airflow/mfh/dags/{DAG}/days/{day_at(2)}?settings={settings(three)}"' in answer.text
    inner = three.client.get(source, headers={"x-user": "ann"})
    assert text_of(inner) == f"{DAY} the report of {DAY}"


def test_the_first_and_the_last_day_have_one_neighbour(three: Site) -> None:
    assert 'rel="prev"' not in three.get(f"/dags/{DAG}/days/{day_at(0)}").text
    assert 'rel="next"' not in three.get(f"/dags/{DAG}/days/{day_at(2)}").text


def test_a_real_report_is_handed_out_as_the_step_wrote_it(site: Site) -> None:
    folder = site.report(site.context(), DAY, 3.0, drawn=True)
    answer = site.get(f"/files/{DAG}/{settings(site)}/report/ds={DAY}/report.html")
    assert answer.content == (folder / "report.html").read_bytes()
    data = site.get(f"/dags/{DAG}/days/{DAY}/experiment.json")
    assert data.headers["content-disposition"] == f'attachment; filename="experiment-small-{DAY}-{settings(site)}.json"'
    assert data.json()["day"] == str(DAY)


def test_a_report_may_neither_run_nor_load_nor_submit_anything(three: Site) -> None:
    answer = three.get(f"/files/{DAG}/{settings(three)}/report/ds={DAY}/report.html")
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert policy["sandbox"] == "allow-same-origin"
    assert policy["default-src"] == "'none'"
    assert "script-src" not in policy
    assert policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["frame-ancestors"] == "'self'"


@pytest.mark.parametrize("path", ["/", "/gates", f"/dags/{DAG}/days/{DAY}", "/nowhere", "/compare"])
def test_pages_allow_their_own_files_alone(three: Site, path: str) -> None:
    headers = three.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "private, no-cache"
    assert " style=" not in three.get(path).text, "the policy forbids inline styles"


def test_styles_and_script_are_there_and_named_by_their_content(three: Site) -> None:
    page = three.get("/").text
    for name, kind in (("pages.css", "text/css"), ("pages.js", "javascript")):
        address = page.partition(f"/airflow/mfh/static/{name}?")[2].partition('"')[0]
        assert len(address) == 8
        answer = three.client.get(f"/airflow/mfh/static/{name}")
        assert kind in answer.headers["content-type"]


def test_two_days_are_compared_the_earlier_first(three: Site, text_of: Text) -> None:
    query = urlencode([("day", key(three, day_at(2))), ("day", key(three, day_at(1)))])
    answer = three.get(f"/compare?{query}")
    assert answer.status_code == 200
    text = text_of(answer)
    assert f"{day_at(1)} against {day_at(2)}" in text
    # From -8 to 20 percent: 28 points, +- 3 * sqrt(2) since both intervals are +- 3 with the same standard error.
    assert "+28.00 pp +23.76 to +32.24 pp" in text
    assert "The same configuration." in text


@pytest.mark.parametrize("count", [0, 1, 3])
def test_other_numbers_of_days_can_not_be_compared(three: Site, text_of: Text, count: int) -> None:
    query = urlencode([("day", key(three, day_at(index))) for index in range(count)])
    answer = three.get(f"/compare?{query}")
    assert answer.status_code == 400
    assert f"{count} chosen: tick exactly two rows" in text_of(answer)


def test_the_same_day_twice_is_one_day(three: Site) -> None:
    query = urlencode([("day", key(three, DAY)), ("day", key(three, DAY))])
    assert three.get(f"/compare?{query}").status_code == 400


def test_data_docs_that_a_report_links_to_open_beside_it(site: Site, text_of: Text) -> None:
    context = site.context()
    site.gate(context, DAY, "validation_log", users="warning")
    site.report(context, DAY, 1.0)
    base = f"/files/{DAG}/{settings(site)}"
    assert text_of(site.get(f"{base}/validation_log/ds={DAY}/data_docs.html")) == "Data Docs"
    assert site.get(f"{base}/validation_log/ds={DAY}/result.json").status_code == 422
    assert site.get(f"{base}/experiment/ds={DAY}/experiment.json").status_code == 422


def test_the_calendar_shows_days_with_and_without_a_report(site: Site, text_of: Text) -> None:
    context = site.context()
    site.gate(context, day_at(0), "validation_log")
    site.gate(context, day_at(0), "validation_features")
    site.gate(context, day_at(1), "validation_log", rows="critical")
    site.gate(context, day_at(2), "validation_log", users="warning")
    site.report(context, day_at(0), 1.0)
    page = site.get("/")
    assert "Gates of small, March 2024" in text_of(page)
    for index, state in enumerate(("passed", "failed", "warned")):
        cell = page.text.partition(f'days/{day_at(index)}/gates">')[2].partition("</a>")[0]
        assert f"{state}</span>" in cell.replace("\n", "")
    # 4 March 2024 is a Monday: the first cell of its week.
    week = page.text.partition(f"days/{day_at(0)}/gates")[0].rpartition("<tr>")[2]
    assert week.count("<td") == 1


def test_a_failed_day_says_what_did_not_hold(site: Site, text_of: Text) -> None:
    site.gate(site.context(), DAY, "validation_log", rows="critical")
    text = text_of(site.get(f"/dags/{DAG}/days/{DAY}/gates"))
    assert "1 of 2 expectations hold" in text
    assert "day.rows: expect_column_values_to_be_between expects min_value=1, observed [0]" in text


def test_a_gate_that_ran_again_is_read_again(site: Site) -> None:
    context = site.context()
    site.gate(context, DAY, "validation_log", rows="critical")
    assert "failed" in site.get("/gates").text
    site.gate(context, DAY, "validation_log")
    assert "failed" not in site.get("/gates").text.partition("<table")[2]


def test_months_lead_to_each_other(site: Site, text_of: Text) -> None:
    context = site.context()
    for day in (date(2024, 3, 5), date(2024, 5, 2)):
        site.gate(context, day, "validation_log")
    assert "May 2024" in text_of(site.get("/gates"))
    assert f'href="/airflow/mfh/gates?dag={DAG}&amp;month=2024-03"' in site.get("/gates").text
    assert "March 2024" in text_of(site.get(f"/gates?dag={DAG}&month=2024-03"))
    assert "May 2024" in text_of(site.get(f"/gates?dag={DAG}&month=1999-13"))


def test_a_report_that_is_written_again_shows_anew(three: Site, text_of: Text) -> None:
    assert "+3.0 %" in text_of(three.get("/"))
    three.report(three.context(), day_at(0), 4.5)
    assert "+4.5 %" in text_of(three.get("/"))
    assert "+3.0 %" not in text_of(three.get("/"))
