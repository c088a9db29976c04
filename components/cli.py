"""The command line ``mfh``: every step by itself, days without Airflow, and the tools around them."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components import (
    cli_bench,
    cli_chaos,
    cli_check,
    cli_dependencies,
    cli_features,
    cli_gate,
    cli_model,
    cli_operations,
    cli_promotion,
    cli_report,
    cli_score,
    cli_world,
)
from components.config import PARAMS, Settings, find_pipeline
from components.context import Context
from components.days import day_range
from components.errors import ConfigError, MfhError
from components.logs import log_to_stderr
from components.progress import progress

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
source_app = typer.Typer(no_args_is_help=True, help="Look at a feed's source.")
app.add_typer(source_app, name="source")
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_chaos.app, name="chaos")
app.add_typer(cli_check.app, name="check")
app.add_typer(cli_model.app, name="model")
app.add_typer(cli_report.app, name="report")
app.add_typer(cli_features.app, name="features")
app.add_typer(cli_gate.app, name="gate")
app.command()(cli_world.world)
cli_promotion.register(cli_model.app)
cli_operations.register(app)
app.add_typer(cli_dependencies.app, name="dependencies")
app.command()(cli_score.score)

PipelineOption = Annotated[
    str | None, typer.Option("--pipeline", "-p", help="Name of a pipeline, or a YAML file; default: the only one.")
]
ParamOption = Annotated[
    list[str] | None, typer.Option("--param", help=f"NAME=VALUE, one of {', '.join(PARAMS)}; may be repeated.")
]
DayOption = Annotated[str, typer.Option("--date", "-d", help="Interval day, YYYY-MM-DD.")]


def main() -> None:
    """Run the command line; an error that a user can mend is one sentence and exit status 1."""
    try:
        app(standalone_mode=True)
    except MfhError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]", end=": ")
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(str(error))
        sys.exit(1)


@app.command()
def init(
    data: Annotated[str | None, typer.Option(help="Folder of a KuaiRand edition; default: the built-in world.")] = None,
    force: Annotated[bool, typer.Option(help="Replace the pipeline file if it is there.")] = False,
) -> None:
    """Write a pipeline file to start from."""
    from components.init import write_pipeline

    typer.echo(write_pipeline(Settings(), data, force))


@app.command()
def step(
    name: Annotated[str, typer.Argument(help="Name of a step; 'mfh steps' lists them.")],
    day: DayOption,
    shard: Annotated[int | None, typer.Option(help="Which shard of a mapped step; default: all.")] = None,
    pipeline: PipelineOption = None,
    param: ParamOption = None,
) -> None:
    """Run one step of one day."""
    from components.steps import run_step

    with _context(pipeline, param) as context:
        for result in run_step(context, name, _day(day), shard):
            typer.echo(json.dumps(result.record(), default=str))


@app.command()
def steps() -> None:
    """List the steps of the day."""
    from components.steps import STEPS

    table = Table("step", "what it does")
    for one in STEPS:
        table.add_row(one.name, one.meaning)
    Console().print(table)


@app.command()
def run(
    first: Annotated[str, typer.Option("--from", help="First interval day.")],
    last: Annotated[str, typer.Option("--to", help="Last interval day, included.")],
    pipeline: PipelineOption = None,
    param: ParamOption = None,
) -> None:
    """Run all steps of the days, one after the other, without Airflow."""
    from components.report import find_report, read_experiment
    from components.steps import run_day

    days = list(day_range(_day(first), _day(last)))
    if not days:
        raise ConfigError(f"--to {last} is before --from {first}: there is no day to run")
    with _context(pipeline, param) as context:
        for day in days:
            run_day(context, day)
            typer.echo(f"{day}  {read_experiment(context, day).verdict.sentence}")
            typer.echo(f"            {find_report(context, day)}")


@app.command()
def doctor(
    port: Annotated[int, typer.Option(help="Port that Airflow's web server shall use.")] = 8080,
    pipeline: PipelineOption = None,
) -> None:
    """Check versions, port, disk and data, and say what to do."""
    from components.doctor import checkup

    settings = Settings()
    try:
        chosen = find_pipeline(settings, pipeline)
    except MfhError as error:
        typer.echo(f"no pipeline to check: {error}")
        chosen = None
    table = Table("check", "", "what was found", "what to do")
    checks = checkup(settings, chosen, port)
    for check in checks:
        state = {True: "ok", False: "FAIL", None: "note"}[check.ok]
        table.add_row(check.name, state, check.detail, check.mend)
    Console().print(table)
    raise typer.Exit(1 if any(check.ok is False for check in checks) else 0)


@source_app.command("check")
def source_check(pipeline: PipelineOption = None) -> None:
    """Print what of a feed maps to our columns, what is missing, and what that costs."""
    from components.feed.source import open_source

    table = Table("part", "found as", "what its absence costs")
    for finding in open_source(find_pipeline(Settings(), pipeline).feed).check():
        table.add_row(finding.part, finding.found or "missing", finding.cost)
    Console().print(table)


@app.command("feast-env")
def feast_env(pipeline: PipelineOption = None) -> None:
    """Print the variables that Feast's own command line needs: eval "$(mfh feast-env)"."""
    from components.store import store_environment

    with _context(pipeline, None) as context:
        for name, value in store_environment(context).items():
            typer.echo(f"export {name}={shlex.quote(value)}")


@contextmanager
def _context(pipeline: str | None, params: list[str] | None) -> Iterator[Context]:
    settings = Settings()
    log_to_stderr(settings.log_format, settings.secrets)
    chosen = find_pipeline(settings, pipeline).override(_params(params))
    with progress() as notify:
        yield Context(chosen, settings, run={"command": "mfh"}, notify=notify)


def _params(given: list[str] | None) -> dict[str, Any]:
    import yaml

    pairs = {}
    for text in given or []:
        name, separator, value = text.partition("=")
        if not separator:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
        pairs[name] = yaml.safe_load(value)
    return pairs


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a date (YYYY-MM-DD)") from error


if __name__ == "__main__":
    main()
