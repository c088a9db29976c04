"""A lake of a few days written by hand: what the tests of single steps read."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from components.config import Feed, Settings, parse_pipeline
from components.context import Context
from components.errors import EmptyDayError
from components.feature_list import feature_list
from components.feed.schema import ATTRIBUTE_PREFIX, BEHAVIOURS, LOG, REQUESTS, USERS, VIDEOS, DayTables
from components.feed.source import Finding
from components.inputs import model_inputs

ZONE = ZoneInfo("Asia/Shanghai")
FIRST = date(2024, 3, 4)
PLAN = f"{ATTRIBUTE_PREFIX}plan"
LONG_AGO = datetime(2023, 1, 1, tzinfo=UTC)

Row = dict[str, Any]


class Ended:
    """A source with nothing to read: every day that a test wants, it writes itself."""

    user_attributes = ("plan",)

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def read_day(self, day: date) -> DayTables:
        raise EmptyDayError(f"the test wrote no {day}")

    def check(self) -> list[Finding]:
        return []


def settings_at(home: Path) -> Settings:
    """Everything below one folder, whatever the environment says."""
    places = ("lake", "lake_endpoint", "pipelines", "mlflow_uri", "feast_registry", "online_store")
    return Settings(home=home, **dict.fromkeys(places, ""))


def context_at(home: Path, *, first_day: date = FIRST, last_day: date | None = None, **changes: Any) -> Context:
    """A pipeline in Shanghai's time whose feed is ``Ended``; a short window unless told."""
    feed = {
        "kind": "python",
        "factory": "tests.small_lake:Ended",
        "timezone": ZONE.key,
        "first_day": first_day,
        "last_day": last_day,
    }
    data = {"name": "small", "feed": feed, "train": {"window_days": 2}} | changes
    return Context(parse_pipeline(data, where="test"), settings_at(home))


def day_at(index: int) -> date:
    """The feed's days, counted from 0."""
    return FIRST + timedelta(days=index)


def at(day: date, hour: int, minute: int = 0, second: int = 0, us: int = 0) -> datetime:
    """A moment of the feed's local clock, in UTC."""
    return datetime(day.year, day.month, day.day, hour, minute, second, us, tzinfo=ZONE).astimezone(UTC)


def shown(user: int, video: int, moment: datetime, **changes: Any) -> Row:
    """One impression: five of ten seconds watched, clicked, nothing else."""
    row: Row = {
        "user_id": user,
        "video_id": video,
        "creator_id": video // 10,
        "session_id": user * 1_000_000 + moment.astimezone(ZONE).date().toordinal(),
        "event_time": moment,
        "watch_ms": 5_000,
        "duration_ms": 10_000,
        **dict.fromkeys(BEHAVIOURS, 0),
        "click": 1,
        "surface": "feed",
        "is_random": False,
        "propensity": 0.5,
    }
    return row | changes


def log_table(rows: Iterable[Row]) -> pa.Table:
    """Impressions as a log partition holds them; positions count within a session unless they are given."""
    count: Counter[int] = Counter()
    placed = []
    for row in sorted(rows, key=lambda one: (one["user_id"], one["event_time"], one["video_id"])):
        placed.append({"position": count[row["session_id"]]} | row)
        count[row["session_id"]] += 1
    return pa.Table.from_pylist(placed, schema=LOG)


def users_table(ids: Iterable[int], registered: dict[int, datetime | None] | None = None) -> pa.Table:
    """Users of long ago on plan ``p<id>``, except those whose registration is given."""
    schema = USERS.append(pa.field(PLAN, pa.string()))
    since = registered or {}
    rows = [{"user_id": one, "registered_at": since.get(one, LONG_AGO), PLAN: f"p{one}"} for one in sorted(ids)]
    return pa.Table.from_pylist(rows, schema=schema)


def videos_table(ids: Iterable[int], uploaded: dict[int, datetime | None] | None = None) -> pa.Table:
    """Videos of long ago, ten seconds long, topic by the id's last digit, except those whose upload is given."""
    since = uploaded or {}
    rows = [
        {
            "video_id": one,
            "uploaded_at": since.get(one, LONG_AGO),
            "creator_id": one // 10,
            "topic": f"t{one % 10}",
            "duration_ms": 10_000,
        }
        for one in sorted(ids)
    ]
    return pa.Table.from_pylist(rows, schema=VIDEOS)


def write(context: Context, dataset: str, day: date, table: pa.Table, **facts: Any) -> None:
    """One partition."""
    with context.data.write(dataset, day) as writer:
        writer.table(table)
        writer.facts.update(facts)


def write_day(
    context: Context,
    day: date,
    rows: Iterable[Row],
    *,
    users: pa.Table | None = None,
    videos: pa.Table | None = None,
    requests: list[Row] | None = None,
) -> None:
    """What ingest would have written; users and videos are those of the log unless they are given."""
    log = log_table(rows)
    write(context, "users", day, users_table(set(log["user_id"].to_pylist())) if users is None else users)
    write(context, "videos", day, videos_table(set(log["video_id"].to_pylist())) if videos is None else videos)
    if requests is not None:
        write(context, "requests", day, pa.Table.from_pylist(requests, schema=REQUESTS))
    write(context, "log", day, log, refused={}, refused_share=0.0)


def feature_columns(entity: str, rows: int, value: float = 0.0) -> Iterator[tuple[str, pa.Array]]:
    """Every feature of an entity that models read, with the same value in each row."""
    lists = {"list": pa.int64(), "ids": pa.int64(), "names": pa.string(), "numbers": pa.float32()}
    for feature in feature_list(Ended.user_attributes):
        if feature.entity == entity:
            kind = {"category": pa.string(), "id": pa.int64()}
            dtype = pa.list_(lists[feature.kind]) if feature.is_list else kind.get(feature.kind, pa.float32())
            fill = [] if feature.is_list else {"category": "", "id": -1}.get(feature.kind, value)
            yield feature.name, pa.array([fill] * rows, dtype)


def filled(table: pa.Table) -> pa.Table:
    """The table with defaults and scales, as steps hand it to models."""
    return model_inputs(table, feature_list(Ended.user_attributes))
