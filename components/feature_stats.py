"""What the feature report measures: coverage, distributions, drift, and importance by permutation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from components.models.fitted import Fitted

# Bins of the population stability index, and the least share of a bin: an empty one would make it infinite.
BINS = 10
LEAST_SHARE = 1e-4
# Values of a category that are told apart; the rest is one bin.
TOP_VALUES = 20
# Inputs that are shuffled and scored in one go.
TOGETHER = 16


@dataclass(frozen=True)
class Distribution:
    """One feature over some rows; numbers as the model reads them, lists by their length.

    Attributes:
        rows: How many.
        coverage: Share of rows whose value is neither missing nor the feature's default; None without rows.
        mean: Of the values that are there; None for texts, ids, or where nothing is there.
        low: 5 % quantile.
        median: 50 % quantile.
        high: 95 % quantile.
        top: The most frequent value and its share, for texts and ids.
    """

    rows: int
    coverage: float | None
    mean: float | None = None
    low: float | None = None
    median: float | None = None
    high: float | None = None
    top: tuple[str, float] | None = None


def describe(column: pa.ChunkedArray, default: Any) -> Distribution:
    """The distribution of one feature.

    Args:
        column: N values of the examples.
        default: What stands there for an entity without a value; an empty list for lists.

    Returns:
        Its distribution.
    """
    rows = len(column)
    if not rows:
        return Distribution(0, None)
    informed = _informed(column, default)
    coverage = float(informed.mean())
    numbers = _numbers(column)
    if numbers is None:
        counts = pc.value_counts(column.combine_chunks())
        best = max(counts.to_pylist(), key=lambda one: (one["counts"], str(one["values"])))
        return Distribution(rows, coverage, top=(str(best["values"]), best["counts"] / rows))
    there = numbers[np.isfinite(numbers)]
    if not there.size:
        return Distribution(rows, coverage)
    low, median, high = (float(one) for one in np.quantile(there, (0.05, 0.5, 0.95)))
    return Distribution(rows, coverage, float(there.mean()), low, median, high)


def _informed(column: pa.ChunkedArray, default: Any) -> NDArray[np.bool_]:
    array = column.combine_chunks()
    if pa.types.is_list(array.type):
        array = pc.list_value_length(array)
        default = 0
    known = ~np.asarray(pc.is_null(array, nan_is_null=True).to_numpy(zero_copy_only=False), bool)
    if default is None:
        return known
    other = pc.not_equal(array, pa.scalar(default).cast(array.type))
    informed: NDArray[np.bool_] = known & pc.fill_null(other, False).to_numpy(zero_copy_only=False)
    return informed


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64] | None:
    """Values as float64, lengths of lists; None for texts and ids."""
    array = column.combine_chunks()
    if pa.types.is_list(array.type):
        array = pc.list_value_length(array)
    elif not pa.types.is_floating(array.type):
        return None
    numbers: NDArray[np.float64] = pc.cast(array, pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def stability(reference: pa.ChunkedArray, current: pa.ChunkedArray) -> float | None:
    """Population stability index: the sum over bins of (p - q) ln(p / q), p now and q then.

    Bins are the reference's deciles, or its most frequent values; what is missing is a bin of its own. Below 0.1
    nothing has moved, above 0.25 much has (Siddiqi, *Credit Risk Scorecards*, 2006, ch. 10).

    Args:
        reference: Values of the earlier days.
        current: Values of the day.

    Returns:
        The index, 0 for equal distributions; None where either side has no row.
    """
    if not len(reference) or not len(current):
        return None
    then, now = _bins(reference, reference), _bins(reference, current)
    size = max(then.max(), now.max()) + 1
    p, q = (np.maximum(np.bincount(one, minlength=size) / len(one), LEAST_SHARE) for one in (now, then))
    return float(((p - q) * np.log(p / q)).sum())


def _bins(reference: pa.ChunkedArray, column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Number of each value's bin; 0 is what is missing."""
    numbers = _numbers(column)
    if numbers is None:
        counts = pc.value_counts(reference.combine_chunks()).to_pylist()
        best = sorted(counts, key=lambda one: (-one["counts"], str(one["values"])))[:TOP_VALUES]
        known = pa.array([one["values"] for one in best if one["values"] is not None], column.type)
        array = column.combine_chunks()
        place = pc.fill_null(pc.index_in(array, known), len(known)).to_numpy(zero_copy_only=False)
        missing = pc.is_null(array).to_numpy(zero_copy_only=False)
        return np.where(missing, 0, place + 1).astype(np.int64)
    base = _numbers(reference)
    assert base is not None
    there = base[np.isfinite(base)]
    edges = np.unique(np.quantile(there, np.linspace(0, 1, BINS + 1)[1:-1])) if there.size else np.array([])
    # A value on an edge falls below it, so that a most frequent value (often 0) is a bin of its own.
    return np.where(np.isfinite(numbers), np.searchsorted(edges, numbers, side="left") + 1, 0).astype(np.int64)


