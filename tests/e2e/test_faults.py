"""What breaks on a running cluster, one thing at a time: the day goes on, and ends with the bytes that it had before.

docs/operations-faults.md lists what is shown here. A fault hits one task that is repeated, not a whole day.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from components.config import Settings
from components.lake import Lake
from deploy.local.client import DagRun, TaskRun
from deploy.local.processes import Leader, members
from tests.conftest import CHECKOUT
from tests.e2e.cluster import Cluster, wait_task
from tests.e2e.tiny import DAY, NAME, Reference, hashes, write_pipeline
from tests.servers import S3_KEY, wait

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

TRAINING = "train_treatment"
ROLE = "treatment"


@pytest.fixture
def kept(cluster: Cluster, day: DagRun) -> Iterator[None]:
    """Every partition of the day is afterwards what it was before, and no checkpoint is left over."""
    assert day.state == "success"
    before = hashes(cluster.context, DAY)
    yield
    assert hashes(cluster.context, DAY) == before
    assert cluster.checkpoints(ROLE) == 0


def healthy(cluster: Cluster) -> None:
    """Every component that the API server hears of beats again."""
    parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")

    def all_well() -> bool:
        with suppress(Exception):
            found = cluster.client._http.get("/api/v2/monitor/health").json()
            return all(found[part]["status"] == "healthy" for part in parts)
        return False

    wait(all_well, "every component to be healthy", 180, poll_s=1.0)


def in_the_middle(cluster: Cluster, day: DagRun, after: int) -> psutil.Process:
    """The training's process, once it has written a checkpoint."""
    process = cluster.process(day, TRAINING, after)
    wait(lambda: cluster.checkpoints(ROLE) > 0, "a checkpoint", 120, poll_s=0.05)
    return process


def resumed(cluster: Cluster, task: TaskRun) -> bool:
    """Whether the last try went on from a checkpoint instead of beginning anew."""
    return "training resumes step=" in cluster.client.task_log(task, 1_000)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_training_that_is_ended_goes_on_from_its_checkpoint(
    cluster: Cluster, day: DagRun, number: signal.Signals
) -> None:
    tries = cluster.repeat(day, TRAINING)
    in_the_middle(cluster, day, tries).send_signal(number)
    task = wait_task(cluster, day, TRAINING, tries)
    assert (task.state, task.try_number) == ("success", tries + 2)
    assert resumed(cluster, task)


@pytest.mark.usefixtures("kept")
def test_a_worker_that_dies_with_its_task_is_replaced_and_the_task_tried_again(cluster: Cluster, day: DagRun) -> None:
    tries = cluster.repeat(day, TRAINING)
    in_the_middle(cluster, day, tries)
    # The machine goes: the worker, the processes that it forked, and the task.
    for process in members([Leader.of(cluster.stack.pid("worker-gpu"))]):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    task = wait_task(cluster, day, TRAINING, tries, timeout_s=400)
    assert (task.state, task.try_number) == ("success", tries + 2)
    assert resumed(cluster, task)
    assert any(line.startswith("worker-gpu ended") for line in cluster.restarted)


def killed(cluster: Cluster, day: DagRun, component: str) -> tuple[TaskRun, int]:
    """Kill a component while a training runs, and wait for both; gives the training's end and the tries before it."""
    cluster.restarted.clear()
    tries = cluster.repeat(day, TRAINING)
    in_the_middle(cluster, day, tries)
    os.kill(cluster.stack.pid(component), signal.SIGKILL)
    wait(lambda: any(line.startswith(component) for line in cluster.restarted), f"{component} to be started again")
    healthy(cluster)
    task = wait_task(cluster, day, TRAINING, tries, timeout_s=400)
    assert len(cluster.restarted) == 1, "nothing else fell with it"
    return task, tries


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("component", ["scheduler", "dag-processor"])
def test_a_component_that_is_killed_comes_back_and_the_running_task_does_not_notice(
    cluster: Cluster, day: DagRun, component: str
) -> None:
    task, tries = killed(cluster, day, component)
    assert (task.state, task.try_number) == ("success", tries + 1), "the try that ran is the one that ended"


@pytest.mark.usefixtures("kept")
def test_an_api_server_that_is_killed_comes_back_and_the_day_goes_on(cluster: Cluster, day: DagRun) -> None:
    task, tries = killed(cluster, day, "api-server")
    assert task.state == "success"
    # On a busy machine it may be away for longer than the heartbeat's timeout; then the task is tried once more.
    assert task.try_number <= tries + 2


@pytest.mark.usefixtures("kept")
def test_postgresql_goes_away_for_a_while(cluster: Cluster, day: DagRun) -> None:
    cluster.restarted.clear()
    tries = cluster.repeat(day, TRAINING)
    in_the_middle(cluster, day, tries)
    cluster.postgres.stop()
    wait(lambda: len(cluster.restarted) > 0, "what needs the database to end", 120)
    cluster.postgres.start()
    healthy(cluster)
    task = wait_task(cluster, day, TRAINING, tries, timeout_s=400)
    assert task.state == "success"


