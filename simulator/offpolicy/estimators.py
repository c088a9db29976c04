"""From sums of logged rounds to the value of a target policy, with intervals by user, or the reason why there is none.

Estimand of all estimators: V(pi) = E[sum over a of pi(a|x) q(x, a)], the mean reward per round had the target policy
pi chosen in the rounds that the log met. With w = pi(a|x) / pi_0(a|x), r the reward, q the reward model, means over
the N rounds (Saito, Aihara, Matsutani and Narita, Open Bandit Pipeline, NeurIPS 2021 datasets track, section 4):

==========  ===========================================================================================
ips         mean of w r (Precup, Sutton and Singh, ICML 2000)
snips       sum of w r / sum of w (Swaminathan and Joachims, NeurIPS 2015)
dm          mean of q(x, pi) = sum over a of pi(a|x) q(x, a)
dr          mean of q(x, pi) + w (r - q) (Dudik, Erhan, Langford and Li, Statistical Science 2014)
sndr        mean of q(x, pi) + sum of w (r - q) / sum of w
switch_dr   mean of q(x, pi) + w (r - q) 1[w <= lambda] (Wang, Agarwal and Dudik, ICML 2017)
dros        mean of q(x, pi) + lambda w / (w^2 + lambda) (r - q) (Su, Dimakopoulou, Krishnamurthy and Dudik, ICML 2020)
==========  ===========================================================================================

Assumptions: the propensities are the true ones, every action that the target takes can be taken by the logging policy
(common support), rewards of a round depend on its own action alone, and q saw no row of the user that it is asked for.
``dm`` needs none of the first two, but a right q; it is the only one that stands without support.

Intervals: every estimator is a smooth function f of column totals T = sum over users g of t_g and homogeneous of
degree 0, so its linearisation z_g = t_g . df/dT sums to 0, and the variance is G / (G - 1) times the sum of z_g^2
(delta method with clusters: Deng, Knoblich and Lu, KDD 2018, section 3.2; Liang and Zeger, Biometrika 1986, for the
sandwich). Quantiles are Student's with G - 1 degrees of freedom. A difference of arms on the same log uses z_g of one
arm minus that of the other. Unit of analysis: the user.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from simulator.inference import Effect
from simulator.offpolicy.rounds import FloatArray, IntArray
from simulator.offpolicy.sums import COLUMNS, ClusterSums

Estimator = Literal["ips", "snips", "dm", "dr", "sndr", "switch_dr", "dros"]

# Each estimator as a sum of ratios of column totals.
_TERMS: Mapping[Estimator, tuple[tuple[str, str], ...]] = {
    "ips": (("weighted_reward", "rounds"),),
    "snips": (("weighted_reward", "weight"),),
    "dm": (("expected", "rounds"),),
    "dr": (("expected", "rounds"), ("residual", "rounds")),
    "sndr": (("expected", "rounds"), ("residual", "weight")),
    "switch_dr": (("expected", "rounds"), ("switched", "rounds")),
    "dros": (("expected", "rounds"), ("shrunk", "rounds")),
}
ESTIMATORS: tuple[Estimator, ...] = tuple(_TERMS)

_MODEL_ALONE: tuple[Estimator, ...] = ("dm",)
_NO_MODEL: tuple[Estimator, ...] = ("ips", "snips")

# Sums of squares carry about sixteen digits; a variance below this share of them is rounding, not variation.
_ROUNDING = 1e-13

_OVERFLOW = "the weighted rewards overflow"


@dataclass(frozen=True)
class Limits:
    """Below these there is no number.

    Attributes:
        effective: Least effective sample size, in rounds.
        unsupported: Largest mean probability that the target may put where the logging policy never goes.
        users: Least users with a positive weight for an interval; a value stands with fewer.
    """

    effective: float = 100.0
    unsupported: float = 1e-3
    users: int = 10


@dataclass(frozen=True)
class Weights:
    """What the importance weights look like; None where it can not be computed.

    Attributes:
        rounds: Logged rounds.
        users: Users with a round.
        matched: Rounds whose logged action the target could have taken (w > 0).
        match_rate: Their share.
        mean: Mean weight; 1 in expectation, so far from 1 means wrong propensities or missing support.
        largest: Largest weight.
        quantile_99: The weight that 99 % of the rounds do not exceed.
        top_share: Share of the total weight in the 1 % of rounds with the largest weights.
        effective_rounds: Effective sample size, (sum of w)^2 / sum of w^2 (Kish 1965, section 11.7).
        effective_users: The same over users' total weights: what rounds of one user are worth together.
    """

    rounds: int
    users: int
    matched: int
    match_rate: float | None
    mean: float | None
    largest: float | None
    quantile_99: float | None
    top_share: float | None
    effective_rounds: float | None
    effective_users: float | None


@dataclass(frozen=True)
class Evaluation:
    """A policy's value by every estimator.

    Attributes:
        values: Estimator to value with interval, or the reason why there is none.
        weights: Diagnostics.
    """

    values: Mapping[Estimator, Effect]
    weights: Weights


def weights_of(sums: ClusterSums) -> Weights:
    """Diagnostics of the importance weights.

    Args:
        sums: Of one target policy.

    Returns:
        The diagnostics; None where there is no round, or where some round has no weight.
    """
    rounds, total, bad = sums.rounds, sums.total("weight"), sums.unusable
    known = rounds > 0 and not (bad.unknown or bad.impossible or bad.no_policy or bad.overflowing)
    weighted = known and total > 0
    of_users = sums.column("weight")
    return Weights(
        rounds=rounds,
        users=len(sums.cluster),
        matched=int(sums.total("matched")),
        match_rate=sums.total("matched") / rounds if known else None,
        mean=total / rounds if known else None,
        largest=sums.tail.largest if known else None,
        quantile_99=sums.tail.quantile(0.99, rounds) if known else None,
        top_share=sums.tail.top_share(0.01, rounds) if known else None,
        effective_rounds=total**2 / sums.squares if weighted else None,
        effective_users=float(total**2 / (of_users @ of_users)) if weighted else None,
    )


def evaluate(sums: ClusterSums, limits: Limits, confidence: float) -> Evaluation:
    """The target policy's value by every estimator.

    Args:
        sums: Of one target policy and reward.
        limits: When there is no number.
        confidence: Of the two-sided intervals.

    Returns:
        Values in the reward's unit, and the weights' diagnostics.
    """
    found = {name: _effect(sums, name, limits, confidence) for name in ESTIMATORS}
    return Evaluation(found, weights_of(sums))


def contrast(
    treatment: ClusterSums, baseline: ClusterSums, limits: Limits, confidence: float
) -> dict[Estimator, Effect]:
    """Treatment minus baseline on the same log, by every estimator.

    Args:
        treatment: Sums of the treatment's policy.
        baseline: Sums of the baseline's policy over the same rounds.
        limits: When there is no number, for each arm.
        confidence: Of the two-sided intervals.

    Returns:
        Differences in the reward's unit with p-values of the hypothesis 0, or the reason of the arm that has no value.
    """
    return {name: _difference(treatment, baseline, name, limits, confidence) for name in ESTIMATORS}


def refusal(sums: ClusterSums, estimator: Estimator, limits: Limits) -> str | None:
    """Why an estimator has no value here.

    Args:
        sums: Of one target policy and reward.
        estimator: Which one.
        limits: When there is no number.

    Returns:
        The reason in words with counts, or None when there is a value.
    """
    rounds, bad = sums.rounds, sums.unusable
    if rounds == 0:
        return "there is no logged round"
    outside = sums.unsupported / rounds
    effective = sums.total("weight") ** 2 / sums.squares if sums.squares > 0 else 0.0
    of = f"of {rounds} rounds"
    always = [(bad.no_policy, f"the target's probabilities are no distribution in {bad.no_policy} {of}")]
    model = [
        (not sums.modelled, "there is no reward model"),
        (bad.no_value, f"the reward model's values are not finite in {bad.no_value} {of}"),
    ]
    weights = [
        (bad.impossible, f"{bad.impossible} {of} have a propensity of 0 or below, or above 1"),
        (bad.unknown, f"the propensity is unknown in {bad.unknown} {of}"),
        (bad.overflowing, f"the weights of {bad.overflowing} {of} overflow"),
        (bad.no_reward, f"the reward is not finite in {bad.no_reward} {of}"),
        (
            not outside <= limits.unsupported,
            f"the target puts {outside:.2%} of its choices where the logging policy never goes or its propensity is "
            f"unknown; at most {limits.unsupported:.2%} is allowed",
        ),
        (sums.total("matched") == 0, f"no logged action {of} is one that the target takes"),
        (
            effective < limits.effective,
            f"the effective sample size is {effective:.1f} {of}, below {limits.effective:g}",
        ),
    ]
    asked = always + (model if estimator not in _NO_MODEL else []) + (weights if estimator not in _MODEL_ALONE else [])
    return next((why for failed, why in asked if failed), None)


def _effect(sums: ClusterSums, name: Estimator, limits: Limits, confidence: float) -> Effect:
    if (why := refusal(sums, name, limits)) is not None:
        return Effect(None, reason=why)
    value, spread, rounding = _linear(sums, name)
    if not np.isfinite(value) or not np.isfinite(_square(spread)):
        return Effect(None, reason=_OVERFLOW)
    return interval(value, spread, rounding, _spread_refusal(sums, name, limits), confidence, tested=False)


def _difference(
    treatment: ClusterSums, baseline: ClusterSums, name: Estimator, limits: Limits, confidence: float
) -> Effect:
    for role, sums in (("treatment", treatment), ("baseline", baseline)):
        if (why := refusal(sums, name, limits)) is not None:
            return Effect(None, reason=f"{role}: {why}")
    (t, z_t, e_t), (b, z_b, e_b) = _linear(treatment, name), _linear(baseline, name)
    if not np.isfinite([t, b, _square(z_t), _square(z_b)]).all():
        return Effect(None, reason=_OVERFLOW)
    users, spread = _aligned(treatment.cluster, z_t, baseline.cluster, z_b)
    why = _spread_refusal(treatment, name, limits) or _spread_refusal(baseline, name, limits)
    if len(users) != len(treatment.cluster) or len(users) != len(baseline.cluster):
        why = "the arms were evaluated on different users"
    return interval(t - b, spread, max(e_t, e_b), why, confidence, tested=True)


@np.errstate(over="ignore", invalid="ignore")
def _linear(sums: ClusterSums, name: Estimator) -> tuple[float, FloatArray, float]:
    """Value, linearisation float64 [G] per user, and the variance that rounding alone may leave."""
    value, gradient = 0.0, np.zeros(len(COLUMNS))
    for above, below in _TERMS[name]:
        top, bottom = sums.total(above), sums.total(below)
        value += top / bottom
        gradient[COLUMNS.index(above)] += 1 / bottom
        gradient[COLUMNS.index(below)] -= top / bottom**2
    parts = sums.sums * gradient
    spread: FloatArray = parts.sum(axis=1)
    return value, spread, _ROUNDING * float((parts * parts).sum())


def _spread_refusal(sums: ClusterSums, name: Estimator, limits: Limits) -> str | None:
    users = len(sums.cluster)
    if users < 2:
        return "one user gives no interval"
    if name in _MODEL_ALONE:
        return None
    weighted = int((sums.column("weight") > 0).sum())
    if weighted < limits.users:
        return f"only {weighted} users have a matched round, an interval needs {limits.users}"
    return None


def interval(
    value: float, spread: FloatArray, rounding: float, why: str | None, confidence: float, *, tested: bool
) -> Effect:
    """A value with its interval from the linearisation per user.

    Args:
        value: The estimate.
        spread: float64 [G], z_g, one per user.
        rounding: A variance up to this is rounding.
        why: Why there is no interval, None when there may be one.
        confidence: Of the two-sided interval.
        tested: Whether the hypothesis 0 makes sense and gets a p-value.

    Returns:
        The effect.
    """
    if why is not None:
        return Effect(value, reason=why)
    users = len(spread)
    variance = users / (users - 1) * _square(spread)
    if not variance > rounding:
        return Effect(value, reason="it is the same for every user (a constant reward?), so there is no interval")
    se, df = float(np.sqrt(variance)), float(users - 1)
    half = float(stats.t.ppf(0.5 + confidence / 2, df)) * se
    p_value = float(2 * stats.t.sf(abs(value / se), df)) if tested else None
    return Effect(value, value - half, value + half, p_value, se, df)


@np.errstate(over="ignore", invalid="ignore")
def _square(spread: FloatArray) -> float:
    return float(spread @ spread)


def _aligned(a: IntArray, z_a: FloatArray, b: IntArray, z_b: FloatArray) -> tuple[IntArray, FloatArray]:
    """Differences per user over the users of both."""
    if np.array_equal(a, b):
        return a, z_a - z_b
    users, in_a, in_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    return users, z_a[in_a] - z_b[in_b]
