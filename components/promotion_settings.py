"""Settings of promotion: who has the last word, what the treatment is held against, and what keeps it from serving."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from components.feed_settings import Record

Approval = Literal["automatic", "manual"]
# How the treatment is held against the deployed champion, beside the day's own baseline recipe.
SecondComparison = Literal["none", "offline", "rollouts"]
RungName = Literal["V1", "V2", "V3", "V4", "V5", "V6"]


class PromotionSettings(Record):
    """What has to be true, beside the verdict *ship*, before a treatment serves. None of it changes a result."""

    approval: Approval = Field(
        "automatic", description="manual: a run only names a candidate, a person makes it the champion"
    )
    champion: SecondComparison = Field(
        "none",
        description="Second comparison, with the deployed champion where it fits: its metrics on the held-out day "
        "(offline), or also its own rollouts, which cost half of simulate again",
    )
    max_quality_loss: float | None = Field(
        0.02,
        ge=0,
        description="Guardrail: AUC that no task may lose on the held-out day, over all users; None switches it off",
    )
    require_rungs: tuple[RungName, ...] = Field(
        (), description="Guardrail: rungs of the trust ladder that must have passed"
    )


def _by_approval(value: Any) -> Any:
    """``promotion: manual`` is short for ``promotion: {approval: manual}``."""
    return {"approval": value} if isinstance(value, str) else value


Promotion = Annotated[PromotionSettings, BeforeValidator(_by_approval)]
