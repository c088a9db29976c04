from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.config import FeedSettings
from components.errors import EmptyDayError, SourceError
from components.feed.canonical import REASONS, CleanDay, clean, stable_ids
from components.feed.schema import ATTRIBUTE_PREFIX, LOG, REQUESTS, TIME, USERS, VIDEOS, DayTables

DAY = date(2024, 3, 5)
FEED = FeedSettings(first_day=DAY, timezone="Asia/Shanghai")
# Noon in Shanghai.
NOON = datetime(2024, 3, 5, 4, tzinfo=UTC)
SESSION_OF_USER_1_AT_NOON = 4617084276551292846
ID_OF_ANN = 5088345978781694418
NO_VIDEOS = VIDEOS.empty_table()
NO_USERS = USERS.empty_table()


def log_of(*rows: dict[str, object]) -> pa.Table:
    """Rows over defaults: user 1 saw video 10 at noon for 5 of 10 seconds."""
    default = {"user_id": 1, "video_id": 10, "event_time": NOON, "watch_ms": 5_000, "duration_ms": 10_000}
    full = [default | row for row in rows]
    names = [name for name in LOG.names if any(name in row for row in full)]
    return pa.table({n: pa.array([row.get(n) for row in full], LOG.field(n).type) for n in names})


def run(log: pa.Table, **tables: pa.Table) -> CleanDay:
    return clean(DayTables(log, tables.pop("users", NO_USERS), tables.pop("videos", NO_VIDEOS), **tables), FEED, DAY)


def at(**delta: float) -> datetime:
    return NOON + timedelta(**delta)


@pytest.mark.parametrize(
    ("reason", "row"),
    [
        ("null_key", {"user_id": None}),
        ("null_key", {"video_id": None}),
        ("null_key", {"event_time": None}),
        ("outside_day", {"event_time": datetime(2024, 3, 4, 15, 59, 59, 999_999, tzinfo=UTC)}),
        ("outside_day", {"event_time": datetime(2024, 3, 5, 16, tzinfo=UTC)}),
        ("outside_day", {"event_time": datetime(1969, 1, 1, tzinfo=UTC)}),
        ("outside_day", {"event_time": datetime(9000, 1, 1, tzinfo=UTC)}),
        ("duplicate", {}),
        ("null_watch", {"watch_ms": None}),
        ("negative_watch", {"watch_ms": -1}),
        ("absurd_watch", {"watch_ms": FEED.max_watch_ms + 1}),
        ("no_duration", {"duration_ms": None}),
        ("no_duration", {"duration_ms": 0}),
        ("no_duration", {"duration_ms": -5}),
        ("bad_behaviour", {"like": 2}),
        ("bad_behaviour", {"like": -1}),
        ("bad_propensity", {"propensity": 0.0}),
        ("bad_propensity", {"propensity": 1.5}),
        ("bad_propensity", {"propensity": float("nan")}),
        ("unwatched_finish", {"finish": 1, "watch_ms": 8_999}),
        ("unwatched_long_view", {"long_view": 1, "watch_ms": 0}),
        ("finished_skip", {"finish": 1, "skip": 1, "watch_ms": 10_000}),
    ],
)
def test_a_bad_row_is_refused_with_its_reason(reason: str, row: dict[str, object]) -> None:
    extra = {name: None for name in ("like", "propensity", "finish", "skip", "long_view") if name in row}
    day = run(log_of(extra, row))
    assert day.counts == {reason: 1}
    assert day.log.num_rows == 1
    assert day.refused.column("reason").to_pylist() == [reason]
    assert day.refused_share == 0.5


def test_a_place_of_a_session_is_kept_once() -> None:
    places = [(1, 0), (1, 1), (1, 1), (2, 1), (1, 1), (None, 1), (None, 1)]
    rows = [
        {"video_id": video, "session_id": session, "position": position}
        for video, (session, position) in enumerate(places)
    ]
    day = run(log_of(*rows))
    assert day.counts == {"repeated_position": 2}
    assert day.refused.column("video_id").to_pylist() == [2, 4]


def test_lengths_rounded_to_the_second_finish_no_less() -> None:
    day = run(log_of({"finish": 1, "watch_ms": 9_000}, {"finish": 1, "watch_ms": 9_400, "user_id": 2}))
    assert day.counts == {}


