"""The compiled walk against a plain one, draw by draw, and against what it should do on average."""

from dataclasses import dataclass, fields
from itertools import pairwise
from math import exp, log1p

import numpy as np
import pytest

from simulator import draws
from simulator.appeal import expected_share
from simulator.walk import Habits, Prediction, Walkers, walk

SEED, START = 9, 0.3


@dataclass(frozen=True)
class Inputs:
    shown: np.ndarray
    prediction: Prediction
    habits: Habits
    trajectory: np.ndarray


def random_inputs(sessions: int = 12, slots: int = 9, rollouts: int = 5, seed: int = 0) -> Inputs:
    rng = np.random.default_rng(seed)
    shown = rng.integers(0, 100, (sessions, slots))
    shown[::3, slots - 3 :] = -1
    shape = (sessions, slots)
    prediction = Prediction(
        skip=rng.random(shape),
        log_share=rng.normal(size=shape),
        log_share_sd=rng.random(shape),
        duration_s=rng.lognormal(3, 0.5, shape),
        level=0.9 + 0.2 * rng.random(shape),
        leave=rng.normal(-2.5, 1.0, shape),
    )
    habits = Habits(
        skip_s=rng.random(sessions) * 3,
        cap_share=1 + rng.random(sessions),
        by_share=rng.normal(size=sessions),
        by_log_seconds=0.2 * rng.normal(size=sessions),
        by_minutes=0.3 * rng.normal(size=sessions),
    )
    return Inputs(shown, prediction, habits, rng.integers(0, 2**53, (sessions, rollouts)))


def part(prediction: Prediction, rows: np.ndarray, begin: int, end: int) -> Prediction:
    return Prediction(**{f.name: getattr(prediction, f.name)[rows, begin:end] for f in fields(prediction)})


def plain(given: Inputs, s: int, r: int) -> tuple[int, int, float, float, float]:
    """Depth, skips, seconds, running share and truncation of one walker, as one would write it down."""
    p, h, key = given.prediction, given.habits, given.trajectory[s, r]
    depth, skips, seconds, share = 0, 0, 0.0, START
    for slot in range(given.shown.shape[1]):
        if given.shown[s, slot] < 0:
            return depth, skips, seconds, share, 1.0
        depth += 1
        if draws.uniform(SEED, "skip", key, slot) < p.skip[s, slot]:
            skips, watched = skips + 1, h.skip_s[s]
        else:
            drawn = exp(p.log_share[s, slot] + p.log_share_sd[s, slot] * draws.normal(SEED, "watch", key, slot))
            watched = min(drawn, h.cap_share[s]) * p.duration_s[s, slot] * p.level[s, slot]
        seconds += watched
        share = 0.7 * share + 0.3 * min(watched / p.duration_s[s, slot], 1.0)
        logit = p.leave[s, slot] + h.by_share[s] * share + h.by_log_seconds[s] * log1p(seconds)
        logit += h.by_minutes[s] * seconds / 60
        if draws.uniform(SEED, "leave", key, slot) < 1 / (1 + exp(-logit)):
            return depth, skips, seconds, share, 0.0
    return depth, skips, seconds, share, 1.0


def walked(given: Inputs, *edges: int) -> Walkers:
    """Everybody's whole walk, in blocks between the edges, as far as anybody is left."""
    walkers = Walkers.start(given.trajectory, START)
    for begin, end in pairwise(edges):
        rows = np.flatnonzero(walkers.alive.any(axis=1))
        walk(
            walkers,
            rows,
            given.shown[rows, begin:end],
            part(given.prediction, rows, begin, end),
            given.habits,
            begin=begin,
            last=end == edges[-1],
            seed=SEED,
        )
    return walkers


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_compiled_walk_is_the_plain_walk(seed):
    given = random_inputs(seed=seed)
    found = walked(given, 0, 9)
    ends = set()
    for s in range(12):
        for r in range(5):
            depth, skips, seconds, share, truncated = plain(given, s, r)
            assert found.depth[s, r] == depth
            assert found.skips[s, r] == skips
            assert found.seconds[s, r] == pytest.approx(seconds, rel=1e-12)
            assert found.share[s, r] == pytest.approx(share, rel=1e-12)
            assert found.truncated[s, r] == truncated
            ends.add((int(depth), truncated))
    # The inputs are worth the name: some leave early, some late, some run out of videos and some of slots.
    assert {(1, 0.0), (6, 1.0), (9, 1.0)} <= ends
    assert not found.alive.any()


