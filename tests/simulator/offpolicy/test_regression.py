import numpy as np
import pytest

from simulator.offpolicy.regression import fit, fold_of


def data(rng: np.random.Generator, users: int = 400, each: int = 5):
    user = np.repeat(np.arange(users), each)
    features = rng.normal(size=(len(user), 3)) * [1, 10, 100] + [0, 5, -50]
    truth = 2 + 0.5 * features[:, 0] - 0.1 * features[:, 1]
    return user, features, truth


def test_a_linear_truth_is_found_whatever_the_scales():
    rng = np.random.default_rng(1)
    user, features, truth = data(rng)
    rewards = np.column_stack([truth + rng.normal(0, 0.5, len(user)), -truth])
    found = fit(1, user, features, rewards, np.ones(len(user))).predict(user, features)
    assert np.abs(found[:, 0] - truth).mean() < 0.06
    np.testing.assert_allclose(found[:, 1], -truth, atol=0.02)


def test_predictions_never_saw_the_users_rewards():
    rng = np.random.default_rng(2)
    user, features, truth = data(rng)
    one = user == 7
    plain = fit(1, user, features, truth[:, None], np.ones(len(user))).predict(user[one], features[one])
    changed = np.where(one, 1e6, truth)[:, None]
    again = fit(1, user, features, changed, np.ones(len(user))).predict(user[one], features[one])
    assert np.array_equal(plain, again)
    assert set(fold_of(1, user)) == {0, 1}


def test_weights_count_as_rows_and_unknown_features_as_the_mean():
    rng = np.random.default_rng(3)
    user, features, truth = data(rng)
    rows = np.repeat(np.arange(len(user)), np.where(features[:, 0] > 0, 3, 1))
    weight = np.where(features[:, 0] > 0, 3.0, 1.0)
    reward = np.exp(features[:, :1])
    centred = (features - features.mean(axis=0)) / features.std(axis=0)
    repeated = fit(1, user[rows], centred[rows], reward[rows], np.ones(len(rows)))
    weighted = fit(1, user, centred, reward, weight)
    np.testing.assert_allclose(repeated.predict(user, centred), weighted.predict(user, centred), atol=0.02)
    features[::7, 1] = np.nan
    found = fit(1, user, features, truth[:, None], np.ones(len(user))).predict(user, features)
    assert np.isfinite(found).all()
    features[:, 2] = np.nan
    assert np.isfinite(fit(1, user, features, truth[:, None], weight).predict(user, features)).all()


def test_a_reward_that_is_hardly_recorded_has_no_prediction():
    rng = np.random.default_rng(4)
    user, features, truth = data(rng)
    few = np.where(np.arange(len(user)) < 40, truth, np.nan)
    found = fit(1, user, features, np.column_stack([truth, few]), np.ones(len(user))).predict(user, features)
    assert np.isfinite(found[:, 0]).all()
    assert np.isnan(found[:, 1]).all()


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_to_fit_is_no_crash(rows):
    found = fit(1, np.arange(rows), np.ones((rows, 2)), np.ones((rows, 1)), np.ones(rows))
    assert np.isnan(found.predict(np.arange(3), np.zeros((3, 2)))).all()
