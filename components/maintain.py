"""Maintenance: remove superseded versions and old partitions, never what a champion, a report or a running job needs.

``plan`` says what would go and why the rest stays; ``remove`` removes it. What stays, whatever its age:

- bundles behind an alias, and those of the last champions, for rolling back;
- reports and what they show (experiment, evaluation, replay, validation pages), for as long as the settings say;
- what was written within the grace period, all that it was made from, and the whole window of its days: a running job
  reads nothing else. This holds for every pipeline over the same feed.

A version goes only when the manifest of its day names another one. It is moved aside first and the manifest is read
again: a run that has just committed the same content gets it back.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from components.checkpoints import FOLDER as CHECKPOINTS
from components.config import Pipeline, load_pipeline
from components.context import Context
from components.errors import LakeError
from components.feature_list import LONGEST_WINDOW
from components.lake import MANIFEST, Lake, Partition
from components.locks import exclusive
from components.logs import line
from components.validation.passes import DATASET as PASSES
from components.window import snapshot_days, train_days

log = logging.getLogger("mfh")

Kind = Literal["superseded", "expired", "leftover"]

GATED = ("log", "features", "training_set", "models")
# What people open, and what it shows.
REPORTED = frozenset(
    {"report", "experiment", "evaluation", "replay", "diagnostics", "promotion", "champion", "fusion"}
    # What gates found and who let it pass; later days are judged by the summaries of earlier ones.
    | {f"{kind}_{what}" for kind in ("validation", "summary") for what in GATED}
    | {PASSES}
)
STAGING = "_staging"
TRASH = ".trash-"


@dataclass(frozen=True)
class Removal:
    """One thing that goes.

    Attributes:
        kind: A version that its day's manifest no longer names, a whole old partition, or a leftover of a killed run.
        path: Folder inside the lake's file system.
        bytes: Its size.
        why: In words.
    """

    kind: Kind
    path: str
    bytes: int
    why: str


@dataclass(frozen=True)
class _Place:
    """A day of a dataset: the partition if there is one, and when its manifest was written."""

    lake: Lake
    dataset: str
    day: date
    folder: str
    partition: Partition | None
    written: datetime

    @property
    def name(self) -> str:
        """As manifests name their inputs."""
        return f"{self.dataset}/{self.day}"


@dataclass(frozen=True)
class Result:
    """What a maintenance found, and how many bytes it freed."""

    removals: list[Removal]
    freed: int


def run(context: Context, *, apply: bool) -> Result:
    """Plan, and remove if asked; one maintenance of a pipeline at a time.

    Args:
        context: Pipeline and settings.
        apply: Whether to remove what was found.

    Returns:
        What was found, and what was freed.

    Raises:
        ModelRegistryError: When nobody can say what serves.
        LakeError: When the lake can not be read, or something can not be removed.
        ConfigError: When a pipeline file of this machine can not be read: its windows are unknown.
    """
    settings = context.settings
    others = [load_pipeline(file) for file in sorted(settings.pipelines_dir.glob("*.yaml"))]
    with exclusive(settings.home / "locks" / f"maintain-{context.pipeline.source_id}.lock"):
        found = plan(context, bundles_that_serve(context), datetime.now(UTC), others)
        freed = remove(context, found) if apply else 0
    what = "removed" if apply else "planned"
    fields = {"event": "maintain", "pipeline": context.pipeline.name, what: len(found), "bytes": freed}
    log.info("%s", line(fields, settings.log_format))
    return Result(found, freed)


def plan(context: Context, bundles: Iterable[str], now: datetime, others: Iterable[Pipeline] = ()) -> list[Removal]:
    """What may go.

    Args:
        context: Pipeline and settings.
        bundles: Folders of the bundles that must stay: those behind aliases and of former champions.
        now: The moment from which the grace period counts back.
        others: Further pipelines of this machine; those over the same feed need their windows too.

    Returns:
        Removals, sorted by path.

    Raises:
        LakeError: When a manifest can not be read; nothing is removed from a lake that is damaged.
    """
    settings, kept_bundles = context.pipeline.retention, frozenset(bundles)
    since = now - timedelta(hours=settings.grace_hours)
    data = list(_places(context.data))
    runs = [place for lake in _run_lakes(context) for place in _places(lake)]
    newest = max((place.day for place in data if place.dataset == "log"), default=None)
    found = list(_leftovers(context, since))
    if newest is None:
        return sorted(found, key=lambda one: one.path)
    pipelines = [context.pipeline, *(one for one in others if one.source_id == context.pipeline.source_id)]
    needed = _needed(data, runs, since, newest, pipelines)
    for place in [*data, *runs]:
        if place.folder in needed:
            continue
        limit = _limit(place, newest, context.pipeline, of_data=place.lake.root == context.data.root)
        old = place.partition is not None and limit is not None and place.day < limit
        if old and not _serves(context, place, kept_bundles):
            why = f"older than {limit}, and nothing needs it"
            found.append(Removal("expired", place.folder, _size(context, place.folder), why))
        else:
            found += _superseded(context, place, kept_bundles, since)
    return sorted(found, key=lambda one: one.path)


def remove(context: Context, removals: Iterable[Removal]) -> int:
    """Remove what a plan names; what has changed since is left alone.

    Args:
        context: Pipeline and settings.
        removals: From ``plan``.

    Returns:
        Bytes that were freed.

    Raises:
        LakeError: When something can not be removed; what went before is gone, the rest is as it was.
    """
    lake, freed = context.data, 0
    for one in removals:
        try:
            if one.kind == "expired":
                # Without its manifest it does not exist, so nobody begins to read it.
                lake.fs.rm_file(f"{one.path}/{MANIFEST}")
                lake.fs.rm(one.path, recursive=True)
            elif one.kind == "superseded" and not _remove_version(lake, one.path):
                continue
            elif one.kind == "leftover":
                lake.fs.rm(one.path, recursive=True)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise LakeError(
                f"{one.path} could not be removed: {error}; check permissions ('mfh doctor' does)"
            ) from error
        freed += one.bytes
    return freed


def bundles_that_serve(context: Context) -> set[str]:
    """Folders of the bundles that maintenance must leave: behind every alias, and of the last champions.

    Args:
        context: Pipeline and settings.

    Returns:
        Paths inside the lake's file system.

    Raises:
        ModelRegistryError: When the registry can not be read: then nobody knows what serves, so nothing may go.
    """
    from components import audit
    from components.model_registry import Registry

    registry = Registry(context, create=True)
    former = audit.champions(audit.read(context))[-1 - context.pipeline.retention.champions :]
    wanted = {*registry.aliases().values(), *former}
    return {version.folder for version in registry.versions() if version.number in wanted}


def _needed(
    data: list[_Place], runs: list[_Place], since: datetime, newest: date, pipelines: list[Pipeline]
) -> frozenset[str]:
    """Folders of days that running jobs read: fresh ones, what they were made from, and their days' windows."""
    places = [*data, *runs]
    by_name: dict[str, list[_Place]] = {}
    for place in places:
        by_name.setdefault(place.name, []).append(place)
    fresh = [place for place in places if place.written >= since]
    found: set[str] = set()
    waiting = list(fresh)
    while waiting:
        place = waiting.pop()
        if place.folder in found:
            continue
        found.add(place.folder)
        if place.partition is not None:
            waiting += [one for name in place.partition.manifest.inputs for one in by_name.get(name, ())]
    # The next day's run reads the newest days, and a backfill's days are those in which something is fresh.
    days = {place.day for place in fresh} | {newest, newest + timedelta(days=1)}
    window = {one for day in days for pipeline in pipelines for one in _window(pipeline, day)}
    return frozenset(found | {place.folder for place in data if place.day in window})


