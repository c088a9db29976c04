"""Three days of KuaiRand through a real Airflow, by the REST call that the UI makes, and one once more by clicks."""

import hashlib
import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from components.days import day_range, midnight
from components.lake import Partition
from components.report import find_report, read_experiment
from components.window import train_days
from deploy.local.client import Backfill, DagRun
from tests.e2e.clicks import DESKTOP_PX, PATIENCE_MS, chromium, framed_report, pages_of, sign_in
from tests.e2e.clicks import backfill as backfill_by_clicks
from tests.e2e.conftest import BACKFILL_TIMEOUT_S, DAG_ID, DAYS, Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1_200)]

MIDDLE = DAYS[1]
# Written by steps that record which run of Airflow they belong to.
SIGNED = {"model_treatment", "model_baseline", "experiment", "report", "promotion"}


def partitions(running: Running, day: date) -> dict[str, Partition]:
    """Every partition of a day, by dataset."""
    found: dict[str, Partition] = {}
    for lake in (running.context.data, running.context.runs):
        for path in lake.fs.glob(lake.path("*", f"ds={day}")):
            name = str(path).split("/")[-2]
            found[name] = lake.get(name, day)
    return found


def run_record(partition: Partition) -> dict[str, Any]:
    """What stands beside a partition about the run that wrote it last."""
    record: dict[str, Any] = json.loads(Path(partition.aside("run.json")).read_text())
    return record


def made_from(running: Running, partition: Partition) -> dict[str, Partition]:
    """Everything that a partition was made from, directly or through others, by ``dataset/day``."""
    found: dict[str, Partition] = {}
    waiting = list(partition.manifest.inputs)
    while waiting:
        name = waiting.pop()
        if name not in found:
            dataset, _, day = name.partition("/")
            one = date.fromisoformat(day)
            found[name] = running.context.runs.find(dataset, one) or running.context.data.get(dataset, one)
            waiting += found[name].manifest.inputs
    return found


@dataclass(frozen=True)
class Stores:
    """What serves: the registry's aliases, what Feast recorded as materialized, and the online values themselves."""

    aliases: dict[str, str]
    materialized: dict[str, str]
    online: dict[str, str]


def stores(running: Running) -> Stores:
    from mlflow import MlflowClient

    from components.store import open_store, store_environment

    uri = running.context.settings.mlflow_tracking_uri
    model = MlflowClient(uri, uri).get_registered_model(f"mfh_{running.pipeline.name}")
    views = open_store(running.context).list_feature_views()
    path = json.loads(store_environment(running.context)["MFH_FEAST_ONLINE"])["path"]
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%marks_rows'"
        tables = [name for (name,) in connection.execute(query)]
        online = {name: digest(connection, name) for name in tables}
    return Stores(
        {alias: str(version) for alias, version in model.aliases.items()},
        {view.name: str(view.most_recent_end_time) for view in views},
        online,
    )


def digest(connection: sqlite3.Connection, table: str) -> str:
    """Hash of a table of the online store: every entity's every value and its time."""
    found = hashlib.sha256()
    for row in connection.execute(f'SELECT entity_key, event, row FROM "{table}" ORDER BY entity_key'):
        found.update(repr(row).encode())
    return found.hexdigest()


def test_three_days_are_green_and_each_has_its_report(running: Running, backfilled: dict[date, DagRun]) -> None:
    assert {day: run.state for day, run in backfilled.items()} == dict.fromkeys(DAYS, "success")
    for day, run in backfilled.items():
        # At the first try: days that run side by side must not trip over each other.
        tasks = running.client.task_instances(DAG_ID, run.run_id)
        assert [task for task in tasks if (task.state, task.try_number) != ("success", 1)] == []
        page = Path(find_report(running.context, day)).read_text(encoding="utf-8")
        assert read_experiment(running.context, day).verdict.sentence in page


