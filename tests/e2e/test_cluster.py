"""A day on PostgreSQL, Redis, Celery and an S3 endpoint: the same bytes as in one process on a folder."""

from pathlib import Path

import psycopg
import pytest

from components.report import find_report, read_experiment
from deploy.local.client import DagRun
from tests.e2e.cluster import Cluster
from tests.e2e.tiny import DAG_ID, DAY, Reference, hashes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1_200)]

ON_GPU = {"train_treatment", "train_baseline"}


def test_the_day_is_green_at_the_first_try(cluster: Cluster, day: DagRun) -> None:
    assert day.state == "success"
    tasks = cluster.client.task_instances(DAG_ID, day.run_id)
    assert [task for task in tasks if (task.state, task.try_number) != ("success", 1)] == []
    assert cluster.restarted == []


def test_what_trains_runs_on_the_worker_of_the_gpu_and_nothing_else_does(cluster: Cluster, day: DagRun) -> None:
    with psycopg.connect(cluster.stack.servers.database("airflow")) as connection:
        rows = connection.execute("SELECT task_id, queue FROM task_instance WHERE run_id = %s", [day.run_id]).fetchall()
    assert {task for task, queue in rows if queue == "gpu"} == ON_GPU
    assert {queue for task, queue in rows if task not in ON_GPU} == {"default"}
    # The queue names the worker that ran it, since each serves one; its log says what it took.
    taken = cluster.stack.log_file("worker-gpu").read_text().count("execute_workload")
    assert taken >= len(ON_GPU)


def test_every_partition_is_the_one_of_a_day_in_one_process_on_a_folder(
    cluster: Cluster, day: DagRun, reference: Reference
) -> None:
    found = hashes(cluster.context, DAY)
    assert {"log", "model_treatment", "model_baseline", "experiment", "report", "promotion"} <= set(found)
    # A promotion's record names the registry's versions, which count up per registry.
    assert {name: digest for name, digest in found.items() if name != "promotion"} == {
        name: digest for name, digest in reference.hashes.items() if name != "promotion"
    }


def test_the_registries_are_in_postgresql(cluster: Cluster, day: DagRun) -> None:
    with psycopg.connect(cluster.stack.servers.database("mlflow")) as connection:
        versions = connection.execute("SELECT name, source FROM model_versions").fetchall()
        runs = connection.execute("SELECT count(*) FROM runs").fetchone()
    assert {name for name, _ in versions} == {"mfh_tiny"}
    assert len(versions) == 2
    assert runs is not None
    # Both trainings, and the experiment.
    assert runs[0] == 3
    with psycopg.connect(cluster.stack.servers.database("feast")) as connection:
        views = connection.execute("SELECT feature_view_name FROM feature_views").fetchall()
    assert len(views) >= 2
    assert not list(Path(cluster.stack.home).rglob("*registry.db"))
    assert not list(Path(cluster.stack.home).rglob("mlflow.db"))


def test_the_report_lies_in_the_object_store(cluster: Cluster, day: DagRun) -> None:
    page = cluster.context.runs.fs.cat_file(find_report(cluster.context, DAY)).decode()
    assert read_experiment(cluster.context, DAY).verdict.sentence in page
    assert not (cluster.stack.home / "lake").exists()