def importance(fitted: "Fitted", table: pa.Table, labels: Mapping[str, NDArray[np.float64]]) -> dict[str, float | None]:
    """How much worse a model becomes when one input is shuffled over rows.

    Breiman, *Random Forests*, 2001, section 10. Inputs that say the same (windows of one count) stand in for each
    other, so each alone may look unimportant.

    Args:
        fitted: The model.
        table: N rows with its columns and ``group``.
        labels: float64 [N] per task, NaN = missing.

    Returns:
        Per input the mean over tasks of the loss's growth, as a share of the loss; None where no task has a label.
    """
    import torch

    from components.models.fields import encode
    from components.models.fitted import group_codes

    encoded = encode(table, fitted.spec, fitted.vocab)
    group = group_codes(table, len(fitted.group_names))
    arrays: dict[str, NDArray[Any]] = {"index": encoded.index, "numeric": encoded.numeric, "history": encoded.history}
    order = np.random.default_rng(7).permutation(table.num_rows)

    def losses(changes: list[dict[str, NDArray[Any]]]) -> list[list[float | None]]:
        """Each change's losses; several in one go, since the rows of a group are scored in whole passes."""
        stacked = (np.concatenate([change.get(part, rows) for change in changes]) for part, rows in arrays.items())
        parts = [torch.from_numpy(array).to(fitted.device) for array in stacked]

        def inputs(rows: "Tensor") -> "Tensor":
            x: Tensor = fitted.model.encoder(*(part[rows] for part in parts))
            return x

        scores = np.split(fitted.score_rows(inputs, np.tile(group, len(changes))), len(changes))
        return [
            [_loss(task.loss, labels[task.name], one[:, at]) for at, task in enumerate(fitted.tasks)] for one in scores
        ]

    spec = fitted.spec
    places = {name: ("index", at) for at, name in enumerate(spec.indexed)}
    places |= {name: ("numeric", at) for at, name in enumerate(spec.numeric)}

    def shuffled(name: str) -> dict[str, NDArray[Any]]:
        if name == spec.history:
            return {"history": encoded.history[order]}
        part, at = places[name]
        changed = arrays[part].copy()
        changed[:, at] = changed[order, at]
        return {part: changed}

    (base,), found = losses([{}]), dict[str, float | None]()
    for start in range(0, len(spec.columns), TOGETHER):
        names = spec.columns[start : start + TOGETHER]
        for name, worse in zip(names, losses([shuffled(name) for name in names]), strict=True):
            found[name] = _growth(base, worse)
    return found


def _growth(base: Sequence[float | None], changed: Sequence[float | None]) -> float | None:
    shares = [b / a - 1 for a, b in zip(base, changed, strict=True) if a is not None and b is not None and a > 0]
    return float(np.mean(shares)) if shares else None


def _loss(kind: str, labels: NDArray[np.float64], scores: NDArray[np.float32]) -> float | None:
    from components.models import metrics

    measure = metrics.mse if kind == "mse" else metrics.logloss
    return measure(labels, scores.astype(np.float64)).value
