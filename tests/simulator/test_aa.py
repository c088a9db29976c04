"""V1: right tests reject 5 % of A/A runs, wrong ones are caught. Seeds are fixed; none was drawn twice."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from components.errors import ConfigError
from simulator.aa import Cell, band, flips, judge, rows_of, split, streams
from simulator.metrics import OUTCOMES, SEGMENTS


def policy(stream, users=1500, rollouts=1, better=0.0):
    """Skewed users of three groups; each row is the user's own level and the row's luck."""
    person, luck = np.random.default_rng(1), np.random.default_rng([2, stream])
    level, group = person.gamma(1.5, 60, users), person.integers(0, 3, users)
    n = users * rollouts
    known = {
        "user_id": np.repeat(np.arange(users), rollouts),
        "group": np.repeat(group, rollouts),
        "arm": ["treatment"] * n,
        "member": np.zeros(n),
        "app_time_s": np.repeat(level, rollouts) * (1 + better) + luck.gamma(1.0, 130, n),
        "sessions": np.ones(n),
        "impressions": np.full(n, 10.0),
        "skips": np.full(n, 2.0),
        "return_probability": np.clip(np.repeat(level, rollouts) / 900 + luck.uniform(0, 0.5, n), 0, 1),
    }
    arrays = [pa.array(known[f.name]).cast(f.type) if f.name in known else pa.nulls(n, f.type) for f in OUTCOMES]
    return pa.table(arrays, schema=OUTCOMES)


def test_the_band_of_eight_cells():
    assert band(8, 1000) == (29, 74)
    low, high = band(1, 1000)
    assert stats.binom.cdf(low - 1, 1000, 0.05) <= 0.005
    assert stats.binom.sf(high, 1000, 0.05) <= 0.005


def test_split_users_at_random():
    cells = split(rows_of(policy(0)), seed=101)
    assert [(c.segment, c.metric) for c in cells] == [(s, m) for s in SEGMENTS for m in ("app_time", "return")]
    record = judge(cells)
    assert record.passed, record.sentence
    assert "8 of 8 cells reject in 2.9 to 7.4 % of 1000 A/A runs" in record.sentence


def test_signs_of_real_differences_at_random():
    record = judge(flips(rows_of(policy(0, better=0.2)), rows_of(policy(1)), seed=102))
    assert record.passed, record.sentence


def test_independent_streams():
    record = judge(streams(lambda stream: policy(stream, users=400), seed=103))
    assert record.passed, record.sentence


def test_five_rollouts_of_every_user():
    """Reduced to one row per user the test is right; rows counted as users reject in about 15 %."""
    table = policy(0, rollouts=5)
    assert judge(split(rows_of(table), seed=104)).passed
    wrong = judge(split(rows_of(table, reduce=False), seed=104))
    assert wrong.state == "failed"
    assert all(0.1 < c.rate < 0.25 for c in wrong.cells)
    assert "split, all users, app_time rejects in" in wrong.sentence
    other = policy(1, rollouts=5, better=1.0)
    assert judge(flips(rows_of(other), rows_of(table), seed=105)).passed
    assert judge(flips(rows_of(other, reduce=False), rows_of(table, reduce=False), seed=105)).state == "failed"


def test_a_test_that_never_rejects_is_caught():
    record = judge([Cell("split", "all", "app_time", 100, 1000, 0)])
    assert record.state == "failed"


def test_reduced_rows_are_means_in_order_of_users():
    table = policy(0, users=3, rollouts=2).take([5, 0, 3, 1, 2, 4])
    found = rows_of(table)
    assert found.user_id.tolist() == [0, 1, 2]
    values = {u: [] for u in range(3)}
    for user, seconds in zip(table["user_id"].to_pylist(), table["app_time_s"].to_pylist(), strict=True):
        values[user].append(seconds)
    assert found.values[:, 0] == pytest.approx([np.mean(values[u]) for u in range(3)])


def test_what_can_not_be_tested_says_why():
    table = policy(0, users=300)
    old = table.filter(pa.array(table["group"].to_numpy() > 0))
    record = judge(split(rows_of(old), seed=1, runs=100))
    assert record.state == "not powered"
    assert "split, new users, app_time is not estimable: no user with this metric" in record.sentence
    constant = table.set_column(OUTCOMES.get_field_index("app_time_s"), OUTCOMES.field("app_time_s"), [[5.0] * 300])
    cells = flips(rows_of(constant), rows_of(constant), seed=1, runs=10)
    assert "same value" in next(c.reason for c in cells if c.metric == "app_time")


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="same users"):
        flips(rows_of(policy(0, users=10)), rows_of(policy(0, users=11)), seed=1)
    with pytest.raises(ConfigError, match="one number is needed"):
        judge([])
