"""A world of two actions and three slots, whose every session can be written down."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from components.errors import ConfigError
from simulator.offpolicy import (
    SESSION_ESTIMATORS,
    Limits,
    Rounds,
    SessionRounds,
    SessionSums,
    contrast_sessions,
    evaluate_sessions,
)

SLOTS = 3
ANY = Limits(effective=0.0)
# By the action of the slot before (2 = none): what the policies do, what action a earns, and whether the user stays.
LOGGING = np.array([[0.6, 0.4], [0.3, 0.7], [0.5, 0.5]])
TARGET = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
OTHER = np.array([[0.5, 0.5], [0.5, 0.5], [0.2, 0.8]])
EARNS = np.array([[0.2, 0.9], [0.7, 0.1], [0.4, 0.6]])
STAYS = np.array([[0.9, 0.3], [0.6, 0.8], [0.7, 0.5]])


def truth(policy: np.ndarray, slots: int, before: int = 2) -> float:
    """Expected sum of rewards of so many slots, by following every branch."""
    return 0.0 if slots == 0 else sum(policy[before, a] * branch(policy, slots, before, a) for a in (0, 1))


def branch(policy: np.ndarray, slots: int, before: int, action: int) -> float:
    return float(EARNS[before, action] + STAYS[before, action] * truth(policy, slots - 1, action))


def to_go(policy: np.ndarray, horizon: int) -> np.ndarray:
    """float64 [SLOTS, 3, 2]: what a slot's action earns until the horizon, by the action before; 0 beyond it."""
    return np.array(
        [
            [[branch(policy, horizon - slot, b, a) if slot < horizon else 0.0 for a in (0, 1)] for b in range(3)]
            for slot in range(SLOTS)
        ]
    )


def sessions(
    rng: np.random.Generator, users: int, each: int = 4, target: np.ndarray = TARGET, model: np.ndarray | None = None
) -> SessionRounds:
    """Sessions of the logging policy; everything is drawn at once, so equal generators give equal sessions."""
    n = users * each
    u = rng.random((3, n, SLOTS))
    mood = np.repeat(rng.normal(0, 0.2, users), each)
    before, here = np.full(n, 2), np.ones(n, dtype=bool)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("session", "slot", "before", "action", "reward")}
    for slot in range(SLOTS):
        action = (u[0, :, slot] >= LOGGING[before, 0]).astype(int)
        reward = (u[1, :, slot] < EARNS[before, action]) + mood
        rows = np.flatnonzero(here)
        for name, value in (("before", before), ("action", action), ("reward", reward)):
            columns[name].append(value[rows])
        columns["session"].append(rows)
        columns["slot"].append(np.full(len(rows), slot))
        here &= u[2, :, slot] < STAYS[before, action]
        before = action
    flat = {name: np.concatenate(parts) for name, parts in columns.items()}
    order = np.lexsort((flat["slot"], flat["session"]))
    session, slot, before, action, reward = (flat[name][order] for name in columns)
    offsets = np.append(np.flatnonzero(np.append(True, session[1:] != session[:-1])), len(session))
    expected = None if model is None else (target[before] * model[slot, before]).sum(axis=1)
    rounds = Rounds(
        cluster=session // each,
        reward=reward,
        propensity=LOGGING[before, action],
        target=target[before, action],
        value=None if model is None else model[slot, before, action],
        expected=expected,
    )
    return SessionRounds(offsets, rounds)


def by_definition(one: SessionRounds, horizon: int) -> dict[str, float]:
    """Session by session, as the formulas read."""
    r, found = one.rounds, {name: [] for name in SESSION_ESTIMATORS}
    for first, end in zip(one.offsets[:-1], one.offsets[1:], strict=True):
        at = slice(first, min(end, first + horizon))
        w = np.cumprod(r.target[at] / r.propensity[at])
        before = np.append(1.0, w[:-1])
        found["session_is"].append(w[-1] * r.reward[at].sum())
        found["pdis"].append((w * r.reward[at]).sum())
        found["cascade_dr"].append((w * (r.reward[at] - r.value[at]) + before * r.expected[at]).sum())
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.parametrize("horizon", [1, 2, 3, 9])
def test_values_are_those_of_the_definitions(horizon):
    one = sessions(np.random.default_rng(1), 50, model=to_go(TARGET, SLOTS) + 0.1)
    found = evaluate_sessions(SessionSums.of(one, horizon), ANY, 0.95)
    for name, expected in by_definition(one, horizon).items():
        assert found.values[name].value == pytest.approx(expected, rel=1e-12), name
    assert found.sessions == 200


@pytest.mark.parametrize("horizon", [1, 3])
def test_means_hit_the_enumerated_truth_and_intervals_cover_it(horizon):
    runs = 300
    rng, target = np.random.default_rng(2), truth(TARGET, horizon)
    # Off by a constant and by noise that is fixed: a model that helps without being right.
    model = to_go(TARGET, horizon) + np.random.default_rng(7).normal(0.1, 0.1, (SLOTS, 3, 2))
    values = {name: np.empty(runs) for name in SESSION_ESTIMATORS}
    covered = dict.fromkeys(SESSION_ESTIMATORS, 0)
    for run in range(runs):
        found = evaluate_sessions(SessionSums.of(sessions(rng, 150, model=model), horizon), ANY, 0.95)
        for name, one in found.values.items():
            assert one.low is not None
            assert one.high is not None
            values[name][run] = one.value
            covered[name] += one.low <= target <= one.high
    low, high = stats.binom.ppf([0.0025, 0.9975], runs, 0.95)
    for name in SESSION_ESTIMATORS:
        assert abs(values[name].mean() - target) < 4 * values[name].std() / np.sqrt(runs), name
        assert low <= covered[name] <= high, (name, covered[name])
    assert values["cascade_dr"].std() < values["pdis"].std() <= values["session_is"].std() + 1e-12


