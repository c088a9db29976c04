"""``mfh world``: write the built-in world as files."""

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from components.config import WorldFeed
from components.errors import ConfigError
from components.progress import progress

_KNOWN = WorldFeed.model_fields


def world(
    users: Annotated[int, typer.Option(min=1, help="Users who are there on the first day.")],
    days: Annotated[int, typer.Option(min=1, help="Days to write; about 12 impressions per user and day.")],
    out: Annotated[Path, typer.Option(help="Folder for the feed; it must be empty or not there.")],
    videos: Annotated[int, typer.Option(min=1, help="Videos that are there on the first day.")] = _KNOWN[
        "videos"
    ].default,
    new_users: Annotated[int | None, typer.Option(min=0, help="New users per day; default: 1 % of --users.")] = None,
    new_videos: Annotated[int | None, typer.Option(min=0, help="New videos per day; default: 7 % of --videos.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same world.")] = _KNOWN["seed"].default,
    first_day: Annotated[str, typer.Option(help="First day, YYYY-MM-DD.")] = "2026-01-01",
    timezone: Annotated[str, typer.Option(help="Zone whose midnight is the edge of a day.")] = "UTC",
    candidates: Annotated[int, typer.Option(min=2, help="Candidates of a slot.")] = _KNOWN["slot_candidates"].default,
    uniform_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of slots that a uniform draw fills.")
    ] = _KNOWN["uniform_share"].default,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Blocks of users, each a file per day; default: one per 16,384 users.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; default: one per core.")] = None,
    force: Annotated[bool, typer.Option(help="Replace the world that lies in the folder.")] = False,
) -> None:
    """Write a world with known truth as Parquet files, and a pipeline over them."""
    from pydantic import ValidationError

    from components.world_files import write_world

    try:
        settings = WorldFeed(
            seed=seed,
            first_day=date.fromisoformat(first_day),
            timezone=timezone,
            users=users,
            new_users_per_day=users // 100 if new_users is None else new_users,
            videos=videos,
            new_videos_per_day=round(videos / 15) if new_videos is None else new_videos,
            slot_candidates=candidates,
            uniform_share=uniform_share,
        )
    except ValidationError as error:
        raise ConfigError("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from error
    except ValueError as error:
        raise typer.BadParameter(f"--first-day {first_day!r} is not a date (YYYY-MM-DD)") from error
    with progress() as notify:
        written = write_world(settings, days, out, shards=shards, workers=workers, force=force, notify=notify)
    typer.echo(
        f"{written.impressions:,} impressions, {written.bytes / 2**20:,.0f} MiB in {written.seconds:.1f} s: "
        f"{written.impressions / written.seconds / 1e6:.2f} million a second"
    )
    typer.echo(f"{out / 'pipeline.yaml'}  for 'mfh source check --pipeline' and 'mfh run --pipeline'")
