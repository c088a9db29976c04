"""All estimates of two arms on the same rounds, segment by segment, as the rows of ``replay.json``."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulator.metrics import GROUPS, SEGMENTS
from simulator.offpolicy.estimators import ESTIMATORS, Limits, contrast, evaluate
from simulator.offpolicy.record import ArmSessions, ArmWeights, Cell, Part, Role, Unit
from simulator.offpolicy.rounds import IntArray, Rounds
from simulator.offpolicy.sessions import (
    ALL_SLOTS,
    SESSION_ESTIMATORS,
    SessionRounds,
    SessionSums,
    contrast_sessions,
    evaluate_sessions,
)
from simulator.offpolicy.sums import ClusterSums, Shrinkage
from simulator.result import Segment


@dataclass(frozen=True)
class Settings:
    """What all estimates of a record share."""

    limits: Limits = field(default_factory=Limits)
    shrinkage: Shrinkage = field(default_factory=Shrinkage)
    confidence: float = 0.95


@dataclass(frozen=True)
class Arms:
    """N rounds under both arms' policies, and each round's user group.

    Attributes:
        treatment: N rounds.
        baseline: The same rounds under the baseline's policy.
        group: int8 [N], index into ``metrics.GROUPS``.
    """

    treatment: Rounds
    baseline: Rounds
    group: NDArray[np.int8]

    def select(self, rows: NDArray[np.bool_]) -> "Arms":
        """The rounds of a mask, bool [N]."""
        return Arms(self.treatment.select(rows), self.baseline.select(rows), self.group[rows])

    def segment(self, segment: Segment) -> "Arms":
        """The rounds of a segment's users."""
        return self if segment == "all" else self.select(self.group == GROUPS.index(segment))


def round_cells(part: Part, reward: str, unit: Unit, arms: Arms, settings: Settings) -> Iterator[Cell]:
    """Every estimator in every segment.

    Args:
        part: Which rounds these are.
        reward: What they earn.
        unit: Of the reward.
        arms: The rounds.
        settings: Limits, constants, confidence.

    Yields:
        One cell per segment and estimator.
    """
    for segment in SEGMENTS:
        chosen = arms.segment(segment)
        t, b = (ClusterSums.of(one, settings.shrinkage) for one in (chosen.treatment, chosen.baseline))
        values = [evaluate(one, settings.limits, settings.confidence).values for one in (t, b)]
        apart = contrast(t, b, settings.limits, settings.confidence)
        for name in ESTIMATORS:
            yield Cell(
                part=part,
                segment=segment,
                reward=reward,
                unit=unit,
                estimator=name,
                treatment=values[0][name],
                baseline=values[1][name],
                difference=apart[name],
            )


def weight_rows(part: Part, arms: Arms, settings: Settings) -> Iterator[ArmWeights]:
    """The weights of both arms in every segment; arguments as in ``round_cells``."""
    roles: tuple[Role, Role] = ("treatment", "baseline")
    for segment in SEGMENTS:
        chosen = arms.segment(segment)
        for role, rounds in zip(roles, (chosen.treatment, chosen.baseline), strict=True):
            found = evaluate(ClusterSums.of(rounds, settings.shrinkage), settings.limits, settings.confidence)
            yield ArmWeights(part=part, segment=segment, arm=role, weights=found.weights)


def session_cells(
    reward: str, unit: Unit, horizon: int | None, arms: Arms, session: IntArray, settings: Settings
) -> Iterator[Cell]:
    """Every session estimator in every segment.

    Args:
        reward: What a slot earns; its sum is the session's metric.
        unit: Of the reward.
        horizon: Slots that count, None for all.
        arms: N rounds in order of user, session and slot, every session whole; a reward model's values are to the
            horizon.
        session: int64 [N], each round's session, unique within a user.
        settings: Limits, constants, confidence.

    Yields:
        One cell per segment and estimator.
    """
    for segment in SEGMENTS:
        t, b = _session_sums(segment, horizon, arms, session)
        values = [evaluate_sessions(one, settings.limits, settings.confidence).values for one in (t, b)]
        apart = contrast_sessions(t, b, settings.limits, settings.confidence)
        for name in SESSION_ESTIMATORS:
            yield Cell(
                part="sessions",
                segment=segment,
                reward=reward,
                unit=unit,
                estimator=name,
                horizon=horizon,
                treatment=values[0][name],
                baseline=values[1][name],
                difference=apart[name],
            )


def session_rows(horizon: int | None, arms: Arms, session: IntArray, settings: Settings) -> Iterator[ArmSessions]:
    """How far both arms' weights carry, in every segment; arguments as in ``session_cells``."""
    roles: tuple[Role, Role] = ("treatment", "baseline")
    for segment in SEGMENTS:
        for role, sums in zip(roles, _session_sums(segment, horizon, arms, session), strict=True):
            found = evaluate_sessions(sums, settings.limits, settings.confidence)
            yield ArmSessions(
                segment=segment,
                arm=role,
                horizon=horizon,
                sessions=found.sessions,
                mean_weight=found.mean_weight,
                effective_sessions=found.effective_sessions,
            )


def _session_sums(
    segment: Segment, horizon: int | None, arms: Arms, session: IntArray
) -> tuple[SessionSums, SessionSums]:
    inside = np.ones(len(session), bool) if segment == "all" else arms.group == GROUPS.index(segment)
    offsets = starts(arms.treatment.cluster[inside], session[inside])
    slots = ALL_SLOTS if horizon is None else horizon
    t, b = (
        SessionSums.of(SessionRounds(offsets, one.select(inside)), slots) for one in (arms.treatment, arms.baseline)
    )
    return t, b


def starts(user: IntArray, session: IntArray) -> IntArray:
    """int64 [S + 1]: where sessions begin among rounds in order of user and session, and their end."""
    if not len(user):
        return np.zeros(1, dtype=np.int64)
    new = np.append(True, (user[1:] != user[:-1]) | (session[1:] != session[:-1]))
    return np.append(np.flatnonzero(new), len(user)).astype(np.int64)
