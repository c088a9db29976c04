import numpy as np
import pytest
from scipy import stats

from simulator.inference import (
    Effect,
    benjamini_hochberg,
    detectable,
    difference,
    holm,
    interaction,
    level,
    paired,
    relative,
    sample_ratio,
    welch,
    widened,
)
from simulator.metrics import ArmSums, PairedSums

RNG = np.random.default_rng(4)
T, B = RNG.gamma(2, 30, 80) + 20, RNG.gamma(2, 25, 80) + 20


def test_paired_difference_equals_scipys_paired_t_test():
    found = difference([paired(PairedSums.of(T, B))], 0.9)
    reference = stats.ttest_rel(T, B)
    ends = reference.confidence_interval(0.9)
    assert found.value == pytest.approx(T.mean() - B.mean())
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.p_value == pytest.approx(reference.pvalue)


def test_welch_equals_scipy():
    found = difference([welch(ArmSums.of(T), ArmSums.of(B[:50]))], 0.95)
    reference = stats.ttest_ind(T, B[:50], equal_var=False)
    ends = reference.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.p_value == pytest.approx(reference.pvalue)
    assert found.df == pytest.approx(reference.df)


def test_level_equals_the_t_interval():
    found = level([ArmSums.of(T)], 0.95)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 79, T.mean(), stats.sem(T)))


def test_relative_lift_equals_the_linearised_residuals():
    found = relative([paired(PairedSums.of(T, B))], 0.95)
    ratio = T.mean() / B.mean()
    # The delta method's variance is that of the mean of (T - R B) / mean(B).
    assert found.value == pytest.approx(ratio - 1)
    assert found.se == pytest.approx(stats.sem((T - ratio * B) / B.mean()))


def test_sums_of_shards_are_the_sums_of_the_whole():
    parts = PairedSums.of(T[:30], B[:30]) + PairedSums.of(T[30:], B[30:])
    whole = PairedSums.of(T, B)
    assert parts.n == whole.n
    assert [parts.t, parts.b, parts.tt, parts.bb, parts.tb] == pytest.approx(
        [whole.t, whole.b, whole.tt, whole.bb, whole.tb]
    )
    assert (ArmSums.of(T[:5]) + ArmSums.of(T[5:])).total == pytest.approx(T.sum())


def test_rubins_rules_by_hand():
    """Three members with differences 1, 2, 3 and within variance 0.04: T = 0.04 + (4/3) 1 = 1.3733."""
    base = np.array([-1.0, 1.0] * 50)
    scaled = base * np.sqrt(0.04 * 100 * 99 / 100)
    zero = np.zeros(100)
    found = difference([paired(PairedSums.of(scaled + shift, zero)) for shift in (1.0, 2.0, 3.0)], 0.95)
    missing = (4 / 3) / (0.04 + 4 / 3)
    df = 1 / (missing**2 / 2 + 1 / (100 / 102 * 99 * (1 - missing)))
    assert found.value == pytest.approx(2)
    assert found.se == pytest.approx(np.sqrt(0.04 + 4 / 3))
    assert found.df == pytest.approx(df)
    assert found.high == pytest.approx(2 + stats.t.ppf(0.975, df) * np.sqrt(0.04 + 4 / 3))


def test_intervals_cover_and_tests_keep_their_level():
    """1,000 experiments: misses lie in the exact binomial band at 1 %."""
    runs, n, true_lift = 1000, 200, 0.05
    rng = np.random.default_rng(11)
    low, high = stats.binom.ppf([0.005, 0.995], runs, 0.05)
    misses = {"difference": 0, "relative": 0, "a/a": 0, "welch": 0}
    for _ in range(runs):
        taste = rng.gamma(2, 20, n)
        b = taste + rng.gamma(2, 10, n)
        t = (taste + rng.gamma(2, 10, n)) * (1 + true_lift)
        moments = [paired(PairedSums.of(t, b))]
        for name, effect, truth in (
            ("difference", difference(moments, 0.95), 60 * true_lift),
            ("relative", relative(moments, 0.95), true_lift),
        ):
            misses[name] += not effect.low <= truth <= effect.high
        misses["a/a"] += difference([paired(PairedSums.of(t / (1 + true_lift), b))], 0.95).p_value < 0.05
        half = n // 2
        misses["welch"] += difference([welch(ArmSums.of(b[:half]), ArmSums.of(b[half:]))], 0.95).p_value < 0.05
    for name, count in misses.items():
        assert low <= count <= high, (name, count)


def test_rollouts_counted_as_users_would_reject_too_often():
    """Why one user's rows are reduced first: five noisy copies of every user make intervals far too narrow."""
    rng, wrong, right = np.random.default_rng(12), 0, 0
    for _ in range(400):
        d = rng.normal(0, 1, 60)
        copies = np.repeat(d, 5) + rng.normal(0, 1, 300)
        wrong += difference([paired(PairedSums.of(copies, np.zeros(300)))], 0.95).p_value < 0.05
        reduced = copies.reshape(60, 5).mean(axis=1)
        right += difference([paired(PairedSums.of(reduced, np.zeros(60)))], 0.95).p_value < 0.05
    assert wrong > 0.12 * 400
    assert right <= stats.binom.ppf(0.995, 400, 0.05)


ONES, ONE = np.ones(10), np.ones(1)


