"""The paired user bootstrap: exact statistics in every resample, intervals that cover."""

import numpy as np
import pytest

from benchmarks import paired
from components.models import metrics

ROWS, USERS = 600, 40


def impressions(seed: int = 0, ties: bool = True):
    rng = np.random.default_rng(seed)
    user = rng.integers(0, USERS, ROWS)
    score = rng.random(ROWS)
    label = (rng.random(ROWS) < 0.2 + 0.5 * score).astype(np.float64)
    return label, np.round(score, 1) if ties else score, user


def counts(seed: int, resamples: int = 7) -> np.ndarray:
    return paired.draw(USERS, 3, resamples, np.random.default_rng(seed)).users


def unrolled(weights: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """Rows written out as often as their user was drawn; a user drawn twice becomes two users."""
    user = columns[-1]
    repeats = weights[user]
    copy = np.concatenate([np.arange(r) for r in repeats])
    return [*(np.repeat(c, repeats) for c in columns[:-1]), np.repeat(user, repeats) + USERS * copy]


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("name", ["auc", "gauc", "logloss", "mse"])
def test_a_resample_has_the_metric_of_its_rows_written_out(name: str, ties: bool) -> None:
    label, score, user = impressions(ties=ties)
    drawn = counts(1)
    found = getattr(paired, name)(label, score, user, drawn)
    for weights, value in zip(drawn, found, strict=True):
        y, p, u = unrolled(weights, label, score, user)
        wanted = metrics.gauc(y, p, u) if name == "gauc" else getattr(metrics, name)(y, p)
        assert value == pytest.approx(wanted.value, abs=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    label, score, user = impressions()
    drawn = counts(2, resamples=25)
    whole = paired.auc(label, score, user, drawn)
    monkeypatch.setattr(paired, "BLOCK_CELLS", 4 * ROWS)
    assert np.array_equal(paired.auc(label, score, user, drawn), whole)


def test_a_resample_without_positives_has_no_area() -> None:
    label, score, user = np.array([1.0, 0.0, 0.0]), np.array([0.3, 0.2, 0.1]), np.array([0, 1, 2])
    drawn = np.array([[1, 1, 1], [0, 2, 1]], np.int32)
    assert np.array_equal(paired.auc(label, score, user, drawn), [1.0, np.nan], equal_nan=True)
    assert np.isnan(paired.gauc(label, score, user, drawn)).all()
    found = paired.difference(np.full((2, 1), np.nan), np.zeros((2, 1)), (np.ones(1), np.zeros(1)), np.ones((2, 1)))
    assert found == paired.Interval(None, None, None, 0)


def test_no_rows_have_no_metric() -> None:
    nothing, drawn = np.zeros(0), counts(3)
    for name in ("auc", "gauc", "logloss", "mse"):
        assert np.isnan(getattr(paired, name)(nothing, nothing, np.zeros(0, np.int64), drawn)).all()


def test_draws_keep_the_number_of_users_and_the_sum_of_seed_weights() -> None:
    drawn = paired.draw(USERS, 5, 2_000, np.random.default_rng(4))
    assert (drawn.users.sum(1) == USERS).all()
    assert np.allclose(drawn.seeds.sum(1), 1.0)
    # The variance of a mean of 5 fresh seeds, not that of 5 drawn out of the same 5.
    values = np.random.default_rng(5).normal(size=5)
    assert (drawn.seeds @ values).var() == pytest.approx(values.var(ddof=1) / 5, rel=0.1)
    assert np.array_equal(paired.draw(USERS, 1, 3, np.random.default_rng(6)).seeds, np.ones((3, 1)))


def test_the_interval_covers_the_true_difference() -> None:
    """Two predictors of known squared errors; users differ a lot, seeds a little: 95 % of intervals hold the truth."""
    rng = np.random.default_rng(7)
    held, repeats, users, seeds = 0, 300, 200, 5
    for _ in range(repeats):
        user = np.repeat(np.arange(users), 3)
        hard = rng.gamma(2.0, 1.0, users)[user]
        label = np.zeros(len(user))
        ours = hard[:, None] * (1.0 + 0.3 * rng.normal(size=(len(user), 1))) + 0.1 * rng.normal(size=seeds)
        theirs = np.sqrt(hard[:, None] ** 2 * 1.09 + 0.5 + 0.1 * rng.normal(size=seeds) ** 2)
        drawn = paired.draw(users, seeds, 200, rng)
        everyone = np.ones((1, users), np.int32)
        resampled, values = [], []
        for scores in (ours, theirs):
            resampled.append(np.stack([paired.mse(label, s, user, drawn.users) for s in scores.T], axis=1))
            values.append(np.array([paired.mse(label, s, user, everyone)[0] for s in scores.T]))
        found = paired.difference(*resampled, (values[0], values[1]), drawn.seeds)
        # E[ours²] - E[theirs²] = 0.1² - (0.5 + 0.1).
        held += found.low <= -0.59 <= found.high
    assert 0.9 <= held / repeats <= 0.98


def test_what_both_models_share_cancels() -> None:
    label, score, user = impressions()
    drawn = paired.draw(USERS, 1, 300, np.random.default_rng(8))
    area = paired.auc(label, score, user, drawn.users)[:, None]
    value = np.array([metrics.auc(label, score).value])
    same = paired.difference(area, area, (value, value), drawn.seeds)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert np.ptp(area) > 0.01
