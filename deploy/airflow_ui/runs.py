"""What Airflow's database says of a DAG run: its day, its parameters, how far it got."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

# The task whose success means that the report is in the lake.
REPORT_TASK = "report"


@dataclass(frozen=True)
class Run:
    """One run of a DAG.

    Attributes:
        dag_id: The DAG.
        run_id: The run.
        state: queued, running, success or failed.
        start: Start of its data interval, which names its day; None for a run without an interval.
        conf: Parameters that this run was given.
        failed: Tasks that failed, in the order in which they ended.
        reported: Whether its report task has succeeded.
    """

    dag_id: str
    run_id: str
    state: str
    start: datetime | None
    conf: dict[str, Any] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    reported: bool = False


class Runs(Protocol):
    """Where runs are looked up."""

    def find(self, dag_id: str, run_id: str) -> Run | None:
        """The run, or None when Airflow knows none of that id."""


class AirflowRuns:
    """Runs in the metadata database of the API server that the pages are mounted in."""

    def find(self, dag_id: str, run_id: str) -> Run | None:
        """Look up one run.

        Args:
            dag_id: The DAG.
            run_id: The run.

        Returns:
            The run, or None when Airflow knows none of that id.
        """
        from airflow.models.dagrun import DagRun
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
            if run is None:
                return None
            tasks = session.execute(
                select(TaskInstance.task_id, TaskInstance.state)
                .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
                .order_by(TaskInstance.end_date)
            ).all()
            return Run(
                dag_id=dag_id,
                run_id=run_id,
                state=str(getattr(run.state, "value", run.state)),
                start=run.data_interval_start,
                conf=dict(run.conf or {}),
                failed=tuple(dict.fromkeys(name for name, state in tasks if state == "failed")),
                reported=any(name == REPORT_TASK and state == "success" for name, state in tasks),
            )
