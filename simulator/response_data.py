"""Training input of the response model: logged impressions as typed arrays."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import TrainingError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ResponseData:
    """N logged impressions of the training window and the held-out day.

    Features are as of the start of the impression's session, never later. They are numbers on a sensible scale
    (logarithms of counts, smoothed rates); no id of a user or a video. NaN = unknown.

    Attributes:
        user_id: int64 [N].
        day: int32 [N], any increasing number of days.
        session_id: int64 [N], unique within a user and day.
        position: int32 [N], order within the session.
        group: int8 [N], index into ``metrics.GROUPS``.
        user_features: float32 [N, Fu].
        video_features: float32 [N, Fv], of the video or of the pair (such as the user's affinity to its topic).
        duration_s: float64 [N] seconds, NaN or 0 where unknown.
        watch_s: float64 [N] seconds.
        behaviours: B names.
        interactions: int8 [N, B], 1, 0, or -1 where not recorded.
        left: int8 [N], 1 when the impression was its session's last.
        returned: int8 [N], the user was active on the next day; -1 when the next day is not in the data.
        propensity: float64 [N], NaN where unknown.
    """

    user_id: NDArray[np.int64]
    day: NDArray[np.int32]
    session_id: NDArray[np.int64]
    position: NDArray[np.int32]
    group: NDArray[np.int8]
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

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "behaviours"}
