"""What the response model reads: logged impressions to learn from, and (user, video) pairs to predict."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import TrainingError

FloatArray = NDArray[np.float64]


# How far back a repeated topic tires.
REPEATS_BACK = 3


@dataclass(frozen=True)
class Pairs:
    """N (user, video) pairs to predict.

    Features are as of the start of the pair's session, never later. They are numbers on a sensible scale
    (logarithms of counts, smoothed rates). NaN = unknown. Ids only look up ``evidence``; nothing embeds them.

    Attributes:
        user_id: int64 [N].
        video_id: int64 [N].
        group: int8 [N], index into ``metrics.GROUPS``.
        newness: float32 [N], 1 on the day of registration, fading with tenure; 0 where unknown.
        topic: int32 [N], code of the video's topic, -1 = unknown.
        repeats: float32 [N], how many of the session's last ``REPEATS_BACK`` videos had this topic.
        user_features: float32 [N, Fu].
        video_features: float32 [N, Fv], of the video or of the pair (such as its age at the session's start).
        duration_s: float64 [N] seconds, NaN or 0 where unknown.
    """

    user_id: NDArray[np.int64]
    video_id: NDArray[np.int64]
    group: NDArray[np.int8]
    newness: NDArray[np.float32]
    topic: NDArray[np.int32]
    repeats: NDArray[np.float32]
    user_features: NDArray[np.float32]
    video_features: NDArray[np.float32]
    duration_s: FloatArray

    def select(self, rows: NDArray[Any]) -> "Pairs":
        """The given rows (a mask or indices)."""
        return Pairs(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class ResponseData:
    """N logged impressions of the training window and the held-out day; columns of ``Pairs`` mean the same here.

    Attributes:
        user_id: int64 [N].
        video_id: int64 [N].
        day: int32 [N], any increasing number of days.
        session_id: int64 [N], unique within a user and day.
        position: int32 [N], order within the session.
        group: int8 [N], index into ``metrics.GROUPS``.
        newness: float32 [N].
        topic: int32 [N], -1 = unknown.
        user_features: float32 [N, Fu].
        video_features: float32 [N, Fv].
        duration_s: float64 [N] seconds, NaN or 0 where unknown.
        watch_s: float64 [N] seconds.
        behaviours: B names.
        interactions: int8 [N, B], 1, 0, or -1 where not recorded.
        left: int8 [N], 1 when the impression was its session's last.
        returned: int8 [N], the user was active on the next day; -1 when the next day is not in the data.
        propensity: float64 [N], NaN where unknown.
    """

    user_id: NDArray[np.int64]
    video_id: NDArray[np.int64]
    day: NDArray[np.int32]
    session_id: NDArray[np.int64]
    position: NDArray[np.int32]
    group: NDArray[np.int8]
    newness: NDArray[np.float32]
    topic: NDArray[np.int32]
    user_features: NDArray[np.float32]
    video_features: NDArray[np.float32]
    duration_s: FloatArray
    watch_s: FloatArray
    behaviours: tuple[str, ...]
    interactions: NDArray[np.int8]
    left: NDArray[np.int8]
    returned: NDArray[np.int8]
    propensity: FloatArray

    def __post_init__(self) -> None:
        rows = len(self.user_id)
        for name, array in self._arrays().items():
            if len(array) != rows:
                raise TrainingError(f"response data: column {name} has {len(array)} rows, user_id has {rows}")
        if self.interactions.shape != (rows, len(self.behaviours)):
            raise TrainingError(
                f"response data: interactions have shape {self.interactions.shape}, "
                f"expected [{rows}, {len(self.behaviours)}]"
            )
        if not np.isfinite(self.watch_s).all() or (self.watch_s < 0).any():
            raise TrainingError("response data: watch_s must be finite and not negative in every row")

    def select(self, rows: NDArray[Any]) -> "ResponseData":
        """The given rows (a mask or indices).

        Args:
            rows: bool [N] or int64 [M].

        Returns:
            Data of those rows, in the order given.
        """
        return replace(self, **{name: array[rows] for name, array in self._arrays().items()})

    def ordered(self) -> "ResponseData":
        """Rows by user, day, session and position: what the states of stage 2 are computed on."""
        return self.select(np.lexsort((self.position, self.session_id, self.day, self.user_id)))

    def starts(self) -> NDArray[np.bool_]:
        """Bool [N]: the first row of every session, of ordered rows."""
        return starts(self.user_id, self.day, self.session_id)

    def pairs(self) -> Pairs:
        """The pairs of ordered rows."""
        return Pairs(
            self.user_id,
            self.video_id,
            self.group,
            self.newness,
            self.topic,
            self.repeats(),
            self.user_features,
            self.video_features,
            self.duration_s,
        )

    def repeats(self) -> NDArray[np.float32]:
        """float32 [N], of ordered rows: how many of the session's last videos had the row's topic."""
        session = np.cumsum(self.starts())
        found = np.zeros(len(session), dtype=np.float32)
        for back in range(1, REPEATS_BACK + 1):
            same = (session[back:] == session[:-back]) & (self.topic[back:] == self.topic[:-back])
            found[back:] += same & (self.topic[back:] >= 0)
        return found

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "behaviours"}


def starts(*keys: NDArray[Any]) -> NDArray[np.bool_]:
    """Where ordered keys change.

    Args:
        *keys: Arrays [N], at least one.

    Returns:
        bool [N], True at the first row of every run of equal keys.
    """
    start = np.zeros(len(keys[0]), dtype=bool)
    start[:1] = True
    for key in keys:
        start[1:] |= key[1:] != key[:-1]
    return start
