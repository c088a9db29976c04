"""``mfh report``: a day's verdict, its metrics as a table, the list of days, and what changed between two of them.

``mfh report DAY`` is short for ``mfh report show DAY``.
"""

import json
import logging
import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from components.config import PARAMS, Settings, find_pipeline
from components.context import Context
from components.errors import ConfigError
from simulator.report import numbers

PipelineOption = Annotated[
    str | None, typer.Option("--pipeline", "-p", help="Name of a pipeline, or a YAML file; default: the only one.")
]
ParamOption = Annotated[
    list[str] | None, typer.Option("--param", help=f"NAME=VALUE, one of {', '.join(PARAMS)}; may be repeated.")
]
JsonOption = Annotated[str | None, typer.Option("--json", help="File for the record, '-' for standard output.")]


class _ShowsByDefault(TyperGroup):
    """A group whose arguments are those of ``show`` unless they begin with a command or ask for help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["show", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = typer.Typer(cls=_ShowsByDefault, no_args_is_help=True, help="Print, export, list and compare reports.")


@app.command()
def show(
    day: Annotated[str, typer.Argument(help="Interval day, YYYY-MM-DD.")],
    pipeline: PipelineOption = None,
    param: ParamOption = None,
    export: Annotated[
        Path | None, typer.Option(help="Write all metrics as a table to FILE.csv or FILE.parquet.")
    ] = None,
) -> None:
    """Print the verdict of a day and where its report lies; the command may be left out."""
    from components.report import find_report, read_experiment

    context = _context(pipeline, param)
    experiment = read_experiment(context, _day(day))
    typer.echo(experiment.verdict.sentence)
    interval = f"{numbers.percentage(experiment.confidence)} interval"
    table = Table("segment", "metric", "users", "baseline", "treatment", "lift", interval)
    for one in experiment.metrics:
        if one.role == "primary":
            lift = one.relative
            cells = [numbers.value(one.baseline), numbers.value(one.treatment), numbers.value(lift, signed=True)]
            ends = numbers.interval(lift, signed=True)
            table.add_row(*map(escape, (one.segment, one.title, numbers.whole(one.users), *cells, ends)))
    Console().print(table)
    if export is not None:
        from components.export import export_metrics

        typer.echo(f"{export_metrics(experiment, export)} rows in {export}")
    typer.echo(find_report(context, _day(day)))


@app.command("list")
def listing(pipeline: PipelineOption = None, out: JsonOption = None) -> None:
    """Print every day that was analysed, newest first: verdict, lift, and what can not be read, with the reason."""
    from components.lake import Lake
    from components.reports import list_reports

    settings = Settings()
    entries = list_reports(Lake.open(settings), find_pipeline(settings, pipeline).name)
    if not entries and out is None:
        typer.echo("no day was analysed yet; 'mfh run --from A --to B' does it")
        return
    if out is not None:
        rows = [
            {"day": str(one.day), "config_hash": one.config_hash, "state": one.state, "problem": one.problem}
            | {"summary": one.summary and one.summary.model_dump(mode="json")}
            for one in entries
        ]
        _write(json.dumps(rows, indent=1), out)
        return
    table = Table("day", "configuration", "decision", "what it says")
    for one in entries:
        found = one.summary
        decision, said = (one.state, one.problem) if found is None else (found.decision, found.sentence)
        table.add_row(str(one.day), one.config_hash, decision, escape(str(said)))
    Console().print(table)


@app.command("compare")
def compare(
    first: Annotated[str, typer.Argument(help="A day, or DAY@CONFIGURATION where a day has several.")],
    second: Annotated[str, typer.Argument(help="The other day.")],
    pipeline: PipelineOption = None,
    against: Annotated[
        str | None, typer.Option(help="The second day is of this pipeline; default: of the same one.")
    ] = None,
    out: JsonOption = None,
) -> None:
    """Print what changed from one report to another: data, models, configuration, and the lift with its interval."""
    from components.cli_compare import print_comparison
    from components.lake import Lake
    from components.reports import compare_reports, locate

    settings = Settings()
    lake = Lake.open(settings)
    names = (pipeline, against or pipeline)
    entries = []
    for text, name in zip((first, second), names, strict=True):
        day, _, config_hash = text.partition("@")
        entries.append(locate(lake, find_pipeline(settings, name).name, _day(day), config_hash or None))
    found = compare_reports(lake, *entries)
    if out is not None:
        _write(found.model_dump_json(indent=1), out)
        if out == "-":
            return
    print_comparison(found, Console())


@app.command()
def schema(out: JsonOption = None) -> None:
    """Print the JSON Schema of experiment.json; it is kept as docs/experiment.schema.json."""
    from simulator.report.schema import experiment_schema

    _write(json.dumps(experiment_schema(), indent=1), out or "-")


def _context(pipeline: str | None, params: list[str] | None) -> Context:
    import yaml

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    settings = Settings()
    pairs = {}
    for text in params or []:
        name, separator, value = text.partition("=")
        if not separator:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
        pairs[name] = yaml.safe_load(value)
    return Context(find_pipeline(settings, pipeline).override(pairs), settings, run={"command": "mfh"})


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a date (YYYY-MM-DD)") from error


def _write(text: str, out: str) -> None:
    if out == "-":
        typer.echo(text)
        return
    try:
        Path(out).write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} can not be written: {error.strerror}") from error
