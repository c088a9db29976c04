from itertools import pairwise

import numpy as np
import pytest

from components.errors import ConfigError
from simulator.offpolicy import Candidates, ClusterSums, Limits, Shrinkage, evaluate, greedy, rounds_over

SIZES = np.array([3, 1, 4, 2])
OFFSETS = np.append(0, np.cumsum(SIZES)).astype(np.int64)


def sets(logged: list[int], probabilities: np.ndarray | None = None) -> Candidates:
    return Candidates(OFFSETS, np.arange(10), np.array(logged), probabilities)


def reduced(candidates: Candidates, policy: np.ndarray, values: np.ndarray | None):
    return rounds_over(candidates, policy, values, reward=np.ones(4), propensity=np.full(4, 0.5), cluster=np.arange(4))


def test_policies_and_models_are_reduced_to_numbers_per_round():
    rng = np.random.default_rng(1)
    policy = np.concatenate([rng.dirichlet(np.ones(size)) for size in SIZES])
    values = rng.normal(size=10)
    found = reduced(sets([1, 3, 7, 8]), policy, values)
    parts = [slice(a, b) for a, b in pairwise(OFFSETS)]
    assert found.target.tolist() == policy[[1, 3, 7, 8]].tolist()
    assert found.value.tolist() == values[[1, 3, 7, 8]].tolist()
    np.testing.assert_allclose(found.expected, [policy[part] @ values[part] for part in parts], rtol=1e-14)
    assert found.unsupported.tolist() == [0.0] * 4
    assert reduced(sets([1, 3, 7, 8]), policy, None).expected is None


def test_the_best_candidate_is_taken_and_equal_ones_share():
    scores = np.array([0.1, 0.3, 0.2, -5.0, 2.0, 2.0, 1.0, 2.0, np.nan, 1.0])
    np.testing.assert_allclose(greedy(OFFSETS, scores), [0, 1, 0, 1, 1 / 3, 1 / 3, 0, 1 / 3, np.nan, np.nan])
    assert greedy(OFFSETS, np.full(10, -np.inf)).tolist()[:3] == [1 / 3] * 3


def test_choices_without_support_are_counted():
    probabilities = np.array([0.5, 0.5, 0.0, 1.0, 0.5, np.nan, 0.25, 0.25, 0.5, 0.5])
    policy = np.array([0.2, 0.2, 0.6, 1.0, 0.0, 0.5, 0.5, 0.0, 1.0, 0.0])
    found = reduced(sets([0, 3, 6, 8], probabilities), policy, None)
    assert found.unsupported.tolist() == [0.6, 0.0, 0.5, 0.0]
    why = evaluate(ClusterSums.of(found, Shrinkage()), Limits(0.0), 0.95).values["ips"].reason
    assert why is not None
    assert "27.50% of its choices" in why


def test_a_model_need_not_know_what_the_target_never_chooses():
    values = np.where(np.arange(10) == 2, np.nan, 1.0)
    policy = greedy(OFFSETS, np.array([0, 1, 0, 0, 0, 0, 0, 1, 0, 1.0]))
    assert np.isfinite(reduced(sets([1, 3, 7, 8]), policy, values).expected).all()


@pytest.mark.parametrize("bad", [np.nan, -0.1, 0.9])
def test_probabilities_that_are_no_distribution_are_refused(bad):
    policy = greedy(OFFSETS, np.arange(10.0))
    policy[0] = bad
    found = reduced(sets([2, 3, 7, 8]), policy, None)
    assert np.isnan(found.target).tolist() == [True, False, False, False]
    why = evaluate(ClusterSums.of(found, Shrinkage()), Limits(0.0), 0.95).values["dm"].reason
    assert why == "the target's probabilities are no distribution in 1 of 4 rounds"


def test_a_logged_action_outside_of_its_set_has_no_propensity():
    found = reduced(sets([-1, 3, 7, 8]), greedy(OFFSETS, np.arange(10.0)), np.ones(10))
    assert np.isnan(found.propensity).tolist() == [True, False, False, False]
    values = evaluate(ClusterSums.of(found, Shrinkage()), Limits(0.0), 0.95).values
    assert values["ips"].reason == "the propensity is unknown in 1 of 4 rounds"
    assert values["dm"].value == 1.0


def test_sets_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="offsets must rise"):
        Candidates(OFFSETS[:-1], np.arange(10), np.zeros(4, np.int64))
    with pytest.raises(ConfigError, match="another round"):
        sets([5, 3, 7, 8])
    with pytest.raises(ConfigError, match="9 probabilities"):
        sets([1, 3, 7, 8], np.ones(9))
    with pytest.raises(ConfigError, match="3 numbers of the policy"):
        reduced(sets([1, 3, 7, 8]), np.ones(3), None)
