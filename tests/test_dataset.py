"""The point-in-time join through Feast and DuckDB, against an as-of join in plain Python."""

import math
import shutil
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.context import Context
from components.dataset import dataset, examples, read_examples, sessions_of, videos_of
from components.errors import WindowError
from components.feature_list import Entity, Feature, feature_list
from components.features import ENTITIES, features
from components.feed.schema import TIME
from components.inputs import crosses
from components.point_in_time import historical_features
from tests.small_lake import (
    Ended,
    Row,
    at,
    context_at,
    day_at,
    shown,
    users_table,
    videos_table,
    write,
    write_day,
)

pytestmark = pytest.mark.integration

FEATURES = feature_list(Ended.user_attributes)
LAG = timedelta(minutes=60)
TTL = timedelta(days=3)
DAY = day_at(5)

USERS = (1, 2)
NEWCOMER, UNKNOWN_SINCE = 3, 4
JOINED = at(DAY, 12)
VIDEOS = (11, 12, 13)
FRESH, SELDOM = 14, 15
UPLOADED = at(DAY, 9)


def usual_rows(day: date) -> list[Row]:
    """What the two users do every day, more of it from day to day, so that no two snapshots are equal."""
    rows = []
    for user in USERS:
        for index in range(2 + (day.toordinal() + user) % 3):
            moment = at(day, 8 + 2 * index, user)
            rows.append(shown(user, VIDEOS[(index + user) % 3], moment, watch_ms=1_000 * (day.day + index)))
    return rows


def special_rows() -> list[Row]:
    """The day's rows at the edges: before, at and after the moment that the snapshot becomes available."""
    switch = at(DAY, 1)
    moments = [at(DAY, 0), switch - timedelta(microseconds=1), switch, switch + timedelta(microseconds=1)]
    rows = [shown(1, 11, moment, session_id=500 + index) for index, moment in enumerate(moments)]
    rows += [shown(NEWCOMER, FRESH, at(DAY, 13)), shown(UNKNOWN_SINCE, FRESH, at(DAY, 10), watch_ms=0)]
    rows += [shown(UNKNOWN_SINCE, FRESH, at(DAY, 0, 10))]
    rows += [shown(2, SELDOM, at(DAY, 0, 11)), shown(2, SELDOM, at(DAY, 14, 30))]
    return rows


def write_days(context: Context, extra: Iterable[Row] = (), last: int = 6) -> None:
    """Days 0 to ``last``; day 5 has the rows at the edges, and whatever else is planted on its own day."""
    planted = list(extra)
    for index in range(last + 1):
        day = day_at(index)
        rows = usual_rows(day) + (special_rows() if day == DAY else [])
        rows += [row for row in planted if at(day, 0) <= row["event_time"] < at(day_at(index + 1), 0)]
        everyone = users_table([*USERS, UNKNOWN_SINCE, NEWCOMER], {NEWCOMER: JOINED, UNKNOWN_SINCE: None})
        videos = videos_table([*VIDEOS, FRESH, SELDOM], {FRESH: UPLOADED, 13: None})
        write_day(context, day, rows, users=everyone, videos=videos)


def built(home: Path, extra: Iterable[Row] = ()) -> Context:
    context = context_at(home)
    write_days(context, extra)
    features(context, day_at(6))
    return context


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return built(tmp_path_factory.mktemp("dataset"))


@cache
def rows_of(home: Path, entity: Entity) -> tuple[list[Row], list[Row]]:
    """Rows of all snapshots, and the profiles of the last day."""
    lake = context_at(home).data
    days = lake.days(f"{entity}_features")
    snapshots = [row for day in days for row in lake.get(f"{entity}_features", day).table().to_pylist()]
    return snapshots, lake.get(f"{entity}s", days[-1]).table().to_pylist()


