"""One Airflow for the end-to-end tests: started once, with three backfilled days of the KuaiRand slice in it."""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from components.config import Pipeline, Settings, load_pipeline
from components.context import Context
from components.days import day_range
from components.init import write_pipeline
from deploy.local.client import AirflowClient, DagRun
from deploy.local.environment import USER
from deploy.local.stack import Stack
from tests.e2e.cluster import Cluster, run_day, running_cluster
from tests.e2e.tiny import DAY, Reference, run_reference

LAST = date(2022, 5, 4)
DAYS = tuple(day_range(LAST - timedelta(days=2), LAST))
DAG_ID = "mfh_daily_kuairand"
VIEWER = "vera"
START_TIMEOUT_S = 420
BACKFILL_TIMEOUT_S = 900
# Read before the fixture that gives each test an environment of its own.
SCREENSHOTS = os.environ.get("MFH_SCREENSHOTS")


@dataclass(frozen=True)
class Running:
    """A running Airflow, signed in to, and the pipeline that it runs."""

    stack: Stack
    client: AirflowClient
    context: Context

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline."""
        return self.context.pipeline


@pytest.fixture(scope="session")
def running(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int], test_data: Path
) -> Iterator[Running]:
    """The stack of ``make run``, on a home and a port of its own."""
    home = tmp_path_factory.mktemp("e2e") / "mfh"
    with pytest.MonkeyPatch.context() as patch:
        # What a person has set must not reach the components, which inherit this process's environment.
        for name in [name for name in os.environ if name.startswith(("MFH_", "AIRFLOW"))]:
            patch.delenv(name)
        settings = Settings(home=home)
        file = write_pipeline(settings, str(test_data / "kuairand"))
        shorten(file)
        # Beside the admin a person who may only read.
        users = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin,{VIEWER}:viewer"}
        stack = Stack(home, free_port(), extra=users)
        stack.start(START_TIMEOUT_S)
    try:
        with stack.client() as client:
            client.wait_for_dag(DAG_ID)
            client.unpause(DAG_ID)
            yield Running(stack, client, Context(load_pipeline(file), settings))
    finally:
        stack.stop()


def shorten(file: Path) -> None:
    """Make the days of a pipeline file short: a window of three days, one epoch of everything, small models."""
    data = yaml.safe_load(file.read_text())
    data["train"] = {"window_days": 3, "epochs": 1}
    data["simulator"] = {"ensemble": 2, "epochs": 1, "rollouts": 1, "response_rows": 20_000}
    data["simulator"] |= {"candidates": 10, "max_slots": 10}
    sizes = {"level0_width": 16, "level1": {"widths": [16, 8]}, "deeper": {"kind": "cgc", "widths": [8]}}
    data["sizes"] = sizes | {"tower_widths": [8], "small_tower_widths": [8]}
    file.write_text(yaml.safe_dump(data))


@pytest.fixture(scope="session")
def backfilled(running: Running) -> dict[date, DagRun]:
    """The finished runs of the last three days of the slice, made by the call that the UI makes, the newest first."""
    zone = running.pipeline.feed.zone
    backfill = running.client.create_backfill(DAG_ID, DAYS[0], DAYS[-1], zone, max_active_runs=2, run_backwards=True)
    runs = running.client.wait_backfill(backfill, zone, check=running.stack.check, timeout_s=BACKFILL_TIMEOUT_S)
    for run in runs.values():
        for task in running.client.task_instances(DAG_ID, run.run_id):
            if task.state == "failed":
                print(f"{run.day(zone)} {task.label}:\n{running.client.task_log(task)}")
    return runs


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A day of the tiny pipeline in one process on a folder, which every executor has to equal."""
    return run_reference(tmp_path_factory.mktemp("reference") / "mfh", DAY)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Cluster]:
    """PostgreSQL, Redis, an S3 endpoint and every component on them."""
    with running_cluster(tmp_path_factory.mktemp("cluster"), free_port) as running:
        yield running


@pytest.fixture(scope="session")
def day(cluster: Cluster) -> DagRun:
    """The finished run of a day on the cluster."""
    return run_day(cluster, DAY)


@pytest.fixture(scope="session")
def screenshots() -> Iterator[Path]:
    """Folder that pictures are saved into: MFH_SCREENSHOTS, or one that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = Path(SCREENSHOTS or folder)
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen
