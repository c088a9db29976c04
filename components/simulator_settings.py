"""Settings of the simulated experiment: how arms are rolled out, and the written rule of the decision."""

from typing import Literal

from pydantic import Field, field_validator

from components.feed_settings import Record
from components.models.settings import TaskName


class SimulatorSettings(Record):
    """Session rollouts of both arms over the held-out sessions."""

    design: Literal["paired", "split"] = Field(
        "paired", description="Every user in both arms, or randomised to one by a hash, as online"
    )
    shards: int = Field(2, gt=0)
    seed: int = 11
    rollouts: int = Field(2, gt=0)
    candidates: int = Field(40, gt=1)
    max_slots: int = Field(40, gt=0)
    ensemble: int = Field(4, gt=0)
    folds: int = Field(2, gt=1)
    epochs: int = Field(3, gt=0)
    response_rows: int = Field(300_000, gt=0)
    # No weight on completion: a ranking by watched share fills sessions with very short videos and halves app time.
    fusion: dict[TaskName, float] = Field({"long_view": 1.0, "like": 0.5, "skip": -0.5})
    fusion_by_group: dict[Literal["new", "low", "high"], dict[TaskName, float]] = Field(
        {}, description="Weights of user groups that have their own"
    )
    fusion_trials: int = Field(
        0, ge=0, le=256, description="Weights tried per arm and group on the window's last day; 0: as written here"
    )


class DecisionRule(Record):
    """When the treatment ships: the primary metric must win, no guardrail may lose its margin."""

    confidence: float = Field(0.95, gt=0.5, lt=1)
    primary_segment: Literal["new", "low", "high", "all"] = "new"
    max_skip_rate_increase: float = Field(0.02, ge=0)
    max_return_loss_pp: float = Field(0.5, ge=0)
    min_users: int = Field(100, gt=1)
    multiplicity: Literal["holm", "benjamini-hochberg"] = Field(
        "holm", description="Over metrics and segments: of the family-wise error, or of the false discovery rate"
    )
    lift: Literal["unadjusted", "cuped"] = Field(
        "unadjusted", description="Which lift of app time decides; both are always shown"
    )
    winsorise: float | None = Field(
        None, gt=0.5, lt=1, description="Quantile above which a user's seconds and counts are cut, beside the raw mean"
    )
    widening: float = Field(
        1.6, ge=1, description="Factor of the standard errors, for the response model's own error: mfh check truth"
    )
    bootstrap: int = Field(0, ge=0, description="Resamples of the primary metrics' user bootstrap, 0 for none")

    @field_validator("bootstrap")
    @classmethod
    def _enough(cls, value: int) -> int:
        if 0 < value < 100:
            raise ValueError("0 for none, or at least 100 resamples")
        return value
