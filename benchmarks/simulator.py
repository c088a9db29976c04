"""How fast the simulator is: rollouts with and without scoring, the user bootstrap, off-policy estimates.

- *Without scoring*: what both arms show and what the response model says of it are computed beforehand; measured are
  the simulated users, on threads that share the blocks.
- *With scoring*: whole rollouts of two neural arms, held against the time that their scorers take for the same pairs
  in one batch each: the share of the scorer's own speed that is left.

Figures of other simulators on two such cores were measured once and are shown as recorded: RecSim about 6,000
impressions a second, RecoGym 2,400, KuaiSim 1,100.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import bootstrap, offpolicy
from benchmarks.claims import Claim, Record, record
from components.checks.arms import make_arms
from components.checks.worlds import Size, WorldDay, world_day
from components.heldout import session_arrays
from components.respond import load_response
from components.steps import run_step
from simulator.serving import Ranking
from simulator.session import RolloutSettings, rollout
from simulator.walk import Habits, Prediction, Walkers, walk

IntArray = NDArray[np.int64]
Notify = Callable[[int, int, str], None]

TARGET_IMPRESSIONS_S, TARGET_SHARE = 1_000_000, 0.7
RECORDED = {"RecSim": 6_000, "RecoGym": 2_400, "KuaiSim": 1_100}
_SLOTS, _ROLLOUTS = 40, 4


def run(
    repeats: int = 5,
    threads: int = 2,
    sessions: int = 100_000,
    size: Size | None = None,
    notify: Notify = lambda done, total, what: None,
) -> Record:
    """Measure everything.

    Args:
        repeats: Repetitions; medians are reported.
        threads: Threads of the walk and of the bootstrap.
        sessions: Of the walk without scoring.
        size: Of the world whose day is rolled out with scoring.
        notify: Called with (done, total, what).

    Returns:
        Claims, and one row per repetition.
    """
    notify(0, 4, "rollouts without scoring")
    rows = _walks(sessions, repeats, threads)
    notify(1, 4, "rollouts with scoring")
    rows += _scored(size or Size(), repeats)
    notify(2, 4, "bootstrap")
    parts = [bootstrap.run(repeats=min(repeats, 3), threads=threads)]
    notify(3, 4, "off-policy estimates")
    parts.append(offpolicy.run(repeats=repeats))
    notify(4, 4, "simulator")
    bare, share, pairs = (_median(rows, what) for what in ("without scoring", "share of the scorer", "with scoring"))
    fastest = max(RECORDED.values())
    claims = [
        Claim(
            "simulator.impressions_s_without_scoring",
            bare,
            "1/s",
            target=f">= {TARGET_IMPRESSIONS_S:,}",
            holds=bare >= TARGET_IMPRESSIONS_S,
            how=f"{threads} threads; recorded of others, with their own scoring: {RECORDED}",
        ),
        Claim(
            "simulator.share_of_scorer",
            share,
            "share",
            target=f">= {TARGET_SHARE}",
            holds=share >= TARGET_SHARE,
            how="pairs per second in rollouts of two neural arms, over those of the same pairs in one batch each",
        ),
        Claim("simulator.impressions_s_with_scoring", pairs, "1/s", how=f"one thread, {pairs / fastest:.1f} x RecSim"),
    ]
    for part in parts:
        claims += part.claims
        rows += part.rows
    return record({"repeats": repeats, "threads": threads, "sessions": sessions}, claims, rows)


def _walks(sessions: int, repeats: int, threads: int) -> list[dict[str, Any]]:
    """Impressions per second of walkers whose predictions are at hand."""
    rng = np.random.default_rng(0)
    shape = (sessions, _SLOTS)
    prediction = Prediction(
        skip=rng.uniform(0.2, 0.6, shape),
        log_share=rng.normal(-0.8, 0.5, shape),
        log_share_sd=rng.uniform(0.8, 1.2, shape),
        duration_s=rng.lognormal(3.5, 0.6, shape),
        level=np.ones(shape),
        leave=rng.normal(-3.2, 0.4, shape),
    )
    ones = np.ones(sessions)
    habits = Habits(1.5 * ones, 2.0 * ones, -0.5 * ones, 0.05 * ones, 0.02 * ones)
    shown = rng.integers(0, 1_000, shape)
    trajectory = rng.integers(0, 2**53, (sessions, _ROLLOUTS))
    edges = np.linspace(0, sessions, threads + 1).astype(np.int64)
    parts = [np.arange(first, last) for first, last in pairwise(edges)]
    found = []
    for repeat in range(repeats + 1):
        walkers = Walkers.start(trajectory, 0.4)

        def go(rows: IntArray, walkers: Walkers = walkers, seed: int = repeat) -> None:
            inside = slice(int(rows[0]), int(rows[-1]) + 1)
            mine = Prediction(**{name: values[inside] for name, values in vars(prediction).items()})
            walk(walkers, rows, shown[inside], mine, habits, begin=0, last=True, seed=seed)

        with ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            list(pool.map(go, parts))
            seconds = time.perf_counter() - began
        # The first round loads or compiles machine code.
        if repeat:
            found.append({"what": "without scoring", "repeat": repeat, "value": int(walkers.depth.sum()) / seconds})
    return found


def _scored(size: Size, repeats: int) -> list[dict[str, Any]]:
    """Whole rollouts of two neural arms, and their scorers alone on the same pairs."""
    import torch

    torch.set_num_threads(1)
    with world_day(1, size) as day:
        run_step(day.context, "respond", day.day)
        model = load_response(day.context.runs.get("response", day.day))
        sessions = session_arrays(day.context, day.held, np.arange(day.held.sessions.num_rows))
        chosen = day.context.pipeline.simulator
        settings = RolloutSettings(chosen.seed, chosen.rollouts, chosen.max_slots)
        arms = {name: _Asked(arm.scores) for name, arm in make_arms(day, ("mfh", "ple")).items()}
        rows: list[dict[str, Any]] = []
        for repeat in range(repeats):
            for arm in arms.values():
                arm.pairs.clear()
            began = time.perf_counter()
            depths = rollout(sessions, day.videos, {n: a.ranking for n, a in arms.items()}, model, settings).depths
            whole = time.perf_counter() - began
            impressions = int((depths["impressions"].to_numpy() * depths["rollouts"].to_numpy()).sum())
            alone = sum(_alone(day, arm) for arm in arms.values())
            rows.append({"what": "with scoring", "repeat": repeat, "value": impressions / whole})
            rows.append({"what": "share of the scorer", "repeat": repeat, "value": alone / whole})
    return rows


class _Asked:
    """An arm that remembers which pairs it was asked for."""

    def __init__(self, scores: Ranking) -> None:
        self.scores = scores
        self.pairs: list[tuple[IntArray, IntArray]] = []

    def ranking(self, session: IntArray, video: IntArray) -> NDArray[np.float64]:
        """Scores of N pairs."""
        self.pairs.append((session, video))
        return self.scores(session, video)


def _alone(day: WorldDay, arm: _Asked) -> float:
    """Seconds that a scorer takes for all its pairs in one batch."""
    session, video = (np.concatenate([pair[i] for pair in arm.pairs]) for i in range(2))
    began = time.perf_counter()
    arm.scores(session, video)
    return time.perf_counter() - began


def _median(rows: list[dict[str, Any]], what: str) -> float:
    return float(statistics.median(row["value"] for row in rows if row["what"] == what))
