"""``mfh bench NAME``: measure a claim afresh, print it, write its record.

The exit status is 0 when it could be measured, whatever holds. Benchmarks live beside the packages, in the checkout.
"""

from pathlib import Path
from typing import Annotated

import typer

from components.progress import progress

app = typer.Typer(no_args_is_help=True, help="Measure a claim afresh; exit status 0 when it could be measured.")

JsonOption = Annotated[str | None, typer.Option("--json", help="File for the record, '-' for standard output.")]


@app.command()
def orchestration(
    out: JsonOption = None,
    impressions: Annotated[int, typer.Option(help="Size of the measured day.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(help="Repetitions of both sides.")] = 5,
) -> None:
    """What Airflow costs, against the same day in one process."""
    from benchmarks import claims, orchestration

    claims.publish(orchestration.run(impressions, repeats), out)


@app.command()
def operations(
    out: JsonOption = None,
    days: Annotated[int, typer.Option(min=2, help="Days of the backfills that are compared.")] = 12,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions; medians are reported.")] = 5,
) -> None:
    """What running it daily costs: time per task, backfills side by side, parsing, recovery, memory."""
    from benchmarks import claims, operations

    claims.publish(operations.run(days, repeats), out)


@app.command()
def quality(
    train: Annotated[str, typer.Option(help="Training days, A:B with ISO dates, both included.")],
    valid: Annotated[str, typer.Option(help="Validation days, after the training days.")],
    test: Annotated[str | None, typer.Option(help="Test days; without them the validation days are judged.")] = None,
    data: Annotated[str, typer.Option(help="'world', a KuaiRand folder, or a pipeline file.")] = "world",
    models: Annotated[str | None, typer.Option(help="Names with commas between; default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 1 to this.")] = 5,
    resamples: Annotated[int, typer.Option(min=100, help="Of the paired bootstrap over users and seeds.")] = 1_000,
    workers: Annotated[int, typer.Option(min=1, help="Models trained side by side.")] = 1,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps the examples for the next call.")] = None,
    table: Annotated[Path | None, typer.Option(help="File for the tables as Markdown.")] = None,
    out: JsonOption = None,
) -> None:
    """How well every model ranks, per task and user group, with paired intervals of the differences."""
    from rich.console import Console

    from benchmarks import claims, quality
    from benchmarks.quality_table import markdown

    chosen = quality.MODELS if models is None else tuple(name.strip() for name in models.split(",") if name.strip())
    with progress() as notify:
        result = quality.run(
            data, train, valid, test, chosen, seeds, cache=cache, resamples=resamples, workers=workers, notify=notify
        )
    quality.show(result, Console(stderr=out == "-"))
    if table is not None:
        table.write_text(markdown(result), encoding="utf-8")
    claims.publish(result, out)


@app.command()
def train(
    batches: Annotated[str, typer.Option(help="Rows of a step, with commas between.")] = "512,4096,65536",
    repeats: Annotated[int, typer.Option(min=1, help="Counted rounds of everything.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of torch, on both sides.")] = 2,
    out: JsonOption = None,
) -> None:
    """How fast training is, against torch-rechub, the plain graph and the machine's matrix products."""
    from benchmarks import claims, train

    try:
        chosen = tuple(int(one) for one in batches.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{batches!r} is no list of numbers") from error
    with progress() as notify:
        claims.publish(train.run(chosen, repeats, threads, notify), out)


@app.command()
def simulator(
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions; medians are reported.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the walk and of the bootstrap.")] = 2,
    sessions: Annotated[int, typer.Option(min=1_000, help="Sessions of the walk without scoring.")] = 100_000,
    out: JsonOption = None,
) -> None:
    """How fast the simulator is: rollouts with and without scoring, the bootstrap, off-policy estimates."""
    from benchmarks import claims, simulator

    with progress() as notify:
        claims.publish(simulator.run(repeats, threads, sessions, notify=notify), out)


@app.command("world")
def world_speed(
    impressions: Annotated[int, typer.Option(min=10_000, help="Written to measure the speed.")] = 10_000_000,
    largest: Annotated[int, typer.Option(min=10_000, help="Written once to measure memory.")] = 100_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions; medians are reported.")] = 3,
    out: JsonOption = None,
) -> None:
    """How fast the built-in world is written, and in how much memory."""
    from benchmarks import claims, world

    with progress() as notify:
        claims.publish(world.run(impressions, largest, repeats=repeats, notify=notify), out)


@app.command()
def faults(
    parts: Annotated[str | None, typer.Option(help="Names with commas between; default: all.")] = None,
    kuairand: Annotated[str | None, typer.Option(help="Folder of a KuaiRand edition; default: none.")] = None,
    table: Annotated[Path | None, typer.Option(help="Page whose table is written anew.")] = None,
    out: JsonOption = None,
) -> None:
    """What validation catches of planted faults, and how often it stops a clean day."""
    from benchmarks import claims, validation_faults, validation_table

    names = None if parts is None else [name.strip() for name in parts.split(",") if name.strip()]

    def save(result: claims.Record) -> None:
        if out not in (None, "-"):
            Path(str(out)).write_text(result.json(), encoding="utf-8")

    with progress() as notify:
        result = validation_faults.run(names, kuairand, save=save, notify=notify)
    if table is not None:
        validation_table.write(table, [dict(row) for row in result.rows])
    claims.publish(result, out)


@app.command()
def validation(
    rows: Annotated[int, typer.Option(min=10_000, help="Rows of the day that both sides judge.")] = 1_000_000,
    large: Annotated[int, typer.Option(min=0, help="Rows of a day that ours judges once; 0 for none.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions; medians are reported.")] = 5,
    out: JsonOption = None,
) -> None:
    """What the data gates cost, against Great Expectations' own pandas path."""
    from benchmarks import claims, validation

    with progress() as notify:
        claims.publish(validation.run(rows, large, repeats, notify), out)


@app.command()
def features(
    scale: Annotated[float, typer.Option(min=0.0001, help="Size; 1 is that of the claims.")] = 1.0,
    repeats: Annotated[int, typer.Option(min=1, help="Of each side; medians are reported.")] = 5,
    redis: Annotated[str, typer.Option(help="A Redis database that may be written to; empty to leave it out.")] = "",
    postgres: Annotated[str, typer.Option(help="A PostgreSQL server to make a database on; empty: left out.")] = "",
    out: JsonOption = None,
) -> None:
    """How fast features are built, joined, put online and read, against Feast's own ways and pandas."""
    from benchmarks import claims, features

    with progress() as notify:
        claims.publish(features.run(scale, repeats, redis, postgres, notify), out)


@app.command("reports")
def report_list(
    reports: Annotated[int, typer.Option(min=4, help="Days that have a report.")] = 1_000,
    repeats: Annotated[int, typer.Option(min=4, help="Repetitions of the answers while nothing changes.")] = 20,
    out: JsonOption = None,
) -> None:
    """How long the list of reports takes in Airflow's UI when a lake holds many."""
    from benchmarks import claims
    from benchmarks import reports as listing

    with progress() as notify:
        claims.publish(listing.run(reports, repeats, notify=notify), out)
