"""A run that is too slow is told about by a real Airflow: scheduler, triggerer, the DAG's own deadline and callback."""

import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import yaml

from deploy.local.stack import Stack
from tests.receivers import http_receiver

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(800)]

# The deadline is the pipeline's; its interval and the day's work are replaced, for a test can not wait for hours.
DAG = '''
"""A day that takes two minutes, and a report that is due after five seconds."""
import time
from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task

from components.config import Settings, load_pipeline
from dags.mfh_daily import report_deadline

alert = report_deadline(load_pipeline(Settings().pipelines_dir / "slow.yaml"))
alert.interval = timedelta(seconds=5)


@dag(
    dag_id="slow_day",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2024, 3, 4, tz="UTC"),
    catchup=False,
    deadline=alert,
)
def wire():
    @task
    def work():
        time.sleep(120)

    work()


wire()
'''
PIPELINE = {"name": "slow", "feed": {"kind": "world", "first_day": date(2024, 3, 4)}}


def test_a_run_that_misses_its_deadline_reaches_the_webhook(tmp_path: Path, free_port: Callable[[], int]) -> None:
    home = tmp_path / "home"
    (home / "pipelines").mkdir(parents=True)
    (home / "pipelines" / "slow.yaml").write_text(yaml.safe_dump(PIPELINE))
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "slow.py").write_text(DAG)
    with http_receiver() as received:
        extra = {"MFH_ALERT_URL": received.url}
        stack = Stack(home, free_port(), dags=tmp_path / "dags", extra=extra)
        with stack, stack.client() as client:
            client.wait_for_dag("slow_day")
            # Unpaused, the newest scheduled run starts by itself.
            deadline = time.monotonic() + 240
            while not received.requests and time.monotonic() < deadline:
                time.sleep(1)
    assert received.requests, "the webhook was not called"
    told = json.loads(received.requests[0][2])
    assert (told["event"], told["pipeline"]) == ("report_late", "slow")
    assert told["runbook"] == "docs/runbooks.md#a-late-report"
