"""Report step: the page of a day's experiment, beside every number that it shows.

``report.html`` shows what varies between equal runs or depends on more than the day: the running series over the
earlier days that the lake holds, the day's gates, the run. So it stands beside the manifest, outside the content hash,
with ``experiment.json`` (the whole record that it was written from), ``summary.json`` (what a list needs of it) and
``series.json``. ``day.html`` is the page of the day alone, whose bytes never vary.
"""

from datetime import UTC, date, datetime
from typing import Any

from components.context import Context, StepResult, inputs_of
from components.day_checks import day_checks
from components.errors import MissingPartitionError
from components.partition import json_bytes
from components.reports import PAGE, RECORD, SUMMARY, parse_record
from components.series import running_series
from simulator.experiment import Experiment
from simulator.report.diagnostics import Diagnostics
from simulator.report.summary import summarise
from simulator.surroundings import Run

DAY_PAGE, SERIES = "day.html", "series.json"


def report(context: Context, day: date) -> StepResult:
    """Render the day's experiment, with the diagnostics of its treatment where the lake has them.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its experiment must be in the lake.

    Returns:
        Hash of the page and where it lies.

    Raises:
        MissingPartitionError: When the experiment is not in the lake, or diagnostics are asked for and not there.
    """
    from simulator.report.page import render

    partition = context.runs.get("experiment", day)
    experiment = read_experiment(context, day)
    diagnostics, diagnosed = find_diagnostics(context, experiment)
    of_the_day = experiment.model_copy(update={"diagnostics": diagnostics})
    series = running_series(context, day)
    record = of_the_day.model_copy(
        update={"series": series, "checks": day_checks(context, day), "run": run_of(context.run)}
    )
    page = render(record)
    with context.runs.write("report", day, context.pipeline.config_hash, inputs_of(partition) | diagnosed) as writer:
        writer.text(DAY_PAGE, render(of_the_day))
        writer.aside[PAGE] = page.encode()
        writer.aside[RECORD] = record.model_dump_json(indent=1).encode()
        writer.aside[SUMMARY] = summarise(record).model_dump_json(indent=1).encode()
        writer.aside[SERIES] = json_bytes([one.model_dump(mode="json") for one in series])
    found = context.runs.get("report", day)
    facts = {"page": found.aside(PAGE), "bytes": len(page.encode()), "diagnostics": diagnostics is not None}
    return StepResult("report", day, inputs_of(found), facts)


def read_experiment(context: Context, day: date) -> Experiment:
    """The day's experiment record.

    Args:
        context: Pipeline and settings.
        day: Interval day.

    Returns:
        The record that the page shows.

    Raises:
        MissingPartitionError: When the day was not analysed.
        RecordError: When the record is damaged, or of a newer version.
    """
    partition = context.runs.get("experiment", day)
    return parse_record(partition.bytes(RECORD), partition.url(RECORD))


def run_of(run: dict[str, Any]) -> Run:
    """What identifies the run that writes a report, and when that was.

    Args:
        run: ``Context.run``.

    Returns:
        Run id (``mfh`` from the command line), attempt where there is one, the moment in UTC.
    """
    return Run(
        run_id=str(run.get("run_id") or run.get("command") or "unknown"),
        attempt=run.get("try"),
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def find_diagnostics(context: Context, experiment: Experiment) -> tuple[Diagnostics | None, dict[str, str]]:
    """The diagnostics of the treatment of an experiment.

    Args:
        context: Pipeline and settings.
        experiment: The record of the day.

    Returns:
        The record, with the hash of its partition as a manifest's input; None and nothing where the lake has none of
        this very bundle.

    Raises:
        MissingPartitionError: When there is none although the pipeline asks for them.
    """
    day = date.fromisoformat(experiment.day)
    partition = context.runs.find("diagnostics", day)
    if partition is not None:
        record = Diagnostics.model_validate_json(partition.bytes("diagnostics.json"))
        if record.bundle in {arm.bundle for arm in experiment.arms if arm.role == "treatment"}:
            return record, inputs_of(partition)
    if context.pipeline.diagnostics:
        raise MissingPartitionError(
            f"diagnostics is on, but the lake has no 'diagnostics' of the treatment of {day}; run 'mfh step diagnose "
            f"--date {day}'"
        )
    return None, {}


def find_report(context: Context, day: date) -> str:
    """Where the day's page lies.

    Args:
        context: Pipeline and settings.
        day: Interval day.

    Returns:
        Path inside the lake's file system: the page with the running series.

    Raises:
        MissingPartitionError: When there is none.
    """
    return context.runs.get("report", day).aside(PAGE)