def _window(pipeline: Pipeline, day: date) -> set[date]:
    """Every day whose data a run of ``day`` may read, activity of users included."""
    known = [*snapshot_days(pipeline, day), *train_days(pipeline, day), day]
    # Window features of the first snapshot are sums over the days before it.
    first = min(known) - timedelta(days=LONGEST_WINDOW)
    return {first + timedelta(days=offset) for offset in range((day - first).days + 1)}


def _limit(place: _Place, newest: date, pipeline: Pipeline, *, of_data: bool) -> date | None:
    """The day before which a partition is old; None where it never is."""
    settings = pipeline.retention
    if place.dataset in REPORTED:
        return None if settings.report_days is None else newest - timedelta(days=settings.report_days)
    return newest - timedelta(days=settings.data_days if of_data else settings.work_days)


def _superseded(context: Context, place: _Place, bundles: frozenset[str], since: datetime) -> Iterator[Removal]:
    named = place.partition.content_hash[:16] if place.partition is not None else None
    for path in _folders(context.data, place.folder):
        name = path.rsplit("/", 1)[-1]
        if name == named or path in bundles or _modified(context.data, path) >= since:
            continue
        yield Removal("superseded", path, _size(context, path), f"the manifest of {place.name} names {named}")


def _serves(context: Context, place: _Place, bundles: frozenset[str]) -> bool:
    """Whether a version of the day serves, superseded or not, so that the day's folder has to stay."""
    return any(path in bundles for path in _folders(context.data, place.folder))


