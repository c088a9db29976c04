"""What all records of results share: frozen models, segments, units, arms."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

# The pipeline has "all" and its user groups "new", "low" and "high"; a record may have others, which pages show as they
# are called. Whoever writes one says in the results whether it is exploratory.
Segment = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Role = Literal["primary", "guardrail", "secondary"]
Unit = Literal["s", "share", "pp", "percent", "count"]


class Result(BaseModel):
    """A frozen part of a result; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