def as_of(context: Context, entity: Entity, one: int, moment: datetime) -> dict[str, Any]:
    """Feature values of an entity at a moment: the newest snapshot stamped at or before it and not too old."""
    found: dict[str, Any] = {}
    newest: datetime | None = None
    snapshots, profiles = rows_of(context.settings.home, entity)
    for row in snapshots:
        stamp = row["available_at"]
        inside = moment - TTL <= stamp <= moment
        if row[f"{entity}_id"] == one and inside and (newest is None or stamp > newest):
            newest, found = stamp, row
    since = {"user": "registered_at", "video": "uploaded_at"}[entity]
    for row in profiles:
        if row[f"{entity}_id"] == one and (row[since] is None or row[since] <= moment):
            found = found | {f.name: row[f.source] for f in FEATURES if f.view == f"{entity}_profile"}
    return {f.name: found.get(f.name) for f in FEATURES if f.entity == entity}


def join(context: Context, asked: list[tuple[int, int, datetime]]) -> list[dict[str, Any]]:
    columns = list(zip(*asked, strict=True))
    ids = [pa.chunked_array([pa.array(column, pa.int64())]) for column in columns[:2]]
    table = historical_features(context, *ids, pa.chunked_array([pa.array(columns[2], TIME)]), FEATURES)
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def wrong(context: Context, asked: list[tuple[int, int, datetime]]) -> list[tuple[int, str]]:
    """Rows and features in which the join differs from the as-of join."""
    found = []
    for index, (row, (user, video, moment)) in enumerate(zip(join(context, asked), asked, strict=True)):
        expected = as_of(context, "user", user, moment) | as_of(context, "video", video, moment)
        assert row.keys() == expected.keys()
        found += [(index, name) for name, value in row.items() if not same(value, expected[name])]
    return found


def same(value: Any, expected: Any) -> bool:
    if isinstance(value, float) and math.isnan(value):
        value = None
    # A join without any match gives an empty list its null.
    return bool((value or None) == (expected or None)) if isinstance(value, list) else bool(value == expected)


def edges(day: date) -> list[datetime]:
    """Moments around a day's snapshot and its end."""
    stamp, micro = at(day, 1), timedelta(microseconds=1)
    return [at(day, 0), stamp - micro, stamp, stamp + micro, at(day, 12), at(day, 23, 59)]


def test_joined_values_are_those_of_the_newest_snapshot_at_or_before_the_moment(context: Context) -> None:
    asked = [
        (user, video, moment)
        for index in (0, 1, 3, 6)
        for moment in edges(day_at(index))
        for user, video in ((1, 11), (2, 13), (NEWCOMER, FRESH))
    ]
    assert wrong(context, asked) == []


def test_a_snapshot_is_seen_at_its_stamp_and_not_a_microsecond_earlier(context: Context) -> None:
    stamp = at(DAY, 1)
    before, exactly = join(context, [(1, 11, stamp - timedelta(microseconds=1)), (1, 11, stamp)])
    snapshots = [context.data.get("user_features", day_at(index)).table().to_pylist()[0] for index in (3, 4)]
    name = "user_watch_s_1d"
    assert [before[name], exactly[name]] == [snapshot[name] for snapshot in snapshots]
    assert before[name] != exactly[name]


def test_a_value_lives_for_its_time_to_live(context: Context) -> None:
    last = at(day_at(7), 1)
    micro = timedelta(microseconds=1)
    alive, dead = join(context, [(1, 11, last + TTL), (1, 11, last + TTL + micro)])
    assert alive["user_impressions_14d"] > 0
    assert dead["user_impressions_14d"] is None or math.isnan(dead["user_impressions_14d"])
    assert dead["user_plan"] == "p1", "profiles do not expire"


def test_two_hundred_candidates_of_one_user_at_one_moment_are_two_hundred_rows(context: Context) -> None:
    moment = at(DAY, 12)
    asked = [(1, (*VIDEOS, FRESH, 999)[index % 5], moment) for index in range(200)]
    rows = join(context, asked)
    assert len(rows) == 200
    assert len({row["user_impressions_14d"] for row in rows}) == 1
    assert [row["video_topic"] for row in rows[:4]] == ["t1", "t2", "t3", "t4"]
    assert wrong(context, asked[:10]) == []


