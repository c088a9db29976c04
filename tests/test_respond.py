"""Examples as the response model's input: who left, who came back, and what may be looked at."""

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.context import Context
from components.respond import logged_scores, newness, numeric_columns, response_data, topic_codes, topic_names
from simulator.metrics import INTERACTIONS
from simulator.response_data import ResponseData
from tests.small_lake import Row, at, context_at, day_at, feature_columns, log_table, shown, write, write_day

TENURE = 400


def write_examples(
    context: Context, day: date, rows: Iterable[Row], order: list[int] | None = None, **columns: list[str]
) -> None:
    """A day's log and its examples, in which every numeric input is a half; columns are in the log's order."""
    kept = list(rows)
    write_day(context, day, kept)
    table = log_table(kept)
    for entity in ("user", "video"):
        for name, column in feature_columns(entity, table.num_rows, 0.5):
            table = table.append_column(name, column)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    table = table.append_column("tenure_days", pa.array([TENURE] * table.num_rows, pa.int64()))
    for name in ("log_tenure_days", "log_video_age_days"):
        table = table.append_column(name, pa.array([1.5] * table.num_rows, pa.float32()))
    write(context, "examples", day, table if order is None else table.take(pa.array(order)))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_at(tmp_path)


def data_of(context: Context, indices: list[int], until: int, rows: int | None = None) -> ResponseData:
    return response_data(context, [day_at(index) for index in indices], 0.0, until=day_at(until), rows=rows)


def test_the_last_impression_of_each_session_is_where_the_user_left(context: Context) -> None:
    day = day_at(0)
    rows = [shown(1, video, at(day, 9, video), session_id=7) for video in (1, 2, 3)]
    rows += [shown(1, 4, at(day, 20), session_id=8), shown(2, 5, at(day, 9), session_id=9)]
    # Shuffled: what counts is the position, not the place in the table.
    write_examples(context, day, rows, order=[4, 2, 0, 3, 1])
    data = data_of(context, [0], until=0)
    found = dict(zip(zip(data.session_id.tolist(), data.position.tolist(), strict=True), data.left, strict=True))
    assert found == {(7, 0): 0, (7, 1): 0, (7, 2): 1, (8, 0): 1, (9, 0): 1}


def test_sessions_of_one_name_on_two_days_or_of_two_users_are_different_ones(context: Context) -> None:
    for index in (0, 1):
        rows = [shown(user, 1, at(day_at(index), 9), session_id=7, position=user) for user in (1, 2)]
        write_examples(context, day_at(index), rows)
    assert data_of(context, [0, 1], until=1).left.tolist() == [1, 1, 1, 1]


def test_users_of_the_next_day_returned(context: Context) -> None:
    write_examples(context, day_at(0), [shown(user, 1, at(day_at(0), 9)) for user in (1, 2, 3)])
    write_examples(context, day_at(1), [shown(2, 1, at(day_at(1), 9))])
    write_day(context, day_at(2), [shown(3, 1, at(day_at(2), 9))])
    data = data_of(context, [0, 1], until=2)
    assert list(zip(data.user_id.tolist(), data.returned.tolist(), strict=True)) == [(1, 0), (2, 1), (3, 0), (2, 0)]
    assert data.day.tolist() == [day_at(0).toordinal()] * 3 + [day_at(1).toordinal()]


def test_nothing_newer_than_the_interval_day_is_looked_at(context: Context) -> None:
    write_examples(context, day_at(0), [shown(1, 1, at(day_at(0), 9))])
    write_examples(context, day_at(1), [shown(1, 1, at(day_at(1), 9))])
    expected = data_of(context, [0, 1], until=1)
    assert expected.returned.tolist() == [1, -1]
    # A backfilled day finds a newer one in the lake: it must not learn from it.
    write_day(context, day_at(2), [shown(1, 1, at(day_at(2), 9))])
    again = data_of(context, [0, 1], until=1)
    assert again.returned.tolist() == [1, -1]
    assert data_of(context, [0, 1], until=2).returned.tolist() == [1, 1]


