"""What a list of reports needs of each: one small record beside the page, so that a thousand are read in a moment."""

from typing import Literal

from simulator.experiment import Decision, Estimate, Experiment, MetricResult
from simulator.result import Result, Segment, Unit

SCHEMA_VERSION = 1

# What a gate of the calendar may be: the ladder's "not powered" and the data's "warned" are neither pass nor failure.
GateState = Literal["passed", "warned", "failed", "overridden", "not powered", "missing"]


class Lift(Result):
    """One primary metric in one segment: points for a share, relative lift for anything else; or why there is none."""

    metric: str
    title: str
    segment: Segment
    unit: Unit
    users: int
    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None
    exploratory: bool = False


class GateChip(Result):
    """One gate of the day in one word: of its data, of its sample ratio and guardrails, or of the trust ladder."""

    name: str
    state: GateState
    detail: str


class Summary(Result):
    """A report in a few lines. ``lift`` is the one that decides; ``lifts`` are all primary ones."""

    schema_version: int = SCHEMA_VERSION
    pipeline: str
    source: str
    config_hash: str
    day: str
    holdout_day: str
    decision: Decision
    sentence: str
    lift: Lift | None
    lifts: tuple[Lift, ...]
    gates: tuple[GateChip, ...]
    users: int
    sessions: int
    treatment: str
    baseline: str
    code_version: str
    run_id: str | None = None
    attempt: int | None = None
    written_at: str | None = None


def shown(result: MetricResult) -> Estimate:
    """The estimate that stands for a metric: points for a share, where a lift of a lift would confuse."""
    return result.difference if result.difference.unit == "pp" else result.relative


def summarise(experiment: Experiment) -> Summary:
    """The summary of one record.

    Args:
        experiment: The report's copy, or the record as it was analysed.

    Returns:
        The summary; the lift that decides is app time in the rule's primary segment, new users where none is recorded.
    """
    primary = [_lift(m) for m in experiment.metrics if m.role == "primary"]
    decision = experiment.lineage.config.get("decision")
    segment = decision.get("primary_segment", "new") if isinstance(decision, dict) else "new"
    deciding = next((one for one in primary if (one.metric, one.segment) == ("app_time", segment)), None)
    models = {arm.role: arm.model for arm in experiment.arms}
    run = experiment.run
    return Summary(
        pipeline=experiment.lineage.pipeline,
        source=experiment.lineage.source,
        config_hash=experiment.lineage.config_hash,
        day=experiment.day,
        holdout_day=experiment.holdout_day,
        decision=experiment.verdict.decision,
        sentence=experiment.verdict.sentence,
        lift=deciding,
        lifts=tuple(primary),
        gates=gates(experiment),
        users=experiment.users,
        sessions=experiment.sessions,
        treatment=models.get("treatment", "unknown"),
        baseline=models.get("baseline", "unknown"),
        code_version=experiment.lineage.code_version,
        run_id=run.run_id if run else None,
        attempt=run.attempt if run else None,
        written_at=run.written_at if run else None,
    )


def gates(experiment: Experiment) -> tuple[GateChip, ...]:
    """Every gate of a day: data, guardrails, trust ladder.

    Args:
        experiment: A record.

    Returns:
        In the order in which the day meets them.
    """
    found = list(_checks(experiment))
    found += [
        GateChip(name=f"{m.title}, {m.segment}", state=state, detail=detail)
        for m in experiment.metrics
        if m.margin is not None and m.segment in ("new", "all")
        for state, detail in (_kept(m),)
    ]
    found += [GateChip(name=rung.name, state=rung.state, detail=rung.detail) for rung in experiment.trust]
    return tuple(found)


def against_margin(result: MetricResult) -> Literal["within", "across", "beyond"] | None:
    """Where a guardrail's interval lies relative to its margin.

    Args:
        result: With a margin.

    Returns:
        ``within`` when all of it is acceptable, ``beyond`` when none of it is, ``across`` otherwise; None without an
        interval or a margin.
    """
    difference = result.difference
    if result.margin is None or difference.low is None or difference.high is None:
        return None
    best, worst = difference.low, difference.high
    if result.higher_is_better:
        best, worst = -difference.high, -difference.low
    if worst <= result.margin:
        return "within"
    return "beyond" if best > result.margin else "across"


def _lift(result: MetricResult) -> Lift:
    estimate = shown(result)
    return Lift(
        metric=result.name,
        title=result.title,
        segment=result.segment,
        unit=estimate.unit,
        users=result.users,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        reason=estimate.reason,
        exploratory=result.exploratory,
    )


def _checks(experiment: Experiment) -> tuple[GateChip, ...]:
    if experiment.checks is not None and experiment.checks.gates:
        return tuple(GateChip(name=g.title, state=g.state, detail=g.detail) for g in experiment.checks.gates)
    failed = sum(day.failed_expectations for day in experiment.data)
    total = sum(day.expectations for day in experiment.data)
    if not experiment.data:
        return ()
    state: GateState = "warned" if failed else "passed"
    return (GateChip(name="Log", state=state, detail=f"{failed} of {total} expectations did not hold"),)


def _kept(result: MetricResult) -> tuple[GateState, str]:
    place = against_margin(result)
    if place is None:
        return "missing", result.difference.reason or "no interval to compare with the margin"
    states: dict[str, GateState] = {"within": "passed", "across": "warned", "beyond": "failed"}
    return states[place], f"the interval is {place} the margin of {result.margin:g} {result.difference.unit}"
