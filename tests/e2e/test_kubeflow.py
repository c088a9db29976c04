"""The day as a Kubeflow pipeline: compiled, and run by Kubeflow's local runner to the same bytes as everywhere else."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import Settings, load_pipeline
from components.context import Context
from components.steps import AFTER, BY_NAME, STEPS
from tests.conftest import CHECKOUT, give_up
from tests.e2e.tiny import DAY, NAME, Reference, hashes, write_pipeline

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

IMAGE = "registry.example.com/mfh-pipeline:0.1.0"
SHARDS = 2
MFH = Path(sys.executable).with_name("mfh")


def kubeflow(module: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a module in the environment of kfp."""
    python = CHECKOUT / ".venv-kfp" / "bin" / "python"
    if not python.exists():
        give_up(f"{python} is missing; 'make test' installs it")
    env = {name: text for name, text in os.environ.items() if not name.startswith(("MFH_", "AIRFLOW"))}
    env |= {"PYTHONPATH": str(CHECKOUT), "MFH_HOME": str(folder / "mfh")}
    command = [str(python), "-m", f"deploy.kubeflow.{module}", *arguments]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline and what it says to Kubernetes."""
    folder = tmp_path_factory.mktemp("kubeflow")
    arguments = ("--image", IMAGE, "--out", "mfh.yaml", "--shards", str(SHARDS), "--param", "treatment=single")
    switches = [part for step in STEPS if step.setting for part in ("--with", step.setting)]
    done = kubeflow("pipeline", *arguments, *switches, folder=folder)
    assert done.returncode == 0, done.stderr
    pipeline, platform = yaml.safe_load_all((folder / "mfh.yaml").read_text())
    return pipeline, platform


def executor(pipeline: dict[str, Any], task: str) -> dict[str, Any]:
    container: dict[str, Any] = pipeline["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
    return container


def names(step: str) -> list[str]:
    """Tasks of a step in Kubeflow's spelling."""
    return [f"simulate-{n}" for n in range(SHARDS)] if step == "simulate" else [step.replace("_", "-")]


def test_every_step_is_a_task_that_runs_the_command_line(compiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    pipeline, _ = compiled
    assert set(pipeline["root"]["dag"]["tasks"]) == {task for step in BY_NAME for task in names(step)}
    for step in BY_NAME:
        for shard, task in enumerate(names(step)):
            container = executor(pipeline, task)
            assert container["image"] == IMAGE
            sharded = ["--shard", str(shard)] if step == "simulate" else []
            assert container["command"] == ["mfh", "step", step, *sharded, "--param", "treatment=single"]
            assert container["args"][::2] == ["--date", "--pipeline"]


def test_tasks_wait_as_the_steps_say(compiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    tasks = compiled[0]["root"]["dag"]["tasks"]
    for step, others in AFTER.items():
        for task in names(step):
            wanted = {one for other in others for one in names(other)}
            assert set(tasks[task].get("dependentTasks", [])) == wanted, task


def test_only_what_trains_asks_for_a_gpu_and_nothing_is_cached(compiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    pipeline, platform = compiled
    on_gpu = {"train-treatment", "train-baseline", "diagnose"}
    for task, node in pipeline["root"]["dag"]["tasks"].items():
        resources = executor(pipeline, task)["resources"]
        assert ("accelerator" in resources) == (task in on_gpu), task
        for bound in ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit"):
            assert resources[f"resource{bound}"], task
        assert not node["cachingOptions"].get("enableCache", False)
        assert node["retryPolicy"]["maxRetryCount"] == 2
        rights = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{task}"]
        assert rights["securityContext"]["runAsNonRoot"] is True
        assert [one["secretName"] for one in rights["secretAsEnv"]] == ["mfh-stores"]


def test_a_day_of_the_local_runner_is_the_day_of_one_process(tmp_path: Path, reference: Reference) -> None:
    file = write_pipeline(tmp_path / "mfh")
    arguments = ("--mfh", str(MFH), "--day", str(DAY), "--pipeline", NAME, "--shards", str(SHARDS))
    done = kubeflow("local", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    context = Context(load_pipeline(file), Settings(home=tmp_path / "mfh", lake="", pipelines=""))
    assert hashes(context, DAY) == reference.hashes


def test_a_task_that_fails_ends_the_run_and_what_waits_for_it_does_not_start(tmp_path: Path) -> None:
    write_pipeline(tmp_path / "mfh")
    arguments = ("--mfh", str(MFH), "--day", "1999-01-01", "--pipeline", NAME)
    done = kubeflow("local", *arguments, folder=tmp_path)
    assert done.returncode == 1
    assert "OutsideFeedError" in done.stdout
    assert done.stdout.count("Executing task") == 1
    assert not (tmp_path / "mfh" / "lake").exists()
