"""A gate of the day in the lake: runs a suite, keeps what it found, and stops the day where it must."""

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import date, timedelta

from components.context import Context, StepResult, inputs_of
from components.days import day_range
from components.errors import MfhError, ValidationFailedError
from components.lake import Partition
from components.validation.control import MEMORY_DAYS
from components.validation.engine import checkpoint
from components.validation.log_gate import Verdict
from components.validation.notify import Event, Notice, tell
from components.validation.outcome import Outcome, within
from components.validation.passes import DATASET, Pass, passed, read_passes
from components.validation.summary import Summary, parse_summary

logger = logging.getLogger("mfh")

RESULT, PAGE, SUMMARY = "result.json", "data_docs.html", "summary.json"


def days_behind(day: date) -> list[date]:
    """The days that teach the limits of one, whether the feed has them or not.

    Args:
        day: The day that is judged.

    Returns:
        Days, oldest first.
    """
    return list(day_range(day - timedelta(days=MEMORY_DAYS), day - timedelta(days=1)))


def ensure_summary(
    context: Context, day: date, gate: str, suite: Callable[[], Verdict], inputs: Sequence[Partition]
) -> Partition | None:
    """What a day teaches, from the lake or measured now; it depends on nothing but the day's own data.

    Args:
        context: Pipeline, settings, run.
        day: The day.
        gate: Name of the gate, ``validation_…``.
        suite: Judges the day without any earlier one.
        inputs: What it reads.

    Returns:
        The summary, None for a day that can not be measured: its own gate says why.
    """
    found = context.runs.find(_summaries(gate), day)
    if found is not None and found.manifest.inputs == inputs_of(*inputs):
        return found
    try:
        return _keep(context, day, gate, suite(), inputs)
    except MfhError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the day teaches nothing, and its own gate fails
        logger.warning("event=suite_broke gate=%s day=%s error=%r", gate, day, error)
        return None


def earlier_summaries(context: Context, gate: str, day: date) -> list[Summary]:
    """Summaries of the days before one, as far as the lake has them: for what changes no verdict.

    Args:
        context: Pipeline and lake.
        gate: Name of the gate, ``validation_…``.
        day: The day that is about to be judged.

    Returns:
        Those that teach, oldest first.
    """
    found = [context.runs.find(_summaries(gate), one) for one in days_behind(day)]
    return _teaching([one for one in found if one is not None])


def run_gate(
    context: Context,
    day: date,
    gate: str,
    suite: Callable[[Sequence[Summary]], Verdict],
    inputs: Sequence[Partition],
    past: Sequence[Partition] = (),
    beside: Callable[[Summary], Sequence[Outcome]] = lambda _: (),
) -> StepResult:
    """Judge a day.

    The result, the page and the day's summary are written first, so that the person on call has something to read.

    Args:
        context: Pipeline, settings, run.
        day: The day.
        gate: Name of the result's dataset, ``validation_…``.
        suite: Judges the day by the summaries of earlier days.
        inputs: What it reads.
        past: Summaries of earlier days, the same whenever the day is judged.
        beside: Compares the day with whatever the lake holds; stands in the result only where it stops the day.

    Returns:
        Hash of the result, counts, warnings, who let what pass, and where the Data Docs are.

    Raises:
        ValidationFailedError: When an expectation that stops the day is broken and nobody has let it pass, or
            when the suite itself breaks.
    """
    context.notify(0, 2, f"measure {gate} {day}")
    decided = read_passes(context, day)
    outcomes, said, verdict, page = _judge(gate, day, lambda: suite(_teaching(past)), beside, decided)
    outcomes += [one for one in said if one.level == "fail" and not one.success]
    context.notify(1, 2, f"write {gate} {day}")
    stopping = [one for one in outcomes if one.stops]
    let_pass = [one for one in outcomes if one.passed_by]
    warned = [one for one in (*outcomes, *said) if one.level == "warn" and not one.success]
    decisions = [context.runs.get(DATASET, day)] if let_pass else []
    made_of = inputs_of(*inputs, *past, *decisions)
    with context.runs.write(gate, day, context.pipeline.config_hash, made_of) as writer:
        writer.json(RESULT, {"success": not stopping, "outcomes": [asdict(one) for one in outcomes]})
        # The page carries times and random ids, so it stands outside the content hash.
        writer.aside[PAGE] = page.encode()
    partition = context.runs.get(gate, day)
    if verdict is not None:
        _keep(context, day, gate, verdict, inputs)
    where = partition.aside(PAGE)
    _tell(context, day, gate, where, stopping, let_pass, warned)
    if stopping:
        raise ValidationFailedError(_message(gate, day, stopping, len(outcomes), where, context.pipeline.name))
    facts = {
        "expectations": len(outcomes),
        "days_behind": len(_teaching(past)),
        "warnings": [one.sentence() for one in warned],
        "passed": [one.sentence() for one in let_pass],
        "data_docs": where,
    }
    return StepResult(gate.replace("validation_", "validate_"), day, inputs_of(partition), facts)


