import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from components.errors import ConfigError
from simulator.cuped import Covariates, CrossSums, adjusted_paired, adjusted_split
from simulator.inference import difference, paired, relative, welch
from simulator.metrics import ArmSums, PairedSums

RNG = np.random.default_rng(17)
N = 600
X = np.column_stack([RNG.gamma(2, 10, N), RNG.normal(size=N)])
B = 3 * X[:, 0] + 5 * X[:, 1] + RNG.normal(0, 8, N) + 50
T = 1.1 * B + 2 * X[:, 1] + RNG.normal(0, 4, N)
HALF = slice(0, 250), slice(250, N)


def least_squares(y, x):
    """Intercept at the mean covariates, and its variance given the covariates, by the textbook's formula."""
    design = np.column_stack([np.ones(len(y)), x - x.mean(axis=0)])
    beta, residual, *_ = np.linalg.lstsq(design, y, rcond=None)
    sigma2 = residual[0] / (len(y) - design.shape[1])
    return beta[0], sigma2 * np.linalg.inv(design.T @ design)[0, 0]


def test_paired_equals_the_regression_of_differences():
    found = difference([adjusted_paired(CrossSums.of([T, B], X))], 0.95)
    value, variance = least_squares(T - B, X)
    assert found.value == pytest.approx(value)
    assert found.value == pytest.approx((T - B).mean())
    assert found.se == pytest.approx(np.sqrt(variance))
    assert found.df == N - 3


def test_paired_lift_equals_the_regression_of_linearised_residuals():
    found = relative([adjusted_paired(CrossSums.of([T, B], X))], 0.95)
    ratio = T.mean() / B.mean()
    assert found.value == pytest.approx(ratio - 1)
    assert found.se == pytest.approx(np.sqrt(least_squares((T - ratio * B) / B.mean(), X)[1]))
    assert found.se < 0.92 * relative([paired(PairedSums.of(T, B))], 0.95).se


def test_split_with_one_covariate_equals_the_papers_formula():
    t, b, x = T[HALF[0]], B[HALF[1]], X[:, :1]
    found = difference([adjusted_split(CrossSums.of([t], x[HALF[0]]), CrossSums.of([b], x[HALF[1]]))], 0.95)
    y = np.concatenate([t, b])
    theta = np.cov(y, x[:, 0])[0, 1] / x.var(ddof=1)
    reference = stats.ttest_ind(t - theta * x[HALF[0], 0], b - theta * x[HALF[1], 0], equal_var=False)
    adjusted = (t - theta * x[HALF[0], 0]).mean() - (b - theta * x[HALF[1], 0]).mean()
    assert found.value == pytest.approx(adjusted)
    assert found.df == pytest.approx(reference.df)
    assert found.se == pytest.approx(adjusted / reference.statistic * np.sqrt((N - 2) / (N - 3)))


def test_split_gains_over_welch_with_all_covariates():
    arms = [(T[HALF[0]], X[HALF[0]]), (B[HALF[1]], X[HALF[1]])]
    found = relative([adjusted_split(*(CrossSums.of([y], x) for y, x in arms))], 0.95)
    plain = relative([welch(*(ArmSums.of(y) for y, _ in arms))], 0.95)
    assert found.se < 0.6 * plain.se


def test_shards_add_up():
    whole = CrossSums.of([T, B], X)
    parts = CrossSums.of([T[:99], B[:99]], X[:99]) + CrossSums.of([T[99:], B[99:]], X[99:])
    assert adjusted_paired(parts).var_treatment == pytest.approx(adjusted_paired(whole).var_treatment)


def test_repeated_and_constant_covariates_count_once():
    wide = np.column_stack([X, X[:, 0] * 2 + 1, np.ones(N)])
    found, plain = (adjusted_paired(CrossSums.of([T, B], x)) for x in (wide, X))
    assert found.df == plain.df
    assert found.var_treatment == pytest.approx(plain.var_treatment)


def test_few_users_use_the_first_covariates_only():
    few = slice(0, 50)
    wide = np.column_stack([np.ones(50), X[few], RNG.normal(size=(50, 3))])
    found, reference = (adjusted_paired(CrossSums.of([T[few], B[few]], x)) for x in (wide, X[few]))
    assert found.df == reference.df == 47
    assert found.var_treatment == pytest.approx(reference.var_treatment)


@pytest.mark.parametrize("design", ["paired", "split"])
def test_level_and_coverage(design):
    """1,000 small experiments with a lift: misses of the 95 % interval lie in the exact binomial band at 1 %."""
    rng, misses, runs, n = np.random.default_rng(18), 0, 1000, 120
    for _ in range(runs):
        x = rng.gamma(2, 10, (n, 2))
        b = 2 * x[:, 0] + x[:, 1] + rng.gamma(2, 8, n)
        t = 2 * x[:, 0] + x[:, 1] + rng.gamma(2, 8, n) + 5
        if design == "paired":
            moments = adjusted_paired(CrossSums.of([t, b], x))
        else:
            moments = adjusted_split(CrossSums.of([t[:50]], x[:50]), CrossSums.of([b[50:]], x[50:]))
        effect = difference([moments], 0.95)
        misses += not effect.low <= 5 <= effect.high
    low, high = stats.binom.ppf([0.005, 0.995], runs, 0.05)
    assert low <= misses <= high


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (adjusted_paired(CrossSums.of([T, B], np.ones((N, 2)))), "no covariate varies"),
        (adjusted_paired(CrossSums.of([T, B], np.zeros((N, 0)))), "no covariate is known"),
        (adjusted_paired(CrossSums.of([T[:19], B[:19]], X[:19])), "19 users are too few for a covariate"),
        (adjusted_paired(CrossSums.of([T[:1], B[:1]], X[:1])), "only one user"),
        (adjusted_paired(CrossSums.of([T[:0], B[:0]], X[:0])), "no user"),
        (adjusted_split(CrossSums.of([T], X), CrossSums.of([B[:0]], X[:0])), "fewer than two users"),
        (adjusted_split(CrossSums.of([T], X * 0), CrossSums.of([B], X * 0)), "no covariate varies"),
    ],
)
def test_what_can_not_be_adjusted_says_why(found, text):
    assert isinstance(found, str)
    assert text in found


def test_unknown_covariates_count_as_a_group_of_their_own():
    table = pa.table({"user_id": [3, 1, 2], "x": [30.0, None, 20.0], "y": [1.0, 1.0, 2.0]})
    covariates = Covariates.of(table)
    assert covariates.count == 2
    matrix = covariates.matrix(np.array([1, 2, 3, 9]))
    expected = [[0, 1, 1, 0], [20, 2, 0, 0], [30, 1, 0, 0], [0, 0, 1, 1]]
    assert matrix.tolist() == expected
    assert covariates.matrix(np.array([2, 3])).tolist() == [[20, 2], [30, 1]]
    # The same fit as with the mean of those who have one filled in, beside the indicator.
    some = RNG.uniform(size=N) < 0.3
    zero = np.column_stack([np.where(some, 0, X[:, 0]), some])
    mean = np.column_stack([np.where(some, X[~some, 0].mean(), X[:, 0]), some])
    found, reference = (adjusted_paired(CrossSums.of([T, B], x)) for x in (zero, mean))
    assert found.var_baseline == pytest.approx(reference.var_baseline)
    with pytest.raises(ConfigError, match="one row per user"):
        Covariates.of(pa.table({"user_id": [1, 1], "x": [1.0, 2.0]}))
    assert Covariates.of(table.slice(0, 0)).matrix(np.array([1])).tolist() == [[0, 0]]
