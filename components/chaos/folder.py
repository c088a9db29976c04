"""A feed with one planted day, as a folder of files and a pipeline over it: a fault that a person can run.

    log/day=2026-01-09.parquet          one file per day (CSV for a fault of text files), the same for
    users/…, videos/…, requests/…       what else the feed delivers
    pipeline.yaml                       the given pipeline, reading these files
    chaos.json                          what was planted
    home/                               for a fault of a feature snapshot: a lake in which it is planted

Days before the planted one are as the feed delivers them, since training windows and limits learned from history
need them.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import yaml

from components.chaos.fault import SNAPSHOTS, Fault
from components.chaos.planting import check_rate, plant, plant_bytes, plant_snapshot, unmet
from components.chaos.scene import Scene
from components.config import FilesFeed, Pipeline, Settings, TableMapping, parse_pipeline
from components.context import Context
from components.days import day_range
from components.errors import ConfigError, LakeError
from components.feed.schema import ATTRIBUTE_PREFIX, LOG, PAST, REQUESTS, USERS, VIDEOS, DayTables
from components.feed.source import open_source, require_day

PIPELINE, RECORD, HOME = "pipeline.yaml", "chaos.json", "home"
_SCHEMAS = {"log": LOG, "users": USERS, "videos": VIDEOS, "requests": REQUESTS}
# A name of a pipeline has at most 41 letters.
_NAME_LETTERS = 35


@dataclass(frozen=True)
class Planted:
    """What was planted, as ``chaos.json`` keeps it.

    Attributes:
        fault: Name of the fault.
        day: The planted day.
        rate: As given.
        seed: As given.
        first_day: First day of the folder.
        rows: Rows of the planted table before and after; bytes of the file for a fault of files, None for no file.
        notes: What the folder lacks of the feed.
    """

    fault: str
    day: str
    rate: float
    seed: int
    first_day: str
    rows: tuple[int, int | None]
    notes: tuple[str, ...]


def write_planted(
    pipeline: Pipeline,
    fault: Fault,
    day: date,
    rate: float,
    out: Path,
    *,
    seed: int = 1,
    history_days: int = 21,
    notify: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Planted:
    """Write a feed whose last day is planted.

    Args:
        pipeline: Whose feed and settings.
        fault: What to plant.
        day: Into which day.
        rate: At what rate, from 0 to 1.
        out: Folder that is empty or not there.
        seed: Which rows it strikes.
        history_days: Days before it that are written as they are; fewer where the feed begins later.
        notify: Called with (done, total, what).

    Returns:
        What was planted.

    Raises:
        ConfigError: When the folder is not empty, the rate is no share, or the feed lacks what the fault changes.
        SourceError: When the feed can not be read or does not cover the day.
        LakeError: When the folder can not be written.
    """
    check_rate(rate)
    require_day(pipeline.feed, day)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty folder; name another one with --out")
    first = max(pipeline.feed.first_day, day - timedelta(days=history_days))
    source = open_source(pipeline.feed)
    suffix = "csv" if fault.csv else "parquet"
    before: DayTables | None = None
    days = list(day_range(first, day))
    try:
        for done, one in enumerate(days):
            notify(done, len(days), f"write {one}")
            tables = source.read_day(one)
            if one < day:
                _write_day(out, one, tables, suffix)
                before = tables
        rows = _write_planted_day(out, Scene(day, pipeline.feed.zone, tables, before), fault, rate, seed, suffix)
        chosen = _pipeline(pipeline, out, tables, first, day, suffix)
        (out / PIPELINE).write_text(yaml.safe_dump(chosen.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        if fault.where in SNAPSHOTS:
            rows = _plant_in_lake(chosen, out, fault, day, rate, seed)
        notes = tuple(f"{name} of users and videos" for name in PAST if name in tables.users.column_names)
        planted = Planted(fault.name, day.isoformat(), rate, seed, first.isoformat(), rows, notes)
        (out / RECORD).write_text(json.dumps(asdict(planted), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise LakeError(f"the planted feed can not be written to {out}: {error}; what is there is not whole") from error
    notify(len(days), len(days), "planted")
    return planted


def _write_planted_day(
    out: Path, scene: Scene, fault: Fault, rate: float, seed: int, suffix: str
) -> tuple[int, int | None]:
    if fault.where == "file":
        if missing := unmet(fault, scene.tables):
            raise ConfigError(f"fault {fault.name!r} needs {missing}, which this feed does not deliver")
        _write_day(out, scene.day, scene.tables, suffix)
        path = _file(out, "log", scene.day, suffix)
        earlier = _file(out, "log", scene.day - timedelta(days=1), suffix)
        content = path.read_bytes()
        broken = plant_bytes(
            fault, content, earlier.read_bytes() if scene.before else None, scene.day, rate=rate, seed=seed
        )
        if broken is None:
            path.unlink()
        else:
            path.write_bytes(broken)
        return len(content), None if broken is None else len(broken)
    planted = scene.tables if fault.where in SNAPSHOTS else plant(fault, scene, rate, seed)
    _write_day(out, scene.day, planted, suffix)
    name = "log" if fault.where in SNAPSHOTS else fault.where
    return getattr(scene.tables, name).num_rows, getattr(planted, name).num_rows


def _plant_in_lake(
    pipeline: Pipeline, out: Path, fault: Fault, day: date, rate: float, seed: int
) -> tuple[int, int | None]:
    """Build the day's snapshots in a lake of its own, and put the broken one in place of the good one."""
    from components.features import features
    from components.ingest import ingest

    settings = Settings(home=out / HOME, lake="", lake_endpoint="")
    context = Context(pipeline, settings, run={"command": "mfh chaos data"})
    ingest(context, day)
    features(context, day)
    snapshot = context.data.get(fault.where, day)
    earlier = context.data.find(fault.where, day - timedelta(days=1))
    table = snapshot.table()
    broken = plant_snapshot(fault, table, None if earlier is None else earlier.table(), day, rate, seed)
    with context.data.write(fault.where, day, inputs=snapshot.manifest.inputs) as writer:
        writer.table(broken)
    return table.num_rows, broken.num_rows


