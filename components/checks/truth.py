"""Rung V3: in worlds whose true lift is known, does the interval cover it, and is the estimate unbiased?

For every world: all arms are rolled out on the held-out day by the response model, as a daily run does it, and served
in the true world (``World.outcomes`` with the logged sessions, averaged over draws of chance). Every arm's lift over
the popularity arm is compared with the true one, for all and for new users: app time relative, return in points.

A single number widens all standard errors: what the users and the ensemble do not say of the response model's own
errors. It is calibrated on worlds that the check does not report on, for this size of world only.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from components.checks.rung import Found
from components.checks.worlds import CALIBRATION, TEST, Size, WorldDay, world_day
from components.steps import run_step
from simulator import inference
from simulator.inference import Effect
from simulator.metrics import GROUPS, PairedSums
from simulator.session import RolloutSettings, rollout

FloatArray = NDArray[np.float64]
Metric = Literal["app_time", "return"]
Segment = Literal["all", "new"]

METRICS: tuple[Metric, ...] = ("app_time", "return")
SEGMENTS: tuple[Segment, ...] = ("all", "new")
COLUMNS: dict[Metric, str] = {"app_time": "app_time_s", "return": "return_probability"}

# Draws of chance that the truth is averaged over.
CHANCES = tuple(range(500, 508))
CONFIDENCE = 0.95
COVERAGE_TARGET, RANK_TARGET = 0.9, 0.9
# Largest mean bias as a share of the mean true lift.
BIAS_TARGETS: dict[tuple[Metric, Segment], float] = {
    ("app_time", "all"): 1 / 5,
    ("app_time", "new"): 1 / 3,
    ("return", "all"): 1 / 5,
    ("return", "new"): 1 / 5,
}


@dataclass(frozen=True)
class Cell:
    """One arm's lift over the popularity arm in one world.

    Attributes:
        seed: The world's.
        arm: The arm.
        metric: ``app_time`` (relative lift) or ``return`` (difference of shares).
        segment: Whose users.
        users: How many.
        estimate: From the rollouts; None where it is not estimable.
        se: Standard error, users and ensemble.
        df: Degrees of freedom.
        truth: The true lift.
        level: Estimated over true level of the arm (app time) or their difference (return).
        reason: Why there is no estimate.
    """

    seed: int
    arm: str
    metric: Metric
    segment: Segment
    users: int
    estimate: float | None
    se: float | None
    df: float | None
    truth: float
    level: float
    reason: str | None = None


def run_world(seed: int, size: Size, names: tuple[str, ...], settings: dict[str, object] | None = None) -> list[Cell]:
    """Estimate and look up the lifts of one world.

    Args:
        seed: The world's.
        size: How large.
        names: Arms beside the popularity arm.
        settings: Changes of the pipeline's simulator settings.

    Returns:
        One cell per arm, metric and segment.
    """
    import torch

    torch.set_num_threads(1)
    with world_day(seed, size, settings) as day:
        estimated = _estimated(day, names)
        return _cells(seed, day, estimated)


@dataclass(frozen=True, eq=False)
class _Both:
    """Estimated [M, U] and true [U] values of one arm and metric."""

    estimate: FloatArray
    truth: FloatArray


def _estimated(day: WorldDay, names: tuple[str, ...]) -> dict[tuple[str, Metric], _Both]:
    from components.checks.arms import BASELINE, make_arms
    from components.heldout import session_arrays
    from components.respond import load_response

    run_step(day.context, "respond", day.day)
    model = load_response(day.context.runs.get("response", day.day))
    arms = make_arms(day, (BASELINE, *(name for name in names if name != BASELINE)))
    chosen = day.context.pipeline.simulator
    settings = RolloutSettings(chosen.seed, chosen.rollouts, chosen.max_slots)
    sessions = session_arrays(day.context, day.held, np.arange(day.held.sessions.num_rows))
    for arm in arms.values():
        arm.look_ahead(sessions.sets)
    rankings = {name: arm.ranking for name, arm in arms.items()}
    outcomes = rollout(sessions, day.videos, rankings, model, settings).outcomes
    found = {}
    for name, arm in arms.items():
        mine = outcomes.filter(pc.equal(outcomes["arm"], name))
        truth = day.world.outcomes(arm, day.held_day, seed=CHANCES)
        users = len(np.unique(mine["user_id"].to_numpy()))
        if not np.array_equal(mine["user_id"].to_numpy()[:users], truth["user_id"].to_numpy()[:users]):
            raise AssertionError("the truth and the rollouts are of different users")
        for metric, column in COLUMNS.items():
            estimate = mine[column].cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(-1, users)
            found[name, metric] = _Both(estimate, truth[column].to_numpy().reshape(-1, users).mean(axis=0))
    return found


def _cells(seed: int, day: WorldDay, found: dict[tuple[str, Metric], _Both]) -> list[Cell]:
    from components.checks.arms import BASELINE

    user_id, first = np.unique(day.held.sessions["user_id"].to_numpy(), return_index=True)
    group = day.held.sessions["group"].to_numpy()[first]
    cells = []
    for (arm, metric), treatment in found.items():
        if arm == BASELINE:
            continue
        baseline = found[BASELINE, metric]
        for segment in SEGMENTS:
            inside = np.ones(len(user_id), dtype=bool) if segment == "all" else group == GROUPS.index(segment)
            moments = [
                inference.paired(PairedSums.of(t[inside], b[inside]))
                for t, b in zip(treatment.estimate, baseline.estimate, strict=True)
            ]
            lift = inference.relative if metric == "app_time" else inference.difference
            effect: Effect = lift(moments, CONFIDENCE)
            t, b = (float(both.truth[inside].mean()) for both in (treatment, baseline))
            own = float(treatment.estimate[:, inside].mean())
            cells.append(
                Cell(
                    seed=seed,
                    arm=arm,
                    metric=metric,
                    segment=segment,
                    users=int(inside.sum()),
                    estimate=effect.value,
                    se=effect.se,
                    df=effect.df,
                    truth=t / b - 1 if metric == "app_time" else t - b,
                    level=own / t if metric == "app_time" else own - t,
                    reason=effect.reason,
                )
            )
    return cells


def run_worlds(
    seeds: Sequence[int],
    size: Size,
    names: tuple[str, ...],
    workers: int,
    notify: Callable[[int, int, str], None],
    settings: dict[str, object] | None = None,
) -> list[Cell]:
    """Run several worlds side by side.

    Args:
        seeds: Of the worlds.
        size: How large they are.
        names: Arms beside the popularity arm.
        workers: Processes.
        notify: Called with (done, total, what).
        settings: Changes of the pipeline's simulator settings.

    Returns:
        The cells in the order of the seeds.
    """
    if workers <= 1:
        parts = []
        for done, seed in enumerate(seeds):
            notify(done, len(seeds), f"world {seed}")
            parts.append(run_world(seed, size, names, settings))
        return [cell for part in parts for cell in part]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_world, seed, size, names, settings) for seed in seeds]
        parts = []
        for done, future in enumerate(futures):
            parts.append(future.result())
            notify(done + 1, len(seeds), f"world {seeds[done]}")
    return [cell for part in parts for cell in part]


def covered(cell: Cell, widening: float = 1.0) -> bool | None:
    """Whether the widened interval holds the truth; None without an interval."""
    if cell.estimate is None or cell.se is None or cell.df is None:
        return None
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, cell.df)) * cell.se * widening
    return abs(cell.estimate - cell.truth) <= half


def calibrate(cells: Iterable[Cell]) -> float:
    """The smallest widening, at least 1, under which every metric and segment is covered at the nominal rate.

    Args:
        cells: Of calibration worlds.

    Returns:
        The factor of all standard errors.
    """
    cells = list(cells)
    largest = 1.0
    for metric in METRICS:
        for segment in SEGMENTS:
            needed = [
                abs(c.estimate - c.truth) / (float(stats.t.ppf(0.5 + CONFIDENCE / 2, c.df)) * c.se)
                for c in cells
                if c.metric == metric and c.segment == segment and c.estimate is not None and c.se and c.df
            ]
            if needed:
                largest = max(largest, float(np.quantile(needed, CONFIDENCE, method="higher")))
    return largest


def summary(cells: Sequence[Cell], widening: float) -> list[dict[str, Any]]:
    """Bias, coverage and rank correlation per metric and segment.

    Args:
        cells: Of the worlds that are reported on.
        widening: Factor of the standard errors.

    Returns:
        One row per metric and segment, over the arms that use logged information.
    """
    from components.checks.arms import LOGGED

    rows = []
    for metric in METRICS:
        for segment in SEGMENTS:
            mine = [c for c in cells if c.metric == metric and c.segment == segment and c.arm in LOGGED]
            known = [c for c in mine if c.estimate is not None]
            worlds = sorted({c.seed for c in known})
            bias = _per_world(known, worlds, lambda c: (c.estimate or 0.0) - c.truth)
            lift = _per_world(known, worlds, lambda c: abs(c.truth))
            ranks = [_rank([c for c in known if c.seed == world]) for world in worlds]
            errors = [(c.estimate or 0.0) - c.truth for c in known]
            hits = [covered(c, widening) for c in known]
            plain = [covered(c) for c in known]
            target = BIAS_TARGETS[metric, segment]
            share = float(bias.mean() / lift.mean()) if worlds else None
            rows.append(
                {
                    "metric": metric,
                    "segment": segment,
                    "worlds": len(worlds),
                    "users_per_world": float(np.mean([c.users for c in known])) if known else 0.0,
                    "not_estimable": len(mine) - len(known),
                    "bias": float(bias.mean()) if worlds else None,
                    "bias_se": float(bias.std(ddof=1) / len(worlds) ** 0.5) if len(worlds) > 1 else None,
                    "mean_abs_lift": float(lift.mean()) if worlds else None,
                    "bias_share": share,
                    "bias_target": target,
                    "rmse": float(np.sqrt(np.mean(np.square(errors)))) if known else None,
                    "coverage_unwidened": _mean(plain),
                    "coverage": _mean(hits),
                    "coverage_target": COVERAGE_TARGET,
                    "rank_correlation": float(np.mean(ranks)) if ranks else None,
                    "rank_target": RANK_TARGET,
                    "passed": share is not None
                    and abs(share) <= target
                    and (_mean(hits) or 0.0) >= COVERAGE_TARGET
                    and float(np.mean(ranks)) >= RANK_TARGET,
                }
            )
    return rows


def by_arm(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Mean estimate and truth per arm, metric and segment, oracles among them."""
    keys = list(dict.fromkeys((c.arm, c.metric, c.segment) for c in cells))
    rows = []
    for arm, metric, segment in keys:
        mine = [c for c in cells if (c.arm, c.metric, c.segment) == (arm, metric, segment) and c.estimate is not None]
        rows.append(
            {
                "arm": arm,
                "metric": metric,
                "segment": segment,
                "estimate": float(np.mean([c.estimate for c in mine if c.estimate is not None])) if mine else None,
                "truth": float(np.mean([c.truth for c in mine])) if mine else None,
                "level": float(np.mean([c.level for c in mine])) if mine else None,
                "coverage_unwidened": _mean([covered(c) for c in mine]),
            }
        )
    return rows