def _leftovers(context: Context, since: datetime) -> Iterator[Removal]:
    """Staging folders of writers that were killed, and checkpoints of trainings that never went on."""
    for lake in [context.data, *_run_lakes(context)]:
        for folder in (STAGING, CHECKPOINTS):
            for path in _folders(lake, lake.path(folder)):
                newest = max([_modified(lake, path), *(_time(info) for info in _files(lake, path))])
                if newest < since:
                    yield Removal("leftover", path, _size(context, path), f"untouched since {newest:%F %R} UTC")


def _remove_version(lake: Lake, path: str) -> bool:
    """Remove a version that its manifest does not name; False when a run has named it meanwhile."""
    folder, _, name = path.rpartition("/")
    dataset, day = folder.rsplit("/", 2)[-2:]
    scope = Lake(folder.rsplit("/", 2)[0], lake.fs)
    if not lake.is_local:
        if _names(scope, dataset, day, name):
            return False
        lake.fs.rm(path, recursive=True)
        return True
    aside = Path(folder) / f"{TRASH}{name}"
    Path(path).rename(aside)
    if _names(scope, dataset, day, name):
        aside.rename(path)
        return False
    shutil.rmtree(aside)
    return True


def _names(lake: Lake, dataset: str, day: str, version: str) -> bool:
    found = lake.find(dataset, date.fromisoformat(day.removeprefix("ds=")))
    return found is not None and found.content_hash[:16] == version


def _run_lakes(context: Context) -> list[Lake]:
    """Scopes of the pipeline's runs, one per configuration that it ever had."""
    top = context.data.path(context.pipeline.name)
    return [context.data.scope(context.pipeline.name, path.rsplit("/", 1)[-1]) for path in _folders(context.data, top)]


def _places(lake: Lake) -> Iterator[_Place]:
    for path in sorted(str(one) for one in lake.fs.glob(lake.path("*", "ds=*"))):
        dataset, _, name = path.removeprefix(f"{lake.root}/").partition("/")
        day = date.fromisoformat(name.removeprefix("ds="))
        partition = lake.find(dataset, day)
        # A folder without a manifest is as fresh as its newest version: a writer may be about to commit it.
        where = f"{path}/{MANIFEST}" if partition is not None else path
        yield _Place(lake, dataset, day, path, partition, _modified(lake, where))


def _folders(lake: Lake, path: str) -> list[str]:
    try:
        found = lake.fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    return sorted(str(info["name"]) for info in found if info["type"] == "directory")


def _files(lake: Lake, path: str) -> list[dict[str, Any]]:
    return list(lake.fs.find(path, detail=True).values())


def _size(context: Context, path: str) -> int:
    return sum(int(info["size"]) for info in _files(context.data, path))


def _modified(lake: Lake, path: str) -> datetime:
    try:
        moment = _time(lake.fs.info(path))
    except FileNotFoundError:
        return datetime.now(UTC)
    if moment.year > 1970:
        return moment
    # A folder of an object store has no time of its own.
    return max((_time(info) for info in _files(lake, path)), default=moment)


def _time(info: dict[str, Any]) -> datetime:
    found = info.get("mtime")
    if isinstance(found, datetime):
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return datetime.fromtimestamp(float(found or 0), UTC)
