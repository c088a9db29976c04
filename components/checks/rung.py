"""What a check finds: one rung of the trust ladder."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Notify = Callable[[int, int, str], None]
State = Literal["passed", "failed", "not powered", "missing"]

QUESTIONS = {
    "V1 A/A": "Does it find lifts where there are none?",
    "V2 backtest": "Simulating the logging policy, do the logged numbers come back?",
    "V3 known truth": "In worlds whose true lift is known, does the interval cover it?",
    "V4 agreement": "Do replay and rollouts agree where both can speak?",
    "V5 reference": "Do the estimators equal a public library's on its own data?",
    "V6 sensitivity": "Does the verdict survive other assumptions?",
}


@dataclass(frozen=True)
class Found:
    """One rung.

    Attributes:
        rung: A key of ``QUESTIONS``.
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
