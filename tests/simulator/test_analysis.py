import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from components.config import DecisionRule
from components.errors import ConfigError
from simulator.analysis import (
    absent_guardrails,
    calibration,
    interactions,
    logged_outcomes,
    metric_results,
    power_notes,
    sample_ratio,
    sample_ratio_sentence,
    session_depths,
)
from simulator.comparison import assign
from simulator.inference import detectable, difference, paired
from simulator.metrics import METRICS, OUTCOMES, SEGMENTS, PairedSums
from simulator.session import DEPTHS

RULE = DecisionRule(min_users=50, widening=1.0)


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


def variant(result, method):
    return next(v for v in result.variants if v.method == method)


def covariates(table):
    """Nearly the user's level, known before the exposure, and a constant."""
    mine = table.filter(pa.compute.equal(table["arm"], "baseline"))
    level = mine["app_time_s"].to_numpy() + np.random.default_rng(5).normal(0, 20, mine.num_rows)
    return pa.table({"user_id": mine["user_id"], "before": level, "one": np.ones(mine.num_rows)})


def test_cuped_stands_beside_the_plain_number():
    table = outcomes(members=1)
    plain, found = (metric_results(table, RULE, covariates=c) for c in (None, covariates(table)))
    assert all(r.variants == () for r in plain)
    assert [r.model_copy(update={"variants": ()}) for r in found] == list(plain)
    app_time = one(found, "app_time")
    cuped = variant(app_time, "cuped")
    # Paired arms hold the same users: the estimate stays, the interval narrows by what the covariate explains.
    assert cuped.difference.value == pytest.approx(app_time.difference.value)
    assert cuped.difference.se < 0.8 * app_time.difference.se
    assert "adjusted by up to 2 covariates" in cuped.note
    assert "% smaller" in cuped.note
    assert not one(found, "impressions").variants, "secondary metrics stay plain"


def test_cuped_falls_back_with_a_reason():
    table = outcomes(members=1)
    constant = pa.table({"user_id": np.arange(300), "one": np.ones(300)})
    found = variant(one(metric_results(table, RULE, covariates=constant), "app_time"), "cuped")
    assert found.difference.value is None
    assert "no covariate varies" in found.difference.reason
    unknown = pa.table({"user_id": np.array([-1]), "x": [1.0]})
    found = variant(one(metric_results(table, RULE, covariates=unknown), "app_time"), "cuped")
    assert "no covariate varies" in found.relative.reason


def test_split_cuped_gains_much():
    table = assign(outcomes(members=1, users=900), seed=4)
    known = covariates(outcomes(members=1, users=900))
    found = one(metric_results(table, RULE, "split", known), "app_time")
    assert variant(found, "cuped").relative.se < 0.5 * found.relative.se


def test_heavy_tails_are_cut_only_where_the_rule_says_so_and_beside_the_raw_mean():
    table = outcomes(members=2)
    at = table.schema.get_field_index("app_time_s")
    values = table["app_time_s"].to_numpy().copy()
    values[0] = 1e5
    wild = table.set_column(at, OUTCOMES.field("app_time_s"), pa.array(values))
    plain = one(metric_results(wild, RULE), "app_time")
    found = one(metric_results(wild, RULE.model_copy(update={"winsorise": 0.99})), "app_time")
    assert found.model_copy(update={"variants": ()}) == plain
    cut = variant(found, "winsorised")
    largest = np.quantile(values, 0.99)
    t, b = (np.minimum(values[rows], largest) for rows in (slice(0, 600), slice(600, 1200)))
    assert cut.difference.value == pytest.approx((t - b).mean())
    assert cut.difference.se < 0.2 * plain.difference.se
    assert "12 of 1200 values were cut" in cut.note
    assert not one(metric_results(wild, RULE.model_copy(update={"winsorise": 0.99})), "skip_share").variants


def test_bootstrap_of_primary_metrics():
    rule = RULE.model_copy(update={"bootstrap": 800})
    for design, table in (("paired", outcomes(members=1)), ("split", assign(outcomes(members=1), seed=1))):
        found = metric_results(table, rule, design)
        app_time = one(found, "app_time")
        boot = variant(app_time, "bootstrap").relative
        assert boot.se == pytest.approx(app_time.relative.se, rel=0.15)
        assert boot.p_value is None
        assert {r.name for r in found if r.variants} == {"app_time", "return"}


def test_multiplicity_is_a_setting():
    table = outcomes()
    by_holm, by_bh = (
        metric_results(table, RULE.model_copy(update={"multiplicity": m})) for m in ("holm", "benjamini-hochberg")
    )
    p = [r.difference.p_value for r in by_bh if r.difference.p_value is not None]
    adjusted = [r.p_adjusted for r in by_bh if r.p_adjusted is not None]
    assert adjusted == pytest.approx(list(stats.false_discovery_control(p)))
    assert all(
        a <= h.p_adjusted for a, h in zip(adjusted, (r for r in by_holm if r.p_adjusted is not None), strict=True)
    )


