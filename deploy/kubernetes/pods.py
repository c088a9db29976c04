"""Render the pod of every task of every DAG, by the executor's own code and with no cluster.

Run as ``python -m deploy.kubernetes.pods --out FOLDER`` in an environment with Airflow's settings; one YAML file
for each task, named ``<dag>.<task>.yaml``. ``kubernetes-validate --strict`` checks such files.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from airflow.sdk import DAG

NAMESPACE = "mfh"


@dataclass(frozen=True)
class Rendered:
    """The pod of a task.

    Attributes:
        dag: The DAG's id.
        task: The task's id.
        pod: What is sent to the API of Kubernetes, as plain data.
    """

    dag: str
    task: str
    pod: dict[str, Any]


def render(dag: "DAG") -> Iterator[Rendered]:
    """Render the pods of a DAG's tasks.

    Args:
        dag: A DAG as the file defines it.

    Yields:
        One pod for each task.
    """
    from airflow.models import DagRun, TaskInstance
    from airflow.models.dag import DagModel
    from airflow.models.taskinstancekey import TaskInstanceKey
    from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_types import KubernetesJob
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator, generate_pod_command_args
    from airflow.serialization.serialized_objects import DagSerialization
    from kubernetes.client import ApiClient
    from uuid6 import uuid7

    scheduler = _scheduler()
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    run = DagRun(dag.dag_id, logical_date=moment, run_id=f"scheduled__{moment.isoformat()}")
    model = DagModel(dag_id=dag.dag_id)
    model.bundle_name, model.relative_fileloc = "dags-folder", dag.relative_fileloc
    # As the scheduler knows it: what a DAG file says of an executor must survive the way through the database.
    for task in DagSerialization.from_dict(DagSerialization.to_dict(dag)).tasks:
        instance = TaskInstance(task, run_id=run.run_id, dag_version_id=uuid7())
        instance.dag_run, instance.dag_model = run, model
        config = instance.executor_config or {}
        job = KubernetesJob(
            TaskInstanceKey(dag.dag_id, task.task_id, run.run_id),
            ["airflow", "tasks", "run", *generate_pod_command_args(instance)],
            PodGenerator.from_obj(config),
            config.get("pod_template_file"),
            None,
        )
        pod = scheduler._build_pod_request(job)
        # The executor only accepts the older spelling as a list; what a pod gets is what follows it.
        pod.spec.containers[0].args = pod.spec.containers[0].args[3:]
        yield Rendered(dag.dag_id, task.task_id, ApiClient().sanitize_for_serialization(pod))


def _scheduler() -> Any:
    """The executor's builder of pods, without its watchers, which need a cluster."""
    from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import AirflowKubernetesScheduler
    from airflow.providers.cncf.kubernetes.kube_config import KubeConfig

    builder = AirflowKubernetesScheduler.__new__(AirflowKubernetesScheduler)
    builder.kube_config = KubeConfig()
    builder.namespace = NAMESPACE
    builder.scheduler_job_id = "1"
    builder.supports_task_instance_uuid = False
    return builder


def main(arguments: list[str] | None = None) -> int:
    """Write the pods of all DAGs.

    Args:
        arguments: Command line, None for the process's.

    Returns:
        Exit status: 0, or 1 when a DAG file can not be imported.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.kubernetes.pods", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the YAML files go")
    options = parser.parse_args(arguments)
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag()
    for file, trace in bag.import_errors.items():
        print(f"{file} can not be imported:\n{trace}", file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    for dag in bag.dags.values():
        for one in render(dag):
            file = options.out / f"{one.dag}.{one.task}.yaml"
            file.write_text(yaml.safe_dump(one.pod, sort_keys=False), encoding="utf-8")
            print(file)
    return 1 if bag.import_errors else 0


if __name__ == "__main__":
    sys.exit(main())
