"""The inner loop of the rollouts: simulated users watch what is shown to them until they leave."""

from dataclasses import dataclass
from math import exp, log, log1p

import numpy as np
from numpy.typing import NDArray

from simulator import draws
from simulator.draws import gauss, mixed, unit
from simulator.jit import compiled
from simulator.response_state import MEMORY

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_OVERFLOW = 50.0


@dataclass(frozen=True)
class Prediction:
    """What the response model says of S sessions in slots of a block, in the order shown.

    Attributes:
        skip: float64 [S, B], probability of a skip.
        log_share: float64 [S, B], mean of ln(seconds / duration) of what is not skipped.
        log_share_sd: float64 [S, B].
        duration_s: float64 [S, B], known durations.
        level: float64 [S, B], factor of the seconds.
        leave: float64 [S, B], logit of leaving after the slot, as far as the watching does not change it.
    """

    skip: FloatArray
    log_share: FloatArray
    log_share_sd: FloatArray
    duration_s: FloatArray
    level: FloatArray
    leave: FloatArray


@dataclass(frozen=True)
class Habits:
    """Constants of S sessions.

    Attributes:
        skip_s: float64 [S], seconds of a skipped video.
        cap_share: float64 [S], largest watched multiple of the duration.
        by_share: float64 [S], what the running watched share adds to the logit of leaving, per unit.
        by_log_seconds: float64 [S], the same of ln(1 + seconds).
        by_minutes: float64 [S], the same of minutes.
    """

    skip_s: FloatArray
    cap_share: FloatArray
    by_share: FloatArray
    by_log_seconds: FloatArray
    by_minutes: FloatArray


@dataclass(frozen=True)
class Walkers:
    """R simulated users per session and where they stand; all arrays are [S, R] and change in place.

    Attributes:
        trajectory: int64, stands for the keys of all draws of a walker.
        alive: bool.
        depth: int64, impressions so far.
        skips: float64.
        seconds: float64.
        share: float64, running average of the watched share.
        truncated: float64, 1 where the candidates ended the session.
    """

    trajectory: IntArray
    alive: NDArray[np.bool_]
    depth: IntArray
    skips: FloatArray
    seconds: FloatArray
    share: FloatArray
    truncated: FloatArray

    @classmethod
    def start(cls, trajectory: IntArray, share: float) -> "Walkers":
        """Everybody before the first slot.

        Args:
            trajectory: int64 [S, R].
            share: Where the running watched share begins.

        Returns:
            The walkers.
        """
        shape = trajectory.shape
        return cls(
            trajectory,
            np.ones(shape, dtype=np.bool_),
            np.zeros(shape, dtype=np.int64),
            np.zeros(shape),
            np.zeros(shape),
            np.full(shape, share),
            np.zeros(shape),
        )


def walk(
    walkers: Walkers,
    rows: IntArray,
    shown: IntArray,
    prediction: Prediction,
    habits: Habits,
    *,
    begin: int,
    last: bool,
    seed: int,
) -> None:
    """Let everybody who is there watch the slots of a block.

    Args:
        walkers: Of S sessions.
        rows: int64 [M], the sessions that the block is about.
        shown: int64 [M, B] rows of videos, -1 where there is nothing more.
        prediction: Of the M sessions.
        habits: Of the S sessions.
        begin: Slot of the block's first column.
        last: Whether no further block can follow.
        seed: Of the draws.
    """
    _walk(
        walkers.trajectory,
        walkers.alive,
        walkers.depth,
        walkers.skips,
        walkers.seconds,
        walkers.share,
        walkers.truncated,
        rows,
        shown,
        prediction.skip,
        prediction.log_share,
        prediction.log_share_sd,
        prediction.duration_s,
        prediction.level,
        prediction.leave,
        habits.skip_s,
        habits.cap_share,
        habits.by_share,
        habits.by_log_seconds,
        habits.by_minutes,
        begin,
        last,
        draws.stream(seed, "skip"),
        draws.stream(seed, "watch"),
        draws.stream(seed, "leave"),
    )


@compiled
def _walk(
    trajectory: IntArray,
    alive: NDArray[np.bool_],
    depth: IntArray,
    skips: FloatArray,
    seconds: FloatArray,
    share: FloatArray,
    truncated: FloatArray,
    rows: IntArray,
    shown: IntArray,
    skip: FloatArray,
    log_share: FloatArray,
    log_share_sd: FloatArray,
    duration_s: FloatArray,
    level: FloatArray,
    leave: FloatArray,
    skip_s: FloatArray,
    cap_share: FloatArray,
    by_share: FloatArray,
    by_log_seconds: FloatArray,
    by_minutes: FloatArray,
    begin: int,
    last: bool,
    skip_stream: np.uint64,
    watch_stream: np.uint64,
    leave_stream: np.uint64,
) -> None:
    for m in range(len(rows)):
        s = rows[m]
        for r in range(trajectory.shape[1]):
            if not alive[s, r]:
                continue
            key = trajectory[s, r]
            skip_key, watch_key, leave_key = mixed(skip_stream, key), mixed(watch_stream, key), mixed(leave_stream, key)
            there = True
            for b in range(shown.shape[1]):
                if shown[m, b] < 0:
                    truncated[s, r] = 1.0
                    there = False
                    break
                slot = begin + b
                depth[s, r] += 1
                if unit(mixed(skip_key, slot)) < skip[m, b]:
                    watched = skip_s[s]
                    skips[s, r] += 1.0
                else:
                    noise = gauss(unit(mixed(watch_key, slot)))
                    drawn = exp(min(log_share[m, b] + log_share_sd[m, b] * noise, _OVERFLOW))
                    watched = min(drawn, cap_share[s]) * duration_s[m, b] * level[m, b]
                seconds[s, r] += watched
                now = min(watched / duration_s[m, b], 1.0)
                share[s, r] = MEMORY * share[s, r] + (1.0 - MEMORY) * now
                logit = (
                    leave[m, b]
                    + by_share[s] * share[s, r]
                    + by_log_seconds[s] * log1p(seconds[s, r])
                    + by_minutes[s] * (seconds[s, r] / 60.0)
                )
                u = unit(mixed(leave_key, slot))
                # u < 1 / (1 + exp(-logit)), without the exponential of a large number.
                if log(u / (1.0 - u)) < logit:
                    there = False
                    break
            if there and last:
                truncated[s, r] = 1.0
                there = False
            alive[s, r] = there
