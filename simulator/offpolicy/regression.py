"""The reward model of the doubly robust estimators: least squares on numbers, cross-fitted by user.

It shares nothing with an arm nor with the response model of the rollouts, so that off-policy estimates and rollouts can
disagree. Doubly robust estimates need no right model where propensities are true, only one that saw no row of the user
that it is asked for (Chernozhukov et al., The Econometrics Journal 2018, section 3): a linear one is enough to take out
what the features explain.
"""

from dataclasses import dataclass

import numpy as np

from simulator import draws
from simulator.offpolicy.rounds import FloatArray, IntArray

FOLDS = 2

# Of the standardised features' total: enough to keep nearly collinear counters apart.
_RIDGE = 1e-3
_FEWEST_ROWS = 50
# An odd counter must not rule a prediction.
_CLIP = 5.0


@dataclass(frozen=True)
class RewardModel:
    """Coefficients of R rewards per fold of users.

    Attributes:
        seed: Of the folds.
        centre: float64 [F], features' means.
        scale: float64 [F], features' standard deviations.
        coefficients: float64 [FOLDS, F + 1, R], fitted without the fold's users; the intercept is last. NaN where
            there were too few rows with the reward.
    """

    seed: int
    centre: FloatArray
    scale: FloatArray
    coefficients: FloatArray

    def predict(self, user: IntArray, features: FloatArray) -> FloatArray:
        """Expected rewards.

        Args:
            user: int64 [N].
            features: float64 [N, F], NaN where unknown.

        Returns:
            float64 [N, R].
        """
        x = _scaled(features, self.centre, self.scale)
        fold = fold_of(self.seed, user)
        found = np.empty((len(user), self.coefficients.shape[2]))
        for f in range(FOLDS):
            rows = fold == f
            found[rows] = x[rows] @ self.coefficients[f]
        return found


def fit(seed: int, user: IntArray, features: FloatArray, rewards: FloatArray, weight: FloatArray) -> RewardModel:
    """Fit one linear model per reward and fold.

    Args:
        seed: Of the folds.
        user: int64 [N].
        features: float64 [N, F], NaN where unknown.
        rewards: float64 [N, R], NaN where not recorded.
        weight: float64 [N], how much each row counts, not negative.

    Returns:
        The model; a reward with fewer than 50 rows outside of a fold has NaN coefficients.
    """
    known = np.isfinite(features)
    count = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, features, 0.0).sum(axis=0) / count
    scale = np.sqrt(np.where(known, (features - centre) ** 2, 0.0).sum(axis=0) / count)
    scale = np.where(scale > 1e-9, scale, np.inf)
    x = _scaled(features, centre, scale)
    fold = fold_of(seed, user)
    coefficients = np.full((FOLDS, x.shape[1], rewards.shape[1]), np.nan)
    for f in range(FOLDS):
        for r in range(rewards.shape[1]):
            rows = (fold != f) & np.isfinite(rewards[:, r])
            if rows.sum() >= _FEWEST_ROWS:
                coefficients[f, :, r] = _ridge(x[rows], rewards[rows, r], weight[rows])
    return RewardModel(seed, centre, scale, coefficients)


def fold_of(seed: int, user: IntArray) -> IntArray:
    """int64 [N]: the fold whose fit never saw each user."""
    return draws.bucket(seed, "reward model fold", FOLDS, user)


def _scaled(features: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray:
    """float64 [N, F + 1]: standardised, 0 where unknown, with a column of ones."""
    x = np.clip(np.nan_to_num((features - centre) / scale), -_CLIP, _CLIP)
    return np.column_stack([x, np.ones(len(x))])


def _ridge(x: FloatArray, y: FloatArray, weight: FloatArray) -> FloatArray:
    penalty = np.full(x.shape[1], _RIDGE * max(float(weight.sum()), 1e-9))
    # The mean is not shrunk.
    penalty[-1] = 0.0
    weighted = x * weight[:, None]
    return np.asarray(np.linalg.solve(weighted.T @ x + np.diag(penalty), weighted.T @ y), np.float64)
