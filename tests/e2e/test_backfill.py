"""Three days of KuaiRand through a real Airflow, by the REST call that the UI makes, and one of them once more."""

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.days import day_range
from components.lake import Partition
from components.report import find_report, read_experiment
from components.window import train_days
from deploy.local.client import DagRun
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
    with closing(sqlite3.connect(store_environment(running.context)["MFH_FEAST_ONLINE"])) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        online = {name: digest(connection, name) for name in tables}
    return Stores(
        {alias: str(version) for alias, version in model.aliases.items()},
        {view.name: str(view.most_recent_end_time) for view in views},
        online,
    )


def digest(connection: sqlite3.Connection, table: str) -> str:
    """Hash of a table of Feast's online store: every entity's every value and its time."""
    found = hashlib.sha256()
    columns = "entity_key, feature_name, value, event_ts"
    for row in connection.execute(f'SELECT {columns} FROM "{table}" ORDER BY entity_key, feature_name'):
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


def test_a_day_that_runs_again_gives_the_same_bytes_and_moves_nothing_that_serves(
    running: Running, backfilled: dict[date, DagRun]
) -> None:
    before = partitions(running, MIDDLE)
    records = {name: run_record(partition) for name, partition in before.items()}
    served = stores(running)
    assert served.aliases, "the backfill has decided what serves"
    assert served.online

    zone = running.pipeline.feed.zone
    again = running.client.create_backfill(DAG_ID, MIDDLE, MIDDLE, zone, reprocess_behavior="completed")
    runs = running.client.wait_backfill(again, zone, check=running.stack.check, timeout_s=BACKFILL_TIMEOUT_S)
    assert runs[MIDDLE].state == "success"
    assert runs[MIDDLE].run_id == backfilled[MIDDLE].run_id, "Airflow reuses the run"
    tasks = running.client.task_instances(DAG_ID, runs[MIDDLE].run_id)
    assert {(task.state, task.try_number) for task in tasks} == {("success", 2)}

    after = partitions(running, MIDDLE)
    assert {name: p.content_hash for name, p in after.items()} == {name: p.content_hash for name, p in before.items()}
    assert {name: p.manifest for name, p in after.items()} == {name: p.manifest for name, p in before.items()}
    for name in SIGNED:
        assert records[name]["try"] == 1
        assert run_record(after[name])["try"] == 2
        assert run_record(after[name])["run_id"] == records[name]["run_id"]
    assert stores(running) == served
