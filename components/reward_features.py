"""What the off-policy reward models of a day read of logged candidates, and how much each row counts."""

import numpy as np

from components.context import Context
from components.feed.source import features_of
from components.heldout import Heldout
from components.logged import LoggedSlots, Pairs
from components.respond import matrix
from simulator.metrics import GROUPS
from simulator.offpolicy.rounds import FloatArray, IntArray

# Of a row in the fit of a reward model.
LARGEST_WEIGHT = 10.0


def reward_features(context: Context, held: Heldout, slots: LoggedSlots, pairs: Pairs) -> FloatArray:
    """The models' numbers of user and video, position, group and production score of every candidate.

    Args:
        context: Pipeline and settings.
        held: The held-out day.
        slots: N rounds with M candidates.
        pairs: ``distinct_pairs`` of them.

    Returns:
        float64 [M, F], NaN where unknown.
    """
    numeric = [f for f in features_of(context.pipeline.feed) if f.kind in ("count", "rate", "number")]
    user = matrix(held.sessions, [*(f.name for f in numeric if f.entity == "user"), "log_tenure_days"])
    video = matrix(held.videos, [f.name for f in numeric if f.entity == "video"])
    at, pair = slots.owner, pairs.of_candidate
    age = pairs.request["log_video_age_days"].to_numpy(zero_copy_only=False)[pair]
    group = slots.group[at, None] == np.arange(len(GROUPS))
    columns = [user[slots.session_row[at]], video[pairs.video[pair]], age, np.log1p(slots.slot[at]), group]
    return np.column_stack([*columns, slots.scores]).astype(np.float64)


def reward_weight(slots: LoggedSlots, rows: IntArray) -> FloatArray:
    """How much rounds count in the fit: as if slots had been filled uniformly, since the arms choose otherwise.

    Args:
        slots: The rounds.
        rows: int64 [K], which of them.

    Returns:
        float64 [K]: clipped inverse propensities over the number of candidates, 1 where the propensity is unknown.
    """
    evenly = 1.0 / np.diff(slots.candidates.offsets)[rows]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(np.clip(evenly / slots.propensity[rows], 0.0, LARGEST_WEIGHT), nan=1.0)
