"""``replay.json``: every off-policy estimate of a held-out day, or the reason why there is none."""

from typing import Literal

from pydantic import Field

from simulator.inference import Effect
from simulator.offpolicy.estimators import Limits, Weights
from simulator.offpolicy.sums import Shrinkage
from simulator.result import Result, Segment

SCHEMA_VERSION = 1

# Which rounds an estimate is of. ``logged``: all, with the logging policy's propensities; ``uniform``: slots that were
# filled uniformly from their candidates; ``random_sets``: uniform exposures with random candidate sets around them;
# ``measured_rates``: the same, but each video exposed as often as it was instead of equally often; ``sessions``: sums
# over a session's first slots.
Part = Literal["logged", "uniform", "random_sets", "measured_rates", "sessions"]
Role = Literal["treatment", "baseline"]
Unit = Literal["share", "s", "count"]


class Cell(Result):
    """One estimator of one reward in one segment: both arms per round (or per session), and their difference.

    ``value`` of an effect is None when it is refused, with the reason; it may stand without an interval, with one too.
    ``horizon`` is the number of slots of a session that count, None for all or outside of ``sessions``.
    """

    part: Part
    segment: Segment
    reward: str
    unit: Unit
    estimator: str
    horizon: int | None = None
    treatment: Effect
    baseline: Effect
    difference: Effect


class ArmWeights(Result):
    """The importance weights of an arm's policy in one segment."""

    part: Part
    segment: Segment
    arm: Role
    weights: Weights


class ArmSessions(Result):
    """How far an arm's weights carry into sessions."""

    segment: Segment
    arm: Role
    horizon: int | None
    sessions: int
    mean_weight: float | None
    effective_sessions: float | None


class OffPolicy(Result):
    """Off-policy estimates of a day.

    ``reason`` is given exactly when nothing could be estimated. ``left_out`` counts logged rounds that are in no
    estimate, by reason. ``users_share`` is the share of users that were evaluated; below 1, users were thinned to bound
    the cost.
    """

    schema_version: int = SCHEMA_VERSION
    day: str
    reason: str | None = None
    rounds: int = 0
    users: int = 0
    users_share: float = 1.0
    left_out: dict[str, int] = Field(default_factory=dict)
    confidence: float = 0.95
    limits: Limits = Limits()
    shrinkage: Shrinkage = Shrinkage()
    notes: tuple[str, ...] = ()
    cells: tuple[Cell, ...] = ()
    weights: tuple[ArmWeights, ...] = ()
    sessions: tuple[ArmSessions, ...] = ()