def test_reasons_are_counted_once_and_in_their_order() -> None:
    worst = {"user_id": None, "event_time": None, "watch_ms": -1, "duration_ms": None}
    day = run(log_of({}, worst, worst, {"video_id": 11, "watch_ms": -1, "duration_ms": None}))
    assert day.counts == {"null_key": 2, "negative_watch": 1}
    assert set(day.counts) <= set(REASONS)


def test_refused_rows_keep_what_was_delivered() -> None:
    day = run(log_of({}, {"watch_ms": -7, "duration_ms": -1, "like": 9}))
    assert day.refused.column_names == [
        "user_id",
        "video_id",
        "event_time",
        "watch_ms",
        "duration_ms",
        "like",
        "reason",
    ]
    row = day.refused.to_pylist()[0]
    assert (row["watch_ms"], row["duration_ms"], row["like"]) == (-7, -1, 9)


def test_first_and_last_microsecond_of_the_local_day_belong_to_it() -> None:
    first = datetime(2024, 3, 4, 16, tzinfo=UTC)
    day = run(log_of({"event_time": first}, {"event_time": first + timedelta(days=1) - timedelta(microseconds=1)}))
    assert day.log.num_rows == 2


def test_a_day_with_a_clock_change_has_23_hours() -> None:
    feed = FeedSettings(first_day=DAY, timezone="Europe/Berlin")
    spring = date(2024, 3, 31)
    times = [datetime(2024, 3, 30, 23, tzinfo=UTC), datetime(2024, 3, 31, 22, tzinfo=UTC)]
    day = clean(DayTables(log_of(*({"event_time": t} for t in times)), NO_USERS, NO_VIDEOS), feed, spring)
    assert day.counts == {"outside_day": 1}


def test_durations_and_creators_come_from_the_videos_where_the_log_lacks_them() -> None:
    videos = pa.table({"video_id": [10, 11], "duration_ms": [4_000, 0], "creator_id": [7, None]})
    log = log_of(
        {"duration_ms": 0},
        {"duration_ms": -3, "user_id": 2},
        {"duration_ms": 9_000, "user_id": 3},
        {"video_id": 11, "duration_ms": None, "user_id": 4},
        {"video_id": 12, "watch_ms": 0, "duration_ms": 0, "user_id": 5},
    )
    day = run(log, videos=videos)
    assert day.log.column("duration_ms").to_pylist() == [4_000, 4_000, 9_000, None]
    assert day.log.column("creator_id").to_pylist() == [7, 7, 7, None]
    assert day.counts == {"no_duration": 1}


def test_a_log_without_durations_takes_those_of_the_videos() -> None:
    log = log_of({}).drop_columns(["duration_ms"])
    day = run(log, videos=pa.table({"video_id": [10], "duration_ms": [5_000]}))
    assert day.log.select(["duration_ms", "finish", "skip"]).to_pylist() == [
        {"duration_ms": 5_000, "finish": 1, "skip": 0}
    ]


def test_finish_and_skip_are_derived() -> None:
    watched = [(10_000, 10_000), (9_999, 10_000), (2_999, 10_000), (3_000, 10_000), (2_000, 2_000), (0, None)]
    day = run(log_of(*({"user_id": u, "watch_ms": w, "duration_ms": d} for u, (w, d) in enumerate(watched))))
    assert day.log.column("finish").to_pylist() == [1, 0, 0, 0, 1, 0]
    assert day.log.column("skip").to_pylist() == [0, 0, 1, 0, 0, 1]
    assert day.log.column("like").to_pylist() == [None] * 6


def test_delivered_finish_and_skip_stay() -> None:
    # The feed's own rules would say finish 0 and skip 0.
    day = run(log_of({"finish": 1, "skip": None, "watch_ms": 9_500}))
    assert day.log.select(["finish", "skip"]).to_pylist() == [{"finish": 1, "skip": None}]


def test_sessions_are_cut_at_the_gap_and_positions_count_from_zero() -> None:
    minutes = [0, 29, 58, 88, 89]
    day = run(log_of(*({"event_time": at(minutes=m)} for m in minutes), {"user_id": 2, "event_time": at(minutes=1)}))
    session = day.log.column("session_id").to_pylist()
    assert session[0] == session[1] == session[2] != session[3] == session[4] != session[5]
    assert day.log.column("position").to_pylist() == [0, 1, 2, 0, 1, 0]
    assert min(session) >= 0


