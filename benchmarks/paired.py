"""Paired bootstrap of the difference between two models' metrics on the same impressions.

Users are drawn with replacement, and a user's impressions come along whole: impressions of one user are not
independent. Both models see the same draws, so what makes a user easy or hard cancels out of the difference.

Seeds are drawn anew in every resample, too, independently of the users (Owen, *The pigeonhole bootstrap*, Ann. Appl.
Stat. 2007): the interval then covers another sample of users **and** another set of equally many seeds. It does not
cover another training window or other test days.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.models.metrics import EPSILON

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]

# Cells of one block of resamples x rows: what a block needs stays in the processor's cache.
BLOCK_CELLS = 1 << 20


@dataclass(frozen=True, eq=False)
class Resamples:
    """Draws that every comparison of one benchmark shares.

    Attributes:
        users: int32 [R, U], how often each user is drawn; every row sums to U.
        seeds: float64 [R, S], weight of each seed; every row sums to 1. Deviations from 1 / S are stretched by
            sqrt(S / (S - 1)), without which S drawn seeds would vary less than S fresh ones.
    """

    users: Counts
    seeds: Floats


@dataclass(frozen=True)
class Interval:
    """A difference of two means over seeds, and its percentile interval.

    Attributes:
        value: The difference on the data itself; None when it does not exist.
        low: Lower end, 2.5 %.
        high: Upper end, 97.5 %.
        resamples: Resamples in which both metrics exist.
    """

    value: float | None
    low: float | None
    high: float | None
    resamples: int


def draw(users: int, seeds: int, resamples: int, rng: np.random.Generator) -> Resamples:
    """Draw users and seeds.

    Args:
        users: U.
        seeds: S; with a single one, the interval covers users alone.
        resamples: R.
        rng: Where the draws come from.

    Returns:
        The draws.
    """
    drawn = np.empty((resamples, users), np.int32)
    for row in drawn:
        row[:] = np.bincount(rng.integers(0, users, users), minlength=users)
    weights = rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=resamples) / seeds
    stretch = np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0
    return Resamples(drawn, 1.0 / seeds + stretch * (weights - 1.0 / seeds))


def auc(labels: Floats, scores: Floats, user: NDArray[np.int64], users: Counts) -> Floats:
    """Area under the ROC curve in every resample, exactly: weighted Mann-Whitney U, ties counted half.

    With rows sorted by score, ``U = Σ_positives w_i (W⁻(below i) + W⁻(tied with i) / 2)``, where W⁻ sums the weights of
    negatives; the weights are counts, so that every sum is of integers.

    Args:
        labels: [N], 0 or 1, none missing.
        scores: [N].
        user: int64 [N], index into the columns of ``users``.
        users: int32 [R, U].

    Returns:
        float64 [R], NaN where a resample lacks one of the classes.
    """
    order = np.argsort(scores, kind="stable")
    score, positive, owner = scores[order], labels[order] > 0, user[order]
    new = np.r_[True, score[1:] != score[:-1]] if len(score) else np.zeros(0, bool)
    starts, tie = np.flatnonzero(new), np.cumsum(new) - 1
    ends = np.r_[starts[1:], len(score)]
    hits = np.flatnonzero(positive)
    below, upto = starts[tie[hits]], ends[tie[hits]]
    found = np.full(len(users), np.nan)
    step = max(1, BLOCK_CELLS // max(len(score), 1))
    for at in range(0, len(users), step):
        weight = users[at : at + step][:, owner]
        negatives = np.zeros((len(weight), len(score) + 1), np.int32)
        np.cumsum(np.where(positive, 0, weight), axis=1, out=negatives[:, 1:])
        of_hits = weight[:, hits].astype(np.int64)
        twice = np.einsum("rh,rh->r", of_hits, negatives[:, below].astype(np.int64) + negatives[:, upto])
        pairs = of_hits.sum(1) * negatives[:, -1].astype(np.int64)
        some = pairs > 0
        found[at : at + step][some] = twice[some] / (2.0 * pairs[some])
    return found


def gauc(labels: Floats, scores: Floats, user: NDArray[np.int64], users: Counts) -> Floats:
    """Mean of the per-user AUC weighted by impressions, in every resample: see ``components.models.metrics.gauc``.

    Args:
        labels: [N], 0 or 1, none missing.
        scores: [N].
        user: int64 [N], index into the columns of ``users``.
        users: int32 [R, U].

    Returns:
        float64 [R], NaN where a resample has no user with both classes.
    """
    size = users.shape[1]
    order = np.lexsort((scores, user))
    owner, score, positive = user[order], scores[order], labels[order] > 0
    new_user = np.r_[True, owner[1:] != owner[:-1]] if len(owner) else np.zeros(0, bool)
    new_tie = new_user | np.r_[True, score[1:] != score[:-1]] if len(owner) else new_user
    tie = np.cumsum(new_tie) - 1
    first = np.flatnonzero(new_user)[np.cumsum(new_user) - 1]
    # Rank within the user from 1; tied rows share the mean of their ranks.
    rank = (np.flatnonzero(new_tie)[tie] - first) + (np.bincount(tie)[tie] + 1) / 2 if len(owner) else np.zeros(0)
    rows = np.bincount(owner, minlength=size)
    hits = np.bincount(owner, weights=positive, minlength=size)
    pairs = hits * (rows - hits)
    both = pairs > 0
    area = np.bincount(owner, weights=rank * positive, minlength=size) - hits * (hits + 1) / 2
    return _ratio(users, np.where(both, rows * area / np.where(both, pairs, 1.0), 0.0), np.where(both, rows, 0.0))


def logloss(labels: Floats, scores: Floats, user: NDArray[np.int64], users: Counts) -> Floats:
    """Mean binary cross-entropy in every resample; arguments and result as :func:`auc`."""
    p = np.clip(scores, EPSILON, 1.0 - EPSILON)
    return _mean(-(labels * np.log(p) + (1.0 - labels) * np.log1p(-p)), user, users)


def mse(labels: Floats, scores: Floats, user: NDArray[np.int64], users: Counts) -> Floats:
    """Mean squared error in every resample; arguments and result as :func:`auc`."""
    return _mean((labels - scores) ** 2, user, users)


def difference(ours: Floats, theirs: Floats, values: tuple[Floats, Floats], seeds: Floats) -> Interval:
    """Difference of two models' means over seeds.

    Args:
        ours: float64 [R, S], one model's metric in every resample of users, per seed.
        theirs: float64 [R, S], the other's.
        values: Both models' metrics on the data itself, float64 [S] each.
        seeds: float64 [R, S], weight of each seed in each resample.

    Returns:
        The difference and its 95 % percentile interval; without a value where a metric does not exist.
    """
    value = float(np.mean(values[0]) - np.mean(values[1]))
    resampled = ((ours - theirs) * seeds).sum(1)
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(resampled):
        return Interval(None, None, None, len(resampled))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(value, float(low), float(high), len(resampled))


def _mean(values: Floats, user: NDArray[np.int64], users: Counts) -> Floats:
    size = users.shape[1]
    rows = np.bincount(user, minlength=size).astype(np.float64)
    total = np.bincount(user, weights=values, minlength=size).astype(np.float64)
    return _ratio(users, total, rows)


def _ratio(users: Counts, above: Floats, below: Floats) -> Floats:
    """``Σ_u w_u above_u / Σ_u w_u below_u`` in every resample; float64 [U] each."""
    weight = users.astype(np.float64)
    total = weight @ below
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(total > 0, (weight @ above) / total, np.nan)
    return found
