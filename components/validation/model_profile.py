"""What is kept of a model's predictions on its held-out day: sums per task and group, and how they are distributed."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.inputs import GROUPS

BINS = 40

Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Profile:
    """Predictions of one arm for one task in one group.

    Attributes:
        arm: Treatment or baseline.
        task: The task.
        group: A user group, or ``all``.
        rows: Rows with a label.
        users: Their users.
        broken: Predictions that are no numbers, or outside what the task can be.
        predicted: Sum of predictions.
        observed: Sum of labels.
        error: Standard error of their difference, users as units.
        spread: Standard deviation of the predictions.
        counts: Predictions by equal bins between 0 and the task's largest value.
    """

    arm: str
    task: str
    group: str
    rows: int
    users: int
    broken: int
    predicted: float
    observed: float
    error: float
    spread: float
    counts: tuple[int, ...]

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def profiles_of(
    arm: str, task: str, top: float, label: Numbers, predicted: Numbers, group: NDArray[Any], user: NDArray[Any]
) -> list[Profile]:
    """Profile one task's predictions.

    Args:
        arm: Treatment or baseline.
        task: Its name.
        top: The largest value that the task can have.
        label: [N], NaN = missing, left out.
        predicted: [N].
        group: [N], indices into ``GROUPS``.
        user: [N], ids.

    Returns:
        One for all rows and one per group that has any.
    """
    found = []
    for name in ("all", *GROUPS):
        inside = ~np.isnan(label) & (True if name == "all" else group == GROUPS.index(name))
        y, p = label[inside].astype(np.float64), predicted[inside].astype(np.float64)
        if not len(y):
            continue
        good = np.isfinite(p) & (p >= -1e-6) & (p <= top + 1e-6)
        known = np.where(np.isfinite(p), p, 0.0)
        _, code = np.unique(user[inside], return_inverse=True)
        per_user = np.bincount(code, weights=known - y)
        bins = np.clip((known / top * BINS).astype(np.int64), 0, BINS - 1)
        found.append(
            Profile(
                *(arm, task, name, len(y), len(per_user), int((~good).sum())),
                predicted=float(known.sum()),
                observed=float(y.sum()),
                error=float(np.sqrt(((per_user - per_user.mean()) ** 2).sum())),
                spread=float(known.std()),
                counts=tuple(int(one) for one in np.bincount(bins, minlength=BINS)),
            )
        )
    return found
