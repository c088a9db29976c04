"""What the simulator knows of a model: something that scores (user, video) pairs, and how scores become a ranking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.errors import ConfigError
from simulator.metrics import GROUPS


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
    """The one ranking score out of many task scores: their weighted sum.

    An A/B test of two models must change the models alone: either both arms have the same weights, or each has the
    weights that suit it, found with the same number of trials (``tuning``). A task that has no weight does not rank.

    Attributes:
        weights: Task name to weight; negative for behaviours that a ranking should avoid.
        by_group: Weights of user groups that have their own, by index into ``metrics.GROUPS``.
    """

    weights: Mapping[str, float]
    by_group: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def rank(self, tasks: Sequence[str], scores: NDArray[np.float32], group: NDArray[np.int8]) -> NDArray[np.float64]:
        """Fuse task scores.

        Args:
            tasks: m task names, the scorer's ``tasks``.
            scores: float32 [N, m], what ``Scorer.score`` returned.
            group: int8 [N], each pair's user group.

        Returns:
            float64 [N], higher is shown earlier.

        Raises:
            ConfigError: When a weighted task is not among ``tasks``, the shapes disagree or a score is not finite.
        """
        weighted = sorted(set(self.weights).union(*self.by_group.values()))
        if missing := sorted(set(weighted) - set(tasks)):
            raise ConfigError(f"the fusion weighs {missing}, but the arm scores only {sorted(tasks)}")
        if scores.ndim != 2 or scores.shape[1] != len(tasks):
            raise ConfigError(f"scores have shape {scores.shape}; expected [N, {len(tasks)}] for tasks {list(tasks)}")
        total = np.zeros(len(scores), dtype=np.float64)
        # Task by task, so that a pair's sum does not depend on how many pairs are fused with it.
        for name in weighted:
            weight = np.full(len(GROUPS), self.weights.get(name, 0.0))
            for code, own in self.by_group.items():
                weight[code] = own.get(name, 0.0)
            total += weight[group] * scores[:, list(tasks).index(name)].astype(np.float64)
        if not np.isfinite(total).all():
            raise ConfigError(f"{int((~np.isfinite(total)).sum())} of {len(total)} ranking scores are not finite")
        return total


@dataclass(frozen=True)
class Ranker:
    """A model and how its task scores become one: all that a simulation asks of an arm."""

    scorer: Scorer
    fusion: Fusion

    def rank(
        self,
        user_index: NDArray[np.int64],
        video_index: NDArray[np.int64],
        context: pa.Table,
        group: NDArray[np.int8],
    ) -> NDArray[np.float64]:
        """Ranking scores of pairs.

        Args:
            user_index: int64 [N], see ``Scorer.score``.
            video_index: int64 [N].
            context: N rows.
            group: int8 [N].

        Returns:
            float64 [N], higher is shown earlier.
        """
        return self.fusion.rank(self.scorer.tasks, self.scorer.score(user_index, video_index, context, group), group)