def test_session_ids_stay_the_same_in_every_release() -> None:
    """A known answer: ids in lakes that exist would change with the hash."""
    assert run(log_of({})).log.column("session_id").to_pylist() == [SESSION_OF_USER_1_AT_NOON]


def test_ties_in_time_are_ordered_by_video() -> None:
    day = run(log_of({"video_id": 12}, {"video_id": 10}, {"video_id": 11}))
    assert day.log.column("video_id").to_pylist() == [10, 11, 12]
    assert day.log.column("position").to_pylist() == [0, 1, 2]


def test_delivered_sessions_stay_and_positions_count_within_them() -> None:
    day = run(log_of(*({"event_time": at(seconds=s), "session_id": i} for s, i in [(0, 5), (1, 6), (2, 5)])))
    assert day.log.column("session_id").to_pylist() == [5, 6, 5]
    assert day.log.column("position").to_pylist() == [0, 0, 1]


def test_gaps_in_delivered_sessions_and_positions_are_filled_and_noted() -> None:
    day = run(log_of({"session_id": 5, "position": 3}, {"user_id": 2, "session_id": None, "position": None}))
    assert day.log.column("session_id").null_count == 0
    assert day.log.column("session_id")[0].as_py() == 5
    assert day.log.column("position").to_pylist() == [0, 0]
    assert len(day.notes) == 2


def test_the_order_of_delivery_leaves_no_trace() -> None:
    rows = [
        {"user_id": u, "video_id": v, "watch_ms": w, "duration_ms": 100} for u in (2, 1) for v in (9, 8) for w in (6, 5)
    ]
    assert run(log_of(*rows)).log.equals(run(log_of(*reversed(rows))).log)


def test_the_log_has_exactly_the_schema() -> None:
    day = run(log_of({"surface": "feed", "is_random": True, "propensity": 1.0}))
    assert day.log.schema.equals(LOG)
    assert day.log.slice(0, 1).to_pylist()[0]["propensity"] == 1.0


def test_other_types_that_lose_nothing_are_taken() -> None:
    log = pa.table(
        {
            "user_id": pa.array([1], pa.int32()),
            "video_id": pa.array([10.0]),
            "event_time": pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ns")),
            "watch_ms": pa.array([1], pa.uint16()),
            "duration_ms": pa.array([2], pa.int32()),
            "like": [True],
            "share": pa.nulls(1),
            "click": [1.0],
        }
    )
    day = run(log)
    assert day.log.schema.equals(LOG)
    assert day.log.select(["event_time", "like", "share", "click"]).to_pylist() == [
        {"event_time": NOON, "like": 1, "share": None, "click": 1}
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["watch_ms"]), "watch_ms"),
        (lambda t: t.append_column("mood", [["good"]]), "mood"),
        (lambda t: t.append_column("like", [["yes"]]), "log.like is string"),
        (lambda t: t.set_column(0, "user_id", [[1.5]]), "log.user_id"),
    ],
)
def test_a_log_of_another_shape_is_an_error(change: object, message: str) -> None:
    assert callable(change)
    with pytest.raises(SourceError, match=message):
        run(change(log_of({})))


def test_a_day_without_rows_is_an_error_that_names_it() -> None:
    with pytest.raises(EmptyDayError, match="2024-03-05"):
        run(log_of({}).slice(0, 0))


def test_a_day_of_refused_rows_is_an_error_that_says_why() -> None:
    with pytest.raises(EmptyDayError, match=r"all 3 rows were refused \(null_key 1, negative_watch 2\)"):
        run(log_of({"user_id": None}, {"watch_ms": -1}, {"watch_ms": -2}))


def test_a_day_of_one_user_is_a_day() -> None:
    assert run(log_of({})).log.num_rows == 1


