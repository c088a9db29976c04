"""The tab on a DAG run: the report of that run's day and settings, or what keeps it away."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from deploy.airflow_ui.runs import Run
from tests.deploy.airflow_ui.conftest import DAG, OTHER, Site
from tests.small_lake import at, day_at

Text = Callable[[Any], str]
DAY = day_at(1)
# Carries the end of its interval, as Airflow's ids do.
RUN = "scheduled__2024-03-05T16:00:00+00:00"


def run(site: Site, **changes: Any) -> None:
    """A run of the day whose interval starts at its local midnight."""
    known = {"dag_id": DAG, "run_id": RUN, "state": "success", "start": at(DAY, 0), "reported": True}
    site.runs[RUN] = Run(**known | changes)


def shown(site: Site, user: str = "ann") -> Any:
    """As Airflow's UI asks for it, with the run id encoded."""
    return site.get(f"/dags/{DAG}/runs/scheduled__2024-03-05T16%3A00%3A00%2B00%3A00", user)


def test_a_run_shows_the_report_of_its_intervals_day(site: Site) -> None:
    site.report(site.context(), DAY, 1.0)
    site.report(site.context(), day_at(2), 2.0)
    run(site)
    answer = shown(site)
    assert answer.status_code == 200
    assert f"/report/ds={DAY}/report.html" in answer.text


def test_the_day_is_that_of_the_feeds_zone(site: Site) -> None:
    site.report(site.context(), DAY, 1.0)
    # Midnight in Shanghai is the day before in UTC.
    assert at(DAY, 0).astimezone(UTC).date() == day_at(0)
    run(site, start=at(DAY, 0).astimezone(UTC))
    assert f"/report/ds={DAY}/report.html" in shown(site).text


def test_a_run_with_parameters_shows_the_report_under_its_own_settings(site: Site) -> None:
    site.report(site.context(), DAY, 1.0)
    other = site.context(train_seed=7)
    site.report(other, DAY, 2.0)
    run(site, conf={"train_seed": 7})
    assert f"/files/{DAG}/{other.pipeline.config_hash}/report" in shown(site).text


def test_a_report_names_the_run_that_wrote_it(site: Site, text_of: Text) -> None:
    """Also after the pipeline's file has changed, when its settings are no longer those of the file."""
    old = site.context(train_seed=7)
    old = type(old)(old.pipeline, old.settings, run={"run_id": RUN, "try": 1})
    site.report(old, DAY, 2.0)
    run(site)
    assert f"/files/{DAG}/{old.pipeline.config_hash}/report" in shown(site).text


def test_a_day_that_another_run_wrote_says_who(site: Site, text_of: Text) -> None:
    site.report(site.context(), DAY, 1.0)
    run(site)
    assert "Written by a run, for the same day and settings." in text_of(shown(site))


def test_a_run_that_goes_on_is_looked_at_again(site: Site, text_of: Text) -> None:
    site.context()
    run(site, state="running", reported=False)
    answer = shown(site)
    assert answer.status_code == 404
    assert f"No report for {DAY} yet" in text_of(answer)
    assert 'data-again-s="15"' in answer.text


def test_a_run_that_goes_on_shows_an_earlier_runs_report_and_says_so(site: Site, text_of: Text) -> None:
    site.report(site.context(), DAY, 1.0)
    run(site, state="running", reported=False)
    assert "This run has not finished. Shown is what a run wrote before it" in text_of(shown(site))


@pytest.mark.parametrize(("task", "leads"), [("validate_log", True), ("train_treatment", False)])
def test_a_failed_run_says_where_and_leads_to_the_gates_if_they_stopped_it(
    site: Site, text_of: Text, task: str, leads: bool
) -> None:
    site.context()
    run(site, state="failed", reported=False, failed=(task,))
    answer = shown(site)
    assert f"The run failed in {task}." in text_of(answer)
    assert (f"/dags/{DAG}/days/{DAY}/gates" in answer.text) is leads


def test_runs_that_can_have_no_report(site: Site, text_of: Text) -> None:
    site.context()
    assert "There is no such run" in text_of(shown(site))
    run(site, start=None)
    assert "This run is for no day" in text_of(shown(site))
    run(site, dag_id=OTHER)
    assert "There is no such run" in text_of(shown(site))
    run(site, conf={"treatment": "no such model", "unknown": 1})
    assert "the lake holds no report of its day" in text_of(shown(site))


def test_dags_of_others_have_no_reports(site: Site, text_of: Text) -> None:
    answer = site.get("/dags/sales_report/runs/x")
    assert answer.status_code == 404
    assert "This DAG writes no A/B reports" in text_of(answer)


def test_a_run_of_a_dag_without_permission(site: Site) -> None:
    site.context("secret")
    site.runs["x"] = Run(OTHER, "x", "success", datetime(2024, 3, 5, tzinfo=UTC))
    assert site.get(f"/dags/{OTHER}/runs/x", "bob").status_code == 403


def test_a_pipeline_whose_file_is_missing_on_the_server(site: Site, text_of: Text) -> None:
    site.report(site.context(), DAY, 1.0)
    (site.settings.pipelines_dir / "small.yaml").unlink()
    run(site)
    assert "The pipeline's file is missing" in text_of(shown(site))