def test_a_next_day_that_the_feed_does_not_have_is_unknown(context: Context) -> None:
    write_examples(context, day_at(0), [shown(1, 1, at(day_at(0), 9))])
    write_examples(context, day_at(2), [shown(1, 1, at(day_at(2), 9))])
    assert data_of(context, [0, 2], until=3).returned.tolist() == [-1, -1]


def test_values_are_in_seconds_and_what_was_not_recorded_is_minus_one(context: Context) -> None:
    rows = [
        shown(1, 1, at(day_at(0), 9), watch_ms=1_500, like=1, comment=None, propensity=None),
        shown(1, 2, at(day_at(0), 10), duration_ms=None, propensity=0.25),
    ]
    write_examples(context, day_at(0), rows)
    data = data_of(context, [0], until=0)
    assert data.behaviours == INTERACTIONS
    assert "skip" not in data.behaviours
    assert data.watch_s.tolist() == [1.5, 5.0]
    np.testing.assert_array_equal(data.duration_s, [10.0, np.nan])
    np.testing.assert_array_equal(data.propensity, [np.nan, 0.25])
    assert data.interactions[:, INTERACTIONS.index("like")].tolist() == [1, 0]
    assert data.interactions[:, INTERACTIONS.index("comment")].tolist() == [-1, 0]


def test_features_are_numbers_and_no_id_is_among_them(context: Context) -> None:
    write_examples(context, day_at(0), [shown(1, 1, at(day_at(0), 9))])
    data = data_of(context, [0], until=0)
    for entity, matrix, last in (
        ("user", data.user_features, [1.5]),
        # Behind a video's own inputs, its age, and whether an attribute of the user names its topic.
        ("video", data.video_features, [1.5, 0.0]),
    ):
        names = numeric_columns(context, entity)  # type: ignore[arg-type]
        assert matrix.dtype == np.float32
        assert matrix[0].tolist() == [0.5] * (len(names) - 1) + last
        assert not [name for name in names if name.endswith("_id")]


def test_of_a_videos_counters_only_its_exposure_is_read(context: Context) -> None:
    names = numeric_columns(context, "video")
    assert {name for name in names if name.startswith("video_impressions")} == {
        f"video_impressions_{days}d" for days in (1, 3, 7, 14)
    }
    assert "video_duration_ms" in names
    assert not [name for name in names if "rate" in name or "watch" in name]
    assert [name for name in numeric_columns(context, "user") if "rate" in name], "a user's own habits are no leak"


def test_topics_are_coded_alike_in_the_log_and_wherever_names_are_given(context: Context) -> None:
    rows = [shown(1, video, at(day_at(0), 9, video)) for video in (1, 3, 12)]
    write_examples(context, day_at(0), rows, video_topic=["t1", "t3", ""], user_plan=["t1", "t1", "t1"])
    data = data_of(context, [0], until=0)
    names = topic_names(context, day_at(0))
    assert names == ("t1", "t2", "t3"), "of all videos known on the day, in order"
    by_video = dict(zip(data.video_id.tolist(), data.topic.tolist(), strict=True))
    assert by_video == {1: 0, 3: 2, 12: -1}
    named = dict(zip(data.video_id.tolist(), data.video_features[:, -1].tolist(), strict=True))
    assert named == {1: 1.0, 3: 0.0, 12: 0.0}
    assert topic_codes(pa.chunked_array([["t2", None, "never"]]), names).tolist() == [1, -1, -1]


def test_newness_fades_with_tenure_and_is_nothing_where_it_is_unknown(context: Context) -> None:
    limit = context.pipeline.groups.new_tenure_days
    tenure = pa.chunked_array([pa.array([0, limit, 3 * limit, -2, None], pa.int64())])
    found = newness(context, tenure)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([1.0, np.exp(-2), np.exp(-6), 1.0, 0.0])


