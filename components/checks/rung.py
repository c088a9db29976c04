"""What a check finds: one rung of the trust ladder."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Notify = Callable[[int, int, str], None]
State = Literal["passed", "failed", "not powered", "missing"]


@dataclass(frozen=True)
class Found:
    """One rung.

    Attributes:
        rung: A key of ``simulator.decision.QUESTIONS``.
        state: What the report shows.
        sentence: What was found, for people.
        config: What a reader needs to repeat it: sizes, seeds, runs.
        rows: The figures that the sentence rests on.
        facts: Further single figures.
    """

    rung: str
    state: State
    sentence: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)
