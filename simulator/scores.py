"""Logged production scores, completed: what the logging policy took every user's liking of every video for.

A log holds the production score of the candidates of slots that were reached. What is shown depends on nothing else
that tells of the outcome, so a response model that knows the score is not confounded by it; and rollouts need it for
candidates that were never scored for that user. Scores of a ranker are well described by a few factors:

    score(u, v) = mean + b_u + b_v + f_u . f_v

fitted by alternating least squares with a ridge penalty (Koren, Bell and Volinsky, Computer 2009, equations 2 and 4).
Scores are no outcomes: nothing here is cross-fitted, and no watching enters.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator import draws
from simulator.jit import compiled

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FACTORS = 10
_RIDGE = 2.0
_SWEEPS = 8
# Scores of a user beyond this many say little more of ten factors.
_PER_USER = 600


@dataclass(frozen=True)
class ScoreFactors:
    """A completed score matrix.

    Attributes:
        mean: Mean score.
        users: int64 [U], ascending ids.
        videos: int64 [V], ascending ids.
        user_factors: float64 [U, FACTORS + 1], the user's bias last.
        video_factors: float64 [V, FACTORS + 1], the video's bias last.
        level: float64 [V], the video's mean score over all users.
    """

    mean: float
    users: IntArray
    videos: IntArray
    user_factors: FloatArray
    video_factors: FloatArray
    level: FloatArray

    def score(self, user_id: IntArray, video_id: IntArray) -> FloatArray:
        """Completed scores.

        Args:
            user_id: int64 [N].
            video_id: int64 [N].

        Returns:
            float64 [N], NaN where the user or the video has no logged score.
        """
        u, v = place(self.users, user_id), place(self.videos, video_id)
        f, g = self.user_factors[u], self.video_factors[v]
        # einsum adds in a fixed order per row, whatever else is in the batch.
        found = self.mean + f[:, -1] + g[:, -1] + np.einsum("nf,nf->n", f[:, :-1], g[:, :-1])
        return np.where((u >= 0) & (v >= 0), found, np.nan)

    def level_of(self, video_id: IntArray) -> FloatArray:
        """float64 [N]: the mean over users of each video's score, NaN where unknown."""
        v = place(self.videos, video_id)
        return np.where(v >= 0, self.level[v], np.nan)


def place(ids: IntArray, wanted: IntArray) -> IntArray:
    """Where ids stand in a list.

    Args:
        ids: int64 [M], ascending.
        wanted: int64 [N].

    Returns:
        int64 [N] indices, -1 where absent.
    """
    if not len(ids):
        return np.full(len(wanted), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[at] == wanted, at, -1)


def fit_scores(user_id: IntArray, video_id: IntArray, score: FloatArray) -> ScoreFactors | None:
    """Complete logged scores.

    Args:
        user_id: int64 [N], whose candidate it was.
        video_id: int64 [N].
        score: float64 [N], the production score; NaN is left out.

    Returns:
        The factors; None where no score was logged or all are equal.
    """
    known = np.isfinite(score)
    user_id, video_id, score = _at_most(user_id[known], video_id[known], score[known])
    if len(score) == 0 or float(np.ptp(score)) == 0.0:
        return None
    users, u = np.unique(user_id, return_inverse=True)
    videos, v = np.unique(video_id, return_inverse=True)
    mean = float(score.mean())
    start = 0.3 * draws.normal(0, "score factors", np.arange(len(videos))[:, None], np.arange(FACTORS))
    video_factors = np.column_stack([start, np.zeros(len(videos))])
    user_factors = np.zeros((len(users), FACTORS + 1))
    by_user, by_video = np.argsort(u, kind="stable"), np.argsort(v, kind="stable")
    user_starts = np.searchsorted(u[by_user], np.arange(len(users) + 1))
    video_starts = np.searchsorted(v[by_video], np.arange(len(videos) + 1))
    centred = score - mean
    for _ in range(_SWEEPS):
        _solve(user_starts, v[by_user], centred[by_user], video_factors, user_factors)
        _solve(video_starts, u[by_video], centred[by_video], user_factors, video_factors)
    average = user_factors.mean(axis=0)
    level = mean + average[-1] + video_factors[:, -1] + video_factors[:, :-1] @ average[:-1]
    return ScoreFactors(mean, users, videos, user_factors, video_factors, level)


def _at_most(user_id: IntArray, video_id: IntArray, score: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """The newest ``_PER_USER`` rows of every user; rows come in order of time."""
    order = np.argsort(user_id, kind="stable")
    ends = np.searchsorted(user_id[order], user_id[order], side="right")
    kept = np.sort(order[ends - np.arange(len(order)) <= _PER_USER])
    return user_id[kept], video_id[kept], score[kept]


@compiled
def _solve(starts: IntArray, other: IntArray, score: FloatArray, given: FloatArray, found: FloatArray) -> None:
    """Ridge regression of each row's scores on the other side's factors, in place.

    The bias of the other side is part of the offset; the row's own bias is the coefficient of a column of ones.
    """
    width = given.shape[1]
    gram, slope, x = np.empty((width, width)), np.empty(width), np.empty(width)
    for row in range(len(starts) - 1):
        gram[:] = 0.0
        slope[:] = 0.0
        for at in range(starts[row], starts[row + 1]):
            factors = given[other[at]]
            rest = score[at] - factors[width - 1]
            for a in range(width):
                x[a] = factors[a] if a < width - 1 else 1.0
            for a in range(width):
                slope[a] += x[a] * rest
                for b in range(a + 1):
                    gram[a, b] += x[a] * x[b]
        for a in range(width):
            gram[a, a] += _RIDGE
            for b in range(a):
                gram[b, a] = gram[a, b]
        found[row] = np.linalg.solve(gram, slope)
