"""No training row knows of its own or any later event: deleting them changes none of its features."""

import random
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.context import Context
from components.dataset import examples
from components.feature_list import feature_list
from components.features import ENTITIES, features
from components.feed.schema import BEHAVIOURS, TIME
from components.inputs import HISTORY
from components.store import open_store
from tests.small_lake import Ended, Row, at, context_at, day_at, shown, users_table, videos_table, write_day

pytestmark = pytest.mark.integration

DAYS = 3
USERS, VIDEOS = (1, 2, 3), (11, 12, 21)
COLUMNS = [
    *(f.name for f in feature_list(Ended.user_attributes) if f.role == "input"),
    *("tenure_days", "video_age_days", "log_tenure_days", "log_video_age_days"),
]


def random_log(seed: int) -> list[Row]:
    """Impressions over the days, everything that may be unknown unknown now and then."""
    draw = random.Random(seed)
    rows = []
    for index in range(DAYS):
        for number in range(draw.randrange(1, 8)):
            moment = at(day_at(index), draw.randrange(24), draw.randrange(60), draw.randrange(60), us=number)
            changes: dict[str, Any] = {
                "watch_ms": draw.choice([0, 700, 35_000]),
                "duration_ms": draw.choice([None, 10_000]),
                **{name: draw.choice([None, 0, 1]) for name in BEHAVIOURS},
            }
            rows.append(shown(draw.choice(USERS), draw.choice(VIDEOS), moment, **changes))
    return rows


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry to copy: filling one takes seconds."""
    context = context_at(tmp_path_factory.mktemp("registered"))
    open_store(context)
    return context.settings.home


def lake_with(rows: list[Row], home: Path) -> Context:
    """A lake of these rows and the snapshots of all days."""
    context = context_at(home)
    for index in range(DAYS):
        day = day_at(index)
        inside = [row for row in rows if at(day, 0) <= row["event_time"] < at(day_at(index + 1), 0)]
        write_day(context, day, inside, users=users_table(USERS), videos=videos_table(VIDEOS))
    features(context, day_at(DAYS - 1))
    return context


Spoil = Callable[[Context, date], None]


def row_features(rows: list[Row], asked: Row, registered: Path, spoil: Spoil | None = None) -> dict[str, Any]:
    """Features of one impression in the training set that is made of these rows."""
    day = next(d for d in map(day_at, range(DAYS)) if at(d, 0) <= asked["event_time"] < at(d, 24 - 1, 59, 59, 999_999))
    with TemporaryDirectory() as home:
        (Path(home) / "feast").symlink_to(registered / "feast")
        context = lake_with(rows, Path(home))
        if spoil is not None:
            spoil(context, day)
        table = examples(context, day).to_pylist()
    mine = [one for one in table if one["user_id"] == asked["user_id"] and one["event_time"] == asked["event_time"]]
    found = {name: mine[0][name] for name in COLUMNS}
    return found | {HISTORY: list(found[HISTORY])}


def without_what_follows(rows: list[Row], asked: Row) -> list[Row]:
    """The log of a world that ends with the impression: of it only the request is left, its outcome is not."""
    earlier = [row for row in rows if row["event_time"] < asked["event_time"]]
    request = asked | {"watch_ms": 0, **dict.fromkeys(BEHAVIOURS)}
    return [*earlier, request]


def leaks(rows: list[Row], asked: Row, registered: Path, spoil: Spoil | None = None) -> list[str]:
    """Features of the impression that change when everything at or after it is deleted."""
    whole = row_features(rows, asked, registered, spoil)
    cut = row_features(without_what_follows(rows, asked), asked, registered, spoil)
    return [name for name in COLUMNS if whole[name] != cut[name]]


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100_000), pick=st.floats(0, 0.999))
def test_deleting_everything_at_or_after_a_row_changes_none_of_its_features(
    registered: Path, seed: int, pick: float
) -> None:
    rows = random_log(seed)
    assert leaks(rows, rows[int(pick * len(rows))], registered) == []


def stamped_at_its_days_begin(context: Context, _day: date) -> None:
    """The classic mistake: a day's snapshot that its own requests can see."""
    for entity in ENTITIES:
        for day in context.data.days(f"{entity}_features"):
            table = context.data.get(f"{entity}_features", day).table()
            early: datetime = at(day, 0)
            stamp = pa.chunked_array([pa.array([early] * table.num_rows, TIME)])
            with context.data.write(f"{entity}_features", day) as writer:
                writer.table(table.set_column(table.column_names.index("available_at"), "available_at", stamp))


def test_a_planted_future_event_is_found_where_snapshots_leak(registered: Path) -> None:
    asked = shown(1, 11, at(day_at(1), 12))
    planted = shown(1, 11, at(day_at(1), 18), watch_ms=9_000, like=1)
    rows = [shown(2, 12, at(day_at(0), 9)), asked, planted]
    assert leaks(rows, asked, registered) == []
    found = leaks(rows, asked, registered, stamped_at_its_days_begin)
    assert {"user_watch_s_1d", "video_like_rate_1d", "pair_topic_like_lift"} <= set(found)
