"""What every fault of the tables does at a stated rate, said once more in other words."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from components.chaos import FAULTS, Scene, fault_named, plant
from components.chaos.fault import TABLES
from components.feed.schema import BEHAVIOURS, DayTables
from tests.chaos.conftest import DAY, NEW_USERS, ROWS, USER_COUNT, VIDEO_COUNT, ZONE
from tests.small_lake import PLAN, at

Answer = Callable[[Scene, DayTables], bool]


def values(tables: DayTables, name: str) -> list[Any]:
    """A column by ``table.column``."""
    table, _, column = name.partition(".")
    return getattr(tables, table)[column].to_pylist()


def changes(before: DayTables, after: DayTables, name: str) -> list[tuple[Any, Any]]:
    """Pairs of old and new value where they differ; rows must not have moved."""
    return [(old, new) for old, new in zip(values(before, name), values(after, name), strict=True) if old != new]


def sole(name: str, count: int, rule: Callable[[Any, Any], bool] = lambda old, new: True) -> Answer:
    """Exactly ``count`` values of one column change, each as the rule says, and no other column of its table."""

    def answer(scene: Scene, planted: DayTables) -> bool:
        table, _, column = name.partition(".")
        found = changes(scene.tables, planted, name)
        rest = (getattr(t, table).drop_columns([column]) for t in (scene.tables, planted))
        return len(found) == count and all(rule(old, new) for old, new in found) and next(rest).equals(next(rest))

    return answer


def counted(table: str, rows: int) -> Answer:
    """The table has so many rows, all of which it had before or holds twice."""

    def answer(scene: Scene, planted: DayTables) -> bool:
        old, new = getattr(scene.tables, table).to_pylist(), getattr(planted, table).to_pylist()
        return len(new) == rows and all(row in old for row in new)

    return answer


def rows_of(tables: DayTables, **equal: Any) -> int:
    """How many rows of the log have these values."""
    return sum(all(row[name] == value for name, value in equal.items()) for row in tables.log.to_pylist())


def hours(tables: DayTables) -> set[int]:
    return {moment.astimezone(ZONE).hour for moment in values(tables, "log.event_time")}


def users_changed(scene: Scene, planted: DayTables, name: str) -> int:
    changed = zip(values(scene.tables, name), values(planted, name), values(scene.tables, "log.user_id"), strict=True)
    return len({user for old, new, user in changed if old != new})


HOUR = timedelta(hours=1)
HALF, FIFTH = ROWS // 2, ROWS // 5
OLD = datetime(1970, 1, 1, tzinfo=UTC)

# Fault, rate, answer.
ANSWERS: list[tuple[str, float, Answer]] = [
    ("time_zone_shift", 0.2, sole("log.event_time", 4 * 10, lambda old, new: new - old == 8 * HOUR)),
    ("clock_skew", 1.0, sole("log.event_time", ROWS, lambda old, new: HOUR / 2 <= abs(new - old) <= 12 * HOUR)),
    (
        "clock_skew",
        0.2,
        lambda s, p: len({new - old for old, new in changes(s.tables, p, "log.event_time")}) == 4,
    ),
    ("future_dates", 0.2, sole("log.event_time", FIFTH, lambda old, new: new - old == timedelta(days=365))),
    ("missing_hours", 1 / 24, lambda s, p: hours(s.tables) - hours(p) == {9} and p.log.num_rows == HALF),
    ("missing_hours", 12 / 24, lambda s, p: hours(p) == set() and p.log.num_rows == 0),
    (
        "partial_day",
        0.2,
        lambda s, p: (
            p.log.num_rows == ROWS - FIFTH
            and max(values(p, "log.event_time")) <= sorted(values(s.tables, "log.event_time"))[ROWS - FIFTH]
        ),
    ),
    ("hourly_times", 0.5, sole("log.event_time", HALF, lambda old, new: new.minute == 0 and old - new < HOUR)),
    (
        "upload_times",
        1.0,
        lambda s, p: set(values(p, "log.event_time")) == {at(DAY, 20, u, 40, 123) for u in range(1, USER_COUNT + 1)},
    ),
    ("yesterday_again", 1.0, lambda s, p: p.log.equals(s.yesterday().log)),
    (
        "yesterday_again",
        0.2,
        lambda s, p: (
            p.log.num_rows == ROWS and sum(row in s.yesterday().log.to_pylist() for row in p.log.to_pylist()) == FIFTH
        ),
    ),
    (
        "replayed_yesterday",
        1.0,
        lambda s, p: (
            p.log.drop_columns(["event_time"]).equals(s.yesterday().log.drop_columns(["event_time"]))
            and {moment.astimezone(ZONE).date() for moment in values(p, "log.event_time")} == {DAY}
        ),
    ),
    ("duplicated_batch", 0.2, counted("log", ROWS + FIFTH)),
    (
        "retried_batch",
        0.2,
        lambda s, p: (
            p.log.slice(0, ROWS).equals(s.log)
            and p.log.num_rows == ROWS + FIFTH
            and {moment - timedelta(milliseconds=1) for moment in values(p, "log.event_time")[ROWS:]}
            <= set(values(s.tables, "log.event_time"))
        ),
    ),
    (
        "join_explosion",
        0.2,
        lambda s, p: (
            p.log.num_rows == ROWS + 2 * FIFTH
            and len({(r["session_id"], r["position"]) for r in p.log.to_pylist()}) == ROWS
            and len({(r["session_id"], r["position"], r["creator_id"]) for r in p.log.to_pylist()}) == p.log.num_rows
        ),
    ),
    ("rows_lost", 0.2, counted("log", ROWS - FIFTH)),
    # 13 of the users are on the plan "basic", with ten rows each.
    ("group_lost", 6 / 13, counted("log", ROWS - 60)),
    (
        "group_lost",
        1.0,
        lambda s, p: set(values(p, "log.user_id")) == {user for user in range(1, USER_COUNT + 1) if user % 3 == 2},
    ),
    ("new_users_lost", 1.0, lambda s, p: set(values(p, "log.user_id")) == set(range(1, 21)) - set(NEW_USERS)),
    ("unclicked_lost", 1.0, lambda s, p: set(values(p, "log.click")) == {1} and counted("log", p.log.num_rows)(s, p)),
    (
        "bot_users",
        0.2,
        lambda s, p: (
            p.log.slice(0, ROWS).equals(s.log)
            and rows_of(p, user_id=USER_COUNT + 1, watch_ms=1_000, click=1, skip=1, like=0, finish=0) == FIFTH
            and values(p, "users.user_id")[-1] == USER_COUNT + 1
            and {moment.astimezone(ZONE).date() for moment in values(p, "log.event_time")} == {DAY}
            and len({(r["session_id"], r["position"]) for r in p.log.to_pylist()}) == ROWS + FIFTH
        ),
    ),
    (
        "hot_video",
        1.0,
        lambda s, p: (
            len(set(values(p, "log.video_id"))) == 1
            and all(row["duration_ms"] == 20_000 + 1_000 * row["video_id"] for row in p.log.to_pylist())
            and all(row["finish"] == (row["watch_ms"] >= row["duration_ms"]) for row in p.log.to_pylist())
            and values(p, "log.user_id") == values(s.tables, "log.user_id")
        ),
    ),
    ("null_user_ids", 0.2, sole("log.user_id", FIFTH, lambda old, new: new is None)),
    ("empty_user_ids", 0.2, sole("log.user_id", FIFTH, lambda old, new: new > 2**32)),
    ("empty_user_ids", 1.0, lambda s, p: len(set(values(p, "log.user_id"))) == 1),
    ("default_user_id", 0.2, sole("log.user_id", FIFTH, lambda old, new: new == 0)),
    ("user_ids_rehashed", 0.2, sole("log.user_id", FIFTH, lambda old, new: new > 2**32)),
    ("user_ids_rehashed", 1.0, lambda s, p: len(set(values(p, "log.user_id"))) == USER_COUNT),
    (
        "all_user_ids_rehashed",
        0.2,
        lambda s, p: (
            len(changes(s.tables, p, "users.user_id")) == 4
            and len(changes(s.tables, p, "log.user_id")) == len(changes(s.tables, p, "requests.user_id")) == FIFTH
            and set(values(p, "log.user_id")) == set(values(p, "users.user_id"))
        ),
    ),
    ("video_ids_rehashed", 1.0, sole("log.video_id", ROWS, lambda old, new: new > 2**32)),
    (
        "user_ids_reused",
        0.5,
        lambda s, p: (
            len(set(values(p, "log.user_id"))) <= USER_COUNT // 2
            and sole("log.user_id", HALF, lambda old, new: 1 <= new <= USER_COUNT)(s, p)
        ),
    ),
    ("user_ids_reused", 1.0, lambda s, p: set(values(p, "log.user_id")) == {1}),
    (
        "swapped_ids",
        1.0,
        lambda s, p: (
            values(p, "log.user_id") == values(s.tables, "log.video_id")
            and values(p, "log.video_id") == values(s.tables, "log.user_id")
        ),
    ),
    ("session_ids_rounded", 1.0, lambda s, p: len(set(values(p, "log.session_id"))) == USER_COUNT),
    (
        "sessions_merged",
        1.0,
        lambda s, p: (
            len(set(values(p, "log.session_id"))) == USER_COUNT
            and sorted(values(p, "log.position")) == sorted(list(range(10)) * USER_COUNT)
        ),
    ),
    (
        "sessions_split",
        0.5,
        lambda s, p: (
            len(set(values(p, "log.session_id"))) == HALF + USER_COUNT
            and users_changed(s, p, "log.session_id") == USER_COUNT // 2
        ),
    ),
    (
        "creators_merged",
        0.5,
        lambda s, p: (
            [new for _, new in changes(s.tables, p, "videos.creator_id")] == [0] * (VIDEO_COUNT // 2)
            and {r["video_id"] for r in p.log.to_pylist() if r["creator_id"] == 0}
            <= {r["video_id"] for r in p.videos.to_pylist() if r["creator_id"] == 0}
        ),
    ),
    ("watch_in_seconds", 0.2, sole("log.watch_ms", FIFTH, lambda old, new: new == old // 1_000)),
    ("watch_in_microseconds", 0.2, sole("log.watch_ms", FIFTH, lambda old, new: new == old * 1_000)),
    ("duration_in_seconds", 0.2, sole("log.duration_ms", FIFTH, lambda old, new: new == old // 1_000)),
    ("watch_zero", 0.2, sole("log.watch_ms", FIFTH, lambda old, new: new == 0)),
    ("watch_negative", 0.2, sole("log.watch_ms", FIFTH, lambda old, new: new == -old)),
    ("watch_above_cap", 0.2, sole("log.watch_ms", FIFTH, lambda old, new: new == 36_000_000)),
    ("watch_left_running", 0.2, sole("log.watch_ms", FIFTH, lambda old, new: new == 18_000_000)),
    (
        "watch_duration_swapped",
        1.0,
        lambda s, p: (
            values(p, "log.watch_ms") == values(s.tables, "log.duration_ms")
            and values(p, "log.duration_ms") == values(s.tables, "log.watch_ms")
        ),
    ),
    ("default_duration", 0.2, sole("log.duration_ms", FIFTH, lambda old, new: new == 15_000)),
    ("durations_missing", 0.2, sole("log.duration_ms", FIFTH, lambda old, new: new is None)),
    (
        "labels_delayed",
        0.5,
        # The second session of everybody is the later half of the rows.
        lambda s, p: (
            rows_of(p, like=1, position=0) <= rows_of(s.tables, like=1, position=0)
            and sum(r["like"] + r["follow"] for r in p.log.to_pylist() if r["event_time"] > at(DAY, 15)) == 0
            and sum(r["like"] for r in p.log.to_pylist())
            == sum(r["like"] for r in s.log.to_pylist() if r["event_time"] < at(DAY, 15))
            and values(p, "log.click") == values(s.tables, "log.click")
        ),
    ),
    ("like_flipped", 0.2, sole("log.like", FIFTH, lambda old, new: new == 1 - old)),
    ("like_from_click", 1.0, lambda s, p: values(p, "log.like") == values(s.tables, "log.click")),
    ("like_null", 0.2, sole("log.like", FIFTH, lambda old, new: new is None)),
    ("long_view_zero", 1.0, lambda s, p: set(values(p, "log.long_view")) == {0}),
    (
        "long_view_redefined",
        1.0,
        lambda s, p: values(p, "log.long_view") == [int(one >= 3_000) for one in values(p, "log.watch_ms")],
    ),
    (
        "finish_at_half",
        1.0,
        lambda s, p: values(p, "log.finish") == [int(r["watch_ms"] >= r["duration_ms"] / 2) for r in s.log.to_pylist()],
    ),
    ("clicks_counted", 1.0, lambda s, p: set(values(p, "log.click")) == {0, 2}),
    (
        "behaviours_misjoined",
        1.0,
        lambda s, p: (
            sorted(tuple(r[name] for name in BEHAVIOURS) for r in p.log.to_pylist())
            == sorted(tuple(r[name] for name in BEHAVIOURS) for r in s.log.to_pylist())
            and p.log.drop_columns(list(BEHAVIOURS)).equals(s.log.drop_columns(list(BEHAVIOURS)))
        ),
    ),
    # No propensity of these days reaches a tenth.
    ("propensity_clipped", 0.2, sole("log.propensity", FIFTH, lambda old, new: old < new == 0.1)),
    ("propensity_constant", 0.2, sole("log.propensity", FIFTH, lambda old, new: new == 0.1)),
    ("propensity_missing", 0.2, sole("log.propensity", FIFTH, lambda old, new: new is None)),
    ("propensity_in_percent", 0.2, sole("log.propensity", FIFTH, lambda old, new: np.isclose(new, 100 * old))),
    (
        "propensity_misjoined",
        1.0,
        lambda s, p: sorted(values(p, "log.propensity")) == sorted(values(s.tables, "log.propensity")),
    ),
    ("random_flag_lost", 0.5, sole("log.is_random", FIFTH // 2, lambda old, new: old and not new)),
    ("random_flag_spread", 0.5, sole("log.is_random", (ROWS - FIFTH) // 2, lambda old, new: new and not old)),
    ("positions_from_one", 0.2, sole("log.position", FIFTH, lambda old, new: new == old + 1)),
    ("positions_lost", 1.0, lambda s, p: set(values(p, "log.position")) == {0}),
    ("surface_renamed", 0.2, sole("log.surface", FIFTH, lambda old, new: (old, new) == ("feed", "FEED"))),
    ("surface_null", 0.2, sole("log.surface", FIFTH, lambda old, new: new is None)),
    ("requests_lost", 0.2, counted("requests", ROWS - FIFTH)),
    ("column_renamed", 0.01, lambda s, p: {*p.log.column_names} ^ {*s.log.column_names} == {"watch_ms", "watch_time"}),
    (
        "rows_shuffled",
        1.0,
        lambda s, p: p.log.sort_by("event_time").equals(s.log.sort_by("event_time")),
    ),
    ("users_stale", 0.25, lambda s, p: set(values(p, "users.user_id")) == set(range(1, 21)) - set(NEW_USERS)),
    ("users_lost", 0.2, counted("users", USER_COUNT - 4)),
    ("users_doubled", 0.2, counted("users", USER_COUNT + 4)),
    ("registrations_lost", 0.2, sole("users.registered_at", 4, lambda old, new: new is None)),
    ("registrations_reset", 0.2, sole("users.registered_at", 4, lambda old, new: new == at(DAY, 1))),
    (
        "attribute_recoded",
        1.0,
        sole(f"users.{PLAN}", USER_COUNT, lambda old, new: {"basic": "0", "gold": "1"}[old] == new),
    ),
    ("attribute_null", 0.2, sole(f"users.{PLAN}", 4, lambda old, new: new is None)),
    ("videos_stale", 0.25, lambda s, p: values(p, "videos.video_id") == list(range(1, 31))),
    ("videos_lost", 0.2, counted("videos", VIDEO_COUNT - 8)),
    ("uploads_defaulted", 0.2, sole("videos.uploaded_at", 8, lambda old, new: new == OLD)),
    (
        "topics_recoded",
        1.0,
        sole("videos.topic", VIDEO_COUNT, lambda old, new: {"cats": "0", "dogs": "1", "news": "2"}[old] == new),
    ),
    ("topics_misread", 0.5, sole("videos.topic", VIDEO_COUNT // 2, lambda old, new: new == "\0".join(old) + "\0")),
    ("catalogue_in_seconds", 0.2, sole("videos.duration_ms", 8, lambda old, new: new == old // 1_000)),
]


def test_every_fault_of_a_table_has_a_known_answer() -> None:
    assert {name for name, _, _ in ANSWERS} == {fault.name for fault in FAULTS if fault.where in TABLES}


@pytest.mark.parametrize(("name", "rate", "answer"), ANSWERS, ids=[f"{name} {rate:.2g}" for name, rate, _ in ANSWERS])
def test_a_fault_does_what_its_meaning_says(name: str, rate: float, answer: Answer, scene: Scene) -> None:
    assert answer(scene, plant(fault_named(name), scene, rate, seed=7))
