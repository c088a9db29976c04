"""Generate the Kubeflow pipeline from the list of steps.

Run as ``.venv-kfp/bin/python -m deploy.kubeflow.pipeline --image IMAGE --out mfh.yaml``, then upload the file. Inputs
of its runs are the day and the name of the pipeline file; what an Airflow run takes as parameters is chosen when the
file is made (``--param treatment=ple``).
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes

from components.steps import AFTER, STEPS, Step

NAME = "mfh-daily"
GPU_STEPS = frozenset({"train_treatment", "train_baseline", "diagnose"})
# Keys of the secret and the config map, which are those of the Kubernetes deployment.
STORE_KEYS = ("MFH_LAKE_ACCESS_KEY", "MFH_LAKE_SECRET_KEY", "MFH_MLFLOW_URI", "MFH_FEAST_REGISTRY", "MFH_ONLINE_STORE")
SETTINGS = {"MFH_HOME": "/var/lib/mfh", "MFH_PIPELINES": "/etc/mfh/pipelines"}


@dataclass(frozen=True)
class Options:
    """What is fixed when the pipeline is generated.

    Attributes:
        image: The container image.
        shards: Tasks that the rollouts are spread over; must be ``simulator.shards`` of the pipeline file.
        switches: Settings of the pipeline file that are on and give a day a further step, such as ``diagnostics``.
        params: ``NAME=VALUE`` for ``mfh step --param``.
        lake: ``s3://bucket/prefix``.
        endpoint: URL of an S3-compatible store, empty for AWS.
        gpus: GPUs of each training, 0 for none.
    """

    image: str
    shards: int = 2
    switches: frozenset[str] = frozenset()
    params: tuple[str, ...] = ()
    lake: str = "s3://mfh-lake/production"
    endpoint: str = ""
    gpus: int = 1


@dataclass(frozen=True)
class Task:
    """One task of the pipeline: a step, or one shard of it."""

    step: Step
    shard: int | None = None

    @property
    def name(self) -> str:
        """Name in Kubeflow: letters, digits and hyphens."""
        name = self.step.name.replace("_", "-")
        return name if self.shard is None else f"{name}-{self.shard}"

    def arguments(self, params: Sequence[str]) -> list[str]:
        """Arguments of ``mfh`` before the day and the pipeline."""
        shard = [] if self.shard is None else ["--shard", str(self.shard)]
        return ["step", self.step.name, *shard, *(part for one in params for part in ("--param", one))]


def tasks(options: Options) -> list[Task]:
    """The tasks of a day, in an order in which each comes after those that it waits for.

    Args:
        options: Shards and switches.

    Returns:
        The tasks.
    """
    chosen = [step for step in STEPS if not step.setting or step.setting in options.switches]
    return [Task(step, shard) for step in chosen for shard in (range(options.shards) if step.per_shard else (None,))]


# Makes of a task something that kfp calls with day and pipeline.
Factory = Callable[[Task, Options], Callable[..., Any]]


def container(task: Task, options: Options) -> Callable[..., Any]:
    """A task as a container, for a cluster.

    Args:
        task: What runs.
        options: The image.

    Returns:
        A component with the inputs ``day`` and ``pipeline``.
    """

    def component(day: str, pipeline: str) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(
            image=options.image,
            command=["mfh", *task.arguments(options.params)],
            args=["--date", day, "--pipeline", pipeline],
        )

    # Names the component: kfp takes it from the function.
    component.__name__ = task.name
    made: Callable[..., Any] = dsl.container_component(component)
    return made


def build(options: Options, factory: Factory = container) -> Callable[..., Any]:
    """The pipeline.

    Args:
        options: What is fixed.
        factory: Makes the components; another than ``container`` runs them without a cluster.

    Returns:
        A pipeline with the inputs ``day`` and ``pipeline``.
    """
    chosen = tasks(options)
    components = {task.name: factory(task, options) for task in chosen}

    def mfh_daily(day: str, pipeline: str) -> None:
        made: dict[str, list[Any]] = {}
        for task in chosen:
            one = components[task.name](day=day, pipeline=pipeline)
            one.after(*(before for name in AFTER[task.step.name] for before in made.get(name, ())))
            made.setdefault(task.step.name, []).append(one)
            if factory is container:
                _equip(one, task, options)

    made: Callable[..., Any] = dsl.pipeline(name=NAME, description="Train MFH daily and A/B test it in simulation")(
        mfh_daily
    )
    return made


def _equip(one: Any, task: Task, options: Options) -> None:
    """Resources, stores and rights of a task on a cluster: those of the pod templates."""
    one.set_display_name(task.name)
    # A step decides by itself what it can reuse; Kubeflow's cache would skip it for other data of the same day.
    one.set_caching_options(False)
    one.set_retry(num_retries=2, backoff_duration="20s", backoff_factor=2.0, backoff_max_duration="600s")
    on_gpu = options.gpus > 0 and task.step.name in GPU_STEPS
    one.set_cpu_request("4" if on_gpu else "1").set_cpu_limit("8" if on_gpu else "2")
    one.set_memory_request("16Gi" if on_gpu else "2Gi").set_memory_limit("32Gi" if on_gpu else "6Gi")
    if on_gpu:
        one.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(options.gpus)
        kubernetes.add_toleration(one, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    settings = SETTINGS | {"MFH_LAKE": options.lake}
    if options.endpoint:
        settings["MFH_LAKE_ENDPOINT"] = options.endpoint
    for name, value in settings.items():
        one.set_env_variable(name, value)
    kubernetes.use_secret_as_env(one, "mfh-stores", {key: key for key in STORE_KEYS})
    kubernetes.use_config_map_as_volume(one, "mfh-pipelines", SETTINGS["MFH_PIPELINES"])
    for volume, path in (("scratch", "/tmp"), ("mfh-home", SETTINGS["MFH_HOME"])):  # noqa: S108 - inside the pod
        kubernetes.empty_dir_mount(one, volume, path)
    kubernetes.set_security_context(one, run_as_user=50_000, run_as_group=50_000, run_as_non_root=True)


def main(arguments: list[str] | None = None) -> int:
    """Write the compiled pipeline.

    Args:
        arguments: Command line, None for the process's.

    Returns:
        Exit status 0.
    """
    summary = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m deploy.kubeflow.pipeline", description=summary)
    parser.add_argument("--image", required=True, help="the container image of deploy/image")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the YAML file goes")
    parser.add_argument("--shards", type=int, default=2, help="simulator.shards of the pipeline file (2)")
    switches = sorted({step.setting for step in STEPS if step.setting})
    parser.add_argument(
        "--with", dest="switches", action="append", default=[], choices=switches, help="what the file has on"
    )
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="a parameter of every run")
    parser.add_argument("--lake", default=Options.lake, help=f"the lake ({Options.lake})")
    parser.add_argument("--endpoint", default="", help="an S3-compatible store (AWS)")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of each training, 0 for none (1)")
    given = parser.parse_args(arguments)
    options = Options(
        image=given.image,
        shards=given.shards,
        switches=frozenset(given.switches),
        params=tuple(given.param),
        lake=given.lake,
        endpoint=given.endpoint,
        gpus=given.gpus,
    )
    compiler.Compiler().compile(build(options), str(given.out))
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