@pytest.mark.usefixtures("kept")
def test_redis_restarts_while_a_task_runs_and_another_waits(cluster: Cluster, day: DagRun) -> None:
    tries = cluster.repeat(day, TRAINING)
    in_the_middle(cluster, day, tries)
    cluster.redis.stop()
    # Wanted while there is no broker.
    waiting = cluster.repeat(day, "validate_log")
    time.sleep(5)
    cluster.redis.start()
    assert wait_task(cluster, day, TRAINING, tries).state == "success"
    assert wait_task(cluster, day, "validate_log", waiting, timeout_s=400).state == "success"


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("mode", ["failing", "gone"])
def test_the_object_store_fails_for_a_while(cluster: Cluster, day: DagRun, mode: str) -> None:
    tries = cluster.repeat(day, "features")
    cluster.process(day, "features", tries)
    cluster.s3.refused = 0
    cluster.s3.mode = "failing" if mode == "failing" else "gone"
    try:
        wait(lambda: cluster.s3.refused > 0, "a request that fails", 120)
        time.sleep(5)
    finally:
        cluster.s3.mode = "sound"
    task = wait_task(cluster, day, "features", tries)
    assert task.state == "success"


@pytest.mark.usefixtures("kept")
def test_the_object_store_is_slow(cluster: Cluster, day: DagRun) -> None:
    tries = cluster.repeat(day, "features")
    cluster.s3.delay_s, cluster.s3.delayed, cluster.s3.mode = 0.3, 0, "slow"
    try:
        task = wait_task(cluster, day, "features", tries)
    finally:
        cluster.s3.mode = "sound"
    assert (task.state, task.try_number) == ("success", tries + 1)
    assert cluster.s3.delayed > 10


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("name", ["ingest", "dataset", "materialize"])
def test_a_step_that_is_terminated_is_tried_again(cluster: Cluster, day: DagRun, name: str) -> None:
    tries = cluster.repeat(day, name)
    process = cluster.process(day, name, tries)
    # While it imports, reads or writes: any moment of the same few seconds, another one for each step.
    time.sleep(random.Random(name).uniform(0, 3))
    with suppress(psutil.NoSuchProcess):
        process.terminate()
    task = wait_task(cluster, day, name, tries, timeout_s=400)
    assert task.state == "success"
    assert task.try_number <= tries + 2


def mfh_on(home: Path, cluster: Cluster, *arguments: str) -> subprocess.Popen[str]:
    """A step from the command line of another machine, which shares nothing but the lake."""
    write_pipeline(home)
    settings = cluster.context.settings
    env = {name: text for name, text in os.environ.items() if not name.startswith(("MFH_", "AIRFLOW"))}
    env |= {"PYTHONPATH": str(CHECKOUT), "MFH_HOME": str(home), "MFH_LAKE": settings.lake}
    env |= {"MFH_LAKE_ENDPOINT": settings.lake_endpoint, "MFH_LAKE_ACCESS_KEY": S3_KEY, "MFH_LAKE_SECRET_KEY": S3_KEY}
    command = [sys.executable, "-m", "components.cli", *arguments, "--date", str(DAY), "--pipeline", NAME]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, cwd=home)


@pytest.mark.usefixtures("kept")
def test_two_machines_train_the_same_day_at_once(cluster: Cluster, tmp_path: Path) -> None:
    both = [mfh_on(tmp_path / name, cluster, "step", TRAINING) for name in ("one", "other")]
    ended = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], ended


# As on a full disk, writing fails with an error of the operating system: no file may take more bytes than this.
FULL_BYTES = 2_000


def test_a_full_disk_changes_nothing_and_says_so(tmp_path: Path, reference: Reference) -> None:
    home = tmp_path / "mfh"
    write_pipeline(home)
    env = {name: text for name, text in os.environ.items() if not name.startswith(("MFH_", "AIRFLOW"))}
    env |= {"PYTHONPATH": str(CHECKOUT), "MFH_HOME": str(home)}
    # Python would leave half of what it compiles behind, where every later process finds it.
    env |= {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "components.cli", "step", "ingest", "--date", str(DAY)]
    full = ["prlimit", f"--fsize={FULL_BYTES}", *command]
    done = subprocess.run(full, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "LakeError" in done.stderr
    assert "nothing was changed" in done.stderr
    lake = Lake.open(Settings(home=home, lake="", pipelines=""))
    assert not [path for path in lake.fs.find(lake.root) if str(path).endswith("manifest.json")]
    assert subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    found = lake.scope(reference.context.pipeline.source_id).get("log", DAY)
    assert found.content_hash == reference.hashes["log"]