@pytest.mark.parametrize(
    ("t", "b", "what", "text"),
    [
        (ONES[:0], ONES[:0], difference, "no user"),
        (ONE, ONE, difference, "only one user"),
        (T, T, difference, r"same value \(0\)"),
        (T + 0.5, T, difference, r"same value \(0.5\)"),
        (T * 2, T, relative, r"same value \(1\)"),
        (ONES, ONES * 0, relative, "needs one above 0"),
        (T, -B, relative, "needs one above 0"),
        (ONES[:0], ONES[:0], relative, "no user"),
    ],
)
def test_what_can_not_be_computed_says_why(t, b, what, text):
    found = what([paired(PairedSums.of(t, b))], 0.95)
    assert found.low is None
    assert found.high is None
    assert found.p_value is None
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(found.reason)


def test_more_that_can_not_be_computed():
    assert difference([], 0.95).reason == "no simulated outcome"
    assert level([], 0.95).value is None
    assert level([ArmSums.of(ONES)], 0.95).value == 1
    assert level([ArmSums.of(ONES)], 0.95).low is None
    assert difference([welch(ArmSums.of(T), ArmSums.of(ONE))], 0.95).reason == "only one user: a variance needs two"
    assert detectable(difference([], 0.95), 0.95) is None


def test_minimum_detectable_effect_has_its_power():
    effect = difference([paired(PairedSums.of(T, B))], 0.95)
    smallest = detectable(effect, 0.95)
    power = stats.nct.sf(stats.t.ppf(0.975, effect.df), effect.df, smallest / effect.se)
    assert power == pytest.approx(0.8, abs=0.01)


def test_holm_by_hand():
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert holm([None]) == [None]
    assert holm([0.0, 0.9]) == [0.0, 0.9]


def test_sample_ratio():
    found = sample_ratio(5100, 4900)
    assert found.p_value == pytest.approx(stats.chi2.sf(4.0, 1))
    assert not found.alert
    assert sample_ratio(5500, 4500).alert
    assert sample_ratio(0, 0).p_value is None


def test_benjamini_hochberg_by_hand():
    assert benjamini_hochberg([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.02, None, 0.04, 0.04, 0.02])
    assert benjamini_hochberg([None]) == [None]
    p = list(RNG.uniform(size=9))
    assert benjamini_hochberg(p) == pytest.approx(list(stats.false_discovery_control(p)))


def test_an_empty_arm_is_named():
    assert difference([welch(ArmSums(), ArmSums.of(B))], 0.95).reason == "no user with this metric in the treatment arm"
    assert difference([welch(ArmSums.of(T), ArmSums())], 0.95).reason == "no user with this metric in the baseline arm"
    assert difference([welch(ArmSums(), ArmSums())], 0.95).reason == "no user with this metric"
    assert "same value (0)" in difference([welch(ArmSums.of(ONES), ArmSums.of(ONES))], 0.95).reason


def test_interaction_is_the_difference_of_independent_lifts():
    pair = paired(PairedSums.of(T[:30], B[:30])), paired(PairedSums.of(T[30:], B[30:]))
    found = interaction([pair], 0.95)
    one, other = (relative([m], 0.95) for m in pair)
    assert found.value == pytest.approx(one.value - other.value)
    assert found.se == pytest.approx(np.hypot(one.se, other.se))
    assert 29 < found.df < 78


def test_interaction_keeps_its_level_and_pools_members():
    runs, rng, rejected = 1000, np.random.default_rng(13), 0
    for _ in range(runs):
        b = rng.gamma(2, 30, 300)
        t = 1.2 * b + rng.normal(0, 15, 300)
        pair = paired(PairedSums.of(t[:100], b[:100])), paired(PairedSums.of(t[100:], b[100:]))
        rejected += interaction([pair], 0.95).p_value < 0.05
    low, high = stats.binom.ppf([0.005, 0.995], runs, 0.05)
    assert low <= rejected <= high
    pair = paired(PairedSums.of(T[:30], B[:30])), paired(PairedSums.of(T[30:], B[30:]))
    moved = paired(PairedSums.of(T[:30] * 1.3, B[:30])), pair[1]
    assert interaction([pair, moved], 0.95).se > interaction([pair, pair], 0.95).se


def test_interaction_without_one_side_says_why():
    pair = paired(PairedSums.of(T, B)), paired(PairedSums.of(T[:1], B[:1]))
    assert interaction([pair], 0.95).reason == "only one user: a variance needs two"
    assert interaction([], 0.95).reason == "no simulated outcome"
    assert "needs one above 0" in interaction([(paired(PairedSums.of(T, -B)), pair[0])], 0.95).reason
    still = paired(PairedSums.of(2 * T, T))
    assert "no interval" in interaction([(still, pair[0])], 0.95).reason


def test_widening_scales_the_error_and_nothing_else():
    plain = difference([paired(PairedSums.of(T, B))], 0.95)
    wide = widened(plain, 1.5, 0.95)
    assert (wide.value, wide.df) == (plain.value, plain.df)
    assert wide.se == pytest.approx(1.5 * plain.se)
    assert wide.high - wide.low == pytest.approx(1.5 * (plain.high - plain.low))
    assert wide.p_value > plain.p_value
    assert widened(plain, 1.0, 0.95) == plain
    missing = Effect(None, reason="no user")
    assert widened(missing, 2.0, 0.95) == missing