@pytest.mark.parametrize("edges", [(0, 1, 9), (0, 4, 5, 9), tuple(range(10))])
def test_blocks_walk_as_one(edges):
    given = random_inputs(seed=3)
    whole, parts = walked(given, 0, 9), walked(given, *edges)
    for f in fields(Walkers):
        assert np.array_equal(getattr(whole, f.name), getattr(parts, f.name)), f.name


def test_between_blocks_whoever_has_not_left_is_there_and_not_cut_off():
    given = random_inputs(seed=4)
    walkers = Walkers.start(given.trajectory, START)
    rows = np.arange(12)
    walk(
        walkers,
        rows,
        given.shown[:, :4],
        part(given.prediction, rows, 0, 4),
        given.habits,
        begin=0,
        last=False,
        seed=SEED,
    )
    assert walkers.alive.any()
    assert np.all(walkers.depth[walkers.alive] == 4)
    assert not walkers.truncated.any()
    before = walkers.depth.copy()
    walk(
        walkers, rows[:3], given.shown[:3, 4:], part(given.prediction, rows[:3], 4, 9), given.habits,
        begin=4, last=True, seed=SEED,
    )  # fmt: skip
    assert np.array_equal(walkers.depth[3:], before[3:]), "only the sessions of the block go on"
    assert not walkers.alive[:3].any()


def constant(logit: float, *, skip: float = 0.0, log_share: float = 0.0, sd: float = 0.0, slots: int = 1) -> Inputs:
    rollouts = 20_000
    shape = (1, slots)
    prediction = Prediction(*(np.full(shape, v) for v in (skip, log_share, sd, 30.0, 1.1, logit)))
    habits = Habits(*(np.full(1, v) for v in (2.0, 1.2, 0.0, 0.0, 0.0)))
    return Inputs(np.zeros(shape, dtype=np.int64), prediction, habits, np.arange(rollouts)[None, :])


@pytest.mark.parametrize("logit", [-3.0, -0.5, 0.0, 2.0])
def test_users_leave_with_the_probability_of_the_logit(logit):
    given = constant(logit, slots=40)
    depth = walked(given, 0, 40).depth[0]
    p = 1 / (1 + np.exp(-logit))
    for slot in (1, 2, 3):
        there = (depth >= slot).sum()
        gone = (depth == slot).sum()
        assert abs(gone - p * there) <= 4 * np.sqrt(there * p * (1 - p)) + 1


@pytest.mark.parametrize(("logit", "depth"), [(-800.0, 5), (800.0, 1)])
def test_certain_logits_are_certain(logit, depth):
    assert set(walked(constant(logit, slots=5), 0, 5).depth[0].tolist()) == {depth}


def test_what_the_watching_adds_to_leaving_counts():
    """Slopes by hand: after one video of 33 s the logit is -10 + 5 x share + 2 x ln(34) + 4 x minutes."""
    given = constant(-10.0)
    habits = Habits(*(np.full(1, v) for v in (2.0, 1.2, 5.0, 2.0, 4.0)))
    found = walked(Inputs(given.shown, given.prediction, habits, given.trajectory), 0, 1)
    assert np.allclose(found.seconds, 33.0)
    logit = -10 + 5 * (0.7 * START + 0.3) + 2 * np.log(34) + 4 * 33 / 60
    p = 1 / (1 + np.exp(-logit))
    assert 0.1 < p < 0.9
    assert (found.truncated == 0).mean() == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 20_000))


def test_seconds_have_the_expected_share_of_the_capped_lognormal():
    given = constant(9.0, skip=0.25, log_share=-0.4, sd=0.7)
    found = walked(given, 0, 1)
    mean = expected_share(np.array([-0.4]), np.array([0.7]), 1.2)[0] * 30 * 1.1
    assert found.skips.mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 20_000))
    kept = found.seconds[found.skips == 0]
    assert kept.mean() == pytest.approx(mean, abs=4 * kept.std() / np.sqrt(len(kept)))
    assert kept.max() == pytest.approx(1.2 * 30 * 1.1)
    assert set(found.seconds[found.skips == 1].tolist()) == {2.0}


def test_an_enormous_share_is_capped_and_not_an_overflow():
    found = walked(constant(0.0, log_share=5000.0), 0, 1)
    assert set(found.seconds[0].tolist()) == {1.2 * 30 * 1.1}
