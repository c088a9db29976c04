import numpy as np
import pytest
from scipy import stats

from components.errors import ConfigError
from simulator.bootstrap import BLOCK, Draw, bootstrap, resample_paired, resample_split
from simulator.inference import difference, paired, relative, welch
from simulator.metrics import ArmSums, PairedSums

RNG = np.random.default_rng(7)
N = 3000
USERS = RNG.permutation(10 * N)[:N]
T = RNG.gamma(1.5, 70, N)
B = 0.6 * T + RNG.gamma(1.5, 20, N)
DRAW = Draw(3, 2000)


def test_paired_agrees_with_the_delta_method():
    found = resample_paired(USERS, T, B, DRAW)
    moments = [paired(PairedSums.of(T, B))]
    for what, reference in (("difference", difference(moments, 0.95)), ("relative", relative(moments, 0.95))):
        effect = bootstrap([found], 0.95, what)
        assert effect.value == pytest.approx(reference.value)
        assert effect.se == pytest.approx(reference.se, rel=0.06)
        assert effect.low == pytest.approx(reference.low, abs=0.25 * reference.se)
        assert effect.high == pytest.approx(reference.high, abs=0.25 * reference.se)
        assert effect.p_value is None


def test_split_agrees_with_the_delta_method():
    t, b = slice(0, 1200), slice(1200, N)
    found = resample_split(USERS[t], T[t], USERS[b], B[b], DRAW)
    moments = [welch(ArmSums.of(T[t]), ArmSums.of(B[b]))]
    assert bootstrap([found], 0.95, "relative").se == pytest.approx(relative(moments, 0.95).se, rel=0.06)
    assert bootstrap([found], 0.95, "difference").se == pytest.approx(difference(moments, 0.95).se, rel=0.06)


def test_scipy_gives_the_same_interval():
    few = slice(0, 200)
    reference = stats.bootstrap(
        (T[few], B[few]),
        lambda t, b, axis: t.mean(axis=axis) / b.mean(axis=axis) - 1,
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    found = bootstrap([resample_paired(USERS[few], T[few], B[few], Draw(1, 4000))], 0.95, "relative")
    se = reference.standard_error
    assert found.se == pytest.approx(se, rel=0.06)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval), abs=0.2 * se)


def test_counts_are_poisson_and_independent_over_users_and_resamples():
    one = [resample_paired(USERS[i : i + 1], T[:1], B[:1], Draw(5, 20_000)).count_t for i in range(4)]
    counts = np.stack(one)
    observed = np.bincount(counts.ravel().astype(int), minlength=6)
    expected = stats.poisson.pmf(np.arange(6), 1) * counts.size
    expected[5] = counts.size - expected[:5].sum()
    observed = np.append(observed[:5], observed[5:].sum())
    assert stats.chisquare(observed, expected).pvalue > 0.001
    assert np.abs(np.corrcoef(counts) - np.eye(4)).max() < 0.03
    assert max(abs(np.corrcoef(c[:-k], c[k:])[0, 1]) for c in counts for k in (1, 2, 3, 4, 5)) < 0.03


def test_shards_add_up_in_any_order():
    whole = resample_paired(USERS, T, B, DRAW)
    parts = [resample_paired(USERS[s], T[s], B[s], DRAW) for s in (slice(2000, N), slice(0, 700), slice(700, 2000))]
    total = parts[0] + parts[1] + parts[2]
    assert total.n_t == whole.n_t
    assert np.array_equal(total.count_t, whole.count_t)
    assert total.total_t == pytest.approx(whole.total_t, rel=1e-12)
    assert bootstrap([total], 0.95, "relative").low == pytest.approx(bootstrap([whole], 0.95, "relative").low)


def test_threads_never_change_the_bits():
    count = 2 * BLOCK + 5
    users, values = np.arange(count), np.random.default_rng(0).gamma(2, 1, count)
    one, two = (resample_paired(users, values, values[::-1].copy(), Draw(2, 100), threads=k) for k in (1, 2))
    assert np.array_equal(one.total_t, two.total_t)
    assert np.array_equal(one.total_b, two.total_b)


@pytest.mark.parametrize("shift", [0.0, 0.5, 30.0])
def test_members_share_the_resamples_and_widen_the_interval_as_rubins_rules_do(shift):
    values = [T + s for s in (0.0, shift, -shift, 0.0)]
    parts = [resample_paired(USERS, t, B, Draw(3, 6000, at, 4)) for at, t in enumerate(values)]
    assert [len(p.count_t) for p in parts] == [1500] * 4
    assert not np.array_equal(parts[0].count_t, parts[1].count_t)
    found = bootstrap(parts, 0.95, "difference")
    reference = difference([paired(PairedSums.of(t, B)) for t in values], 0.95)
    assert found.value == pytest.approx(reference.value)
    assert found.se == pytest.approx(reference.se, rel=0.05)
    assert found.high - found.low == pytest.approx(reference.high - reference.low, rel=0.07)


def test_intervals_cover():
    """400 skewed samples of 150 users: a percentile interval covers a little under 95 %, as it should."""
    rng, covered = np.random.default_rng(8), 0
    for run in range(400):
        t, b = rng.gamma(2, 33, 150), rng.gamma(2, 30, 150)
        effect = bootstrap([resample_paired(np.arange(150), t, b, Draw(run, 400))], 0.95, "relative")
        covered += effect.low <= 0.1 <= effect.high
    assert stats.binom.ppf(0.005, 400, 0.93) <= covered <= stats.binom.ppf(0.995, 400, 0.95)


ONES = np.ones(50)


@pytest.mark.parametrize(
    ("t", "b", "what", "text"),
    [
        (ONES[:0], ONES[:0], "relative", "no user to resample"),
        (ONES[:1], ONES[:1], "difference", "only one user"),
        (ONES, 2 * ONES, "difference", r"same value \(-1\)"),
        (T[:50], T[:50], "relative", r"same value \(0\)"),
        (ONES, 0 * ONES, "relative", "not above 0"),
        (T[:4], np.array([1.0, 0, 0, 0]), "relative", "resamples have an empty arm or a baseline"),
        (T[:2], B[:2], "difference", "resamples have an empty arm"),
    ],
)
def test_what_can_not_be_computed_says_why(t, b, what, text):
    found = bootstrap([resample_paired(np.arange(len(t)), t, b, Draw(1, 1000))], 0.95, what)
    assert found.low is None
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(found.reason)


def test_too_few_resamples_are_refused():
    with pytest.raises(ConfigError, match="at least 100"):
        Draw(1, 20)
    assert bootstrap([], 0.95, "difference").reason == "no user to resample"
