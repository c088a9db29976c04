"""One maintenance DAG per pipeline file, weekly: what of the lake is superseded or old and needed by nothing.

It only lists, unless the pipeline says ``retention: {apply: true}`` or the run's parameter ``apply`` does. What stays,
and why, is written in ``components/maintain.py``.
"""

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import DAG, CronTriggerTimetable, Param, get_current_context, task

from components.config import Pipeline, Settings, load_pipeline, read_pipeline_files

SETTINGS = Settings()


def build(pipeline: Pipeline) -> DAG:
    """The maintenance DAG of one pipeline."""
    zone = pendulum.timezone(pipeline.feed.timezone)
    first = pipeline.feed.first_day
    dag = DAG(
        dag_id=f"mfh_maintain_{pipeline.name}",
        description="List or remove what of the lake nothing needs any more",
        # Saturdays at noon, far from the daily run at midnight.
        schedule=CronTriggerTimetable("0 12 * * 6", timezone=zone),
        start_date=pendulum.datetime(first.year, first.month, first.day, tz=zone),
        catchup=False,
        max_active_runs=1,
        # Whoever wants it switches it on: a new installation's first minutes belong to its first days.
        is_paused_upon_creation=True,
        params={"apply": Param(pipeline.retention.apply, type="boolean")},
        tags=["mfh", "maintenance"],
        doc_md=__doc__,
        default_args={"owner": pipeline.owner, "retries": 1, "execution_timeout": timedelta(hours=2)},
    )
    with dag:

        @task(task_id="maintain", doc_md=f"By hand: `mfh maintain`\n\nRunbook: `{SETTINGS.runbooks}#maintain`")
        def maintain() -> dict[str, Any]:
            from components.context import Context
            from components.maintain import run

            context = get_current_context()
            now = load_pipeline(SETTINGS.pipelines_dir / f"{pipeline.name}.yaml")
            identity = {"run_id": context["ti"].run_id, "try": context["ti"].try_number}
            result = run(Context(now, SETTINGS, run=identity), apply=bool(context["params"]["apply"]))
            for one in result.removals:
                print(f"{one.kind} {one.bytes} bytes {one.path} ({one.why})")
            return {"found": len(result.removals), "freed_bytes": result.freed}

        maintain()
    return dag


for pipeline in read_pipeline_files(SETTINGS.pipelines_dir)[0]:
    globals()[f"mfh_maintain_{pipeline.name}"] = build(pipeline)