def by_row(table: pa.Table, names: Iterable[str]) -> dict[tuple[int, int, datetime], dict[str, Any]]:
    keys = zip(*(table[name].to_pylist() for name in ("user_id", "video_id", "event_time")), strict=True)
    return dict(zip(keys, table.select(list(names)).to_pylist(), strict=True))


MODEL_INPUTS = (
    *(feature.name for feature in FEATURES if feature.role != "part" and feature.entity in ("user", "video")),
    *(cross.name for cross in crosses()),
    "log_tenure_days",
    "log_video_age_days",
    "tenure_days",
)


def test_a_planted_event_changes_nothing_at_or_before_its_moment_and_a_leak_is_found(tmp_path: Path) -> None:
    planted = shown(1, 11, at(DAY, 10), watch_ms=9_999, like=1, session_id=777)
    context = built(tmp_path)
    clean = by_row(examples(context, DAY), MODEL_INPUTS)
    later = by_row(examples(context, day_at(6)), MODEL_INPUTS)
    assert sum(key[2] <= planted["event_time"] for key in clean) >= 6

    write_days(context, [planted])
    features(context, day_at(6))
    after = by_row(examples(context, DAY), MODEL_INPUTS)
    # Every row of the day reads snapshots of earlier days only, so none changes, not even later ones.
    assert {key: after[key] for key in clean} == clean
    assert len(after) == len(clean) + 1
    moved = {key for key, row in by_row(examples(context, day_at(6)), MODEL_INPUTS).items() if row != later[key]}
    assert moved, "the next day must see it"

    # The same check on a join that leaks: snapshots stamped at the begin of their own day.
    for entity in ENTITIES:
        for day in context.data.days(f"{entity}_features"):
            backdate(context, f"{entity}_features", day)
    leaky = by_row(examples(context, DAY), MODEL_INPUTS)
    write_days(context)
    features(context, day_at(6))
    for entity in ENTITIES:
        for day in context.data.days(f"{entity}_features"):
            backdate(context, f"{entity}_features", day)
    leaky_clean = by_row(examples(context, DAY), MODEL_INPUTS)
    changed = {key for key in leaky_clean if leaky[key] != leaky_clean[key] and key[2] <= planted["event_time"]}
    assert changed, "the check must notice a leak"


def backdate(context: Context, name: str, day: date) -> None:
    """Stamp a snapshot with the local midnight that begins its day."""
    table = context.data.get(name, day).table()
    stamp = pa.chunked_array([pa.array([at(day, 0)] * table.num_rows, TIME)])
    with context.data.write(name, day) as writer:
        writer.table(table.set_column(table.column_names.index("available_at"), "available_at", stamp))


def test_examples_keep_every_impression_with_labels_in_the_order_of_the_log(context: Context) -> None:
    log = context.data.get("log", DAY).table()
    table = examples(context, DAY)
    for name in ("user_id", "video_id", "session_id", "position", "event_time", "watch_ms", "click", "propensity"):
        assert table[name].equals(log[name]), name
    expected = [min(row["watch_ms"] / row["duration_ms"], 2.0) for row in log.to_pylist()]
    assert table["completion"].to_pylist() == pytest.approx(expected)
    assert table["hour"].to_pylist() == [(moment.hour + 8) % 24 for moment in log["event_time"].to_pylist()]


def test_someone_who_registered_during_the_day_has_a_profile_and_no_counters(context: Context) -> None:
    before, at_once = join(context, [(NEWCOMER, FRESH, JOINED - timedelta(microseconds=1)), (NEWCOMER, FRESH, JOINED)])
    assert before["user_plan"] is None
    assert at_once["user_plan"] == "p3"
    table = examples(context, DAY)
    row = table.filter(pc.equal(table["user_id"], NEWCOMER)).to_pylist()[0]
    assert (row["user_plan"], row["tenure_days"], row["user_last_videos"]) == ("p3", 0, [])
    assert {row[f.name] for f in FEATURES if f.entity == "user" and f.kind == "count"} == {0.0}
    assert {row[f.name] for f in FEATURES if f.entity == "user" and f.kind == "rate"} <= {None}
    assert (row["video_topic"], row["video_age_days"]) == ("t4", 0)