def _write_day(out: Path, day: date, tables: DayTables, suffix: str) -> None:
    users = tables.users.select([name for name in tables.users.column_names if name not in PAST])
    users = users.rename_columns([name.removeprefix(ATTRIBUTE_PREFIX) for name in users.column_names])
    videos = tables.videos.select([name for name in tables.videos.column_names if name not in PAST])
    _write(tables.log, _file(out, "log", day, suffix))
    _write(users, _file(out, "users", day, "parquet"))
    _write(videos, _file(out, "videos", day, "parquet"))
    if tables.requests is not None:
        _write(tables.requests, _file(out, "requests", day, "parquet"))


def _file(out: Path, table: str, day: date, suffix: str) -> Path:
    return out / table / f"day={day}.{suffix}"


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        pacsv.write_csv(table, path)
    else:
        pq.write_table(table, path, compression="zstd")


def _pipeline(pipeline: Pipeline, out: Path, tables: DayTables, first: date, day: date, suffix: str) -> Pipeline:
    """The pipeline over the folder: every column under its own name."""

    def mapping(name: str) -> TableMapping:
        table: pa.Table = getattr(tables, name)
        attributes = [one for one in table.column_names if one.startswith(ATTRIBUTE_PREFIX)]
        return TableMapping(
            path=f"{name}/day={{day}}.{suffix if name == 'log' else 'parquet'}",
            columns={one: one for one in _SCHEMAS[name].names if one in table.column_names},
            attributes=tuple(one.removeprefix(ATTRIBUTE_PREFIX) for one in attributes) if name == "users" else (),
        )

    calendar = pipeline.feed.model_dump(include={"timezone", "session_gap_min", "skip_below_ms", "max_watch_ms"})
    feed = FilesFeed(
        **calendar,
        first_day=first,
        last_day=day,
        folder=str(out.resolve()),
        log=mapping("log"),
        users=mapping("users"),
        videos=mapping("videos"),
        requests=None if tables.requests is None else mapping("requests"),
    )
    data = pipeline.model_dump(mode="json") | {
        "name": f"{pipeline.name[:_NAME_LETTERS]}_chaos",
        "feed": feed.model_dump(mode="json"),
    }
    return parse_pipeline(data, where=str(out / PIPELINE))
