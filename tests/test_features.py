"""Feature snapshots against a computation in plain Python, and what they depend on."""

import random
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.context import Context
from components.errors import SchemaChangedError
from components.feature_list import (
    AFFINITIES,
    AFFINITY_STRENGTH,
    PRIOR_STRENGTH,
    RATES,
    TOP_AFFINITIES,
    WINDOWS,
    Entity,
)
from components.features import ENTITIES, features
from components.feed.schema import BEHAVIOURS
from components.partials import MICRO, affinity_partial_of, partial_of
from components.snapshots import affinities, window_sums
from tests.small_lake import FIRST, ZONE, Row, at, context_at, day_at, log_table, shown, write, write_day

LENGTH = 4

# On both sides of every window's edge.
AGES = (0, 1, 2, 3, 6, 7, 13, 14, 29)


def random_rows(seed: int, day: date, users: int = 4, videos: int = 5, rows: int = 12) -> list[Row]:
    """Impressions with everything that may be unknown unknown now and then."""
    draw = random.Random(seed * 1_000 + day.toordinal())
    found = []
    for index in range(rows):
        # No two at one moment: their order would be unknown.
        user, moment = draw.randrange(users), at(day, draw.randrange(24), draw.randrange(60), us=index)
        changes: dict[str, Any] = {
            "session_id": user * 100 + draw.randrange(3),
            "watch_ms": draw.choice([0, 700, 4_000, 35_000]),
            "duration_ms": draw.choice([None, 1_000, 10_000]),
            **{name: draw.choice([None, 0, 1]) for name in BEHAVIOURS},
        }
        found.append(shown(user, draw.randrange(videos), moment, **changes))
    return found


def mean_of(values: list[float | None]) -> tuple[float, int]:
    known = [value for value in values if value is not None]
    return sum(known), len(known)


def value_of(row: Row, name: str) -> float | None:
    if name != "completion":
        value: float | None = row[name]
        return value
    return None if not row["duration_ms"] else min(row["watch_ms"] / row["duration_ms"], 2.0)


def expected_snapshot(days: dict[int, list[Row]], entity: Entity, length: int) -> dict[int, dict[str, Any]]:
    """The snapshot from impressions by age in days, by loops over rows."""
    key = f"{entity}_id"
    everyone = {row[key] for age, rows in days.items() if age < max(WINDOWS) for row in rows}
    found: dict[int, dict[str, Any]] = {one: {} for one in everyone}
    for window in WINDOWS:
        inside = [(age, row) for age, rows in days.items() if age < window for row in rows]
        for one in everyone:
            mine = [(age, row) for age, row in inside if row[key] == one]
            found[one][f"{entity}_impressions_{window}d"] = len(mine)
            found[one][f"{entity}_watch_s_{window}d"] = sum(row["watch_ms"] for _, row in mine) / 1000
            if entity == "user":
                sessions = {(age, row["session_id"]) for age, row in mine}
                found[one][f"user_sessions_{window}d"] = len(sessions)
            for name in RATES:
                total, rows = mean_of([value_of(row, name) for _, row in mine])
                all_total, all_rows = mean_of([value_of(row, name) for _, row in inside])
                prior = all_total / all_rows if all_rows else None
                rate = None if prior is None else (total + PRIOR_STRENGTH * prior) / (rows + PRIOR_STRENGTH)
                found[one][f"{entity}_{name}_rate_{window}d"] = rate
    everything = [(age, row) for age, rows in days.items() for row in rows]
    for one in everyone:
        mine = [(age, row) for age, row in everything if row[key] == one]
        for name in BEHAVIOURS:
            for window in WINDOWS:
                counted = sum(row[name] or 0 for age, row in mine if age < window)
                found[one][f"{entity}_{name}_count_{window}d"] = counted
        found[one][f"{entity}_idle_days"] = min(age for age, _ in mine)
        found[one] |= user_habits(mine, length) if entity == "user" else video_habits(mine, everything)
    return found


def user_habits(mine: list[tuple[int, Row]], length: int) -> dict[str, Any]:
    """Lists, active days and hours of one user."""
    newest = sorted_rows([row for _, row in mine])[::-1]
    hours = [row["event_time"].astimezone(ZONE).hour for _, row in mine]
    kept = {"user_last_videos": "watch_ms", "user_last_long_viewed": "long_view", "user_last_liked": "like"}
    return {
        **{name: [row["video_id"] for row in newest if row[source]][:length] for name, source in kept.items()},
        "user_active_days_30d": len({age for age, _ in mine}),
        "user_hour_shares_30d": pytest.approx([hours.count(hour) / len(hours) for hour in range(24)]),
    }


