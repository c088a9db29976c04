"""From features to model inputs: defaults, scales, groups and ages."""

import math
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from components.config import GroupSettings
from components.feature_list import feature_list
from components.feed.schema import TIME
from components.inputs import GROUPS, activity_threshold, days_between, input_spec, log_days, model_inputs, user_group
from simulator.metrics import GROUPS as SIMULATOR_GROUPS

FEATURES = feature_list(("plan",))
NEW_30 = GroupSettings(new_tenure_days=30)


def one_column(name: str, values: list[object], dtype: pa.DataType) -> list[object]:
    table = pa.table({name: pa.chunked_array([pa.array(values, dtype)]), "other": list(range(len(values)))})
    result = model_inputs(table, FEATURES)
    assert result.column_names == [name, "other"]
    assert result["other"].to_pylist() == list(range(len(values)))
    column: list[object] = result[name].to_pylist()
    return column


def test_an_absent_count_is_zero_and_counts_are_logarithms() -> None:
    found = one_column("user_impressions_3d", [None, 0.0, 1.0, 99.0], pa.float32())
    assert found == pytest.approx([0.0, 0.0, math.log(2), math.log(100)])


def test_a_duration_is_a_logarithm_and_stays_unknown() -> None:
    assert one_column("video_duration_ms", [None, 9_999], pa.int64()) == [None, pytest.approx(math.log(10_000))]


def test_a_rate_is_left_as_it_is_and_stays_unknown() -> None:
    assert one_column("video_like_rate_7d", [None, 0.25], pa.float64()) == [None, 0.25]


def test_an_absent_category_id_or_list_has_its_default() -> None:
    assert one_column("user_plan", [None, "gold"], pa.string()) == ["", "gold"]
    assert one_column("video_creator_id", [None, 7], pa.int64()) == [-1, 7]
    assert one_column("user_last_videos", [None, [], [3, 1]], pa.list_(pa.int64())) == [[], [], [3, 1]]


def test_a_column_of_nothing_but_nulls_gets_its_type_and_default() -> None:
    assert one_column("user_plan", [None, None], pa.null()) == ["", ""]
    assert one_column("user_impressions_1d", [None], pa.null()) == [0.0]
    assert one_column("user_last_videos", [None], pa.null()) == [[]]


def test_the_encoder_reads_every_feature_once_and_nothing_that_is_an_outcome() -> None:
    spec = input_spec(FEATURES)
    read = [*spec.ids, *spec.categories, *spec.numeric, spec.history]
    assert len(read) == len(set(read))
    assert {feature.name for feature in FEATURES if feature.role == "input"} <= set(read)
    assert not {feature.name for feature in FEATURES if feature.role == "part"} & set(read)
    outcomes = {"watch_ms", "completion", "click", "like", "skip", "finish", "long_view", "position", "event_time"}
    assert not outcomes & set(read)
    assert set(read) == {*spec.user_columns, *spec.video_columns, *spec.context_columns}


def test_groups_have_the_order_of_the_simulator() -> None:
    assert GROUPS == SIMULATOR_GROUPS


def test_tenure_decides_new_and_activity_the_rest() -> None:
    tenure = pa.array([0, 30, 31, 31, 31, -1], pa.int64())
    impressions = pa.array([100.0, 0.0, 5.0, 5.1, 4.9, 0.0], pa.float32())
    # Up to the threshold is low, above it high; the threshold day of tenure is still new.
    assert user_group(tenure, impressions, 5.0, NEW_30).to_pylist() == [0, 0, 1, 2, 1, 0]


def test_an_unknown_tenure_is_never_new() -> None:
    unknown = pa.array([None, None], pa.int64())
    assert user_group(unknown, pa.array([0.0, 9.0], pa.float32()), 1.0, NEW_30).to_pylist() == [1, 2]


def test_the_activity_threshold_is_the_median_of_those_who_are_not_new() -> None:
    tenure = pa.array([1, 30, 31, None, 400, 50], pa.int64())
    impressions = pa.array([1_000.0, 900.0, 2.0, 4.0, 8.0, 6.0], pa.float32())
    assert activity_threshold(tenure, impressions, NEW_30) == 5.0


def test_without_anyone_who_is_not_new_the_threshold_is_zero() -> None:
    assert activity_threshold(pa.array([3, 4], pa.int64()), pa.array([7.0, 7.0], pa.float32()), NEW_30) == 0.0


def moments(*values: datetime | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, TIME)])


def test_days_are_full_days_rounded_down_also_before_zero() -> None:
    since = datetime(2024, 3, 4, 10, tzinfo=UTC)
    microsecond, day = timedelta(microseconds=1), timedelta(days=1)
    asked = moments(since, since + day - microsecond, since + day, since + 9 * day, since - microsecond, since - day)
    found = days_between(asked, moments(*[since] * 6))
    assert found.to_pylist() == [0, 0, 1, 9, -1, -1]
    assert found.type == pa.int64()


def test_days_since_an_unknown_moment_are_unknown() -> None:
    now = datetime(2024, 3, 4, tzinfo=UTC)
    assert days_between(moments(now), moments(None)).to_pylist() == [None]


def test_log_days_keeps_unknown_and_takes_negative_for_zero() -> None:
    found = log_days(pa.chunked_array([pa.array([None, -3, 0, 9], pa.int64())]))
    assert found.type == pa.float32()
    assert found.to_pylist() == [None, 0.0, 0.0, pytest.approx(math.log(10))]
