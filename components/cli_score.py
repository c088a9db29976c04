"""``mfh score``: what a model says of a user and candidates, with features from the online store."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.config import Settings, find_pipeline
from components.context import Context
from components.errors import BundleError, MissingPartitionError

if TYPE_CHECKING:
    from components.models.fitted import Fitted


def score(
    user: Annotated[int, typer.Option(help="Id of the user who asks.")],
    candidates: Annotated[str, typer.Option(help="Ids of the candidate videos, with commas between.")],
    day: Annotated[str | None, typer.Option("--date", "-d", help="Day whose bundle scores; default: newest.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of a bundle, instead of one of the lake.")] = None,
    role: Annotated[str, typer.Option(help="Arm of the day: treatment or baseline.")] = "treatment",
    at: Annotated[
        str | None, typer.Option(help="Moment of the request, ISO; default: up to where online is filled.")
    ] = None,
    surface: Annotated[str, typer.Option(help="Where in the product, as the log calls it.")] = "",
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="Name of a pipeline, or a YAML file.")
    ] = None,
    out: Annotated[str | None, typer.Option("--json", help="File for the scores, '-' for standard output.")] = None,
) -> None:
    """Score candidates for a user, with features from the online store."""
    import json

    from rich.console import Console
    from rich.table import Table

    from components.scorer import OnlineScorer, Request

    settings = Settings()
    context = Context(find_pipeline(settings, pipeline), settings)
    scorer = OnlineScorer(context, _bundle(context, bundle, day, role))
    moment = _moment(at) or scorer.online.until() or datetime.now(UTC)
    request = Request(user, _ids(candidates), moment, surface)
    scores = scorer.score(request)
    rows: list[dict[str, Any]] = [
        {"video_id": video, **dict(zip(scores.tasks, map(float, values), strict=True))}
        for video, values in zip(request.video_ids, scores.values, strict=True)
    ]
    console = Console(stderr=out == "-")
    table = Table("video", *scores.tasks)
    for row in rows:
        table.add_row(str(row["video_id"]), *(f"{row[task]:.4f}" for task in scores.tasks))
    console.print(table)
    console.print(f"group {scores.group}, at {moment.isoformat()}; not online: {scores.unknown}", highlight=False)
    if out is not None:
        record = {"user_id": user, "at": moment.isoformat(), "group": scores.group, "unknown": scores.unknown}
        text = json.dumps(record | {"scores": rows}, indent=1) + "\n"
        typer.echo(text, nl=False) if out == "-" else Path(out).write_text(text, encoding="utf-8")


def _bundle(context: Context, folder: Path | None, day: str | None, role: str) -> "Fitted":
    from components.models import bundle as bundles
    from components.train import bundle_files

    if folder is not None:
        files = {name: (folder / name).read_bytes() for name in bundles.FILES if (folder / name).is_file()}
        if not files:
            raise BundleError(f"{folder} holds no bundle: it lacks {', '.join(bundles.FILES)}")
        return bundles.load(files)
    if role not in ("treatment", "baseline"):
        raise typer.BadParameter(f"{role!r} is neither treatment nor baseline")
    try:
        chosen = date.fromisoformat(day) if day else max(context.runs.days(f"model_{role}"), default=None)
    except ValueError as error:
        raise typer.BadParameter(f"{day!r} is not a date (YYYY-MM-DD)") from error
    if chosen is None:
        raise MissingPartitionError(f"no model_{role} in {context.runs.root}; 'mfh run' trains one")
    return bundles.load(bundle_files(context.runs.get(f"model_{role}", chosen)))


def _ids(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.split(",") if one.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of ids") from error


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a moment (2026-01-03T12:00+00:00)") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