def video_habits(mine: list[tuple[int, Row]], everything: list[tuple[int, Row]]) -> dict[str, Any]:
    """Freshness of one video, and what its creator got."""
    creator = mine[0][1]["creator_id"]
    made = [row for _, row in everything if row["creator_id"] == creator]
    last, week = (sum(age < days for age, _ in mine) for days in (1, 7))
    found: dict[str, Any] = {"video_freshness": last / week if week else 0.0}
    found["video_creator_impressions_30d"] = len(made)
    for name in RATES:
        total, rows = mean_of([value_of(row, name) for row in made])
        all_total, all_rows = mean_of([value_of(row, name) for _, row in everything])
        prior = all_total / all_rows if all_rows else None
        rate = None if prior is None else (total + PRIOR_STRENGTH * prior) / (rows + PRIOR_STRENGTH)
        found[f"video_creator_{name}_rate_30d"] = rate
    return found


def sorted_rows(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["event_time"], row["video_id"]))


def snapshot_of(days: dict[int, list[Row]], entity: Entity, length: int) -> dict[int, dict[str, Any]]:
    partials = {age: partial_of(log_table(rows), entity, length, ZONE.key) for age, rows in days.items()}
    table = window_sums(partials, entity, length)
    return {row.pop(f"{entity}_id"): row for row in table.to_pylist()}


def assert_snapshot(found: dict[int, dict[str, Any]], expected: dict[int, dict[str, Any]]) -> None:
    assert found.keys() == expected.keys()
    for one, values in expected.items():
        for name, value in values.items():
            shown_value = found[one][name]
            if isinstance(value, float):
                shown_value = pytest.approx(shown_value, rel=1e-5, abs=1e-6)
            assert value == shown_value, (one, name)


def days_of(seed: int, ages: list[int], **sizes: int) -> dict[int, list[Row]]:
    return {age: random_rows(seed, day_at(40 - age), **sizes) for age in ages}


@pytest.mark.parametrize("entity", ENTITIES)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    ages=st.sets(st.sampled_from(AGES), min_size=1, max_size=3),
)
def test_a_snapshot_is_what_loops_over_the_rows_give(entity: Entity, seed: int, ages: set[int]) -> None:
    days = days_of(seed, sorted(ages))
    assert_snapshot(snapshot_of(days, entity, LENGTH), expected_snapshot(days, entity, LENGTH))


@pytest.mark.parametrize(("age", "windows"), list(zip(AGES, (5, 4, 4, 3, 3, 2, 2, 1, 1), strict=True)))
def test_a_day_counts_in_the_windows_that_reach_it(age: int, windows: int) -> None:
    found = snapshot_of({age: [shown(1, 10, at(day_at(40 - age), 12))]}, "user", LENGTH)[1]
    counts = [found[f"user_impressions_{window}d"] for window in WINDOWS]
    assert counts == [0.0] * (5 - windows) + [1.0] * windows
    seconds = [found[f"user_watch_s_{window}d"] for window in WINDOWS]
    assert seconds == [0.0] * (5 - windows) + [5.0] * windows


def test_a_rate_is_drawn_towards_the_mean_of_everyone() -> None:
    # Ten clicks of ten beside none of ten: the mean is a half, and ten rows weigh as much as the prior.
    rows = [shown(1, video, at(day_at(20), 9, video), click=1) for video in range(10)]
    rows += [shown(2, video, at(day_at(20), 9, video), click=0) for video in range(10)]
    rows += [shown(3, 1, at(day_at(20), 9), click=None)]
    found = snapshot_of({0: rows}, "user", LENGTH)
    assert [found[user]["user_click_rate_1d"] for user in (1, 2, 3)] == [0.75, 0.25, 0.5]


def test_a_rate_that_nobody_recorded_is_unknown() -> None:
    found = snapshot_of({0: [shown(1, 1, at(day_at(20), 9), like=None)]}, "user", LENGTH)
    assert found[1]["user_like_rate_1d"] is None


def test_completion_is_cut_at_twice_the_length_and_unknown_without_one() -> None:
    rows = [
        shown(1, 1, at(day_at(20), 9), watch_ms=90_000, duration_ms=1_000),
        shown(1, 2, at(day_at(20), 10), watch_ms=90_000, duration_ms=None),
    ]
    partial = partial_of(log_table(rows), "user", LENGTH).to_pylist()
    assert [(row["completion_sum"], row["completion_n"]) for row in partial] == [(2.0 * MICRO, 1.0)]


def test_last_videos_are_watched_ones_newest_first_and_cut() -> None:
    today, before = day_at(20), day_at(19)
    days = {
        0: [shown(1, 1, at(today, 8)), shown(1, 2, at(today, 9), watch_ms=0), shown(1, 3, at(today, 10))],
        1: [shown(1, video, at(before, video)) for video in (4, 5, 6)],
        13: [shown(2, 9, at(day_at(7), 8), watch_ms=0)],
    }
    found = snapshot_of(days, "user", LENGTH)
    assert found[1]["user_last_videos"] == [3, 1, 6, 5]
    assert found[2]["user_last_videos"] == []


