"""A database that an earlier release of Airflow left behind: upgraded at the start, with all that it knows."""

import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from deploy.local.environment import CHECKOUT, process_environment
from deploy.local.stack import AIRFLOW, Stack
from tests.deploy.conftest import DAG, START_TIMEOUT_S, ZONE

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

EARLIER = "3.2.0"
DAY, NEXT = date(2022, 4, 10), date(2022, 4, 11)


def ran(stack: Stack, day: date) -> str:
    """The state of a day's run, run now where it has not run yet."""
    with stack.client() as client:
        client.wait_for_dag("trivial")
        backfill = client.create_backfill("trivial", day, day, ZONE)
        return client.wait_backfill(backfill, ZONE, timeout_s=300)[day].state


def test_days_that_ran_before_an_upgrade_are_known_after_it(tmp_path: Path, free_port: Callable[[], int]) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "trivial.py").write_text(DAG)
    stack = Stack(tmp_path / "home", free_port(), dags=dags)
    stack.start(START_TIMEOUT_S)
    try:
        assert ran(stack, DAY) == "success"
    finally:
        stack.stop()
    command = [sys.executable, str(AIRFLOW), "db", "downgrade", "--to-version", EARLIER, "--yes"]
    subprocess.run(command, env=process_environment(stack.environment()), cwd=CHECKOUT, check=True)
    mark = stack.home / "airflow" / "migrated"
    release, _, database = mark.read_text().partition(" ")
    mark.write_text(f"{EARLIER} {database}")
    with stack, stack.client() as client:
        assert mark.read_text() == f"{release} {database}"
        days = {run.day(ZONE): run.state for run in client.runs("trivial") if run.run_id.startswith("backfill")}
        assert days == {DAY: "success"}
        assert ran(stack, NEXT) == "success"
