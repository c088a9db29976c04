"""Clean days for the faults' benchmark, judged one after the other as the pipeline would meet them.

Limits are never tuned on what is reported: ``DESIGN_SEEDS`` are for whoever writes a check, ``REPORT_SEEDS`` for the
table.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from components.chaos import Scene
from components.config import Pipeline, parse_pipeline
from components.days import bounds
from components.feature_list import LONGEST_WINDOW, Entity, Feature
from components.features import ENTITIES, PARTIALS
from components.feed.canonical import clean
from components.feed.schema import TIME, DayTables
from components.feed.source import Source, features_of, open_source
from components.partials import affinity_partial_of, partial_of
from components.snapshots import snapshot_of
from components.validation.feature_gate import check_features
from components.validation.log_gate import Verdict, check_delivery
from components.validation.summary import Summary

Size = Literal["small", "middle", "shipped"]
Notify = Callable[[int, int, str], None]
Snapshots = dict[Entity, pa.Table]

FIRST_DAY = date(2026, 1, 1)
# Users, new users a day, videos, new videos a day; the last are the settings of the shipped pipeline.
SIZES: dict[Size, tuple[int, int, int, int]] = {
    "small": (400, 4, 300, 20),
    "middle": (1_500, 15, 500, 30),
    "shipped": (6_000, 60, 1_500, 100),
}
DESIGN_SEEDS = (9_001, 9_002, 9_003, 9_004, 9_005)
REPORT_SEEDS = (41, 42, 43, 44, 45)


@dataclass(frozen=True)
class CleanDays:
    """A run of clean days in order.

    Attributes:
        name: For the table.
        size: What the days are of: a world's size, or a feed's name.
        pipeline: Over their feed.
        days: The days.
        with_features: Whether feature snapshots are built and judged too.
    """

    name: str
    size: str
    pipeline: Pipeline
    days: tuple[date, ...]
    with_features: bool


@dataclass(frozen=True)
class Judged:
    """A clean day with the verdicts of its gates.

    Attributes:
        day: The day.
        tables: As delivered.
        log: What the log's gate says.
        snapshots: Feature snapshots as of its end; none where none were wanted.
        features: What their gate says, None where there are none.
        log_history: What the log's gate knew of earlier days.
        feature_history: What the features' gate knew of them.
    """

    day: date
    tables: DayTables
    log: Verdict
    snapshots: Snapshots
    features: Verdict | None
    log_history: tuple[Summary, ...]
    feature_history: tuple[Summary, ...]


@dataclass(frozen=True)
class Stage:
    """A day for faults, with what its gates know of the days before.

    Attributes:
        clean: Whose last day it is.
        scene: The day and the one before.
        today: Verdicts on it before anything is planted, and the history behind them.
        snapshots_before: Those of the day before.
    """

    clean: CleanDays
    scene: Scene
    today: Judged
    snapshots_before: Snapshots


def world(size: Size, seed: int, days: int, with_features: bool = False) -> CleanDays:
    """The first days of a world, over the tasks and groups of the shipped pipeline.

    Args:
        size: How large.
        seed: Which world.
        days: How many days.
        with_features: Whether feature snapshots are judged too.

    Returns:
        The days.
    """
    users, new_users, videos, new_videos = SIZES[size]
    feed = {
        "kind": "world",
        "first_day": FIRST_DAY,
        "seed": seed,
        "users": users,
        "new_users_per_day": new_users,
        "videos": videos,
        "new_videos_per_day": new_videos,
    }
    pipeline = parse_pipeline({"name": f"world_{size}", "feed": feed, "groups": {"new_tenure_days": 14}}, "benchmark")
    period = tuple(FIRST_DAY + timedelta(days=n) for n in range(days))
    return CleanDays(f"world, {size}, seed {seed}", size, pipeline, period, with_features)


def kuairand(folder: str, skip: int = 0, with_features: bool = False) -> CleanDays:
    """The days of a KuaiRand edition.

    Args:
        folder: Where it lies.
        skip: Days at its beginning that are left out, such as one that the slice holds an hour of.
        with_features: Whether feature snapshots are judged too.

    Returns:
        Its days.
    """
    from components.feed.kuairand import detect_days

    first, last = detect_days(folder)
    first += timedelta(days=skip)
    feed = {"kind": "kuairand", "folder": folder, "first_day": first, "last_day": last}
    tasks = [{"name": name} for name in ("completion", "finish", "skip", "click", "long_view", "like")]
    data = {"name": "kuairand", "feed": feed, "groups": {"new_tenure_days": 90}, "tasks": tasks}
    pipeline = parse_pipeline(data, "benchmark")
    period = tuple(first + timedelta(days=n) for n in range((last - first).days + 1))
    return CleanDays("KuaiRand", "KuaiRand", pipeline, period, with_features)


def judged(run: CleanDays, notify: Notify = lambda done, total, what: None) -> Iterator[Judged]:
    """Every day judged by what the days before it teach. A day that its gate stops teaches nothing.

    Args:
        run: The days.
        notify: Called with (done, total, what).

    Yields:
        The days in order.
    """
    source, features = open_source(run.pipeline.feed), features_of(run.pipeline.feed)
    log_history: list[Summary] = []
    feature_history: list[Summary] = []
    partials: dict[date, dict[str, pa.Table]] = {}
    for done, day in enumerate(run.days):
        notify(done, len(run.days), f"{run.name}: {day}")
        one = _judge(run, source, features, day, partials, tuple(log_history), tuple(feature_history))
        for verdict, history in ((one.log, log_history), (one.features, feature_history)):
            if verdict is not None and verdict.summary is not None and not verdict.stops:
                history.append(verdict.summary)
        yield one


def stage(run: CleanDays, days: list[Judged]) -> Stage:
    """The last of some clean days as a stage for faults.

    Args:
        run: Whose days.
        days: At least the last two of them, judged.

    Returns:
        The stage.
    """
    before, last = days[-2:]
    scene = Scene(last.day, run.pipeline.feed.zone, last.tables, before.tables)
    return Stage(run, scene, last, before.snapshots)


def judge_snapshots(
    run: CleanDays, features: tuple[Feature, ...], day: date, snapshots: Snapshots, history: tuple[Summary, ...]
) -> Verdict:
    """The features' gate on a day's snapshots.

    Args:
        run: Whose day.
        features: The feed's list.
        day: The day.
        snapshots: By entity.
        history: Summaries of earlier days.

    Returns:
        The verdict.
    """
    age = (day - run.pipeline.feed.first_day).days + 1
    return check_features(day, snapshots, features, age, history)


def _judge(
    run: CleanDays,
    source: Source,
    features: tuple[Feature, ...],
    day: date,
    partials: dict[date, dict[str, pa.Table]],
    log_history: tuple[Summary, ...],
    feature_history: tuple[Summary, ...],
) -> Judged:
    tables = source.read_day(day)
    log = check_delivery(tables, day, run.pipeline, log_history)
    if not run.with_features:
        return Judged(day, tables, log, {}, None, log_history, ())
    cleaned = clean(tables, run.pipeline.feed, day)
    partials[day] = _partials(run, cleaned.log, cleaned.videos)
    for old in [one for one in partials if (day - one).days >= LONGEST_WINDOW]:
        del partials[old]
    snapshots = {entity: _snapshot(run, entity, day, partials) for entity in ENTITIES}
    verdict = judge_snapshots(run, features, day, snapshots, feature_history)
    return Judged(day, tables, log, snapshots, verdict, log_history, feature_history)


def _partials(run: CleanDays, log: pa.Table, videos: pa.Table) -> dict[str, pa.Table]:
    """A day's partials as the step of the day makes them."""
    last, zone = run.pipeline.features.last_videos, run.pipeline.feed.timezone
    topics = videos["topic"].take(pc.index_in(log["video_id"], videos["video_id"]))
    return {
        "user_partial": partial_of(log, "user", last, zone),
        "video_partial": partial_of(log, "video", last),
        "user_topic_partial": affinity_partial_of(log, topics),
        "user_creator_partial": affinity_partial_of(log, log["creator_id"]),
    }


def _snapshot(run: CleanDays, entity: Entity, day: date, partials: dict[date, dict[str, pa.Table]]) -> pa.Table:
    """A snapshot as the step of the day writes it."""
    parts = {name: {(day - past).days: one[name] for past, one in partials.items()} for name in PARTIALS[entity]}
    table = snapshot_of(parts, entity, run.pipeline.features.last_videos)
    _, end = bounds(day, run.pipeline.feed.zone)
    return table.append_column("available_at", pa.repeat(pa.scalar(end, TIME), table.num_rows))