def topics_of(days: dict[int, list[Row]]) -> dict[int, dict[str, Any]]:
    """Topics of users whose videos have the topic of their last digit."""
    users = window_sums(
        {age: partial_of(log_table(rows), "user", LENGTH) for age, rows in days.items()}, "user", LENGTH
    )
    parts = {}
    for age, rows in days.items():
        log = log_table(rows)
        names = [None if video % 10 == 9 else f"t{video % 10}" for video in log["video_id"].to_pylist()]
        parts[age] = affinity_partial_of(log, pa.chunked_array([pa.array(names, pa.string())]))
    return {row.pop("user_id"): row for row in affinities(parts, users, AFFINITIES[0]).to_pylist()}


def test_topics_are_those_seen_most_with_shares_and_lifts_over_the_users_own_rate() -> None:
    today, before = day_at(20), day_at(19)
    days = {
        0: [shown(1, video, at(today, 8, video), like=int(video == 1)) for video in (1, 11, 2, 9)],
        1: [shown(1, 1, at(before, 8), like=1), shown(2, 9, at(before, 9), like=0)],
    }
    found = topics_of(days)
    assert found[1]["user_topics"] == ["t1", "t2"]
    assert found[1]["user_topic_shares"] == pytest.approx([3 / 4, 1 / 4])
    # Two likes of six everywhere; user 1 liked two of five, and two of three on t1.
    own = (2 + PRIOR_STRENGTH * 2 / 6) / (5 + PRIOR_STRENGTH)
    expected = [(2 - 3 * own) / (3 + AFFINITY_STRENGTH), (0 - own) / (1 + AFFINITY_STRENGTH)]
    assert found[1]["user_topic_like_lifts"] == pytest.approx(expected)
    assert found[2] == {name: [] for name in found[1]}, "a video without a topic says nothing"


def test_only_so_many_topics_are_kept_and_unrecorded_behaviours_lift_nothing() -> None:
    rows = [shown(1, 100 + n, at(day_at(20), 9, n), click=None) for n in range(TOP_AFFINITIES + 3)]
    log = log_table(rows)
    users = window_sums({0: partial_of(log, "user", LENGTH)}, "user", LENGTH)
    found = affinities({0: affinity_partial_of(log, log["video_id"])}, users, AFFINITIES[1]).to_pylist()[0]
    assert found["user_creators"] == list(range(100, 100 + TOP_AFFINITIES))
    assert found["user_creator_click_lifts"] == [0.0] * TOP_AFFINITIES


def test_sums_do_not_depend_on_how_threads_split_the_rows() -> None:
    count = 400_000
    rng = np.random.default_rng(0)
    rows = log_table([shown(1, 1, at(FIRST, 9))])
    table = rows.take(pa.array(np.zeros(count, dtype=np.int64)))
    for name, values in (("watch_ms", rng.integers(0, 50_000, count)), ("duration_ms", rng.integers(1, 90_000, count))):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.int64()))
    first = partial_of(table, "video", LENGTH)
    assert all(partial_of(table, "video", LENGTH).equals(first) for _ in range(2))
    # Neither does it matter in which order the rows come.
    assert partial_of(table.take(pa.array(rng.permutation(count))), "video", LENGTH).equals(first)


def lake_of(home: Path, days: int, rows: int = 12, ttl_days: int = 3) -> Context:
    chosen = {"snapshot_lag_min": 90, "last_videos": LENGTH, "ttl_days": ttl_days}
    context = context_at(home, features=chosen, train={"window_days": 1})
    for index in range(days):
        write_day(context, day_at(index), random_rows(7, day_at(index), rows=rows))
    return context


def hashes(context: Context, entity: Entity) -> dict[date, str]:
    name = f"{entity}_features"
    return {day: context.data.get(name, day).content_hash for day in context.data.days(name)}


def test_a_snapshot_is_stamped_with_the_local_midnight_after_its_day_and_the_lag(tmp_path: Path) -> None:
    context = lake_of(tmp_path, 2)
    result = features(context, day_at(1))
    for entity in ENTITIES:
        snapshot = context.data.get(f"{entity}_features", day_at(1))
        # Midnight in Shanghai is 16:00 UTC.
        assert set(snapshot.table()["available_at"].to_pylist()) == {at(day_at(2), 1, 30)}
        assert at(day_at(2), 1, 30).isoformat() == "2024-03-05T17:30:00+00:00"
        assert result.outputs[f"{entity}_features/{day_at(1)}"] == snapshot.content_hash
        assert result.facts[f"{entity}_rows"] == snapshot.rows