def as_rows(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """The cells as plain data."""
    return [asdict(cell) for cell in cells]


def seeds_of(kind: Literal["calibration", "test"], count: int) -> list[int]:
    """Seeds of worlds, disjoint between kinds."""
    first = CALIBRATION if kind == "calibration" else TEST
    return list(range(first, first + count))


def _per_world(cells: Sequence[Cell], worlds: Sequence[int], value: Callable[[Cell], float]) -> FloatArray:
    return np.array([np.mean([value(c) for c in cells if c.seed == world]) for world in worlds])


def _rank(cells: Sequence[Cell]) -> float:
    """Spearman's correlation over the arms, the popularity arm with lift 0 among them."""
    estimate = [0.0, *(c.estimate or 0.0 for c in cells)]
    truth = [0.0, *(c.truth for c in cells)]
    return float(stats.spearmanr(estimate, truth).statistic)


def _mean(values: Sequence[bool | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _words(row: dict[str, Any]) -> str:
    who = f"{row['metric'].replace('_', ' ')} of {row['segment']} users"
    if row["bias"] is None:
        return f"{who}: not estimable"
    coverage = "unknown" if row["coverage"] is None else f"{100 * row['coverage']:.0f} %"
    return (
        f"{who}: bias {100 * row['bias']:+.1f} ({100 * row['bias_share']:+.0f} % of the mean lift), "
        f"coverage {coverage}, rank correlation {row['rank_correlation']:.2f}"
    )


def check_truth(
    notify: Callable[[int, int, str], None],
    worlds: int,
    calibration: int,
    workers: int,
    size: Size | None = None,
) -> Found:
    """Estimate lifts in worlds whose truth is known.

    Args:
        notify: Called with (done, total, what).
        worlds: Worlds that are reported on.
        calibration: Further worlds that the widening is calibrated on; 0 leaves the intervals as they are.
        workers: Processes side by side.
        size: How large the worlds are.

    Returns:
        The rung.
    """
    from components.checks.arms import LOGGED, ORACLES

    size = size or Size()
    names = (*LOGGED, *ORACLES)
    widening = 1.0
    if calibration:
        widening = calibrate(run_worlds(seeds_of("calibration", calibration), size, LOGGED, workers, notify))
    cells = run_worlds(seeds_of("test", worlds), size, names, workers, notify)
    rows = summary(cells, widening)
    failed = [row for row in rows if not row["passed"]]
    words = ", ".join(_words(row) for row in rows)
    sentence = (
        f"{worlds} worlds of about {rows[0]['users_per_world']:.0f} users a day, intervals x {widening:.2f}: {words}."
    )
    if failed:
        missed = ", ".join(f"{row['metric'].replace('_', ' ')} of {row['segment']} users" for row in failed)
        sentence = f"Missed for {missed}. {sentence}"
    config = {"size": asdict(size), "worlds": worlds, "calibration": calibration, "chances": len(CHANCES)}
    facts = {"widening": widening, "by_arm": by_arm(cells), "cells": as_rows(cells)}
    return Found("V3 known truth", "failed" if failed else "passed", sentence, config, rows, facts)
