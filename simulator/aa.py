"""Rung V1 of the trust ladder: does the inference find lifts where there are none?

A 5 % test that is right rejects in 5 % of A/A runs. Three ways to have no lift:

- *split*: one policy's users, randomised to two arms anew in every run; the randomisation is the only difference;
- *flips*: real differences of two policies, each user's sign flipped by a coin, so that neither arm is better;
- *streams*: one policy with an independent stream of luck per arm (with common random numbers both arms would be
  equal, and every difference 0).

Every run goes through the very functions that analyse an experiment (``inference.welch`` or ``paired``, then
``difference``); only the sums come from matrix products over all runs. Rows of one user, be they rollouts or ensemble
members, are reduced to one first, as everywhere: the unit of analysis is the user. Rubin's part of an interval, which
stands for the response model's uncertainty, is not in it; it makes intervals wider.

Passes when every cell's number of rejections lies in the exact binomial band of a true 5 % test, at a family-wise error
of 1 % over the cells (Clopper and Pearson's tails with Bonferroni's share for each; 8 cells and 1,000 runs: 2.9 to
7.4 %). Seeds are the caller's, fixed beforehand; a failed check is never drawn again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from components.errors import ConfigError
from simulator import draws, inference
from simulator.inference import Moments
from simulator.metrics import GROUPS, METRICS, SEGMENTS, ArmSums, Metric, PairedSums
from simulator.result import Segment

FloatArray = NDArray[np.float64]
Kind = Literal["split", "flips", "streams"]

ALPHA = 0.05
FAMILY_ERROR = 0.01
PRIMARY = tuple(metric for metric in METRICS if metric.role == "primary")

# Runs whose coins are thrown at once: bounds the memory, changes no number.
_BLOCK = 64


@dataclass(frozen=True)
class Cell:
    """Rejections of one test.

    Attributes:
        kind: How there came to be no lift.
        segment: Whose users.
        metric: Name of the metric.
        users: Users in the segment whose value is known.
        runs: A/A runs.
        rejections: How many of them rejected; None where not every run could be tested.
        reason: Why not.
    """

    kind: Kind
    segment: Segment
    metric: str
    users: int
    runs: int
    rejections: int | None
    reason: str | None = None

    @property
    def rate(self) -> float | None:
        """Share of runs that rejected."""
        return None if self.rejections is None else self.rejections / self.runs


@dataclass(frozen=True)
class AaRecord:
    """What the check found.

    Attributes:
        cells: Every cell.
        runs: Runs of each.
        alpha: Level of the tests.
        low: Fewest rejections inside the band.
        high: Most rejections inside the band.
        state: "not powered" where a cell could not be tested and no other failed.
        sentence: For people.
    """

    cells: tuple[Cell, ...]
    runs: int
    alpha: float
    low: int
    high: int
    state: Literal["passed", "failed", "not powered"]
    sentence: str

    @property
    def passed(self) -> bool:
        """Whether every cell lies in the band."""
        return self.state == "passed"


@dataclass(frozen=True, eq=False)
class Rows:
    """Outcomes of one policy.

    Attributes:
        user_id: int64 [N], ascending; once each when reduced.
        group: int64 [N], index into ``metrics.GROUPS``.
        values: float64 [N, K], one column per metric, NaN where unknown.
        metrics: Names of the K metrics.
    """

    user_id: NDArray[np.int64]
    group: NDArray[np.int64]
    values: FloatArray
    metrics: tuple[str, ...]


def rows_of(outcomes: pa.Table, metrics: Sequence[Metric] = PRIMARY, *, reduce: bool = True) -> Rows:
    """Read one policy's outcomes.

    Args:
        outcomes: ``metrics.OUTCOMES`` of one arm; a user may have several rows.
        metrics: Which metrics.
        reduce: Average a user's rows, so that a user counts once. Without it rows count as users: the fault that
            this check must find.

    Returns:
        The rows, in order of users.
    """
    user_id = outcomes.column("user_id").to_numpy()
    group = outcomes.column("group").to_numpy().astype(np.int64)
    values = np.column_stack([metric.value(outcomes) for metric in metrics])
    names = tuple(metric.name for metric in metrics)
    order = np.argsort(user_id, kind="stable")
    if not reduce:
        return Rows(user_id[order], group[order], values[order], names)
    users, first, place, count = np.unique(user_id, return_index=True, return_inverse=True, return_counts=True)
    means = np.column_stack([np.bincount(place, values[:, k], len(users)) / count for k in range(len(names))])
    return Rows(users, group[first], means, names)


def split(rows: Rows, seed: int, runs: int = 1000) -> list[Cell]:
    """Users randomised to two arms anew in every run.

    Args:
        rows: One policy's outcomes.
        seed: Of the randomisations.
        runs: How many.

    Returns:
        One cell per segment and metric.
    """
    cells = _cells(rows)
    known = np.column_stack([inside for _, _, inside, _ in cells])
    x = np.column_stack([np.where(inside, value, 0.0) for _, _, inside, value in cells])
    columns = np.hstack([known, x, x * x])
    treated, whole = _sums_by_run(rows.user_id, columns, seed, runs, "a/a arm", (0.0, 1.0)), columns.sum(axis=0)

    def moments(run: int, c: int) -> Moments | str:
        at = [c, c + len(cells), c + 2 * len(cells)]
        t, b = treated[run, at], whole[at] - treated[run, at]
        return inference.welch(ArmSums(round(t[0]), t[1], t[2]), ArmSums(round(b[0]), b[1], b[2]))

    return [_tested("split", cell, [moments(run, c) for run in range(runs)]) for c, cell in enumerate(cells)]


def flips(treatment: Rows, baseline: Rows, seed: int, runs: int = 1000) -> list[Cell]:
    """Two policies whose arms are exchanged for each user by a coin, anew in every run.

    Args:
        treatment: One policy's outcomes.
        baseline: Another's, of the same users.
        seed: Of the coins.
        runs: How many.

    Returns:
        One cell per segment and metric.

    Raises:
        ConfigError: When the rows are not of the same users.
    """
    pairs = _paired_cells(treatment, baseline)
    t, b = (np.column_stack([np.where(pair[2], pair[at], 0.0) for pair in pairs]) for at in (3, 4))
    signed = _sums_by_run(treatment.user_id, np.hstack([t - b, t * t - b * b]), seed, runs, "a/a coin", (-1.0, 1.0))
    n = [int(pair[2].sum()) for pair in pairs]
    total, squares, products = (t + b).sum(axis=0), (t * t + b * b).sum(axis=0), (t * b).sum(axis=0)

    def moments(run: int, c: int) -> Moments | str:
        s, q = signed[run, c], signed[run, c + len(pairs)]
        sums = PairedSums(
            n=n[c],
            t=(total[c] + s) / 2,
            b=(total[c] - s) / 2,
            tt=(squares[c] + q) / 2,
            bb=(squares[c] - q) / 2,
            tb=products[c],
        )
        return inference.paired(sums)

    return [_tested("flips", pair, [moments(run, c) for run in range(runs)]) for c, pair in enumerate(pairs)]


def streams(
    outcomes: Callable[[int], pa.Table],
    seed: int,
    runs: int = 1000,
    metrics: Sequence[Metric] = PRIMARY,
    *,
    reduce: bool = True,
    notify: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[Cell]:
    """One policy with an independent stream per arm, two new streams in every run.

    Args:
        outcomes: From a stream's seed to ``metrics.OUTCOMES`` of the policy, always of the same users.
        seed: Run r takes the streams seed + 2 r and seed + 2 r + 1.
        runs: How many.
        metrics: Which metrics.
        reduce: As for ``rows_of``.
        notify: Called with (done, total, what).

    Returns:
        One cell per segment and metric.

    Raises:
        ConfigError: When two streams are not of the same users.
    """
    found: list[list[Moments | str]] = []
    pairs: list[_Pair] = []
    for run in range(runs):
        notify(run, runs, "a/a streams")
        arms = [rows_of(outcomes(seed + 2 * run + arm), metrics, reduce=reduce) for arm in range(2)]
        pairs = _paired_cells(*arms)
        found.append([inference.paired(PairedSums.of(t[inside], b[inside])) for _, _, inside, t, b in pairs])
    notify(runs, runs, "a/a streams")
    return [_tested("streams", pair, [one[c] for one in found]) for c, pair in enumerate(pairs)]


def band(cells: int, runs: int, alpha: float = ALPHA, family_error: float = FAMILY_ERROR) -> tuple[int, int]:
    """Exact band of rejections that true tests stay in.

    Args:
        cells: Tests that are judged together.
        runs: Runs of each.
        alpha: Level of the tests.
        family_error: Probability that true tests leave the band in some cell, at most.

    Returns:
        Fewest and most rejections.
    """
    tail = family_error / (2 * cells)
    low, high = stats.binom.ppf([tail, 1 - tail], runs, alpha)
    return int(low), int(high)


def judge(cells: Sequence[Cell]) -> AaRecord:
    """Judge cells together.

    Args:
        cells: All of them, at least one, with the same number of runs.

    Returns:
        The record of the check.

    Raises:
        ConfigError: When there is no cell, or the cells have different numbers of runs.
    """
    if len({cell.runs for cell in cells}) != 1:
        raise ConfigError(f"A/A: {len(cells)} cells with {sorted({c.runs for c in cells})} runs; one number is needed")
    runs = cells[0].runs
    low, high = band(len(cells), runs)
    tested = [(cell, cell.rejections) for cell in cells if cell.rejections is not None]
    outside = [cell for cell, count in tested if not low <= count <= high]
    state: Literal["passed", "failed", "not powered"] = "passed"
    if outside:
        state = "failed"
    elif len(tested) < len(cells):
        state = "not powered"
    share = f"{100 * low / runs:.1f} to {100 * high / runs:.1f} %"
    sentence = (
        f"{len(tested) - len(outside)} of {len(cells)} cells reject in {share} of {runs} A/A runs, the exact binomial "
        f"band of a {100 * ALPHA:g} % test at {100 * FAMILY_ERROR:g} % family-wise error"
    )
    for cell in outside:
        sentence += f"; {_name(cell)} rejects in {100 * (cell.rate or 0.0):.1f} %"
    for cell in cells:
        if cell.rejections is None:
            sentence += f"; {_name(cell)} is not estimable: {cell.reason}"
    return AaRecord(tuple(cells), runs, ALPHA, low, high, state, sentence)


# Segment, metric, which rows are in it, their values; of a pair the treatment's and the baseline's.
_One = tuple[Segment, str, NDArray[np.bool_], FloatArray]
_Pair = tuple[Segment, str, NDArray[np.bool_], FloatArray, FloatArray]


def _cells(rows: Rows) -> list[_One]:
    found: list[_One] = []
    for segment in SEGMENTS:
        member = np.ones(len(rows.group), dtype=bool) if segment == "all" else rows.group == GROUPS.index(segment)
        for k, name in enumerate(rows.metrics):
            value = rows.values[:, k]
            found.append((segment, name, member & ~np.isnan(value), value))
    return found


def _paired_cells(treatment: Rows, baseline: Rows) -> list[_Pair]:
    if not np.array_equal(treatment.user_id, baseline.user_id) or treatment.metrics != baseline.metrics:
        raise ConfigError(
            f"A/A: {len(treatment.user_id)} and {len(baseline.user_id)} rows are not of the same users and metrics"
        )
    both = zip(_cells(treatment), _cells(baseline), strict=True)
    return [(segment, name, t_in & b_in, t, b) for (segment, name, t_in, t), (_, _, b_in, b) in both]


def _sums_by_run(
    user_id: NDArray[np.int64], columns: FloatArray, seed: int, runs: int, purpose: str, faces: tuple[float, float]
) -> FloatArray:
    """float64 [runs, C]: sums of the columns [N, C] times a coin per run and user with the two given faces."""
    found = np.empty((runs, columns.shape[1]))
    for start in range(0, runs, _BLOCK):
        run = np.arange(start, min(start + _BLOCK, runs))
        heads = draws.uniform(seed, purpose, run[:, None], user_id[None, :]) < 0.5
        found[run] = np.where(heads, faces[1], faces[0]) @ columns
    return found


def _tested(kind: Kind, cell: _One | _Pair, moments: Sequence[Moments | str]) -> Cell:
    segment, name, inside = cell[0], cell[1], cell[2]
    users, runs, rejections = int(inside.sum()), len(moments), 0
    for one in moments:
        effect = inference.difference([one], 1 - ALPHA)
        if effect.p_value is None:
            return Cell(kind, segment, name, users, runs, None, effect.reason)
        rejections += effect.p_value < ALPHA
    return Cell(kind, segment, name, users, runs, rejections)


def _name(cell: Cell) -> str:
    return f"{cell.kind}, {cell.segment} users, {cell.metric}"
