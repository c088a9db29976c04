"""The doctor's checks of what runs every day: pipeline files, the DAG folder, days, the registry and its record.

Light imports only, as in ``components/doctor.py``; what needs a library imports it when it is asked.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from components.config import Pipeline, Settings, read_pipeline_files
from components.doctor import Check
from components.errors import MfhError

CHECKOUT = Path(__file__).resolve().parent.parent
DAG_FILES = ("mfh_daily.py", "mfh_maintain.py", "mfh_pipeline_files.py")


def operations_checks(settings: Settings, pipeline: Pipeline | None) -> list[Check]:
    """Look at what a pipeline needs beside the machine.

    Args:
        settings: Where things live.
        pipeline: Whose registry and days are looked at, None when there is no pipeline file yet.

    Returns:
        The findings.
    """
    of_pipeline = (
        [] if pipeline is None else [check_days(pipeline, datetime.now(UTC)), check_registry(settings, pipeline)]
    )
    return [check_dag_folder(), check_pipeline_files(settings), *of_pipeline]


def check_dag_folder() -> Check:
    """Whether Airflow looks for DAGs where they are."""
    folder = Path(os.environ.get("AIRFLOW__CORE__DAGS_FOLDER") or CHECKOUT / "dags")
    missing = [name for name in DAG_FILES if not (folder / name).is_file()]
    if missing:
        mend = "point AIRFLOW__CORE__DAGS_FOLDER at the folder of the DAG files; was it renamed or moved?"
        return Check("dag folder", False, f"{folder} has no {' and no '.join(missing)}", mend)
    return Check("dag folder", True, str(folder))


def check_pipeline_files(settings: Settings) -> Check:
    """Whether every pipeline file can be read and is named as its pipeline."""
    good, wrong = read_pipeline_files(settings.pipelines_dir)
    if wrong:
        mend = "mend or remove the file: Airflow shows its reason as an import error, and no DAG of it"
        return Check("pipeline files", False, "; ".join(wrong), mend)
    if not good:
        return Check("pipeline files", None, f"none in {settings.pipelines_dir}", "'mfh init' writes one")
    return Check("pipeline files", True, f"{len(good)} in {settings.pipelines_dir}")


def check_days(pipeline: Pipeline, now: datetime) -> Check:
    """Whether the feed has days that can be run."""
    feed, today = pipeline.feed, now.astimezone(pipeline.feed.zone).date()
    if feed.first_day >= today:
        mend = "correct feed.first_day, or wait: a day can be run when it has ended"
        return Check("days", False, f"the feed begins on {feed.first_day}, today is {today} in {feed.timezone}", mend)
    if feed.last_day is not None and feed.last_day >= today:
        return Check("days", None, f"the feed runs until {feed.last_day}; days from {today} on have not ended yet")
    last = f"to {feed.last_day}" if feed.last_day else "and grows"
    return Check("days", True, f"the feed runs from {feed.first_day} {last}, in {feed.timezone}")


def check_registry(settings: Settings, pipeline: Pipeline) -> Check:
    """Whether the registry answers, and whether what its aliases point to could serve."""
    if not settings.mlflow_uri and not (settings.home / "mlflow" / "mlflow.db").exists():
        return Check("registry", None, "none yet; the first day that is decided makes it")
    # MLflow takes seconds to import.
    from components.aliases import problems
    from components.context import Context
    from components.model_registry import UnknownModelError

    try:
        found = problems(Context(pipeline, settings))
    except UnknownModelError:
        return Check("registry", None, f"it knows no model of {pipeline.name} yet")
    except MfhError as error:
        return Check("registry", False, str(error), "bring the registry back; runbook 'promote'")
    if found:
        return Check("registry", False, "; ".join(found), "'mfh model history', then 'mfh model rollback'")
    return Check("registry", True, f"every alias of mfh_{pipeline.name} can serve, and the audit record is whole")