def test_someone_whose_registration_is_unknown_has_a_profile_and_no_tenure(context: Context) -> None:
    table = examples(context, DAY)
    row = table.filter(pc.equal(table["user_id"], UNKNOWN_SINCE)).to_pylist()[0]
    assert (row["user_plan"], row["tenure_days"], row["log_tenure_days"]) == ("p4", None, None)


def user_columns() -> list[str]:
    """What sessions and examples both hold; examples have the pair's inputs in place of the lists behind them."""
    own = [f.name for f in FEATURES if f.entity == "user" and f.role != "part"]
    return [*own, "log_tenure_days", "tenure_days"]


def test_sessions_have_the_features_of_their_first_impression(context: Context) -> None:
    log = context.data.get("log", DAY).table()
    sessions = sessions_of(context, DAY, log)
    first: dict[int, dict[str, Any]] = {}
    for row in sorted(examples(context, DAY).to_pylist(), key=lambda one: one["event_time"]):
        first.setdefault(row["session_id"], row)
    assert sessions.num_rows == len(first)
    depths = log["session_id"].value_counts().to_pylist()
    for row in sessions.to_pylist():
        example = first[row["session_id"]]
        assert (row["user_id"], row["started_at"], row["hour"]) == (
            example["user_id"],
            example["event_time"],
            example["hour"],
        )
        assert {name: row[name] for name in user_columns()} == {name: example[name] for name in user_columns()}
        assert row["version"] == (row["started_at"] >= at(DAY, 1))
        assert {"values": row["session_id"], "counts": row["depth"]} in depths


def test_videos_have_in_each_version_the_features_that_requests_see(context: Context) -> None:
    names = [f.name for f in FEATURES if f.entity == "video"]
    table = videos_of(context, DAY, context.data.get("log", DAY).table())
    versions = {(row["version"], row["video_id"]): row for row in table.to_pylist()}
    assert sorted(versions) == [(version, video) for version in (0, 1) for video in (*VIDEOS, FRESH, SELDOM)]
    rows = examples(context, DAY).to_pylist()
    assert {row["event_time"] >= at(DAY, 1) for row in rows} == {False, True}
    for row in rows:
        video = versions[row["event_time"] >= at(DAY, 1), row["video_id"]]
        assert {name: video[name] for name in names} == {name: row[name] for name in names}
    assert versions[0, FRESH]["video_topic"] == "", "nobody knows a video before its upload"


@pytest.fixture
def edited(context: Context, tmp_path: Path) -> Context:
    """A copy of the lake and of Feast's registry that a test may change."""
    home = tmp_path / "copy"
    shutil.copytree(context.settings.home, home)
    return context_at(home)


def add_to_snapshot(context: Context, entity: Entity, day: date, one: int) -> None:
    """Plant an entity that only this snapshot knows: it has left the windows of all later ones."""
    table = context.data.get(f"{entity}_features", day).table()
    row = table.to_pylist()[0] | {f"{entity}_id": one, f"{entity}_impressions_14d": 77.0}
    write(context, f"{entity}_features", day, pa.concat_tables([table, pa.Table.from_pylist([row], table.schema)]))