def test_the_step_writes_what_the_loops_give(tmp_path: Path) -> None:
    context = lake_of(tmp_path, 4)
    features(context, day_at(3))
    days = {3 - index: random_rows(7, day_at(index)) for index in range(4)}
    for entity in ENTITIES:
        table = context.data.get(f"{entity}_features", day_at(3)).table().drop_columns(["available_at"])
        found = {row.pop(f"{entity}_id"): row for row in table.to_pylist()}
        assert_snapshot(found, expected_snapshot(days, entity, LENGTH))


def test_a_first_day_without_earlier_ones_has_equal_windows(tmp_path: Path) -> None:
    context = lake_of(tmp_path, 1)
    assert features(context, FIRST).facts["snapshots_built"] == 2
    row = context.data.get("user_features", FIRST).table().to_pylist()[0]
    assert row["user_impressions_1d"] > 0
    for name in ("impressions", "watch_s", "sessions", "click_rate"):
        assert len({row[f"user_{name}_{window}d"] for window in WINDOWS}) == 1


def test_a_day_without_rows_is_a_hole_and_not_an_error(tmp_path: Path) -> None:
    context = context_at(tmp_path, features={"last_videos": LENGTH})
    kept = {index: random_rows(3, day_at(index)) for index in (0, 2)}
    for index, rows in kept.items():
        write_day(context, day_at(index), rows)
    features(context, day_at(2))
    assert context.data.days("user_features") == [day_at(0), day_at(2)]
    table = context.data.get("user_features", day_at(2)).table().drop_columns(["available_at"])
    found = {row.pop("user_id"): row for row in table.to_pylist()}
    assert_snapshot(found, expected_snapshot({2 - index: rows for index, rows in kept.items()}, "user", LENGTH))


def test_any_order_of_days_gives_the_same_snapshots(tmp_path: Path) -> None:
    forward, shuffled = lake_of(tmp_path / "forward", 4), lake_of(tmp_path / "shuffled", 4)
    for index in range(4):
        features(forward, day_at(index))
    for index in (3, 0, 2, 1):
        features(shuffled, day_at(index))
    for entity in ENTITIES:
        assert hashes(forward, entity) == hashes(shuffled, entity)
        assert len(set(hashes(forward, entity).values())) == 4


def test_a_second_run_builds_only_its_own_day_again(tmp_path: Path) -> None:
    context = lake_of(tmp_path, 3)
    assert features(context, day_at(2)).facts["snapshots_built"] == 6
    before = {entity: hashes(context, entity) for entity in ENTITIES}
    assert features(context, day_at(2)).facts["snapshots_built"] == 2
    assert {entity: hashes(context, entity) for entity in ENTITIES} == before


def test_a_day_that_is_read_anew_changes_exactly_the_snapshots_that_count_it(tmp_path: Path) -> None:
    context = lake_of(tmp_path, 33, rows=4, ttl_days=1)
    features(context, day_at(32))
    before = {entity: hashes(context, entity) for entity in ENTITIES}
    assert list(before["user"]) == [day_at(index) for index in range(28, 33)]
    changed = day_at(1)
    write_day(context, changed, [*random_rows(7, changed, rows=4), shown(99, 1, at(changed, 3))])
    features(context, day_at(32))
    for entity in ENTITIES:
        after = hashes(context, entity)
        moved = {day for day in after if after[day] != before[entity][day]}
        # The snapshot of the 29th day after counts it for the last time.
        assert moved == {day for day in after if day < changed + timedelta(days=30)}


@pytest.mark.parametrize("change", ["missing", "retyped"])
def test_a_changed_source_column_is_named_before_anything_is_written(tmp_path: Path, change: str) -> None:
    context = lake_of(tmp_path, 3)
    log = context.data.get("log", day_at(1)).table()
    at_like = log.column_names.index("like")
    retyped = log.set_column(at_like, "like", pa.array(["yes"] * log.num_rows))
    write(context, "log", day_at(1), log.drop_columns("like") if change == "missing" else retyped)
    found = "missing" if change == "missing" else "string"
    with pytest.raises(SchemaChangedError, match=f"log of {day_at(1)}: column 'like' is {found}"):
        features(context, day_at(2))
    for name in ("user_partial", "video_partial", "user_features", "video_features"):
        assert context.data.days(name) == [], name


def test_columns_of_nothing_but_nulls_are_named_and_no_error(tmp_path: Path) -> None:
    context = context_at(tmp_path, features={"last_videos": LENGTH})
    write_day(context, FIRST, [shown(1, 10, at(FIRST, 9), like=None), shown(2, 11, at(FIRST, 10), like=None)])
    empty = features(context, FIRST).facts["all_null"]
    assert {"user_like_rate_1d", "user_like_rate_30d", "video_like_rate_7d", "video_creator_like_rate_30d"} <= set(
        empty
    )
    assert not any("click" in name for name in empty)
