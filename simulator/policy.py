"""What the simulator knows of a model: something that scores (user, video) pairs, and how scores become a ranking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.errors import ConfigError


class Scorer(Protocol):
    """An arm. The simulator sees its answers only: no parameter, no architecture, no latent variable."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the predicted behaviours, in the order of ``score``'s columns."""
        ...

    def score(
        self,
        user_index: NDArray[np.int64],
        video_index: NDArray[np.int64],
        context: pa.Table,
        group: NDArray[np.int8],
    ) -> NDArray[np.float32]:
        """Score pairs as of the moment their session starts.

        Args:
            user_index: int64 [N], row of each pair's user in the scorer's user table.
            video_index: int64 [N], row of each pair's video in the scorer's video table.
            context: N rows of what is known of the request (time, surface) before anything is shown.
            group: int8 [N], the user's group as of the session start, an index into ``metrics.GROUPS``.

        Returns:
            float32 [N, m]: probabilities for behaviours, ratios for regressions, one column per task.
        """
        ...


@dataclass(frozen=True)
class Fusion:
    """The one ranking score out of many task scores: their weighted sum, the same for both arms.

    An A/B test of two models must change the models alone, so the weights belong to the experiment and not
    to an arm. A task that has no weight does not rank.

    Attributes:
        weights: Task name to weight; negative for behaviours that a ranking should avoid.
    """

    weights: Mapping[str, float]

    def rank(self, tasks: Sequence[str], scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Fuse task scores.

        Args:
            tasks: m task names, the scorer's ``tasks``.
            scores: float32 [N, m], what ``Scorer.score`` returned.

        Returns:
            float64 [N], higher is shown earlier.

        Raises:
            ConfigError: When a weighted task is not among ``tasks``, the shapes disagree or a score is not finite.
        """
        if missing := sorted(set(self.weights) - set(tasks)):
            raise ConfigError(f"the fusion weighs {missing}, but the arm scores only {sorted(tasks)}")
        if scores.ndim != 2 or scores.shape[1] != len(tasks):
            raise ConfigError(f"scores have shape {scores.shape}; expected [N, {len(tasks)}] for tasks {list(tasks)}")
        total = np.zeros(len(scores), dtype=np.float64)
        # Task by task, so that a pair's sum does not depend on how many pairs are fused with it.
        for name in sorted(self.weights):
            total += self.weights[name] * scores[:, list(tasks).index(name)].astype(np.float64)
        if not np.isfinite(total).all():
            raise ConfigError(f"{int((~np.isfinite(total)).sum())} of {len(total)} ranking scores are not finite")
        return total