def test_differences_of_arms_cover_their_truth():
    runs, covered = 200, 0
    difference = truth(TARGET, SLOTS) - truth(OTHER, SLOTS)
    for run in range(runs):
        arms = [SessionSums.of(sessions(np.random.default_rng(run), 150, target=p), SLOTS) for p in (TARGET, OTHER)]
        one = contrast_sessions(arms[0], arms[1], ANY, 0.95)["pdis"]
        assert one.low is not None
        assert one.high is not None
        assert one.p_value is not None
        covered += one.low <= difference <= one.high
    low, high = stats.binom.ppf([0.0025, 0.9975], runs, 0.95)
    assert low <= covered <= high


def test_shards_add_up_to_the_bit():
    one = sessions(np.random.default_rng(3), 60, model=to_go(TARGET, SLOTS))
    whole = SessionSums.of(one, 2)
    parts = []
    for users in (range(40, 60), range(40)):
        kept = np.isin(one.rounds.cluster, users)
        inside = kept[one.offsets[:-1]]
        offsets = np.append(0, np.cumsum(np.diff(one.offsets)[inside]))
        parts.append(SessionSums.of(SessionRounds(offsets, one.rounds.select(kept)), 2))
    together = parts[0] + parts[1]
    assert np.array_equal(together.cluster, whole.cluster)
    assert np.array_equal(together.sums, whole.sums)
    with pytest.raises(ConfigError, match="horizons"):
        whole + SessionSums.of(one, 3)
    with pytest.raises(ConfigError, match="different users"):
        contrast_sessions(whole, parts[0], ANY, 0.95)


@pytest.mark.parametrize(
    ("column", "value", "refused", "words"),
    [
        ("propensity", 0.0, SESSION_ESTIMATORS, "1 of 200 sessions have a slot whose propensity is unknown"),
        ("propensity", np.nan, SESSION_ESTIMATORS, "1 of 200 sessions"),
        ("propensity", 1.1, SESSION_ESTIMATORS, "1 of 200 sessions"),
        ("propensity", 1e-200, SESSION_ESTIMATORS, "overflows"),
        ("target", np.nan, SESSION_ESTIMATORS, "no distribution"),
        ("reward", np.nan, SESSION_ESTIMATORS, "not finite"),
        ("value", np.inf, ("cascade_dr",), "the reward model is not finite in 1 of 200"),
        ("unsupported", 40.0, SESSION_ESTIMATORS, "leaves the logging policy's support"),
    ],
)
def test_what_can_not_be_estimated_is_refused_in_words(column, value, refused, words):
    one = sessions(np.random.default_rng(4), 50, model=to_go(TARGET, SLOTS))
    changed = getattr(one.rounds, column)
    changed = np.zeros(len(one.rounds)) if changed is None else changed.copy()
    changed[0] = value
    found = evaluate_sessions(
        SessionSums.of(SessionRounds(one.offsets, replace(one.rounds, **{column: changed})), SLOTS), Limits(1.0), 0.95
    )
    for name, effect in found.values.items():
        assert (effect.value is None) == (name in refused), name
        if name in refused:
            assert words in (effect.reason or "")


def test_a_depth_that_the_weights_do_not_carry_is_refused_by_itself():
    one = sessions(np.random.default_rng(5), 30)
    limits = Limits(effective=60.0)
    found = {h: evaluate_sessions(SessionSums.of(one, h), limits, 0.95) for h in (1, 3)}
    assert found[1].values["pdis"].value is not None
    assert "effective sample size over the first 3 slots" in (found[3].values["pdis"].reason or "")
    assert found[1].values["cascade_dr"].reason == "there is no reward model"
    never = SessionRounds(one.offsets, replace(one.rounds, target=np.zeros(len(one.rounds))))
    why = evaluate_sessions(SessionSums.of(never, 1), ANY, 0.95).values["pdis"].reason
    assert why == "no session of 120 is one that the target could have filled"


def test_constant_and_missing_sessions_have_no_interval():
    one = sessions(np.random.default_rng(6), 30, target=LOGGING)
    constant = SessionRounds(one.offsets, replace(one.rounds, reward=np.ones(len(one.rounds))))
    found = evaluate_sessions(SessionSums.of(constant, 1), ANY, 0.95)
    assert found.values["pdis"].value == 1.0
    assert "same for every user" in (found.values["pdis"].reason or "")
    assert (found.mean_weight, found.effective_sessions) == (1.0, 120.0)
    empty = SessionRounds(np.zeros(1, np.int64), one.rounds.select(slice(0, 0)))
    nothing = evaluate_sessions(SessionSums.of(empty, 1), ANY, 0.95)
    assert {effect.reason for effect in nothing.values.values()} == {"there is no logged session"}
    assert nothing.mean_weight is None
    with pytest.raises(ConfigError, match="at least 1"):
        SessionSums.of(one, 0)
    with pytest.raises(ConfigError, match="offsets"):
        SessionRounds(np.zeros(2, np.int64), one.rounds)
