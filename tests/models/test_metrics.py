import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from components.models.metrics import auc, gauc, logloss, mse


def brute_auc(labels, scores):
    differences = scores[labels > 0][:, None] - scores[labels == 0][None, :]
    return ((differences > 0) + 0.5 * (differences == 0)).mean()


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_auc_equals_all_pairs_and_scipy_with_ties(decimals):
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 500), np.round(rng.normal(size=500), decimals)
    found = auc(labels, scores)
    assert found.value == pytest.approx(brute_auc(labels, scores))
    u = mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    assert found.value == pytest.approx(u / (labels.sum() * (500 - labels.sum())))
    assert (found.rows, found.positives, found.reason) == (500, labels.sum(), None)


def test_known_areas():
    assert auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])).value == 0.75
    assert auc(np.array([0, 1]), np.array([0.5, 0.5])).value == 0.5
    assert auc(np.array([0, 1, np.nan]), np.array([0.1, 0.2, 0.0])).value == 1.0


def test_gauc_equals_a_loop_over_users():
    rng = np.random.default_rng(1)
    users = rng.integers(0, 60, 400) * 10**12
    labels, scores = rng.integers(0, 2, 400), np.round(rng.normal(size=400), 1)
    total = weight = 0.0
    for user in np.unique(users):
        mine = users == user
        if 0 < labels[mine].sum() < mine.sum():
            total += mine.sum() * brute_auc(labels[mine], scores[mine])
            weight += mine.sum()
    assert gauc(labels, scores, users).value == pytest.approx(total / weight)


def test_users_with_one_class_do_not_count():
    users, labels = np.array([1, 1, 2, 2, 2]), np.array([0, 1, 1, 1, 1])
    found = gauc(labels, np.array([0.1, 0.2, 0.3, 0.4, 0.5]), users)
    assert (found.value, found.rows, found.positives) == (1.0, 5, 4)
    only = gauc(np.array([0, 1]), np.array([0.1, 0.2]), np.array([1, 2]))
    assert only.value is None
    assert only.reason == "one class is missing within any user: 1 positives of 2 rows"


def test_logloss_and_mse():
    labels, scores = np.array([1.0, 0.0, np.nan]), np.array([0.8, 0.4, 0.5])
    assert logloss(labels, scores).value == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    assert logloss(np.array([1.0]), np.array([0.0])).value == pytest.approx(-np.log(1e-7))
    assert logloss(np.array([1.0]), np.array([1.0], np.float32)).value == pytest.approx(1e-7, rel=1e-3)
    assert mse(labels, scores).value == pytest.approx((0.04 + 0.16) / 2)
    assert mse(labels, scores).rows == 2


@pytest.mark.parametrize("metric", [auc, logloss, mse])
def test_what_can_not_be_computed_has_a_reason(metric):
    empty = metric(np.array([np.nan]), np.array([0.5]))
    assert (empty.value, empty.reason, empty.rows) == (None, "no row has a label", 0)
    broken = metric(np.array([0.0, 1.0]), np.array([np.nan, 0.5]))
    assert (broken.value, broken.reason) == (None, "1 of 2 predictions are not finite")


def test_auc_of_one_class_has_a_reason():
    found = auc(np.zeros(3), np.arange(3))
    assert (found.value, found.reason) == (None, "one class is missing: 0 positives of 3 rows")
