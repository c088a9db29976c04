"""Which report belongs to a DAG run."""

from components.config import PARAMS, Pipeline
from components.errors import ConfigError
from deploy.airflow_ui.app import PageError
from deploy.airflow_ui.catalogue import DAG_PREFIX, Catalogue, Row
from deploy.airflow_ui.runs import Run

# A run that goes on is looked at again: its report comes within minutes.
AGAIN_S = 15


def report_of(catalogue: Catalogue, run: Run) -> tuple[Row, str]:
    """The report of a run's day under the run's own settings.

    A report names the run that wrote it. A day that ran again, by hand or by another run, has the later writer's name
    on it; the report of the same day and settings is the right one still, and the note says who wrote it.

    Args:
        catalogue: The lake.
        run: The run.

    Returns:
        The report, and a note for the reader where it was not written by this run, else an empty one.

    Raises:
        PageError: When there is no report (yet), with the reason as far as the run's state tells it.
    """
    pipeline = catalogue.pipeline(run.dag_id)
    if pipeline is None:
        raise PageError(
            404,
            "The pipeline's file is missing",
            f"The API server finds no readable pipeline file for {run.dag_id.removeprefix(DAG_PREFIX)!r}, so it "
            "does not know which day this run is for.",
            "MFH_HOME or MFH_PIPELINES must name the same folder there as for tasks.",
        )
    if run.start is None:
        raise PageError(404, "This run is for no day", "It has no data interval, so it can not have made a report.")
    day = run.start.astimezone(pipeline.feed.zone).date()
    rows = catalogue.of_day(run.dag_id, day)
    own = next((row for row in rows if row.entry.summary and row.entry.summary.run_id == run.run_id), None)
    if own is not None and (run.reported or run.state == "success"):
        return own, ""
    settings = settings_of(pipeline, run)
    same = next((row for row in rows if row.settings == settings and row.entry.summary), None)
    if same is not None:
        return same, _note(run, same)
    raise _none(run, str(day), rows)


def settings_of(pipeline: Pipeline, run: Run) -> str:
    """Hash of the configuration that a run has: that of the pipeline file with the run's parameters."""
    try:
        return pipeline.override({name: value for name, value in run.conf.items() if name in PARAMS}).config_hash
    except ConfigError:
        # Airflow let it start, its first task refused it: there is no report under such settings.
        return ""


def _note(run: Run, row: Row) -> str:
    summary = row.entry.summary
    writer = (summary.run_id if summary else None) or "a run without Airflow"
    if run.state in ("queued", "running"):
        return f"This run has not finished. Shown is what {writer} wrote before it, for the same day and settings."
    return "" if writer == run.run_id else f"Written by {writer}, for the same day and settings."


def _none(run: Run, day: str, rows: list[Row]) -> PageError:
    title = f"No report for {day} yet"
    broken = [row.sentence for row in rows if row.decision == "unreadable"]
    if run.state in ("queued", "running"):
        return PageError(404, title, f"The run is {run.state}; its report comes near the end.", again_s=AGAIN_S)
    if run.failed:
        where = f"/dags/{run.dag_id}/days/{day}/gates"
        link = (where, "The day's gates") if any(name.startswith("validate") for name in run.failed) else None
        failed = ", ".join(run.failed)
        return PageError(404, title, f"The run failed in {failed}. The task's log says why.", link=link)
    return PageError(404, title, *(broken or ["The run has ended and the lake holds no report of its day."]))