def test_detectable_effects_stand_in_every_result():
    table = outcomes(members=1)
    found = one(metric_results(table, RULE), "return", "new")
    values = table["return_probability"].to_numpy()
    new = table["group"].to_numpy()[:300] == 0
    effect = difference([paired(PairedSums.of(values[:300][new], values[300:][new]))], 0.95)
    assert found.detectable == pytest.approx(100 * detectable(effect, 0.95))
    assert found.detectable_percent > 0
    assert one(metric_results(table, RULE), "topic_diversity").detectable is None


def test_is_the_lift_on_new_users_different():
    table = outcomes(users=900, members=2)
    new = table["group"].to_numpy() == 0
    treated = np.array(table["arm"].to_pylist()) == "treatment"
    seconds = table["app_time_s"].to_numpy() * np.where(new & treated, 1.2, 1.0)
    at = table.schema.get_field_index("app_time_s")
    shifted = table.set_column(at, OUTCOMES.field("app_time_s"), pa.array(seconds))
    for design, rows in (("paired", shifted), ("split", assign(shifted, seed=2))):
        app_time, returning = interactions(rows, RULE, design)
        assert (app_time.metric, app_time.segment, app_time.others) == ("app_time", "new", ("low", "high"))
        assert app_time.difference.low <= 22 <= app_time.difference.high
        assert app_time.difference.unit == "pp"
        assert returning.metric == "return"
    assert interactions(shifted, RULE)[0].difference.p_value < 0.01
    same = interactions(table, RULE)[0].difference
    assert same.low < 0 < same.high
    nobody = interactions(OUTCOMES.empty_table(), RULE)[0].difference
    assert nobody.reason == "no simulated outcome"


def test_users_are_randomised_by_a_hash():
    table = outcomes(users=2000, members=2)
    split = assign(table, seed=9)
    assert split.num_rows == 4000
    assert len(set(split["user_id"].to_pylist())) == 2000
    ratio = sample_ratio(split, "split")
    assert not ratio.alert
    assert ratio.p_value > 0.001
    # The order and the shard of the rows do not matter, the seed does.
    again = assign(table.slice(3000), seed=9)
    assert again.equals(split.slice(split.num_rows - again.num_rows))
    assert not assign(table, seed=10).equals(split)
    assert sample_ratio(assign(table, seed=9, treatment_share=0.3), "split").alert
    assert sample_ratio(table, "paired").p_value is None


@pytest.mark.parametrize(
    ("keep", "text"),
    [
        (lambda t: np.array(t["arm"].to_pylist()) == "baseline", "no user with this metric in the treatment arm"),
        (lambda t: np.array(t["arm"].to_pylist()) == "treatment", "no user with this metric in the baseline arm"),
        (lambda t: t["group"].to_numpy() != 0, "no user with this metric"),
        (lambda t: t["user_id"].to_numpy() < 0, "no simulated outcome"),
        (lambda t: np.isin(np.arange(t.num_rows), [0, t.num_rows - 1]), "only one user|no user"),
    ],
)
def test_split_designs_that_can_not_be_compared(keep, text):
    table = assign(outcomes(members=1), seed=3)
    rule = RULE.model_copy(update={"winsorise": 0.9, "bootstrap": 100})
    results = metric_results(table.filter(pa.array(keep(table))), rule, "split", covariates(outcomes(members=1)))
    found = one(results, "app_time", "new")
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(found.difference.reason)
    for r in results:
        for part in (r, *r.variants):
            for e in (part.difference, part.relative):
                assert (e.value is None) == (e.reason is not None)
                assert e.value is None or np.isfinite([e.value, e.low, e.high]).all()


def test_a_user_with_two_rows_is_refused():
    table = outcomes(members=1)
    with pytest.raises(ConfigError, match="reduce the rows of a user to one"):
        metric_results(pa.concat_tables([table, table.slice(0, 1)]), RULE, "split")


def test_what_the_feed_can_not_guard_is_said():
    table = outcomes()
    assert len(absent_guardrails(table)) == 4
    at = table.schema.get_field_index("trending")
    known = table.set_column(at, OUTCOMES.field("trending"), pa.array(np.full(table.num_rows, 2.0)))
    assert not any("trending" in sentence for sentence in absent_guardrails(known))
    assert one(metric_results(known, RULE), "trending_share").baseline.value == pytest.approx(0.2)
    assert "Margin is no guardrail" in absent_guardrails(known)[-1]
