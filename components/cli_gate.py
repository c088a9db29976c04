"""``mfh gate``: look at the gates of a day, and let a failed one pass with a reason."""

import sys
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from components.context import Context

app = typer.Typer(no_args_is_help=True, help="Look at a day's gates, and let a failed one pass with a reason.")

PipelineOption = Annotated[str | None, typer.Option("--pipeline", "-p", help="Name of a pipeline, or a YAML file.")]
DayOption = Annotated[str, typer.Option("--date", "-d", help="Day that the gate judged, YYYY-MM-DD.")]


@app.command("pass")
def let_pass(
    day: DayOption,
    table: Annotated[str, typer.Option(help="Table of the broken expectation: log, users, user_features, …")],
    expectation: Annotated[str, typer.Option(help="Its name, or 'all' for every failed one of the table.")],
    reason: Annotated[str, typer.Option(help="Why the day may go on; the report shows it.")],
    who: Annotated[str, typer.Option(help="Who decides; default: the user of this process.")] = "",
    pipeline: PipelineOption = None,
) -> None:
    """Let broken expectations of a day pass; the next run of the gate goes on. In Airflow, clear the failed task."""
    from components.validation.passes import pass_gate

    for one in pass_gate(_context(pipeline), _day(day), table, expectation, reason, who=who):
        typer.echo(one.sentence())
    typer.echo(f"Now run the gate again (in Airflow: clear the failed task): mfh run --from {day} --to {day}")


@app.command()
def show(day: DayOption, pipeline: PipelineOption = None) -> None:
    """Print what the gates of a day found broken, who let what pass, and where the Data Docs are."""
    from components.validation.gate import PAGE, RESULT
    from components.validation.outcome import Outcome, shown
    from components.validation.passes import GATES

    context, one_day = _context(pipeline), _day(day)
    table = Table("gate", "level", "where", "expectation", "observed", "limit", "passed by")
    pages = []
    for gate in GATES:
        partition = context.runs.find(gate, one_day)
        if partition is None:
            continue
        pages.append(f"{gate}: {partition.aside(PAGE)}")
        for one in (Outcome(**outcome) for outcome in partition.json(RESULT)["outcomes"]):
            if not one.success:
                where = f"{one.table}.{one.column}" if one.column else one.table
                # In square brackets stands markup for rich, and the names of groups for us.
                cells = (gate, one.level, where, one.expectation, shown(one.observed), one.limits, one.passed_by)
                table.add_row(*(cell.replace("[", "\\[") for cell in cells))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for page in pages or [f"no gate has judged {day} yet"]:
        typer.echo(page)


def _context(pipeline: str | None) -> "Context":
    from components.config import Settings, find_pipeline
    from components.context import Context

    settings = Settings()
    return Context(find_pipeline(settings, pipeline), settings, run={"command": "mfh"})


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a date (YYYY-MM-DD)") from error
