"""Session metrics off-policy: the sum of rewards of a session's slots, had the target policy filled them.

A session is a sequence of rounds: in each slot a policy chooses from candidates, the user responds, and stays or
leaves. What follows depends on what was shown, so a slot's weight is the product of the ratios pi / pi_0 of all slots
up to it, w_{1:t}; after leaving, rewards are 0 and weights stay. With r_t the reward and a horizon of H slots whose
rewards count, means over sessions are:

==========  =============================================================================================
session_is  sum over t of r_t, times w_{1:T}, T the session's last slot below H (Precup, Sutton and Singh, ICML 2000)
pdis        sum over t of w_{1:t} r_t, per-decision importance sampling (ibid.; for a user who reads from the top this
            is reward-interaction IPS, McInerney et al., KDD 2020)
cascade_dr  sum over t of w_{1:t} (r_t - q_t) + w_{1:t-1} q_t(pi) (Kiyohara et al., WSDM 2022, equation 7; Jiang and Li,
            ICML 2016, equation 10): q_t is the reward model's sum of rewards from slot t to the horizon at the logged
            action, q_t(pi) its mean under the target
==========  =============================================================================================

Estimand: E[sum over the first H slots of r_t] per session under the target policy. Assumptions: true propensities,
common support in every slot, and that leaving and later candidates depend on nothing but what the user and the policies
saw (their probabilities cancel). Any q keeps ``cascade_dr`` unbiased, a good one makes it narrow.

Weights multiply, so a policy that differs much from the logging one soon has no effective sample: each horizon is
refused by itself. Intervals and limits as in ``estimators``: sums per user, ratio of sums to sessions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from components.errors import ConfigError
from simulator.inference import Effect
from simulator.jit import compiled
from simulator.offpolicy.estimators import Limits, interval
from simulator.offpolicy.rounds import FloatArray, IntArray, Rounds
from simulator.offpolicy.sums import LARGEST_WEIGHT, grouped

SessionEstimator = Literal["session_is", "pdis", "cascade_dr"]
SESSION_ESTIMATORS: tuple[SessionEstimator, ...] = ("session_is", "pdis", "cascade_dr")

# A horizon that no session reaches.
ALL_SLOTS = 1 << 30

_COLUMNS = ("sessions", *SESSION_ESTIMATORS, "weight", "squares")


@dataclass(frozen=True)
class SessionRounds:
    """S logged sessions: their rounds in order of slots, those of session s from ``offsets[s]`` to ``offsets[s + 1]``.

    Attributes:
        offsets: int64 [S + 1], from 0 to N, never falling.
        rounds: N rounds. ``value`` and ``expected`` are of the reward model's sums of rewards from the slot to the
            horizon.
    """

    offsets: IntArray
    rounds: Rounds

    def __post_init__(self) -> None:
        rows = len(self.rounds)
        ends_fit = len(self.offsets) > 0 and self.offsets[0] == 0 and self.offsets[-1] == rows
        if not ends_fit or (np.diff(self.offsets) < 1).any():
            raise ConfigError(f"logged sessions: offsets must rise from 0 to {rows}; no session may be empty")


@dataclass(frozen=True)
class SessionSums:
    """Sums over a user's sessions, which add up with ``+``.

    Attributes:
        horizon: Slots whose rewards count.
        cluster: int64 [G], users, ascending.
        sums: float64 [G, 6]: sessions, the three estimators' terms, w at the horizon, its square.
        unusable: Sessions with a round below the horizon that has no weight or no reward.
        no_value: Sessions with a round below the horizon whose reward model is not finite.
        unsupported: Sessions with target probability outside of the logging policy's support below the horizon.
        modelled: Whether there is a reward model.
    """

    horizon: int
    cluster: IntArray
    sums: FloatArray
    unusable: int
    no_value: int
    unsupported: float
    modelled: bool

    def __add__(self, other: "SessionSums") -> "SessionSums":
        if (self.horizon, self.modelled) != (other.horizon, other.modelled):
            raise ConfigError("sums of different horizons, or with and without a reward model, can not be added up")
        cluster, sums = grouped(np.append(self.cluster, other.cluster), np.concatenate([self.sums, other.sums]))
        return SessionSums(
            horizon=self.horizon,
            cluster=cluster,
            sums=sums,
            unusable=self.unusable + other.unusable,
            no_value=self.no_value + other.no_value,
            unsupported=self.unsupported + other.unsupported,
            modelled=self.modelled,
        )

    def total(self, name: str) -> float:
        """A column's sum over users."""
        return float(self.sums[:, _COLUMNS.index(name)].sum())

    @classmethod
    def of(cls, sessions: SessionRounds, horizon: int) -> "SessionSums":
        """Sum up a chunk of sessions.

        Args:
            sessions: S sessions.
            horizon: Slots whose rewards count, at least 1.

        Returns:
            The sums.

        Raises:
            ConfigError: When the horizon is below 1.
        """
        if horizon < 1:
            raise ConfigError(f"a session's metric needs a horizon of at least 1 slot, not {horizon}")
        one, none = sessions.rounds, np.empty(0)
        terms, unusable, no_value, unsupported = _terms(
            sessions.offsets,
            np.ascontiguousarray(one.reward, np.float64),
            np.ascontiguousarray(one.propensity, np.float64),
            np.ascontiguousarray(one.target, np.float64),
            none if one.value is None else one.value,
            none if one.expected is None else one.expected,
            none if one.unsupported is None else one.unsupported,
            horizon,
        )
        owner = one.cluster[sessions.offsets[:-1]]
        cluster, sums = grouped(owner, terms)
        return cls(horizon, cluster, sums, int(unusable), int(no_value), float(unsupported), one.value is not None)


