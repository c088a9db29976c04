"""The state that leaving and returning depend on, computed alike from the log and in a rollout."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simulator.response_data import ResponseData, starts

FloatArray = NDArray[np.float64]

# An impression's weight in the running averages: half of it is forgotten after two further impressions.
MEMORY = 0.7

# What "appeal" is made of: the logit of not skipping, and the length, which is a reason of its own to go on watching
# but none to be pleased. Without it, short videos would pass for good ones: they are rarely skipped.
APPEALS = ("kept_logit", "log_length", "log_length_squared")

# Columns of the leave model's features, in order; the user's own stand before them.
LEAVE_STATE = (
    "log_position",
    "position",
    "first",
    "second",
    "up_to_4",
    "up_to_8",
    "up_to_16",
    *APPEALS,
    "watched_share",
    "log_seconds",
    "minutes",
)

# Columns of the return model's features behind the user's own. Seconds and impressions are not among them: in a log
# they tell how pleased a user was, in a rollout they also tell how long the videos are that an arm likes to show.
DAY_STATE = APPEALS


@dataclass(frozen=True)
class Centre:
    """Where a session's running averages begin: nobody is pleased or bored yet.

    Attributes:
        appeal: float64 [len(APPEALS)], the log's mean predicted appeal.
        watched_share: The log's mean watched share, each at most 1.
    """

    appeal: FloatArray
    watched_share: float


def averaged(before: FloatArray | float, now: FloatArray) -> FloatArray:
    """One step of the exponential average.

    Args:
        before: Average up to the previous impression; before the first one, the centre.
        now: This impression's values.

    Returns:
        The average including this impression.
    """
    result: FloatArray = MEMORY * before + (1 - MEMORY) * now
    return result


def leave_state(position: FloatArray, appeal: FloatArray, watched_share: FloatArray, seconds: FloatArray) -> FloatArray:
    """Features of the leave model after an impression.

    Args:
        position: float64 [N], 1 = the session's first.
        appeal: float64 [N, len(APPEALS)], running average of predicted appeal.
        watched_share: float64 [N], running average of the watched share, at most 1 per impression.
        seconds: float64 [N], watched in the session so far.

    Returns:
        float64 [N, len(LEAVE_STATE)].
    """
    return np.column_stack(
        [
            np.log(position),
            position / 10,
            position == 1,
            position == 2,
            position <= 4,
            position <= 8,
            position <= 16,
            appeal,
            watched_share,
            np.log1p(seconds),
            seconds / 60,
        ]
    ).astype(np.float64)


def user_columns(user_features: NDArray[np.float32], compared: FloatArray) -> NDArray[np.float32]:
    """What the leave and the return model know of a user.

    Args:
        user_features: float32 [N, Fu], as of the day's first session.
        compared: float64 [N], appeal of the yardstick's videos for the user.

    Returns:
        float32 [N, Fu + 1].
    """
    return np.column_stack([user_features, compared.astype(np.float32)])


def user_state(user_features: NDArray[np.float32]) -> FloatArray:
    """float64 [N, Fu + 1]: ``user_columns`` as columns of a regression; unknown values count as 0."""
    return np.nan_to_num(user_features.astype(np.float64))


def day_features(user_features: NDArray[np.float32], appeal: FloatArray) -> FloatArray:
    """Features of the return model.

    Args:
        user_features: float32 [N, Fu + 1], ``user_columns``.
        appeal: float64 [N, len(APPEALS)], mean predicted appeal of the day's impressions.

    Returns:
        float64 [N, Fu + 1 + len(DAY_STATE)].
    """
    return np.column_stack([user_state(user_features), appeal])


def session_states(
    data: ResponseData, appeal: FloatArray, duration_s: FloatArray, centre: Centre
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """State after every logged impression.

    Args:
        data: Ordered rows (``ResponseData.ordered``).
        appeal: float64 [N, len(APPEALS)], out-of-fold predicted appeal.
        duration_s: float64 [N], known durations.
        centre: Where the averages begin.

    Returns:
        The four arguments of ``leave_state``.
    """
    start = data.starts()
    rank = np.arange(len(start)) - np.maximum.accumulate(np.where(start, np.arange(len(start)), 0))
    share = watched_share(data.watch_s, duration_s)
    mean_appeal, mean_share = averaged(centre.appeal, appeal), averaged(centre.watched_share, share)
    seconds: FloatArray = data.watch_s.copy()
    order = np.argsort(rank, kind="stable")
    edges = np.searchsorted(rank[order], np.arange(1, int(rank.max(initial=0)) + 2))
    for begin, end in pairwise(edges):
        rows = order[begin:end]
        mean_appeal[rows] = averaged(mean_appeal[rows - 1], appeal[rows])
        mean_share[rows] = averaged(mean_share[rows - 1], share[rows])
        seconds[rows] += seconds[rows - 1]
    return rank.astype(np.float64) + 1.0, mean_appeal, mean_share, seconds


def watched_share(watch_s: FloatArray, duration_s: FloatArray) -> FloatArray:
    """float64 [N]: watched part of the duration, at most 1."""
    share: FloatArray = np.minimum(watch_s / duration_s, 1.0)
    return share


@dataclass(frozen=True)
class DayRows:
    """One row per user and day of the log.

    Attributes:
        first: int64 [D], row of the day's first impression.
        returned: int8 [D].
    """

    first: NDArray[np.int64]
    returned: NDArray[np.int8]

    def of(self, rows: int) -> NDArray[np.int64]:
        """int64 [rows]: the user-day of every ordered row."""
        return np.searchsorted(self.first, np.arange(rows), side="right") - 1

    def mean(self, values: FloatArray) -> FloatArray:
        """float64 [D, A]: mean over the rows of every user-day of values [N, A]."""
        count = np.diff(np.append(self.first, len(values))).astype(np.float64)
        result: FloatArray = np.add.reduceat(values, self.first, axis=0) / count[:, None]
        return result


def day_rows(data: ResponseData) -> DayRows:
    """Group ordered rows by user and day.

    Args:
        data: Ordered rows.

    Returns:
        The groups, by user and day.
    """
    first = np.flatnonzero(starts(data.user_id, data.day))
    return DayRows(first, data.returned[first])
