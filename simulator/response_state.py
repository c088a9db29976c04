"""The state that leaving and returning depend on, computed alike from the log and in a rollout."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simulator.response_data import ResponseData

FloatArray = NDArray[np.float64]

# An impression's weight in the running averages: half of it is forgotten after two further impressions.
MEMORY = 0.7

# Columns of the leave model's features, in order.
LEAVE_STATE = (
    "log_position",
    "position",
    "appeal_watched_share",
    "appeal_kept",
    "watched_share",
    "log_seconds",
)

# Columns of the return model's features behind the user's own.
DAY_STATE = ("appeal_watched_share", "appeal_kept", "log_seconds", "log_impressions")


def average(before: FloatArray | None, now: FloatArray) -> FloatArray:
    """One step of the exponential average; the session's first impression is its start.

    Args:
        before: Average up to the previous impression, None at the first.
        now: This impression's values, same shape.

    Returns:
        The average including this impression.
    """
    return now if before is None else MEMORY * before + (1 - MEMORY) * now


def leave_state(position: FloatArray, appeal: FloatArray, watched_share: FloatArray, seconds: FloatArray) -> FloatArray:
    """Features of the leave model after an impression.

    Args:
        position: float64 [N], 1 = the session's first.
        appeal: float64 [N, 2], exponential average of predicted appeal.
        watched_share: float64 [N], exponential average of the watched share, at most 1 per impression.
        seconds: float64 [N], watched in the session so far.

    Returns:
        float64 [N, len(LEAVE_STATE)].
    """
    return np.column_stack([np.log(position), position / 10, appeal, watched_share, np.log1p(seconds)])


def day_features(
    user_features: NDArray[np.float32], appeal: FloatArray, seconds: FloatArray, impressions: FloatArray
) -> FloatArray:
    """Features of the return model.

    Args:
        user_features: float32 [N, Fu], as of the day's first session; unknown values count as 0.
        appeal: float64 [N, 2], mean predicted appeal of the day's impressions.
        seconds: float64 [N], watched on the day.
        impressions: float64 [N], seen on the day.

    Returns:
        float64 [N, Fu + len(DAY_STATE)].
    """
    known = np.nan_to_num(user_features.astype(np.float64))
    return np.column_stack([known, appeal, np.log1p(seconds), np.log1p(impressions)])


def session_states(
    data: ResponseData, appeal: FloatArray, duration_s: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """State after every logged impression.

    Args:
        data: Ordered rows (``ResponseData.ordered``).
        appeal: float64 [N, 2], out-of-fold predicted appeal.
        duration_s: float64 [N], known durations.

    Returns:
        The four arguments of ``leave_state``.
    """
    starts = _starts(data.user_id, data.day, data.session_id)
    rank = np.arange(len(starts)) - np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))
    share = np.minimum(data.watch_s / duration_s, 1.0)
    mean_appeal: FloatArray = appeal.copy()
    mean_share: FloatArray = share.copy()
    seconds: FloatArray = data.watch_s.copy()
    order = np.argsort(rank, kind="stable")
    edges = np.searchsorted(rank[order], np.arange(1, int(rank.max(initial=0)) + 2))
    for begin, end in pairwise(edges):
        rows = order[begin:end]
        mean_appeal[rows] = average(mean_appeal[rows - 1], appeal[rows])
        mean_share[rows] = average(mean_share[rows - 1], share[rows])
        seconds[rows] += seconds[rows - 1]
    return rank.astype(np.float64) + 1.0, mean_appeal, mean_share, seconds


@dataclass(frozen=True)
class DayRows:
    """One row per user and day of the log.

    Attributes:
        first: int64 [D], row of the day's first impression.
        returned: int8 [D].
    """

    first: NDArray[np.int64]
    returned: NDArray[np.int8]

    def features(self, data: ResponseData, appeal: FloatArray) -> FloatArray:
        """Features of the return model.

        Args:
            data: Ordered rows that ``first`` points into.
            appeal: float64 [N, 2], out-of-fold predicted appeal.

        Returns:
            float64 [D, Fu + len(DAY_STATE)].
        """
        count = np.diff(np.append(self.first, len(data.user_id))).astype(np.float64)
        mean = np.add.reduceat(appeal, self.first, axis=0) / count[:, None]
        seconds = np.add.reduceat(data.watch_s, self.first)
        return day_features(data.user_features[self.first], mean, seconds, count)


def day_rows(data: ResponseData) -> DayRows:
    """Group ordered rows by user and day.

    Args:
        data: Ordered rows.

    Returns:
        The groups, by user and day.
    """
    first = np.flatnonzero(_starts(data.user_id, data.day))
    return DayRows(first, data.returned[first])


def _starts(*keys: NDArray[np.int64] | NDArray[np.int32]) -> NDArray[np.bool_]:
    start = np.zeros(len(keys[0]), dtype=bool)
    start[:1] = True
    for key in keys:
        start[1:] |= key[1:] != key[:-1]
    return start
