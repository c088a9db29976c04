"""The override of a failed gate: who let which broken expectation of which day pass, when and why."""

import getpass
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from components.context import Context
from components.errors import ConfigError
from components.locks import exclusive
from components.validation.outcome import Outcome, harmless

DATASET, FILE = "gate_passes", "passes.json"


@dataclass(frozen=True)
class Pass:
    """One decision of one person about one expectation of one day.

    Attributes:
        day: The day whose expectation was broken, in ISO format.
        table: Its table.
        expectation: Its name.
        observed: What was observed when the person decided; another observation needs another decision.
        reason: Why the day may go on.
        who: The person.
        when: In UTC, ISO format.
    """

    day: str
    table: str
    expectation: str
    observed: float | None
    reason: str
    who: str
    when: str

    def sentence(self) -> str:
        """The decision as a report shows it."""
        return (
            f"{self.day}: {self.table}.{self.expectation} was broken and let pass by {self.who} on {self.when[:10]}: "
            f"{self.reason}"
        )


def read_passes(context: Context, day: date) -> list[Pass]:
    """All decisions about a day.

    Args:
        context: Pipeline and lake.
        day: The day.

    Returns:
        The decisions, oldest first.
    """
    partition = context.runs.find(DATASET, day)
    return [] if partition is None else [Pass(**one) for one in partition.json(FILE)]


def pass_gate(
    context: Context,
    day: date,
    table: str,
    expectation: str,
    reason: str,
    *,
    who: str = "",
    when: datetime | None = None,
) -> list[Pass]:
    """Let broken expectations of a day pass, from the next run of its gate on.

    Args:
        context: Pipeline and lake.
        day: A day that a gate has failed.
        table: Table of the expectation.
        expectation: Its name, or ``all`` for every failed one of the table.
        reason: Why; a sentence that the report shows.
        who: The person, the user of this process unless told.
        when: The moment of the decision, now unless told.

    Returns:
        The new decisions.

    Raises:
        ConfigError: When the reason is empty, the gate has not failed on it, or it can not be let pass.
    """
    reason = harmless(reason.strip())
    if len(reason) < 5:
        raise ConfigError("a pass needs a reason that others can judge: --reason 'the feed was migrated at noon'")
    failed = [one for one in failures(context, day) if one.table == table]
    chosen = [one for one in failed if expectation in ("all", one.expectation)]
    if not chosen:
        known = ", ".join(f"{one.table}.{one.expectation}" for one in failures(context, day)) or "nothing"
        raise ConfigError(f"no gate of {day} has failed on {table}.{expectation}; what has failed is {known}")
    if broken := [one.expectation for one in chosen if one.observed is None]:
        raise ConfigError(f"{broken} could not be computed on {day}: mend the suite or the feed, nobody can judge that")
    moment = (when or datetime.now(UTC)).isoformat(timespec="seconds")
    person = harmless(who or getpass.getuser(), 80)
    made = [Pass(day.isoformat(), one.table, one.expectation, one.observed, reason, person, moment) for one in chosen]
    with exclusive(context.lock(DATASET, day)):
        kept = [*read_passes(context, day), *made]
        with context.runs.write(DATASET, day, context.pipeline.config_hash) as writer:
            writer.json(FILE, [asdict(one) for one in kept])
    return made


def pass_day(context: Context, day: date, reason: str, *, who: str = "") -> list[Pass]:
    """Let everything pass that the gates of a day have failed on.

    Args:
        context: Pipeline and lake.
        day: The day.
        reason: Why; a sentence that the report shows.
        who: The person, the user of this process unless told.

    Returns:
        The new decisions; none when nothing has failed.

    Raises:
        ConfigError: As ``pass_gate``.
    """
    tables = dict.fromkeys(one.table for one in failures(context, day))
    return [made for table in tables for made in pass_gate(context, day, table, "all", reason, who=who)]


def decisions(context: Context, days: Iterable[date]) -> list[str]:
    """What people have let pass on some days, a sentence each, for the report.

    Args:
        context: Pipeline and lake.
        days: The days that a result rests on.

    Returns:
        Sentences in the order of days and decisions.
    """
    return [f"A failed gate was let pass. {one.sentence()}" for day in days for one in read_passes(context, day)]


def is_broken(outcome: Mapping[str, Any]) -> bool:
    """Whether a recorded outcome is a broken expectation; rows in quarantine are counted by their reasons."""
    return not outcome["success"] and outcome["level"] != "refuse"


GATES = ("validation_log", "validation_features", "validation_training_set", "validation_models")


def failures(context: Context, day: date) -> list[Outcome]:
    """What the gates of a day failed on when they last ran, and nobody has let pass since.

    Args:
        context: Pipeline and lake.
        day: The day.

    Returns:
        Broken expectations of all gates.
    """
    results = [context.runs.find(gate, day) for gate in GATES]
    outcomes = [
        Outcome(**one)
        for partition in results
        if partition is not None
        for one in partition.json("result.json")["outcomes"]
    ]
    return [one for one in passed(outcomes, read_passes(context, day)) if one.stops]


def passed(outcomes: Sequence[Outcome], passes: Iterable[Pass]) -> list[Outcome]:
    """Outcomes with who let them pass.

    Args:
        outcomes: Of one day.
        passes: Decisions about the day.

    Returns:
        The outcomes in their order. A decision holds for what its maker saw: an observation that differs is open again.
    """
    by_name = {(one.table, one.expectation, one.observed): one for one in passes}
    found = []
    for one in outcomes:
        decision = by_name.get((one.table, one.expectation, one.observed))
        if decision is not None and one.level == "fail" and not one.success:
            found.append(replace(one, passed_by=f"{decision.who}: {decision.reason}"))
        else:
            found.append(one)
    return found
