"""What all records of results share: frozen models, segments, units, arms."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Segment = Literal["all", "new", "low", "high"]
Role = Literal["primary", "guardrail", "secondary"]
Unit = Literal["s", "share", "pp", "percent", "count"]


class Result(BaseModel):
    """A frozen part of a result; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
