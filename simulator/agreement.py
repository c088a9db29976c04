"""Rung V4: do replay and rollouts agree where both can speak?

Both can speak of one slot: the first of every logged session, with the candidates that were logged for it. There an
arm's choice is known, and what it earns is estimated twice:

- *replay*: by the log alone, the doubly robust estimate of both arms' difference (``offpolicy.estimators``; inverse
  propensities alone where there is no reward model). With w = pi(a|x) / pi_0(a|x) of an arm, a slot says

      psi = sum over a of pi(a|x) q(x, a) + w (r - q(x, a)),  and the difference is psi(treatment) - psi(baseline);

- *rollouts*: by the response model that the rollouts walk on, the sum over a of (pi_treatment - pi_baseline) m(x, a),
  with m cross-fitted by user and averaged over the ensemble.

Estimand of both: mean reward per first slot under the treatment minus the same under the baseline. Their difference,
slot by slot, has mean 0 if m is right about what the arms choose differently. Unit of analysis: the user; the
interval is that of a ratio of sums per user (delta method with clusters: Deng, Knoblich and Lu, KDD 2018, section
3.2). Assumptions: replay's (true propensities, common support); the spread of m itself is not in the interval.

Rewards and segments are tested together, each interval at 1 - alpha / (number of cells) (Bonferroni). A cell fails
when its interval misses 0. It passes when the interval holds 0 and is narrow enough to mean something: half its
width at most ``LIMIT`` of the logged mean. Else it is not powered. The day fails when any cell fails, and passes when
every cell of all users does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simulator.inference import Effect
from simulator.metrics import GROUPS, SEGMENTS
from simulator.offpolicy import ClusterSums, Estimator, Limits, Rounds, Shrinkage
from simulator.offpolicy.estimators import interval, refusal
from simulator.offpolicy.rounds import FloatArray, IntArray
from simulator.result import Result, Segment, Unit

SCHEMA_VERSION = 1

# The rule of the backtest (rung V2): what is wider than +-20 % shows nothing.
LIMIT = 0.2

# What people read for the rewards' names.
_TITLES = {"watch_s": "seconds watched", "skip": "skips"}

State = Literal["passed", "failed", "not powered", "missing"]


class AgreementCell(Result):
    """One reward in one segment: both arms' difference per first slot by the log and by the response model.

    ``difference`` is replay minus rollouts. ``level`` is the logged mean of the reward. ``reason`` says why a cell is
    not powered.
    """

    segment: Segment
    reward: str
    unit: Unit
    slots: int
    users: int
    level: float | None
    replay: Effect
    rollouts: Effect
    difference: Effect
    state: State
    reason: str | None = None


class Agreement(Result):
    """Rung V4 of a day: its state, why in words, and every cell.

    ``confidence`` is that of all cells together, ``cell_confidence`` that of one interval; ``limit`` is the largest
    half width, as a share of the logged mean, that still passes.
    """

    schema_version: int = SCHEMA_VERSION
    day: str
    state: State
    detail: str
    estimator: Estimator | None = None
    confidence: float = 0.95
    cell_confidence: float = 0.95
    limit: float = LIMIT
    users_share: float = 1.0
    cells: tuple[AgreementCell, ...] = ()


@dataclass(frozen=True)
class FirstSlots:
    """N first slots under one reward.

    Attributes:
        treatment: N rounds under the treatment's policy; ``value`` and ``expected`` are of the log's own reward model.
        baseline: The same under the baseline's.
        predicted: float64 [N], the sum over the candidates of (pi_treatment - pi_baseline) m(x, a).
        group: int8 [N], index into ``metrics.GROUPS``.
        unit: Of the reward.
    """

    treatment: Rounds
    baseline: Rounds
    predicted: FloatArray
    group: NDArray[np.int8]
    unit: Unit


def missing(day: str, reason: str) -> Agreement:
    """The record of a day on which the two can not be compared.

    Args:
        day: The held-out day.
        reason: Why.

    Returns:
        A record without cells.
    """
    return Agreement(day=day, state="missing", detail=reason)


def compare(
    day: str,
    rewards: Mapping[str, FirstSlots],
    *,
    confidence: float,
    limit: float = LIMIT,
    limits: Limits | None = None,
    users_share: float = 1.0,
) -> Agreement:
    """Hold the log's estimates against the response model's.

    Args:
        day: The held-out day.
        rewards: Name to the same slots with that reward; at least one.
        confidence: Of all intervals together.
        limit: Largest half width of an interval that passes, as a share of the logged mean.
        limits: When replay has no number.
        users_share: Share of the users that are in it.

    Returns:
        The record.
    """
    each = 1 - (1 - confidence) / (len(rewards) * len(SEGMENTS))
    limits = Limits() if limits is None else limits
    modelled = all(one.treatment.value is not None for one in rewards.values())
    estimator: Estimator = "dr" if modelled else "ips"
    cells = [
        _cell(name, segment, slots, estimator, limits=limits, confidence=each, limit=limit)
        for name, slots in rewards.items()
        for segment in SEGMENTS
    ]
    state, detail = _verdict(cells, limit)
    return Agreement(
        day=day,
        state=state,
        detail=detail,
        estimator=estimator,
        confidence=confidence,
        cell_confidence=each,
        limit=limit,
        users_share=users_share,
        cells=tuple(cells),
    )


def _cell(
    name: str,
    segment: Segment,
    slots: FirstSlots,
    estimator: Estimator,
    *,
    limits: Limits,
    confidence: float,
    limit: float,
) -> AgreementCell:
    inside = np.ones(len(slots.group), bool) if segment == "all" else slots.group == GROUPS.index(segment)
    t, b = slots.treatment.select(inside), slots.baseline.select(inside)
    predicted, user = slots.predicted[inside], t.cluster
    level = float(t.reward.mean()) if len(t) and np.isfinite(t.reward).all() else None
    why = _refused(t, b, predicted, estimator, limits)
    if why is not None:
        none = Effect(None, reason=why)
        replay, difference = none, none
    else:
        seen = _terms(t, estimator) - _terms(b, estimator)
        replay = _mean(seen, user, confidence)
        difference = _mean(seen - predicted, user, confidence)
    finite = len(predicted) > 0 and bool(np.isfinite(predicted).all())
    rollouts = _mean(predicted, user, confidence) if finite else Effect(None, reason="the response model has no value")
    state, reason = _state(difference, level, limit)
    return AgreementCell(
        segment=segment,
        reward=name,
        unit=slots.unit,
        slots=len(t),
        users=len(np.unique(user)),
        level=level,
        replay=replay,
        rollouts=rollouts,
        difference=difference,
        state=state,
        reason=reason,
    )


def _refused(t: Rounds, b: Rounds, predicted: FloatArray, estimator: Estimator, limits: Limits) -> str | None:
    """Why the two can not be compared."""
    for role, rounds in (("treatment", t), ("baseline", b)):
        if (why := refusal(ClusterSums.of(rounds, Shrinkage()), estimator, limits)) is not None:
            return f"{role}: {why}"
    unknown = int((~np.isfinite(predicted)).sum())
    return f"the response model has no value in {unknown} of {len(predicted)} slots" if unknown else None


def _terms(rounds: Rounds, estimator: Estimator) -> FloatArray:
    """float64 [N]: psi of every slot."""
    weight = np.maximum(rounds.target, 0.0) / rounds.propensity
    if estimator == "ips" or rounds.value is None or rounds.expected is None:
        return weight * rounds.reward
    return rounds.expected + weight * (rounds.reward - rounds.value)


def _mean(values: FloatArray, user: IntArray, confidence: float) -> Effect:
    """Mean per slot with an interval by user."""
    _, at = np.unique(user, return_inverse=True)
    mean = float(values.mean())
    spread = np.bincount(at, values - mean) / len(values)
    why = "one user gives no interval" if len(spread) < 2 else None
    return interval(mean, spread, 1e-26 * float(values @ values), why, confidence, tested=True)


def _state(difference: Effect, level: float | None, limit: float) -> tuple[State, str | None]:
    low, high = difference.low, difference.high
    if low is None or high is None or level is None:
        return "not powered", difference.reason or "the logged mean is unknown"
    if low > 0 or high < 0:
        return "failed", None
    if not (high - low) / 2 <= limit * abs(level):
        width = f"{100 * (high - low) / 2 / abs(level):.1f} %" if level else "more"
        return "not powered", f"half the interval's width is {width} of the logged mean; {100 * limit:g} % is the limit"
    return "passed", None


def _verdict(cells: Sequence[AgreementCell], limit: float) -> tuple[State, str]:
    failed = [cell for cell in cells if cell.state == "failed"]
    if failed:
        where = "; ".join(f"{_title(c)} of {c.segment} users ({_words(c)})" for c in failed)
        return "failed", f"In the first slot replay and the response model disagree on {where}."
    whole = [cell for cell in cells if cell.segment == "all"]
    weak = [cell for cell in whole if cell.state != "passed"]
    if weak:
        where = "; ".join(f"{_title(c)}: {c.reason}" for c in weak)
        return "not powered", f"The log can not tell whether replay and the response model agree. {where}."
    where = "; ".join(f"{_title(c)} ({_words(c)})" for c in whole)
    return "passed", (
        f"In the first slot replay and the response model give the same difference of the arms, as far as intervals of "
        f"at most ±{100 * limit:g} % of the logged mean tell: {where}."
    )


def _title(cell: AgreementCell) -> str:
    return _TITLES.get(cell.reward, cell.reward)


def _words(cell: AgreementCell) -> str:
    d = cell.difference
    assert d.value is not None
    assert d.low is not None
    assert d.high is not None
    # Shares differ by percentage points.
    factor, unit = (100.0, "pp") if cell.unit == "share" else (1.0, cell.unit)
    low, high = factor * d.low, factor * d.high
    return f"replay minus rollouts {factor * d.value:+.2f} {unit} [{low:.2f}, {high:.2f}]"
