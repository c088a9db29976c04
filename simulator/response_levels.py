"""What a member is calibrated on: the constants of watching, and what the log shows of every group."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from components.errors import TrainingError
from simulator.appeal import FloatArray, Shifts, WatchScale
from simulator.logit import cell_shifts
from simulator.metrics import GROUPS
from simulator.response_data import ResponseData

# Lengths at which seconds are calibrated, and the weight of the ratio over all, as a share of a cell's.
_LENGTHS, _LEVEL_PRIOR = 6, 0.05


def watch_scale(data: ResponseData, skip: NDArray[np.int8], rows: NDArray[np.int64]) -> WatchScale:
    """Constants of the watch likelihood, from some rows of the log.

    Args:
        data: The log.
        skip: int8 [N].
        rows: int64 [M], the rows to read.

    Returns:
        The constants, without levels.

    Raises:
        TrainingError: When no video's duration is known.
    """
    known = data.duration_s[rows]
    known = known[np.isfinite(known) & (known > 0)]
    if not len(known):
        raise TrainingError("the response model needs the duration of at least one video; the log has none")
    scale = WatchScale(1.0, 0.0, float(np.median(known)))
    watched = rows[skip[rows] == 0]
    share = data.watch_s[watched] / scale.duration(data.duration_s[watched])
    cap = max(1.0, float(np.quantile(share, 0.995)))
    skipped = data.watch_s[rows[skip[rows] == 1]]
    return replace(scale, cap_share=cap, skip_s=float(skipped.mean()))


def levels(data: ResponseData, expected: FloatArray, weight: FloatArray, duration_s: FloatArray) -> dict[str, Any]:
    """Logged over expected seconds by group and length, shrunk towards the ratio over all.

    Args:
        data: The log.
        expected: float64 [N], seconds that a member expects of each row, out of fold.
        weight: float64 [N], 0 for rows that do not count, such as skipped ones.
        duration_s: float64 [N], known durations.

    Returns:
        ``knots`` and ``levels`` of ``WatchScale``.
    """
    length = np.log(duration_s)
    inside = weight > 0
    edges = np.quantile(length[inside], np.linspace(0, 1, _LENGTHS + 1))
    place = np.clip(np.searchsorted(edges, length, side="right") - 1, 0, _LENGTHS - 1)
    bins = [np.flatnonzero(inside & (place == b)) for b in range(_LENGTHS)]
    bins = [rows for rows in bins if len(rows)]
    overall = float(weight @ data.watch_s) / max(float(weight @ expected), 1e-9)
    prior = _LEVEL_PRIOR * float(weight @ expected) / len(bins) / len(GROUPS)
    levels = [[overall] * len(bins) for _ in GROUPS]
    for b, rows in enumerate(bins):
        for g in range(len(GROUPS)):
            mine = rows[data.group[rows] == g]
            watched, foreseen = (float(weight[mine] @ column[mine]) for column in (data.watch_s, expected))
            levels[g][b] = (watched + prior * overall) / max(foreseen + prior, 1e-9)
    knots = [float(length[rows].mean()) for rows in bins]
    return {"knots": tuple(knots), "levels": tuple(map(tuple, levels))}


def shifts(
    data: ResponseData, skip: NDArray[np.int8], skipping: FloatArray, interacting: FloatArray, weight: FloatArray
) -> Shifts:
    """Shifts that bring a member's predictions to the log's means, group by group.

    Args:
        data: The log.
        skip: int8 [N], what was skipped.
        skipping: float64 [N], its predicted probability, out of fold.
        interacting: float64 [N, B], those of the interactions.
        weight: float64 [N].

    Returns:
        The shifts.
    """
    groups = len(GROUPS)
    done = [
        cell_shifts(logit(interacting[:, b]), data.interactions[:, b], weight, data.group, groups)
        for b in range(len(data.behaviours))
    ]
    by_group = np.array(done).reshape(len(done), groups).T
    return Shifts(
        tuple(cell_shifts(logit(skipping), skip, weight, data.group, groups).tolist()),
        tuple(tuple(row) for row in by_group.tolist()),
    )
