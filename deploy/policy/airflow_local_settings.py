"""What Airflow's processes read at their start: the cluster policy, and the libraries that tasks find loaded.

The policy: what the schedule or a person started goes before what a backfill started. Between tasks of equal weight the
scheduler takes those of the older day first, which would let every day of a backfill pass the day that people wait
for. And a pool of their own keeps backfills from taking every slot.

The libraries: a LocalExecutor's scheduler and a Celery worker fork a process per task, which finds loaded what its
parent had imported. ``MFH_PRELOAD`` names that, for those processes alone; nothing of ours is among it, so that a
changed step is the next task's step.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance

# Above any sum of weights along a DAG of ours.
FIRST = 10_000
BACKFILL_PREFIX = "backfill__"
DEFAULT_POOL = "default_pool"
# Of ``components.runner_settings``, which every process of Airflow would have to import for this one text.
BACKFILL_POOL = os.environ.get("MFH_BACKFILL_POOL", "")


def preload(modules: str) -> None:
    """Import modules, with commas between.

    Args:
        modules: Their names.

    Raises:
        ImportError: When there is none of a name, or when one ends the process instead of being imported: PySpark does
            in a process without a main module, such as ``python -m airflow``.
    """
    for name in filter(None, modules.split(",")):
        try:
            import_module(name)
        except SystemExit as error:
            raise ImportError(f"{name} of MFH_PRELOAD ends this process ({error}): start it as 'airflow'") from error


# Taken away, so that what tasks start does not load it all too.
preload(os.environ.pop("MFH_PRELOAD", ""))


def task_instance_mutation_hook(task_instance: "TaskInstance", dag_run: "DagRun | None" = None) -> None:
    """Put a task before every task of a backfill, unless it is one itself; then into the pool of backfills.

    Called more than once for a task: it changes nothing the second time.

    Args:
        task_instance: The task; its weight and pool are changed.
        dag_run: Its run where Airflow has it at hand. A backfill that reprocesses days reuses their runs, whose ids
            still name what started them first; then only the run knows.
    """
    of_backfill = task_instance.run_id.startswith(BACKFILL_PREFIX) or (
        dag_run is not None and dag_run.backfill_id is not None
    )
    weight = (task_instance.priority_weight or 0) % FIRST
    task_instance.priority_weight = weight if of_backfill else weight + FIRST
    if of_backfill and BACKFILL_POOL and task_instance.pool == DEFAULT_POOL:
        task_instance.pool = BACKFILL_POOL


__all__ = ["task_instance_mutation_hook"]