@dataclass(frozen=True)
class SessionEvaluation:
    """A policy's session metric at one horizon.

    Attributes:
        horizon: Slots whose rewards count.
        sessions: Logged sessions.
        mean_weight: Mean of w at the horizon, 1 in expectation; None without sessions or weights.
        effective_sessions: (sum of w)^2 / sum of w^2 at the horizon, None likewise.
        values: Estimator to value per session with interval, or the reason why there is none.
    """

    horizon: int
    sessions: int
    mean_weight: float | None
    effective_sessions: float | None
    values: Mapping[SessionEstimator, Effect]


def evaluate_sessions(sums: SessionSums, limits: Limits, confidence: float) -> SessionEvaluation:
    """The target policy's session metric by every estimator.

    Args:
        sums: Of one target policy, reward and horizon.
        limits: When there is no number; its effective sample size is of sessions.
        confidence: Of the two-sided intervals.

    Returns:
        Values per session in the reward's unit.
    """
    sessions, weight, squares = (sums.total(name) for name in ("sessions", "weight", "squares"))
    sound = sessions > 0 and not sums.unusable
    return SessionEvaluation(
        horizon=sums.horizon,
        sessions=int(sessions),
        mean_weight=weight / sessions if sound else None,
        effective_sessions=weight**2 / squares if sound and squares > 0 else None,
        values={name: _value(sums, None, name, limits, confidence) for name in SESSION_ESTIMATORS},
    )


def contrast_sessions(
    treatment: SessionSums, baseline: SessionSums, limits: Limits, confidence: float
) -> dict[SessionEstimator, Effect]:
    """Treatment minus baseline on the same sessions.

    Args:
        treatment: Sums of the treatment's policy.
        baseline: Sums of the baseline's policy over the same sessions.
        limits: When there is no number, for each arm.
        confidence: Of the two-sided intervals.

    Returns:
        Differences per session with p-values, or the reason of the arm that has no value.

    Raises:
        ConfigError: When the arms were not summed over the same users and horizon.
    """
    if treatment.horizon != baseline.horizon or not np.array_equal(treatment.cluster, baseline.cluster):
        raise ConfigError("the arms' session sums are of different users or horizons")
    return {name: _value(treatment, baseline, name, limits, confidence) for name in SESSION_ESTIMATORS}


