"""``mfh chaos``: plant a fault into a day, to see the gate stop it."""

import json
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from components.config import Settings, find_pipeline
from components.progress import progress

app = typer.Typer(no_args_is_help=True, help="Plant a fault into a day's data, to see what stops it.")


@app.command()
def data(
    fault: Annotated[str, typer.Option(help="Name of a fault; 'mfh chaos list' shows them.")],
    day: Annotated[str, typer.Option("--date", "-d", help="Interval day, YYYY-MM-DD.")],
    out: Annotated[Path, typer.Option(help="Folder for the planted feed; it must be empty or not there.")],
    rate: Annotated[float | None, typer.Option(min=0, max=1, help="Default: where it must be caught.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed strikes the same rows.")] = 1,
    history: Annotated[int, typer.Option(min=0, help="Days before it that are written as they are.")] = 21,
    pipeline: Annotated[str | None, typer.Option("--pipeline", "-p", help="Whose feed; default: the only one.")] = None,
) -> None:
    """Write a feed whose last day is planted, and a pipeline over it that runs like any other."""
    from components.chaos.catalogue import fault_named
    from components.chaos.fault import SNAPSHOTS
    from components.chaos.folder import HOME, PIPELINE, write_planted

    try:
        chosen_day = date.fromisoformat(day)
    except ValueError as error:
        raise typer.BadParameter(f"{day!r} is not a date (YYYY-MM-DD)") from error
    chosen = fault_named(fault)
    given = find_pipeline(Settings(), pipeline)
    with progress() as notify:
        planted = write_planted(
            given,
            chosen,
            chosen_day,
            chosen.stated if rate is None else rate,
            out,
            seed=seed,
            history_days=history,
            notify=notify,
        )
    before, after = planted.rows
    size = "bytes" if chosen.where == "file" else "rows"
    typer.echo(f"{chosen.name} at {planted.rate:g} of {chosen.rate_of}: {chosen.meaning}")
    typer.echo(f"{chosen.where} of {day}: {before:,} {size}, now {'no file' if after is None else f'{after:,} {size}'}")
    for note in planted.notes:
        typer.echo(f"left out: {note}")
    if chosen.where in SNAPSHOTS:
        typer.echo(f"MFH_HOME={out / HOME} mfh step validate_features --date {day} --pipeline {out / PIPELINE}")
    else:
        typer.echo(f"mfh run --from {day} --to {day} --pipeline {out / PIPELINE}")


@app.command("list")
def list_faults(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """List the faults: what they change, how bad they are, and the rate at which they must be caught."""
    from components.chaos.catalogue import FAULTS

    if as_json:
        rows = [
            {name: value for name, value in vars(one).items() if name != "plant"} | {"meaning": one.meaning}
            for one in FAULTS
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("fault", "changes", "severity", "caught from", "what happens")
    for one in FAULTS:
        table.add_row(one.name, one.where, one.severity, f"{one.stated:g} of {one.rate_of}", one.meaning)
    Console().print(table)
