"""A cluster of the tests' own: servers on free ports, every component, one tiny pipeline on an S3 endpoint."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from components.config import Settings, load_pipeline
from components.context import Context
from deploy.cluster.environment import DATABASES, Servers
from deploy.cluster.stack import ClusterStack
from deploy.local.client import AirflowClient, DagRun, TaskRun
from tests.e2e.tiny import DAG_ID, write_pipeline
from tests.faulty_proxy import FaultyProxy
from tests.servers import S3_KEY, Server, make_database, postgres, redis, s3, wait

START_TIMEOUT_S = 420
DAY_TIMEOUT_S = 900
# A dead worker is noticed in half a minute instead of five, and what failed is tried again at once.
IMPATIENT = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "5",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    # A component that starts again under load takes its time; a task goes on meanwhile.
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "24",
    # The delay doubles with every try, and a task that is repeated on purpose has had many.
    "MFH_RETRY_DELAY_S": "0",
    "MFH_RETRIES": "6",
}


@dataclass
class Cluster:
    """Everything of a running cluster that a test looks at or breaks."""

    stack: ClusterStack
    client: AirflowClient
    context: Context
    postgres: Server
    redis: Server
    s3: FaultyProxy
    restarted: list[str] = field(default_factory=list)

    def task(self, run: DagRun, name: str) -> TaskRun:
        """One task of a run."""
        return next(task for task in self.client.task_instances(run.dag_id, run.run_id) if task.label == name)

    def process(self, run: DagRun, name: str, after: int) -> psutil.Process:
        """The process of a task that runs in a try after ``after``."""
        path = f"dags/{run.dag_id}/dagRuns/{quote(run.run_id, safe='')}/taskInstances/{name}"
        found: list[psutil.Process] = []

        def running() -> bool:
            task = self.client.call("GET", path)
            if task["state"] == "running" and task["try_number"] > after:
                # As Airflow names the process of a task.
                found[:] = list(_named(f"airflow worker -- {task['id']}"))
            return bool(found)

        wait(running, f"{name} to run", 240)
        return found[0]

    def checkpoints(self, role: str) -> int:
        """Checkpoints of a training that are in the lake."""
        lake = self.context.runs
        folder = lake.path("checkpoints", f"model_{role}")
        return (
            len([path for path in lake.fs.find(folder) if str(path).endswith(".json")]) if lake.fs.exists(folder) else 0
        )

    def repeat(self, run: DagRun, name: str) -> int:
        """Let one task of a finished run run again, and nothing that follows it; gives the try it had before."""
        before = self.task(run, name)
        body = {"dry_run": False, "task_ids": [name], "dag_run_id": run.run_id, "only_failed": False}
        self.client.call("POST", f"dags/{run.dag_id}/clearTaskInstances", body)
        return before.try_number


def _named(title: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[:1] == [title] and process.status() != psutil.STATUS_ZOMBIE:
                yield process


@contextmanager
def supervised(stack: ClusterStack) -> Iterator[None]:
    """Look after the components in the background, as ``python -m deploy.cluster`` does in the foreground."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            stack.check()

    thread = threading.Thread(target=look, name="supervisor")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def running_cluster(folder: Path, free_port: Callable[[], int]) -> Iterator[Cluster]:
    """Servers, components, and a client that is signed in."""
    home = folder / "mfh"
    file = write_pipeline(home)
    with ExitStack() as open_:
        database = open_.enter_context(postgres(free_port()))
        broker = open_.enter_context(redis(free_port(), folder))
        store = FaultyProxy(open_.enter_context(s3(free_port(), folder)))
        open_.enter_context(store)
        for name in DATABASES:
            make_database(database.port, name)
        servers = Servers(
            postgres=f"postgresql://postgres@127.0.0.1:{database.port}",
            redis=f"redis://127.0.0.1:{broker.port}/0",
            lake="s3://lake/tiny",
            lake_endpoint=store.url,
            lake_access_key=S3_KEY,
            lake_secret_key=S3_KEY,
        )
        settings = Settings(
            home=home,
            lake=servers.lake,
            lake_endpoint=servers.lake_endpoint,
            lake_access_key=S3_KEY,
            lake_secret_key=S3_KEY,
            mlflow_uri=servers.database("mlflow", "psycopg2"),
            feast_registry=servers.database("feast", "psycopg"),
        )
        restarted: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("MFH_", "AIRFLOW"))]:
                patch.delenv(name)
            stack = ClusterStack(home, free_port(), servers, extra=IMPATIENT, notify=restarted.append, concurrency=2)
            open_.callback(stack.stop)
            stack.start(START_TIMEOUT_S)
            restarted.clear()
            client = open_.enter_context(stack.client())
            open_.enter_context(supervised(stack))
            client.wait_for_dag(DAG_ID)
            client.unpause(DAG_ID)
            yield Cluster(stack, client, Context(load_pipeline(file), settings), database, broker, store, restarted)


def run_day(cluster: Cluster, day: date) -> DagRun:
    """Backfill one day and wait for it."""
    zone = cluster.context.pipeline.feed.zone
    backfill = cluster.client.create_backfill(DAG_ID, day, day, zone, reprocess_behavior="failed")
    run = cluster.client.wait_backfill(backfill, zone, timeout_s=DAY_TIMEOUT_S)[day]
    for task in cluster.client.task_instances(DAG_ID, run.run_id):
        if task.state == "failed":
            print(f"{task.label}:\n{cluster.client.task_log(task)}")
    return run


def wait_task(cluster: Cluster, run: DagRun, name: str, after: int, timeout_s: float = 240) -> TaskRun:
    """Wait until a repeated task has succeeded in a try after ``after``; what went wrong is printed."""
    seen: list[TaskRun] = []

    def done() -> bool:
        seen[:] = [cluster.task(run, name)]
        return seen[0].state in {"success", "failed"} and seen[0].try_number > after

    wait(done, f"{name} to end", timeout_s, poll_s=1.0)
    if seen[0].state != "success":
        print(cluster.client.task_log(seen[0], 80))
    return seen[0]