def test_users_and_videos_are_one_row_per_id_known_at_the_end_of_the_day() -> None:
    end = datetime(2024, 3, 5, 16, tzinfo=UTC)
    users = pa.table(
        {
            "user_id": [3, 1, 3, None, 2, 4],
            "registered_at": pa.array([None, end - timedelta(microseconds=1), end, None, end, None], TIME),
            f"{ATTRIBUTE_PREFIX}city": ["a", "b", "c", "d", "e", None],
        }
    )
    videos = pa.table({"video_id": [11, 10, 12], "uploaded_at": pa.array([end, NOON, None], TIME)})
    day = run(log_of({}), users=users, videos=videos)
    assert day.users.column("user_id").to_pylist() == [1, 3, 4]
    assert day.users.column("attr_city").to_pylist() == ["b", "a", None]
    assert day.videos.column("video_id").to_pylist() == [10, 12]
    assert day.videos.schema.equals(VIDEOS)
    assert len(day.notes) == 4


def test_a_video_uploaded_later_still_lends_its_duration() -> None:
    videos = pa.table({"video_id": [10], "uploaded_at": pa.array([at(days=3)], TIME), "duration_ms": [8_000]})
    assert run(log_of({"duration_ms": None}), videos=videos).log.column("duration_ms").to_pylist() == [8_000]


def test_requests_are_ordered_and_broken_ones_left_out_with_a_note() -> None:
    requests = pa.table(
        {
            "session_id": [2, 1, 1, None, 3, 3],
            "slot": [0, 1, 0, 0, 0, 1],
            "candidates": [[1], [2, 3], [4], [5], [], [6, 7]],
            "probabilities": [[1.0], [0.5, 0.5], None, [1.0], [], [1.0]],
        }
    )
    day = run(log_of({}), requests=requests)
    assert day.requests is not None
    assert day.requests.schema.equals(REQUESTS)
    assert [(r["session_id"], r["slot"]) for r in day.requests.to_pylist()] == [(1, 0), (1, 1), (2, 0)]
    assert "3 requests were left out" in day.notes[0]


def test_ids_are_stable() -> None:
    assert stable_ids(pa.array([3, None, -1], pa.int32())).to_pylist() == [3, None, -1]
    assert stable_ids(pa.array(["17", "-4", None])).to_pylist() == [17, -4, None]
    assert stable_ids(pa.array([5.0, None])).to_pylist() == [5, None]
    assert stable_ids(pa.array([2**63 + 1, 7], pa.uint64())).to_pylist()[1] == 7
    hashed = stable_ids(pa.array(["ann", "bob", "ann", "017", "17 "]).dictionary_encode()).to_pylist()
    assert hashed[:3] == [ID_OF_ANN, hashed[1], ID_OF_ANN]
    assert len(set(hashed)) == 4
    assert all(0 <= value < 2**63 for value in hashed)
    assert 17 not in hashed


@pytest.mark.parametrize("values", [pa.array([1.5]), pa.array([True]), pa.array([[1]]), pa.array([float("nan")])])
def test_what_can_not_be_an_id_is_an_error(values: pa.Array) -> None:
    with pytest.raises(SourceError):
        stable_ids(values)


numbers = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([-(2**62), 2**62]))
rows = st.fixed_dictionaries(
    {
        "user_id": numbers,
        "video_id": numbers,
        "event_time": st.one_of(
            st.none(), st.sampled_from([at(days=-2), NOON, at(minutes=5), at(hours=3), at(days=1)])
        ),
        "watch_ms": st.one_of(numbers, st.just(4_000)),
        "duration_ms": st.one_of(numbers, st.just(4_000)),
        "like": st.one_of(st.none(), st.integers(-1, 2)),
        "propensity": st.one_of(st.none(), st.floats(-1, 2), st.just(float("nan"))),
        "session_id": st.one_of(st.none(), st.integers(0, 2)),
    }
)


@settings(max_examples=80, deadline=None)
@given(delivered=st.lists(rows, max_size=12))
def test_rows_in_are_rows_kept_plus_rows_refused(delivered: list[dict[str, object]]) -> None:
    good = {"user_id": 99, "session_id": 1}
    log = log_of(good, *delivered)
    day = run(log)
    assert day.log.num_rows + day.refused.num_rows == log.num_rows
    assert sum(day.counts.values()) == day.refused.num_rows
    assert day.log.schema.equals(LOG)
    assert all(day.log.column(field.name).null_count == 0 for field in LOG if not field.nullable)
    again = run(day.log)
    assert again.counts == {}
    assert again.log.equals(day.log)
