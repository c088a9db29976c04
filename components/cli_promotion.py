"""``mfh model approve|rollback|history``: what a person decides about the champion, with its audit record."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from components.audit import Event
from components.config import Settings, find_pipeline
from components.context import Context

PipelineOption = Annotated[
    str | None, typer.Option("--pipeline", "-p", help="Name of a pipeline, or a YAML file; default: the only one.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit record.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``mfh model``."""
    app.command()(approve)
    app.command()(rollback)
    app.command()(history)


def approve(
    version: Annotated[str, typer.Argument(help="Version in the registry; 'mfh model history' lists them.")],
    reason: ReasonOption,
    anyway: Annotated[bool, typer.Option(help="Also a version that is not the candidate.")] = False,
    pipeline: PipelineOption = None,
) -> None:
    """Make a candidate the champion."""
    from components.aliases import approve as do

    _say(do(_context(pipeline), version, reason, anyway=anyway))


def rollback(
    reason: ReasonOption,
    to: Annotated[str | None, typer.Option(help="Version to go back to; default: the champion before.")] = None,
    pipeline: PipelineOption = None,
) -> None:
    """Give the champion's place back to an earlier version."""
    from components.aliases import roll_back

    _say(roll_back(_context(pipeline), reason, to))


def history(
    pipeline: PipelineOption = None,
    out: Annotated[str | None, typer.Option("--json", help="File for the record, '-' for standard output.")] = None,
) -> None:
    """Print who moved which alias, when and why, and whether the record is whole."""
    from components import audit
    from components.aliases import newest_event
    from components.model_registry import Registry

    context = _context(pipeline)
    registry = Registry(context)
    events, aliases = audit.read(context), registry.aliases()
    broken = audit.broken(events, newest_event(registry))
    if out is not None:
        record = {"aliases": aliases, "events": [asdict(event) for event in events], "broken": broken}
        text = json.dumps(record, indent=1, sort_keys=True) + "\n"
        sys.stdout.write(text) if out == "-" else Path(out).write_text(text, encoding="utf-8")
        return
    by_version: dict[str, list[str]] = {}
    for alias, number in sorted(aliases.items()):
        by_version.setdefault(number, []).append(alias)
    versions = Table("version", "day", "arm", "aliases", title=registry.name)
    for one in registry.versions():
        versions.add_row(one.number, one.day, one.role, ", ".join(by_version.get(one.number, [])))
    Console().print(versions)
    moves = Table("when", "who", "what", "moves", "why")
    for event in events:
        moves.add_row(event.at[:19], event.who, event.action, _moves(event), event.why)
    Console().print(moves)
    for sentence in broken:
        typer.echo(f"the audit record is not whole: {sentence}")
    raise typer.Exit(1 if broken else 0)


def _context(pipeline: str | None) -> Context:
    settings = Settings()
    return Context(find_pipeline(settings, pipeline), settings, run={"command": "mfh model"})


def _say(event: Event) -> None:
    typer.echo(f"{event.action} by {event.who} at {event.at}: {_moves(event)}; {event.why}")


def _moves(event: Event) -> str:
    return ", ".join(
        f"{alias}: {before or 'nobody'} -> {after or 'nobody'}"
        for alias, (before, after) in sorted(event.moves.items())
    )
