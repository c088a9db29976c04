"""Report step: the page of a day's experiment, beside its data."""

from datetime import date

from components.context import Context, StepResult, inputs_of
from simulator.experiment import Experiment

PAGE = "report.html"


def report(context: Context, day: date) -> StepResult:
    """Render the day's experiment.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its experiment must be in the lake.

    Returns:
        Hash of the page and where it lies.

    Raises:
        MissingPartitionError: When the experiment is not in the lake.
    """
    from simulator.report.page import render

    partition = context.runs.get("experiment", day)
    page = render(read_experiment(context, day))
    with context.runs.write("report", day, context.pipeline.config_hash, inputs_of(partition)) as writer:
        writer.text(PAGE, page)
    found = context.runs.get("report", day)
    return StepResult("report", day, inputs_of(found), {"page": found.url(PAGE), "bytes": len(page.encode())})


def read_experiment(context: Context, day: date) -> Experiment:
    """The day's experiment record.

    Args:
        context: Pipeline and settings.
        day: Interval day.

    Returns:
        The record that the page shows.

    Raises:
        MissingPartitionError: When the day was not analysed.
    """
    return Experiment.model_validate_json(context.runs.get("experiment", day).bytes("experiment.json"))


def find_report(context: Context, day: date) -> str:
    """Where the day's page lies.

    Args:
        context: Pipeline and settings.
        day: Interval day.

    Returns:
        Path inside the lake's file system.

    Raises:
        MissingPartitionError: When there is none.
    """
    return context.runs.get("report", day).url(PAGE)