def write_requests(context: Context, index: int, rows: list[Row]) -> None:
    day = day_at(index)
    write_day(context, day, [shown(1, 1, at(day, 9))], requests=rows)


def asked(user: int, candidates: list[int], scores: list[float] | None) -> Row:
    return {"session_id": user, "slot": 0, "user_id": user, "candidates": candidates, "scores": scores}


def test_logged_scores_are_those_of_every_candidate_in_order_of_time(context: Context) -> None:
    write_requests(context, 0, [asked(1, [10, 11], [0.5, 0.25]), asked(2, [12], None)])
    write_day(context, day_at(1), [shown(1, 1, at(day_at(1), 9))])
    write_requests(context, 2, [asked(2, [11, 13], [1.0, float("nan")]), asked(1, [], [])])
    found = logged_scores(context, [day_at(0), day_at(1), day_at(2)])
    assert found is not None
    assert found.user_id.tolist() == [1, 1, 2, 2]
    assert found.video_id.tolist() == [10, 11, 11, 13]
    np.testing.assert_array_equal(found.score, [0.5, 0.25, 1.0, np.nan])


def test_without_requests_or_scores_there_are_none(context: Context) -> None:
    write_day(context, day_at(0), [shown(1, 1, at(day_at(0), 9))])
    assert logged_scores(context, [day_at(0)]) is None
    write_requests(context, 1, [asked(1, [10, 11], None)])
    write_requests(context, 2, [])
    assert logged_scores(context, [day_at(0), day_at(1), day_at(2)]) is None


def test_the_newest_days_users_are_the_last_to_be_thinned(context: Context) -> None:
    """Their sessions are rolled out: a hundred of them fit, so only others are left out."""
    everybody, newest = range(400), range(300, 400)
    write_examples(context, day_at(0), [shown(user, 1, at(day_at(0), 9)) for user in everybody])
    write_examples(context, day_at(1), [shown(user, 1, at(day_at(1), 9)) for user in newest])
    kept = set(data_of(context, [0, 1], until=1, rows=250).user_id.tolist())
    assert kept >= set(newest)
    assert len(kept) == 150
    few = set(data_of(context, [0, 1], until=1, rows=60).user_id.tolist())
    assert few < set(newest)


def test_thinning_keeps_whole_users_and_about_the_rows_asked_for(context: Context) -> None:
    users, each = 300, 4
    for index in (0, 1):
        day = day_at(index)
        write_examples(context, day, [shown(user, v, at(day, 9, v)) for user in range(users) for v in range(each)])
    data = data_of(context, [0, 1], until=1, rows=600)
    kept, counts = np.unique(data.user_id, return_counts=True)
    # A user is kept with all impressions of all days, or not at all.
    assert set(counts) == {2 * each}
    expected = users * 600 / (2 * users * each)
    assert abs(len(kept) - expected) < 4 * np.sqrt(expected * 0.75)
    assert data_of(context, [0, 1], until=1, rows=10**9).user_id.size == 2 * users * each
    again = data_of(context, [0, 1], until=1, rows=600)
    assert np.array_equal(again.user_id, data.user_id)


def test_thinning_changes_no_row_that_is_kept(context: Context) -> None:
    for index in (0, 1):
        day = day_at(index)
        write_examples(context, day, [shown(user, v, at(day, 9, v)) for user in range(40) for v in range(3)])
    whole, thin = data_of(context, [0], until=1), data_of(context, [0], until=1, rows=60)
    inside = np.isin(whole.user_id, thin.user_id)
    assert 0 < inside.sum() < len(inside)
    for name in ("session_id", "position", "left", "returned", "watch_s"):
        assert np.array_equal(getattr(whole, name)[inside], getattr(thin, name)), name
    assert day_at(1) - day_at(0) == timedelta(days=1)