def test_examples_depend_on_exactly_the_snapshots_that_they_record(edited: Context) -> None:
    """Otherwise a lake with a longer history would give other examples for the same day."""
    dataset(edited, day_at(7))
    clean = edited.data.get("examples", DAY)
    visible = [day_at(index) for index in (1, 2, 3, 4)]
    snapshots = {f"{entity}_features/{day}" for entity in ENTITIES for day in visible}
    assert clean.manifest.inputs.keys() == {f"log/{DAY}", *snapshots}
    # Older than what is recorded: nothing changes, although the user has no newer value.
    add_to_snapshot(edited, "user", day_at(0), UNKNOWN_SINCE)
    assert examples(edited, DAY).equals(clean.table())
    # The oldest that is recorded is seen until the day's own snapshot has come.
    add_to_snapshot(edited, "user", day_at(1), UNKNOWN_SINCE)
    dataset(edited, day_at(7))
    table = edited.data.get("examples", DAY).table()
    rows = table.filter(pc.equal(table["user_id"], UNKNOWN_SINCE)).to_pylist()
    found = {row["event_time"]: row["user_impressions_14d"] for row in rows}
    assert found == {at(DAY, 0, 10): pytest.approx(math.log1p(77)), at(DAY, 10): 0.0}


def test_a_video_that_has_left_every_window_is_seen_alike_by_requests_and_sessions(edited: Context) -> None:
    add_to_snapshot(edited, "video", day_at(1), SELDOM)
    table = videos_of(edited, DAY, edited.data.get("log", DAY).table())
    offered = {row["version"]: row for row in table.to_pylist() if row["video_id"] == SELDOM}
    seen = {row["event_time"]: row for row in examples(edited, DAY).to_pylist() if row["video_id"] == SELDOM}
    name = "video_impressions_14d"
    assert offered[0][name] == seen[at(DAY, 0, 11)][name] == pytest.approx(math.log1p(77))
    assert offered[1][name] == seen[at(DAY, 14, 30)][name] == 0.0


def test_a_run_without_a_training_day_says_which_day_to_choose(context: Context) -> None:
    for index in (0, 1):
        with pytest.raises(WindowError, match=f"choose a day at least two days after the feed's first .{day_at(0)}"):
            dataset(context, day_at(index))
    assert context.runs.find("training_set", day_at(1)) is None


def test_a_run_whose_held_out_day_is_empty_is_a_window_error(context: Context) -> None:
    with pytest.raises(WindowError, match=f"{day_at(8)} trains on days up to {day_at(6)} and holds out {day_at(7)}"):
        dataset(context, day_at(8))


def test_the_training_set_names_its_days_and_the_threshold_of_their_groups(context: Context) -> None:
    result = dataset(context, day_at(6))
    record = context.runs.get("training_set", day_at(6)).json("training_set.json")
    assert result.facts == record
    assert record["train_days"] == [str(day_at(3)), str(day_at(4))]
    assert (record["holdout_day"], record["return_day"]) == (str(DAY), str(day_at(6)))
    tables = [context.data.get("examples", day_at(index)).table() for index in (3, 4)]
    assert record["rows"] == sum(table.num_rows for table in tables)
    values = sorted(value for table in tables for value in table["user_impressions_14d"].to_pylist())
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    assert record["activity_threshold"] == pytest.approx(middle)
    groups = read_examples(context, [DAY], record["activity_threshold"], ["user_id"])
    newcomers = groups.filter(pc.equal(groups["user_id"], NEWCOMER))["group"].to_pylist()
    assert newcomers == [0]


def test_the_same_day_gives_the_same_hashes_again_and_elsewhere(context: Context, tmp_path: Path) -> None:
    first = dataset(context, day_at(6)).outputs
    again = dataset(replace(context, run={"run_id": "second"}), day_at(6)).outputs
    elsewhere = context_at(tmp_path)
    write_days(elsewhere)
    for index in (6, 5):
        features(elsewhere, day_at(index))
    assert dataset(elsewhere, day_at(6)).outputs == first == again
    for name in ("examples", "sessions", "session_videos"):
        assert context.data.get(name, DAY).content_hash == elsewhere.data.get(name, DAY).content_hash


def test_features_of_the_list_are_what_the_join_returns(context: Context) -> None:
    names: tuple[Feature, ...] = FEATURES
    moment = datetime(2024, 3, 9, tzinfo=UTC)
    stored = [feature.name for feature in names if feature.entity in ("user", "video")]
    assert list(join(context, [(1, 11, moment)])[0]) == stored
