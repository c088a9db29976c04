"""Fusion weights under one equal budget: the same trials for every arm, each group keeps its best.

Two models can be compared under weights that neither chose, or each under weights that suit it. The second is fair only
if both had the same number of trials from the same list, on sessions that the experiment does not report on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import qmc

from simulator.metrics import GROUPS, METRICS

FloatArray = NDArray[np.float64]

# A weight is tried at up to so many times its size, and as little as its inverse.
SPREAD = 4.0
# Groups with fewer users keep the weights as written: their best trial would be luck.
MIN_USERS = 30


@dataclass(frozen=True)
class Guard:
    """What a trial may cost against the weights as written.

    Attributes:
        skip_share: Largest relative increase of the share of skipped videos.
        return_pp: Largest loss of next-day return, in percentage points.
    """

    skip_share: float
    return_pp: float


@dataclass(frozen=True)
class Trial:
    """Weights and what came of them in one group.

    Attributes:
        weights: Task name to weight.
        users: Of the group.
        app_time: Seconds per user and day.
        skip_share: Share of skipped videos.
        returning: Probability of being active on the next day, None without a return model.
    """

    weights: Mapping[str, float]
    users: int
    app_time: float
    skip_share: float
    returning: float | None


def trial_weights(weights: Mapping[str, float], trials: int, seed: int) -> list[dict[str, float]]:
    """The list that every arm tries, in order.

    Args:
        weights: As written; they are the first trial.
        trials: How many, at least 1.
        seed: Of the scrambling.

    Returns:
        ``trials`` weightings; all but the first multiply each weight by a factor between 1 / ``SPREAD`` and ``SPREAD``,
        spread evenly on the logarithmic scale by a scrambled Sobol sequence (Owen 1998, J. of Complexity 14).
    """
    names = sorted(weights)
    if trials == 1 or not names:
        return [dict(weights)]
    points = qmc.Sobol(len(names), seed=np.random.default_rng(seed)).random_base2((trials - 1).bit_length())
    factors = SPREAD ** (2 * points[: trials - 1] - 1)
    tried = [{name: weights[name] * float(f) for name, f in zip(names, row, strict=True)} for row in factors]
    return [dict(weights), *tried]


def outcome_of(weights: Mapping[str, float], outcomes: pa.Table) -> dict[str, Trial]:
    """What a trial did, by group.

    Args:
        weights: That were tried.
        outcomes: ``metrics.OUTCOMES`` of the rollouts.

    Returns:
        Group to trial, for groups with users.
    """
    value = {metric.name: metric.value for metric in METRICS}
    found: dict[str, Trial] = {}
    for code, group in enumerate(GROUPS):
        mine = outcomes.filter(pc.equal(outcomes["group"], code))
        if not mine.num_rows:
            continue
        app_time, skips, back = (value[name](mine) for name in ("app_time", "skip_share", "return"))
        found[group] = Trial(
            weights,
            len(pc.unique(mine["user_id"])),
            float(app_time.mean()),
            float(skips.mean()),
            None if np.isnan(back).any() else float(back.mean()),
        )
    return found


def best(trials: Sequence[Trial], guard: Guard) -> int:
    """The trial with the most app time among those that keep the guard; the first one where the group is small.

    Args:
        trials: Of one arm and group; the first has the weights as written.
        guard: What may be lost.

    Returns:
        Its place.
    """
    first = trials[0]
    if first.users < MIN_USERS:
        return 0

    def kept(one: Trial) -> bool:
        lost = 0.0 if first.returning is None or one.returning is None else first.returning - one.returning
        return one.skip_share <= first.skip_share * (1 + guard.skip_share) and 100 * lost <= guard.return_pp

    return max(range(len(trials)), key=lambda i: trials[i].app_time if kept(trials[i]) else -np.inf)
