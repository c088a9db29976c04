from math import comb

import numpy as np
import pytest
from scipy import stats

from components.errors import ConfigError
from simulator.offpolicy import (
    Candidates,
    ClusterSums,
    Limits,
    Shrinkage,
    evaluate,
    greedy,
    random_sets,
    rounds_over,
    set_propensity,
)

POOL, K = 30, 6
# The score orders the pool by index; what it earns has little to do with the score.
SCORE = np.arange(POOL, dtype=np.float64)
RATE = 0.2 + 0.6 * np.abs(np.sin(SCORE))
# The best of a random set of K is i when the other K - 1 are among the i below it.
BEST = np.array([comb(i, K - 1) / comb(POOL, K) for i in range(POOL)])
TRUTH = float(BEST @ RATE)


def sets_of(n: int, logged: np.ndarray, *, seed: int = 1, size: int = K, first: int = 0) -> Candidates:
    at = np.arange(first, first + n)
    pool = np.full(n, POOL)
    return random_sets(seed=seed, size=size, user=at // 5, exposure=at, logged=logged, eligible=pool)


def replayed(rng: np.random.Generator, n: int, seed: int, exposed: np.ndarray | None = None) -> ClusterSums:
    """Exposures of a pool to n / 5 users with moods, replayed with a score that knows nothing of them."""
    logged = rng.choice(POOL, n, p=exposed)
    mood = np.repeat(rng.normal(0, 0.2, n // 5), 5)
    candidates = sets_of(n, logged, seed=seed)
    rounds = rounds_over(
        candidates,
        greedy(candidates.offsets, SCORE[candidates.ids]),
        None,
        reward=(rng.random(n) < RATE[logged]) + mood,
        propensity=set_propensity(candidates, exposed),
        cluster=np.arange(n) // 5,
    )
    return ClusterSums.of(rounds, Shrinkage())


def test_sets_hold_the_logged_one_and_others_without_repeats():
    logged = np.random.default_rng(1).integers(0, POOL, 2_000)
    found = sets_of(2_000, logged)
    sets = found.ids.reshape(-1, K)
    assert (sets[:, 0] == logged).all()
    assert (found.logged == np.arange(2_000) * K).all()
    assert all(len(set(one)) == K for one in sets.tolist())
    assert sets.min() >= 0
    assert sets.max() < POOL
    assert set_propensity(found).tolist() == [1 / K] * 2_000


@pytest.mark.parametrize("logged", [0, 13, POOL - 1])
def test_decoys_are_equally_likely(logged):
    n = 20_000
    sets = sets_of(n, np.full(n, logged)).ids.reshape(-1, K)[:, 1:]
    counts = np.bincount(sets.ravel(), minlength=POOL)
    assert counts[logged] == 0
    assert stats.chisquare(np.delete(counts, logged)).pvalue > 1e-3
    # Pairs are, too: each of C(29, 2) comes together equally often.
    low, high = sets.min(axis=1), sets.max(axis=1)
    together = np.mean([((sets == a).any(axis=1) & (sets == b).any(axis=1)).mean() for a, b in ((3, 4), (5, 20))])
    expected = (K - 1) * (K - 2) / (POOL - 1) / (POOL - 2)
    assert together == pytest.approx(expected, abs=4 * np.sqrt(expected / n / 2))
    assert (low < high).all()


def test_sets_depend_on_user_exposure_and_seed_alone():
    logged = np.random.default_rng(1).integers(0, POOL, 500)
    whole = sets_of(500, logged).ids.reshape(-1, K)
    later = sets_of(200, logged[300:], first=300).ids.reshape(-1, K)
    assert (whole[300:] == later).all()
    assert (sets_of(500, logged, seed=2).ids.reshape(-1, K) != whole).any()


def test_nothing_is_drawn_that_was_not_eligible_and_small_pools_give_small_sets():
    eligible = np.array([3, 10, 1, POOL])
    found = random_sets(
        seed=1, size=K, user=np.arange(4), exposure=np.arange(4), logged=np.array([2, 0, 0, 29]), eligible=eligible
    )
    sets = np.split(found.ids, found.offsets[1:-1])
    assert [len(one) for one in sets] == [3, K, 1, K]
    assert sorted(sets[0]) == [0, 1, 2]
    assert sets[1].max() < 10
    assert set_propensity(found).tolist() == [1 / 3, 1 / K, 1.0, 1 / K]


def test_a_logged_item_that_was_not_eligible_is_refused():
    found = random_sets(
        seed=1, size=3, user=np.arange(2), exposure=np.arange(2), logged=np.array([9, 1]), eligible=np.array([5, 5])
    )
    assert found.logged.tolist() == [-1, 3]
    assert np.isnan(set_propensity(found)).tolist() == [True, False]
    assert found.ids[:3].max() < 5
    assert len(set(found.ids[:3])) == 3


def test_replay_hits_the_known_value_and_its_intervals_cover_it():
    runs = 300
    rng = np.random.default_rng(3)
    values, covered = {"snips": np.empty(runs), "ips": np.empty(runs)}, {"snips": 0, "ips": 0}
    for run in range(runs):
        found = evaluate(replayed(rng, 1_500, seed=run), Limits(), 0.95)
        for name in ("snips", "ips"):
            one = found.values[name]
            assert one.value is not None
            assert one.low is not None
            assert one.high is not None
            values[name][run] = one.value
            covered[name] += one.low <= TRUTH <= one.high
    low, high = stats.binom.ppf([0.0025, 0.9975], runs, 0.95)
    for name in ("snips", "ips"):
        assert abs(values[name].mean() - TRUTH) < 4 * values[name].std() / np.sqrt(runs), name
        assert low <= covered[name] <= high, (name, covered[name])


def test_a_policy_that_knows_nothing_earns_the_mean():
    rng = np.random.default_rng(4)
    n = 30_000
    logged = rng.integers(0, POOL, n)
    candidates = sets_of(n, logged)
    rounds = rounds_over(
        candidates,
        greedy(candidates.offsets, np.zeros(len(candidates.ids))),
        None,
        reward=RATE[logged],
        propensity=set_propensity(candidates),
        cluster=np.arange(n) // 5,
    )
    found = evaluate(ClusterSums.of(rounds, Shrinkage()), Limits(), 0.95)
    # Equal scores are shared; taking the first would take the logged one every time.
    assert found.weights.mean == pytest.approx(1.0)
    assert found.values["ips"].value == pytest.approx(RATE.mean(), abs=0.01)


def test_exposures_of_known_rates_give_the_same_value():
    exposed = np.linspace(1, 3, POOL)
    exposed /= exposed.sum()
    rng = np.random.default_rng(5)
    values = [
        evaluate(replayed(rng, 3_000, seed=run, exposed=exposed), Limits(), 0.95).values["ips"].value
        for run in range(150)
    ]
    # Given its set, a logged one comes with its share of the rates; sets are drawn around logged ones, so a set counts
    # as often as its members are exposed.
    weights = np.array([exposed[list(one)].sum() for one in SETS])
    truth = float(np.average([RATE[max(one)] for one in SETS], weights=weights))
    assert abs(np.mean(values) - truth) < 4 * np.std(values) / np.sqrt(150)
    assert abs(truth - TRUTH) < 0.02


SETS = [tuple(np.random.default_rng(run).choice(POOL, K, replace=False)) for run in range(20_000)]


def test_impossible_requests_are_refused():
    one = np.zeros(1, np.int64)
    with pytest.raises(ConfigError, match="at least 2"):
        random_sets(seed=1, size=1, user=one, exposure=one, logged=one, eligible=one + 3)
    with pytest.raises(ConfigError, match="pool is empty"):
        random_sets(seed=1, size=3, user=one, exposure=one, logged=one, eligible=one)
    with pytest.raises(ConfigError, match="differ in length"):
        random_sets(seed=1, size=3, user=one, exposure=one, logged=one, eligible=np.array([3, 3]))
    nothing = np.empty(0, np.int64)
    empty = random_sets(seed=1, size=3, user=nothing, exposure=nothing, logged=nothing, eligible=nothing)
    assert len(empty) == 0
    assert len(set_propensity(empty, np.ones(3))) == 0