def _summaries(gate: str) -> str:
    return gate.replace("validation_", "summary_")


def _teaching(partitions: Sequence[Partition]) -> list[Summary]:
    return [parse_summary(one.bytes(SUMMARY)) for one in partitions if one.manifest.facts["teaches"]]


def _keep(context: Context, day: date, gate: str, verdict: Verdict, inputs: Sequence[Partition]) -> Partition | None:
    if verdict.summary is None:
        return None
    name = _summaries(gate)
    with context.runs.write(name, day, context.pipeline.config_hash, inputs_of(*inputs)) as writer:
        writer.json(SUMMARY, verdict.summary.record())
        writer.facts["teaches"] = verdict.teaches
    return context.runs.get(name, day)


def _judge(
    gate: str,
    day: date,
    suite: Callable[[], Verdict],
    beside: Callable[[Summary], Sequence[Outcome]],
    decided: Sequence[Pass],
) -> tuple[list[Outcome], Sequence[Outcome], Verdict | None, str]:
    """Outcomes, what is only said beside them, the verdict, and the page. A suite that breaks has failed."""
    title = f"{gate} of {day}"
    try:
        verdict = suite()
        said = beside(verdict.summary) if verdict.summary is not None else ()
        judged, page = checkpoint(gate, title, passed([*verdict.outcomes, *said], decided))
        return judged[: len(verdict.outcomes)], judged[len(verdict.outcomes) :], verdict, page
    except MfhError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the gate has not been passed, and says so
        logger.error("event=suite_broke gate=%s day=%s\n%s", gate, day, traceback.format_exc())
        detail = f"{type(error).__name__}: {error}"
        broken = within(gate, "suite_runs", None, low=1, rule="a suite that breaks has failed", detail=detail)
        outcomes, page = checkpoint(gate, title, [broken])
        return outcomes, (), None, page


def _tell(
    context: Context,
    day: date,
    gate: str,
    page: str,
    stopping: Sequence[Outcome],
    let_pass: Sequence[Outcome],
    warned: Sequence[Outcome],
) -> None:
    told: list[tuple[Event, Sequence[Outcome]]] = [
        ("gate_failed", stopping),
        ("gate_passed", [] if stopping else let_pass),
        ("gate_warned", warned),
    ]
    for event, about in told:
        if about:
            lines = tuple(one.sentence() for one in about)
            notice = Notice(event, context.pipeline.name, day.isoformat(), gate, lines, page)
            tell(notice, context.settings.notify)


def _message(gate: str, day: date, stopping: Sequence[Outcome], total: int, page: str, pipeline: str) -> str:
    lines = "\n".join(f"  {one.sentence()}" for one in stopping)
    first = stopping[0]
    return (
        f"{gate} of {day}: {len(stopping)} of {total} expectations failed:\n{lines}\n"
        f"Full record: {page}. Mend the feed and run the day again; nothing downstream ran. Or let it pass: mfh gate "
        f"pass --pipeline {pipeline} --date {day} --table {first.table} --expectation '{first.expectation}' --reason …"
    )
