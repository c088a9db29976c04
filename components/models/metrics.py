"""Offline metrics of predictions against labels, with a reason wherever a number does not exist."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]

# Probabilities are clipped this far from 0 and 1 before a logarithm is taken.
EPSILON = 1e-7


@dataclass(frozen=True)
class Metric:
    """A metric and what it was computed from.

    Attributes:
        value: The number, None when it does not exist.
        reason: Why it does not exist, None when it does.
        rows: Rows with a label.
        positives: Rows whose label is above 0.
    """

    value: float | None
    reason: str | None
    rows: int
    positives: int


def auc(labels: Numbers, scores: Numbers) -> Metric:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties counted half (Mann-Whitney U).

    Args:
        labels: [N], 0 or 1, NaN = missing (left out).
        scores: [N].

    Returns:
        The area; no value when one class is missing or a score is not finite.
    """
    return gauc(labels, scores, np.zeros(len(labels), np.int64), whose="")


def gauc(labels: Numbers, scores: Numbers, users: Numbers, *, whose: str = " within any user") -> Metric:
    """Grouped AUC: mean of the per-user AUC weighted by the user's impressions, over users with both classes.

    Source: Zhu et al., *Optimized Cost per Click in Taobao Display Advertising*, KDD 2017, eq. 11.

    Args:
        labels: [N], 0 or 1, NaN = missing (left out).
        scores: [N].
        users: [N], integer user ids.
        whose: Ends the reason when no user has both classes.

    Returns:
        The weighted mean; rows and positives count all labelled rows, also of users with one class.
    """
    given, score, kept = _present(labels, scores)
    user = np.asarray(users)[kept]
    if (refused := _refuse(given, score)) is not None:
        return refused
    order = np.lexsort((score, user))
    user, score, positive = user[order], score[order], given[order] > 0
    new_user = np.r_[True, user[1:] != user[:-1]]
    new_score = new_user | np.r_[True, score[1:] != score[:-1]]
    user_at, tie_at = np.cumsum(new_user) - 1, np.cumsum(new_score) - 1
    # Rank within the user from 1; rows of equal score share the mean of their ranks.
    starts = np.flatnonzero(new_user)
    ties = np.bincount(tie_at)
    first_of_tie = np.flatnonzero(new_score) - starts[user_at[new_score]]
    rank = (first_of_tie + (ties + 1) / 2)[tie_at]
    rows = np.bincount(user_at)
    positives = np.bincount(user_at, weights=positive)
    rank_sum = np.bincount(user_at, weights=rank * positive)
    pairs = positives * (rows - positives)
    both = pairs > 0
    total, hits = len(given), int(positive.sum())
    if not both.any():
        return Metric(None, f"one class is missing{whose}: {hits} positives of {total} rows", total, hits)
    area = (rank_sum[both] - positives[both] * (positives[both] + 1) / 2) / pairs[both]
    return Metric(float(np.average(area, weights=rows[both])), None, total, hits)


def logloss(labels: Numbers, probabilities: Numbers) -> Metric:
    """Mean binary cross-entropy, probabilities clipped to [1e-7, 1 - 1e-7].

    Args:
        labels: [N], 0 or 1, NaN = missing (left out).
        probabilities: [N].

    Returns:
        The mean; no value without rows or with a probability that is not finite.
    """
    given, p, _ = _present(labels, probabilities)
    if (refused := _refuse(given, p)) is not None:
        return refused
    p = np.clip(p, EPSILON, 1.0 - EPSILON)
    value = -np.mean(given * np.log(p) + (1.0 - given) * np.log1p(-p))
    return Metric(float(value), None, len(given), int((given > 0).sum()))


def mse(labels: Numbers, predictions: Numbers) -> Metric:
    """Mean squared error.

    Args:
        labels: [N], NaN = missing (left out).
        predictions: [N].

    Returns:
        The mean; no value without rows or with a prediction that is not finite.
    """
    given, values, _ = _present(labels, predictions)
    if (refused := _refuse(given, values)) is not None:
        return refused
    return Metric(float(np.mean((given - values) ** 2)), None, len(given), int((given > 0).sum()))


def _present(labels: Numbers, values: Numbers) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    given = np.asarray(labels, np.float64)
    kept = ~np.isnan(given)
    return given[kept], np.asarray(values, np.float64)[kept], kept


def _refuse(labels: NDArray[np.float64], values: NDArray[np.float64]) -> Metric | None:
    positives = int((labels > 0).sum())
    if len(labels) == 0:
        return Metric(None, "no row has a label", 0, 0)
    if wrong := int((~np.isfinite(values)).sum()):
        return Metric(None, f"{wrong} of {len(values)} predictions are not finite", len(labels), positives)
    return None
