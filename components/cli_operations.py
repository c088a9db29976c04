"""``mfh freshness|maintain``: what a machine's timer or an operator runs beside the days."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from components.config import Settings, find_pipeline
from components.context import Context
from components.logs import log_to_stderr

PipelineOption = Annotated[
    str | None, typer.Option("--pipeline", "-p", help="Name of a pipeline, or a YAML file; default: the only one.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``mfh``."""
    app.command()(freshness)
    app.command()(maintain)


def freshness(
    pipeline: PipelineOption = None,
    at: Annotated[str | None, typer.Option(help="The moment to ask for, ISO 8601 with a zone; default: now.")] = None,
) -> None:
    """Alert and exit with status 1 when the newest report that was due is not there."""
    from components.freshness import alert, find_late, now_utc

    settings = Settings()
    log_to_stderr(settings.log_format, settings.secrets)
    context = Context(find_pipeline(settings, pipeline), settings)
    late = find_late(context, _moment(at) if at else now_utc())
    if late is None:
        typer.echo("the newest report that was due is there, or none was due yet")
        return
    typer.echo(json.dumps(asdict(late) | {"alert": alert(settings, late)}))
    raise typer.Exit(1)


def maintain(
    pipeline: PipelineOption = None,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it; without this it is only listed.")] = False,
) -> None:
    """List what of the lake is superseded or old and needed by nothing, or remove it."""
    from components.maintain import run

    settings = Settings()
    log_to_stderr(settings.log_format, settings.secrets)
    context = Context(find_pipeline(settings, pipeline), settings, run={"command": "mfh maintain"})
    result = run(context, apply=apply)
    for one in result.removals:
        typer.echo(f"{one.kind:10}  {one.bytes / 1e6:9.1f} MB  {one.path}  ({one.why})")
    what = f"removed {result.freed / 1e6:.1f} MB" if apply else "nothing was removed: '--apply' removes it"
    typer.echo(f"{len(result.removals)} things, {sum(one.bytes for one in result.removals) / 1e6:.1f} MB; {what}")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a moment (2026-01-15T06:00:00+01:00)") from error
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone (2026-01-15T06:00:00+01:00)")
    return moment