def refusal(sums: SessionSums, estimator: SessionEstimator, limits: Limits) -> str | None:
    """Why an estimator has no value here, None when it has one."""
    sessions, squares = int(sums.total("sessions")), sums.total("squares")
    if sessions == 0:
        return "there is no logged session"
    outside, robust = sums.unsupported / sessions, estimator == "cascade_dr"
    effective = sums.total("weight") ** 2 / squares if squares > 0 else 0.0
    asked = [
        (
            sums.unusable,
            f"{sums.unusable} of {sessions} sessions have a slot whose propensity is unknown, 0 or above 1, whose "
            "weight overflows, whose target probabilities are no distribution, or whose reward is not finite",
        ),
        (robust and not sums.modelled, "there is no reward model"),
        (robust and sums.no_value, f"the reward model is not finite in {sums.no_value} of {sessions} sessions"),
        (
            not outside <= limits.unsupported,
            f"the target leaves the logging policy's support in {outside:.2%} of its choices per session",
        ),
        (squares == 0, f"no session of {sessions} is one that the target could have filled"),
        (
            effective < limits.effective,
            f"the effective sample size over {_slots(sums.horizon)} is {effective:.1f} of {sessions} sessions, below "
            f"{limits.effective:g}",
        ),
    ]
    return next((why for failed, why in asked if failed), None)


def _slots(horizon: int) -> str:
    if horizon >= ALL_SLOTS:
        return "all slots"
    return "the first slot" if horizon == 1 else f"the first {horizon} slots"


def _value(
    sums: SessionSums, other: SessionSums | None, name: SessionEstimator, limits: Limits, confidence: float
) -> Effect:
    value, spread, rounding = 0.0, np.zeros(len(sums.cluster)), 0.0
    for role, sign, arm in (("treatment", 1.0, sums), ("baseline", -1.0, other)):
        if arm is None:
            continue
        if (why := refusal(arm, name, limits)) is not None:
            return Effect(None, reason=why if other is None else f"{role}: {why}")
        sessions, terms = arm.sums[:, 0], arm.sums[:, _COLUMNS.index(name)]
        if not np.isfinite(terms).all():
            return Effect(None, reason="the weighted rewards overflow")
        mean = float(terms.sum() / sessions.sum())
        value += sign * mean
        spread += sign * (terms - mean * sessions) / sessions.sum()
        rounding = max(rounding, 1e-13 * float(terms @ terms) / float(sessions.sum()) ** 2)
    why = "one user gives no interval" if len(spread) < 2 else None
    return interval(value, spread, rounding, why, confidence, tested=other is not None)


@compiled
def _terms(
    offsets: IntArray,
    reward: FloatArray,
    propensity: FloatArray,
    target: FloatArray,
    value: FloatArray,
    expected: FloatArray,
    unsupported: FloatArray,
    horizon: int,
) -> tuple[FloatArray, int, int, float]:
    """Six columns per session, and how many sessions lack weights, lack values, or leave the support."""
    sessions, modelled = len(offsets) - 1, len(value) > 0
    terms = np.zeros((sessions, 6))
    unusable, no_value, outside = 0, 0, 0.0
    for s in range(sessions):
        weight, total, decided, robust, mass = 1.0, 0.0, 0.0, 0.0, 0.0
        good, valued = True, True
        for i in range(offsets[s], min(offsets[s + 1], offsets[s] + horizon)):
            p, t, r = propensity[i], target[i], reward[i]
            good &= 0.0 < p <= 1.0 and -1e-9 <= t <= 1.0 + 1e-4 and np.isfinite(r)
            if not good:
                break
            if len(unsupported):
                mass += weight * unsupported[i]
            if modelled:
                valued &= np.isfinite(value[i]) and np.isfinite(expected[i])
                robust += weight * expected[i]
            weight *= max(t, 0.0) / p
            good &= weight <= LARGEST_WEIGHT
            total += r
            decided += weight * r
            if modelled:
                robust += weight * (r - value[i])
        terms[s, 0] = 1.0
        unusable += not good
        no_value += not valued
        if good:
            terms[s, 1], terms[s, 2] = weight * total, decided
            terms[s, 3] = robust if valued else 0.0
            terms[s, 4], terms[s, 5] = weight, weight * weight
            outside += mass
    return terms, unusable, no_value, outside
