"""Logistic regression with partially pooled groups, and its recalibration: the leave and the return model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from components.errors import TrainingError

FloatArray = NDArray[np.float64]

# Fewer events than this of either outcome and a coefficient would be the prior's, not the data's.
MIN_EVENTS = 20

# Variances of the Gaussian priors, as ridge penalties on standardised columns: shared slopes, a group's
# deviation from them (new users may leave for other reasons, but borrow strength), the deviation of a slope that
# the rollouts' contrasts rest on (a group's own estimate is mostly noise), a group's own level.
_SHARED, _DEVIATION, _OWN, _LEVEL = 1.0, 50.0, 200.0, 0.01
# Of a shift that calibrates the predictions of one cell of rows.
_SHIFT = 5.0


@dataclass(frozen=True)
class GroupLogit:
    """A logistic regression whose coefficients differ by group, shrunk towards shared ones.

    Attributes:
        coefficients: float64 [G, 1 + P], intercept first, on the features' own scale.
    """

    coefficients: FloatArray

    def logit(self, features: FloatArray, group: NDArray[np.integer]) -> FloatArray:
        """Linear predictor.

        Args:
            features: float64 [N, P].
            group: Integer [N], 0 to G - 1.

        Returns:
            float64 [N]; each row's value depends on that row alone, bit for bit.
        """
        total: FloatArray = self.coefficients[group, 0]
        for column in range(features.shape[1]):
            total = total + self.coefficients[group, 1 + column] * features[:, column]
        return total


def too_few(outcome: NDArray[np.int8]) -> str | None:
    """Why a binary outcome can not be modelled, or None when it can.

    Args:
        outcome: int8 [N], 0 or 1.

    Returns:
        A sentence with the counts, or None.
    """
    positives = int(outcome.sum())
    if min(positives, len(outcome) - positives) >= MIN_EVENTS:
        return None
    return f"{positives} of {len(outcome)} rows are positive; at least {MIN_EVENTS} of both outcomes are needed"


def fit_group_logit(
    features: FloatArray,
    group: NDArray[np.int8],
    outcome: NDArray[np.int8],
    weight: FloatArray,
    groups: int,
    own: int = 0,
) -> GroupLogit:
    """Maximum a posteriori fit by Newton's method with step halving.

    Coefficients of group g are b + d_g with independent Gaussian priors on b and d_g (Gelman and Hill 2007,
    chapter 12: partial pooling). The intercept has no prior.

    Args:
        features: float64 [N, P], finite.
        group: int8 [N].
        outcome: int8 [N], 0 or 1.
        weight: float64 [N], not negative.
        groups: G.
        own: The last so many columns may differ less between groups.

    Returns:
        The fit, with coefficients on the features' own scale.

    Raises:
        TrainingError: When the fit does not converge or is not finite.
    """
    centre = features.mean(axis=0)
    spread = features.std(axis=0)
    spread = np.where(spread > 1e-12, spread, 1.0)
    design = np.column_stack([np.ones(len(features)), (features - centre) / spread])
    width = design.shape[1]
    penalty = np.full((groups + 1, width), _DEVIATION)
    penalty[1:, width - own :] = _OWN
    penalty[0] = _SHARED
    penalty[1:, 0] = _LEVEL
    penalty[0, 0] = 0.0
    # One contiguous block per group: the loops below pass over the rows a dozen times.
    members = [
        (design[rows], weight[rows], outcome[rows].astype(np.float64))
        for rows in (np.flatnonzero(group == g) for g in range(groups))
    ]
    theta = np.zeros((groups + 1, width))

    def objective(value: FloatArray) -> float:
        total = 0.5 * float((penalty * value**2).sum())
        for g, (x, w, y) in enumerate(members):
            eta = x @ (value[0] + value[1 + g])
            total += float((w * (np.logaddexp(0, eta) - y * eta)).sum())
        return total

    current = objective(theta)
    for _ in range(100):
        gradient = penalty * theta
        hessian = np.zeros((groups + 1, width, groups + 1, width))
        for g, (x, w, y) in enumerate(members):
            p = expit(x @ (theta[0] + theta[1 + g]))
            slope = x.T @ (w * (p - y))
            curve = x.T @ (x * (w * p * (1 - p))[:, None])
            for i in (0, 1 + g):
                gradient[i] += slope
                for j in (0, 1 + g):
                    hessian[i, :, j, :] += curve
        flat = hessian.reshape((groups + 1) * width, -1) + np.diag(penalty.ravel() + 1e-9)
        step = np.linalg.solve(flat, gradient.ravel()).reshape(theta.shape)
        size = 1.0
        while (proposed := objective(theta - size * step)) > current and size > 1e-6:
            size /= 2
        if proposed <= current:
            theta = theta - size * step
        if current - proposed <= 1e-9 * max(1.0, abs(current)):
            break
        current = proposed
    else:
        raise TrainingError(f"the logistic fit over {len(features)} rows did not converge in 100 steps")
    if not np.isfinite(theta).all():
        raise TrainingError(f"the logistic fit over {len(features)} rows is not finite; check its features")
    slopes = (theta[0, 1:] + theta[1:, 1:]) / spread
    levels = theta[0, 0] + theta[1:, 0] - slopes @ centre
    return GroupLogit(np.column_stack([levels, slopes]))


def cell_shifts(
    logit: FloatArray, outcome: NDArray[np.int8], weight: FloatArray, cell: NDArray[np.integer], cells: int
) -> FloatArray:
    """What to add to logits so that every cell's mean prediction equals its mean outcome, shrunk towards no shift.

    The maximum a posteriori shift of each cell under a normal prior with variance 1 / ``_SHIFT``: some hundred rows
    outweigh it, a cell without rows gets 0.

    Args:
        logit: float64 [N], out-of-fold logits.
        outcome: int8 [N], 0 or 1; rows with -1 (not recorded) are left out.
        weight: float64 [N], not negative.
        cell: Integer [N], 0 to ``cells`` - 1.
        cells: C.

    Returns:
        float64 [C].
    """
    known = outcome >= 0
    logit, outcome, weight, cell = logit[known], outcome[known], weight[known], cell[known]
    shift = np.zeros(cells)
    for _ in range(100):
        p = expit(logit + shift[cell])
        slope = np.bincount(cell, weights=weight * (outcome - p), minlength=cells) - _SHIFT * shift
        curve = np.bincount(cell, weights=weight * p * (1 - p), minlength=cells) + _SHIFT
        change = np.clip(slope / curve, -2, 2)
        shift = shift + change
        if float(np.abs(change).max(initial=0.0)) < 1e-10:
            break
    return shift


@dataclass(frozen=True)
class Recalibration:
    """How out-of-fold logits fit the outcomes: logit P(y = 1) = intercept + slope x logit (Cox, Biometrika 1958).

    A perfect model has slope 1 and intercept 0; a slope below 1 says that its predictions are too extreme, as those
    of a fit to few rows are. Only ``shift`` is applied: the noise of an overfit spreads predictions without
    biasing the coefficient of appeal, and shrinking both would attenuate every effect of a better ranking.

    Attributes:
        slope: Of the two-parameter fit; None where the predictions do not vary.
        intercept: Of the two-parameter fit, or of ``shift`` where there is none.
        shift: Intercept of the fit with the slope held at 1: what is added to the model's logits.
        rows: Rows it was computed on.
    """

    slope: float | None
    intercept: float
    shift: float
    rows: int


def recalibrate(logit: FloatArray, outcome: NDArray[np.int8]) -> Recalibration:
    """Logistic recalibration by maximum likelihood.

    Args:
        logit: float64 [N], out-of-fold logits.
        outcome: int8 [N], 0 or 1, both present.

    Returns:
        Slope, intercept and the shift that makes the mean prediction equal the mean outcome.
    """
    shift = 0.0
    for _ in range(100):
        p = expit(logit + shift)
        change = float((outcome - p).sum() / max(float((p * (1 - p)).sum()), 1e-12))
        shift += float(np.clip(change, -2, 2))
        if abs(change) < 1e-10:
            break
    if float(logit.std()) < 1e-9:
        return Recalibration(None, shift, shift, len(logit))
    design = np.column_stack([np.ones(len(logit)), logit])
    theta = np.array([shift, 1.0])
    for _ in range(100):
        p = expit(design @ theta)
        curve = design.T @ (design * (p * (1 - p))[:, None]) + np.eye(2) * 1e-9
        change_2 = np.linalg.solve(curve, design.T @ (outcome - p))
        theta = theta + np.clip(change_2, -2, 2)
        if float(np.abs(change_2).max()) < 1e-10:
            break
    return Recalibration(float(theta[1]), float(theta[0]), shift, len(logit))
