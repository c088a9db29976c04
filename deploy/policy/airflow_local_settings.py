"""Airflow's cluster policy: what the schedule or a person started goes before what a backfill started.

Between tasks of equal weight the scheduler takes those of the older day first, which would let every day of a backfill
pass the day that people wait for. And a pool of their own keeps backfills from taking every slot.
"""

import os
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