@pytest.mark.parametrize("day", DAYS)
def test_no_day_looks_ahead(running: Running, backfilled: dict[date, DagRun], day: date) -> None:
    experiment = read_experiment(running.context, day)
    held = day - timedelta(days=1)
    assert (experiment.day, experiment.holdout_day, experiment.return_day) == (str(day), str(held), str(day))
    window = train_days(running.pipeline, day)
    assert window == list(day_range(day - timedelta(days=4), day - timedelta(days=2)))
    for arm in experiment.arms:
        assert (arm.first_day, arm.last_day) == (str(window[0]), str(window[-1]))
        assert arm.rows == sum(running.context.data.get("examples", one).rows for one in window)
    assert [one.day for one in experiment.data] == [str(one) for one in (*window, held, day)]
    inputs = made_from(running, running.context.runs.get("experiment", day))
    assert {f"log/{one}" for one in (*window, held, day)} <= set(inputs)
    for partition in inputs.values():
        made = date.fromisoformat(partition.manifest.day)
        assert made <= day
        for name in partition.manifest.inputs:
            dataset, _, read = name.partition("/")
            one = date.fromisoformat(read)
            assert one <= made, f"{partition.manifest.dataset} of {made} reads {name}"
            if partition.manifest.dataset in ("examples", "sessions", "session_videos") and "features" in dataset:
                assert one < made, f"{partition.manifest.dataset} of {made} reads features of its own day"


def backfills(running: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = running.client.call("GET", "backfills", dag_id=DAG_ID)["backfills"]
    return found


def run_again_by_clicks(running: Running, day: date) -> dict[date, DagRun]:
    """Backfill one day anew as a person does, and watch its tab until the run has ended."""
    zone = running.pipeline.feed.zone
    # The answer of the call that the button makes: days that Airflow has accepted.
    accepted = Backfill(0, DAG_ID, (day,))
    deadline = time.monotonic() + 180
    # Airflow takes one backfill of a DAG at a time, and marks one as ended half a minute after its last run.
    while any(one["completed_at"] is None for one in backfills(running)):
        assert time.monotonic() < deadline, "the backfill before has not ended"
        time.sleep(1)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": DESKTOP_PX, "height": 860})
        sign_in(page, running)
        backfill_by_clicks(page, midnight(day, zone), "All Runs")
        expect(page.get_by_text("Backfill in progress")).to_be_visible(timeout=PATIENCE_MS)
        (run,) = [one for one in running.client.runs(DAG_ID) if one.day(zone) == day]
        page.goto(f"{running.stack.url}/dags/{DAG_ID}/runs/{quote(run.run_id)}/plugin/ab-report", timeout=PATIENCE_MS)
        waiting = pages_of(page).get_by_text("This run has not finished.")
        expect(waiting).to_be_visible(timeout=PATIENCE_MS)
        runs = running.client.wait_backfill(accepted, zone, check=running.stack.check, timeout_s=BACKFILL_TIMEOUT_S)
        page.reload(timeout=PATIENCE_MS)
        expect(framed_report(page).locator("body")).to_contain_text(str(day), timeout=PATIENCE_MS)
        expect(waiting).to_be_hidden()
    return runs


def test_a_day_that_runs_again_gives_the_same_bytes_and_moves_nothing_that_serves(
    running: Running, backfilled: dict[date, DagRun]
) -> None:
    before = partitions(running, MIDDLE)
    records = {name: run_record(partition) for name, partition in before.items()}
    served = stores(running)
    assert served.aliases, "the backfill has decided what serves"
    assert served.online

    runs = run_again_by_clicks(running, MIDDLE)
    assert runs[MIDDLE].state == "success"
    assert runs[MIDDLE].run_id == backfilled[MIDDLE].run_id, "Airflow reuses the run"
    tasks = running.client.task_instances(DAG_ID, runs[MIDDLE].run_id)
    assert {(task.state, task.try_number) for task in tasks} == {("success", 2)}

    after = partitions(running, MIDDLE)
    assert {name: one.content_hash for name, one in after.items()} == {n: one.content_hash for n, one in before.items()}
    assert {name: one.manifest for name, one in after.items()} == {n: one.manifest for n, one in before.items()}
    for name in SIGNED:
        assert records[name]["try"] == 1
        assert run_record(after[name])["try"] == 2
        assert run_record(after[name])["run_id"] == records[name]["run_id"]
    assert stores(running) == served
