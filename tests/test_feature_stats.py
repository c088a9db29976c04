"""Coverage, drift and importance with answers that can be computed by hand."""

import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.feature_stats import Distribution, describe, importance, stability
from components.models.trainer import fit
from tests.models import planted


def column(values: list[object], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def test_numbers_are_described_by_what_is_there() -> None:
    found = describe(column([0.0, 1.0, 3.0, None, math.nan], pa.float32()), 0.0)
    assert (found.rows, found.coverage, found.median, found.top) == (5, 0.4, 1.0, None)
    assert found.mean == pytest.approx(4 / 3)
    # A rate has no default: zero is a value like any other.
    assert describe(column([0.0, None], pa.float32()), None).coverage == 0.5


def test_texts_ids_and_lists_are_described_each_in_their_way() -> None:
    assert describe(column(["a", "a", "", "b"], pa.string()), "") == Distribution(4, 0.75, top=("a", 0.5))
    assert describe(column([7, -1, 7], pa.int64()), -1) == Distribution(3, 2 / 3, top=("7", 2 / 3))
    lists = describe(column([[1, 2], [], None, [3, 4, 5, 6]], pa.list_(pa.int64())), None)
    assert (lists.coverage, lists.mean, lists.top) == (0.5, 2.0, None)


def test_a_feature_that_is_all_missing_or_has_no_row_has_no_numbers() -> None:
    assert describe(column([None, math.nan], pa.float32()), 0.0) == Distribution(2, 0.0)
    assert describe(column([], pa.float32()), 0.0) == Distribution(0, None)
    assert stability(column([], pa.float32()), column([1.0], pa.float32())) is None
    assert stability(column([None], pa.float32()), column([None], pa.float32())) == 0.0


def test_the_index_is_zero_for_equal_shares_and_the_textbooks_sum_otherwise() -> None:
    then = column(["a"] * 50 + ["b"] * 50, pa.string())
    now = column(["a"] * 80 + ["b"] * 20, pa.string())
    assert stability(then, column(["b", "a"], pa.string())) == pytest.approx(0.0)
    expected = 0.3 * math.log(0.8 / 0.5) - 0.3 * math.log(0.2 / 0.5)
    assert stability(then, now) == pytest.approx(expected)
    numbers = [column([float(x == "b") for x in one.to_pylist()], pa.float32()) for one in (then, now)]
    assert stability(*numbers) == pytest.approx(expected), "two numbers are two bins, as two texts are"


def test_what_goes_missing_or_is_new_is_drift() -> None:
    draw = np.random.default_rng(0)
    then = column(list(draw.normal(size=2_000)), pa.float32())
    assert stability(then, column(list(draw.normal(size=2_000)), pa.float32())) < 0.03  # type: ignore[operator]
    assert stability(then, column(list(draw.normal(1.0, size=2_000)), pa.float32())) > 0.25  # type: ignore[operator]
    half = [None if at % 2 else value for at, value in enumerate(then.to_pylist())]
    assert stability(then, column(half, pa.float32())) > 0.25  # type: ignore[operator]
    assert stability(column(["a"], pa.string()), column(["new"], pa.string())) > 1  # type: ignore[operator]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small products on several threads wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_shuffling_what_the_labels_come_from_hurts_and_shuffling_noise_does_not(one_thread: None) -> None:
    table = planted.window(2_000)
    fitted = fit(planted.RECIPE, planted.TRAIN, planted.TASKS, planted.GROUPS, planted.SPEC, table)
    labels = {task.name: table[task.name].to_numpy(zero_copy_only=False).astype(float) for task in planted.TASKS}
    found = importance(fitted, table, labels)
    assert found.keys() == set(planted.SPEC.columns)
    assert found["constant"] == 0.0
    told = {name: value for name, value in found.items() if value is not None}
    assert told["video_rate"] > 0.02
    assert told["video_rate"] > 5 * max(abs(told["hour"]), abs(told["surface"]))
    unlabelled = {name: np.full(table.num_rows, np.nan) for name in labels}
    assert set(importance(fitted, table, unlabelled).values()) == {None}
