"""Examples as the response model's input: who left, who came back, and what may be looked at."""

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.context import Context
from components.respond import numeric_columns, response_data
from simulator.metrics import INTERACTIONS
from simulator.response_data import ResponseData
from tests.small_lake import Row, at, context_at, day_at, feature_columns, log_table, shown, write, write_day

TENURE = 400


def write_examples(context: Context, day: date, rows: Iterable[Row], order: list[int] | None = None) -> None:
    """A day's log and its examples, in which every numeric input is a half."""
    kept = list(rows)
    write_day(context, day, kept)
    table = log_table(kept)
    for entity in ("user", "video"):
        for name, column in feature_columns(entity, table.num_rows, 0.5):
            table = table.append_column(name, column)
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
    for entity, matrix, age in (
        ("user", data.user_features, "log_tenure_days"),
        ("video", data.video_features, "log_video_age_days"),
    ):
        names = numeric_columns(context, entity)  # type: ignore[arg-type]
        assert matrix.shape == (1, len(names))
        assert matrix.dtype == np.float32
        assert matrix[0].tolist() == [1.5 if name == age else 0.5 for name in names]
        assert not [name for name in names if name.endswith("_id")]


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
