import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from components.config import DecisionRule
from components.errors import ConfigError
from simulator.analysis import (
    calibration,
    logged_outcomes,
    metric_results,
    power_notes,
    sample_ratio_sentence,
    session_depths,
)
from simulator.metrics import METRICS, OUTCOMES, SEGMENTS
from simulator.session import DEPTHS

RULE = DecisionRule(min_users=50)


def outcomes(users=300, members=2, lift=1.1, seed=0):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, users).astype(np.int8)
    base = rng.gamma(2, 60, users)
    tables = []
    for arm, factor in (("treatment", lift), ("baseline", 1.0)):
        for member in range(members):
            n = users
            columns = {
                "user_id": np.arange(n),
                "group": group,
                "arm": [arm] * n,
                "member": np.full(n, member),
                "app_time_s": factor * base + rng.normal(0, 5, n),
                "sessions": np.ones(n),
                "impressions": np.full(n, 10.0),
                "skips": rng.uniform(0, 5, n),
                "topics": np.full(n, 3.0),
                "return_probability": rng.uniform(0.2, 0.8, n),
                "like": rng.uniform(0, 1, n),
            }
            arrays = [
                pa.array(columns[f.name]).cast(f.type) if f.name in columns else pa.nulls(n, f.type) for f in OUTCOMES
            ]
            tables.append(pa.table(arrays, schema=OUTCOMES))
    return pa.concat_tables(tables)


def one(results, name, segment="all"):
    return next(r for r in results if r.name == name and r.segment == segment)


def test_every_metric_in_every_segment_with_numbers_or_reasons():
    results = metric_results(outcomes(), RULE)
    assert [(r.name, r.segment) for r in results] == [(m.name, s) for m in METRICS for s in SEGMENTS]
    for r in results:
        for e in (r.baseline, r.treatment, r.difference, r.relative):
            assert (e.value is None) == (e.reason is not None)
    app_time = one(results, "app_time")
    assert app_time.relative.value == pytest.approx(10, abs=2)
    assert app_time.relative.low < 10 < app_time.relative.high
    assert app_time.p_adjusted >= app_time.difference.p_value
    assert app_time.users == 300
    assert "no user" in one(results, "dislikes").difference.reason
    constant = one(results, "topic_diversity")
    assert constant.baseline.value == pytest.approx(0.3)
    assert "same value (0)" in constant.difference.reason
    assert one(results, "skip_share").margin == pytest.approx(2.0)


def test_one_member_equals_a_paired_t_test_in_percentage_points():
    table = outcomes(members=1)
    found = one(metric_results(table, RULE), "return", "new")
    values = table.column("return_probability").to_numpy()
    new = table.column("group").to_numpy()[:300] == 0
    ends = stats.ttest_rel(values[:300][new], values[300:][new]).confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((100 * ends.low, 100 * ends.high))
    assert found.difference.unit == "pp"


def test_more_members_never_count_as_more_users():
    few, many = (one(metric_results(outcomes(members=m), RULE), "app_time") for m in (1, 8))
    assert few.users == many.users == 300


def test_small_segments_are_exploratory():
    results = metric_results(outcomes(users=60), RULE)
    assert one(results, "app_time", "new").exploratory
    assert not one(results, "app_time", "all").exploratory


def test_paired_arms_must_hold_the_same_users():
    with pytest.raises(ConfigError, match="same users"):
        metric_results(outcomes().slice(1), RULE)


def test_split_design_uses_each_user_once():
    table = outcomes(members=1)
    odd = table.column("user_id").to_numpy() % 2 == 1
    treated = np.array(table.column("arm").to_pylist()) == "treatment"
    found = one(metric_results(table.filter(odd == treated), RULE, design="split"), "app_time")
    values = table.column("app_time_s").to_numpy()
    reference = stats.ttest_ind(values[odd & treated], values[~odd & ~treated], equal_var=False)
    assert found.difference.p_value == pytest.approx(reference.pvalue)
    assert "150 : 150 users" in sample_ratio_sentence(table.filter(odd == treated), "split")
    assert "not applicable" in sample_ratio_sentence(table, "paired")


def test_no_users_at_all():
    results = metric_results(OUTCOMES.empty_table(), RULE)
    assert {r.difference.reason for r in results} == {"no simulated outcome"}
    assert all(r.exploratory for r in results)


def test_power_is_stated_for_primary_metrics():
    notes = power_notes(outcomes(), RULE)
    assert len(notes) == 4
    assert "%" in notes[0]
    assert "unknown" in power_notes(OUTCOMES.empty_table(), RULE)[0]


def test_the_log_beside_the_simulation(planted):
    day = planted.data.select(planted.data.day == 2)
    topic = np.tile(np.array([0, 0, 1], np.int32), len(day.user_id))[: len(day.user_id)]
    logged = logged_outcomes(day, skip_below_s=3.0, topic=topic)
    assert logged.schema == OUTCOMES
    assert logged.num_rows == len(np.unique(day.user_id))
    assert sum(logged.column("app_time_s").to_pylist()) == pytest.approx(day.watch_s.sum())
    assert sum(logged.column("impressions").to_pylist()) == len(day.user_id)
    user = day.user_id == 1000
    expected = len(np.unique(topic[user]))  # one session on the day
    assert logged.column("topics")[0].as_py() == expected
    assert logged.column("dislike").null_count == logged.num_rows
    assert logged.column("fresh").null_count == logged.num_rows

    simulated = outcomes()
    shifted = simulated.set_column(0, OUTCOMES.field(0), pa.array(simulated.column("user_id").to_numpy() + 1000))
    rows = calibration(shifted, logged)
    app_time = next(r for r in rows if r.metric == "app_time" and r.segment == "all")
    mine = day.user_id < 1300
    assert app_time.logged == pytest.approx(day.watch_s[mine].sum() / 300)
    assert app_time.baseline == pytest.approx(120, rel=0.2)
    dislikes = next(r for r in rows if r.metric == "dislikes" and r.segment == "all")
    assert dislikes.reason == "no value for log, treatment, baseline"


def test_depths_are_scaled_to_sessions(planted):
    day = planted.data.select(planted.data.day == 2)
    sessions = len(np.unique(day.session_id))
    depths = pa.table([["treatment", "treatment"], [1, 3], [3 * sessions, sessions]], schema=DEPTHS)
    found = session_depths(depths, day)
    assert sum(found["log"]) == sessions
    assert found["treatment"] == (round(0.75 * sessions), 0, round(0.25 * sessions))
    assert found["baseline"] == ()
