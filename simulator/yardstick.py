"""A few videos by which users are compared: how appealing a network finds the same videos for everybody.

A network's prediction errs for a user as a whole, for all videos alike. Over a day's impressions that error does not
average out, and an effect of appeal that is estimated between users is attenuated by it (Fuller 1987, section 1.1);
arms differ within users, where it cancels. With the user's appeal of a fixed set of videos beside it, the effect
of the shown ones is the one within users (Mundlak, Econometrica 1978, on group means as regressors).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator import draws
from simulator.response_data import Pairs, ResponseData

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SIZE = 12


@dataclass(frozen=True)
class Yardstick:
    """R videos, as they were when the log showed them; their topics are left out, so that nobody's past counts.

    Attributes:
        video_id: int64 [R].
        video_features: float32 [R, Fv].
        duration_s: float64 [R].
    """

    video_id: IntArray
    video_features: NDArray[np.float32]
    duration_s: FloatArray

    @classmethod
    def of(cls, data: ResponseData, seed: int) -> "Yardstick":
        """``SIZE`` rows of a log, drawn at random.

        Args:
            data: At least one impression.
            seed: Of the draw.

        Returns:
            The videos.
        """
        rows = draws.bucket(seed, "yardstick", len(data.user_id), np.arange(SIZE))
        return cls(data.video_id[rows], data.video_features[rows], data.duration_s[rows])

    def pairs(
        self,
        user_id: IntArray,
        group: NDArray[np.int8],
        newness: NDArray[np.float32],
        user_features: NDArray[np.float32],
    ) -> Pairs:
        """Every user with every video, user by user.

        Args:
            user_id: int64 [N].
            group: int8 [N].
            newness: float32 [N].
            user_features: float32 [N, Fu].

        Returns:
            N x R pairs.
        """
        size, users = len(self.video_id), len(user_id)
        user, video = np.repeat(np.arange(users), size), np.tile(np.arange(size), users)
        return Pairs(
            user_id=user_id[user],
            video_id=self.video_id[video],
            group=group[user],
            newness=newness[user],
            topic=np.full(len(user), -1, dtype=np.int32),
            repeats=np.zeros(len(user), dtype=np.float32),
            user_features=user_features[user],
            video_features=self.video_features[video],
            duration_s=self.duration_s[video],
        )

    def mean(self, appeal: FloatArray) -> FloatArray:
        """float64 [N]: each user's mean of the first column of appeals [N x R, A]."""
        result: FloatArray = appeal[:, 0].reshape(-1, len(self.video_id)).mean(axis=1)
        return result

    def save(self) -> dict[str, NDArray[Any]]:
        """Arrays by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]]) -> "Yardstick":
        """Read what ``save`` gave; KeyError when an array is missing."""
        return cls(**{f.name: arrays[f.name] for f in fields(cls)})
