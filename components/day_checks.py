"""Data and features of a day as its report shows them, from the partitions that the day's gates left in the lake.

Gates and pages that a pipeline or a version does not have are no error: the report says that they are not part of the
day. Only a partition that is there and can not be understood is one.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from components.context import Context
from components.errors import RecordError
from components.lake import Lake, Partition
from simulator.surroundings import DayChecks, Document, Drift, Gate, Skew

# Datasets of the gates, in the order in which a day meets them, and what a report calls them.
GATES = {
    "validation_log": "Log",
    "validation_features": "Features",
    "validation_training_set": "Training set",
    "validation_models": "Models",
}
PASSES, FEATURE_REPORT, SKEW = "gate_passes", "feature_report", "skew"

# Above this population stability index a feature has moved much (Siddiqi, Credit Risk Scorecards, 2006).
DRIFT_LIMIT = 0.25
DOCS = "data_docs.html"


def day_checks(context: Context, day: date) -> DayChecks:
    """What the lake says of a day's data and features.

    Args:
        context: Pipeline and settings.
        day: Interval day.

    Returns:
        Gates that ran and pages that lie there; what is absent is named.

    Raises:
        RecordError: When a gate's result can not be understood.
    """
    found = {name: context.runs.find(name, day) for name in (*GATES, FEATURE_REPORT, SKEW)}
    titles = GATES | {FEATURE_REPORT: "Drift and feature report", SKEW: "Skew"}
    there = {name: one for name, one in found.items() if one is not None}
    decisions = context.runs.find(PASSES, day)
    passes = decisions.json("passes.json") if decisions is not None else []
    return DayChecks(
        gates=tuple(_gate(name, GATES[name], there[name], passes) for name in GATES if name in there),
        drift=_drift(there[FEATURE_REPORT]) if FEATURE_REPORT in there else (),
        skew=(_skew(context, there[SKEW]),) if SKEW in there else (),
        documents=tuple(_documents(context.runs, there, day)),
        absent={titles[name]: "no result in the lake" for name, one in found.items() if one is None},
    )


def gates_of(lake: Lake, day: date) -> tuple[Gate, ...]:
    """The gates of a day that may have no report, for a calendar.

    Args:
        lake: Of one pipeline and configuration (``Context.runs``).
        day: Any day.

    Returns:
        Those that ran.

    Raises:
        RecordError: When a gate's result can not be understood.
    """
    pairs = ((name, lake.find(name, day)) for name in GATES)
    return tuple(_gate(name, GATES[name], partition) for name, partition in pairs if partition is not None)


def _gate(name: str, title: str, partition: Partition, passes: Sequence[dict[str, Any]] = ()) -> Gate:
    where = partition.url("result.json")
    try:
        outcomes: list[dict[str, Any]] = partition.json("result.json")["outcomes"]
        # Rows that were refused lie in quarantine, counted by their reasons: that is no broken expectation.
        broken = [one for one in outcomes if not one["success"] and one.get("level") != "refuse"]
        let_pass = [one for one in broken if one.get("passed_by")]
        stopping = [one for one in broken if _stops(one)]
        state = "failed" if stopping else "overridden" if let_pass else "warned" if broken else "passed"
        reasons = [_reason(one, passes) for one in let_pass]
        return Gate.model_validate(
            {
                "name": name,
                "title": title,
                "state": state,
                "detail": f"{len(outcomes) - len(broken)} of {len(outcomes)} expectations hold",
                "checks": len(outcomes),
                "failed": len(broken),
                "warnings": [_sentence(one) for one in broken],
                "override": "; ".join(dict.fromkeys(reasons)) or None,
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{where} is no result of a gate: {error!r}; run the step that writes it again") from error


def _stops(outcome: dict[str, Any]) -> bool:
    """Whether a broken expectation alone stops the day; results of earlier versions say how severe it is."""
    grave = outcome["level"] == "fail" if "level" in outcome else outcome.get("severity", "critical") == "critical"
    return grave and not outcome.get("passed_by")


def _sentence(outcome: dict[str, Any]) -> str:
    where = f"{outcome['table']}.{outcome['column']}" if outcome["column"] else outcome["table"]
    limits = outcome.get("limits")
    if limits is None:
        ends = [
            f"{word} {outcome[key]:.6g}"
            for key, word in (("low", "at least"), ("high", "at most"))
            if outcome[key] is not None
        ]
        limits = " and ".join(ends) or "a value"
    observed = outcome["observed"]
    shown = "nothing" if observed is None else f"{observed:.6g}" if isinstance(observed, float) else observed
    detail = f"; {outcome['detail']}" if outcome.get("detail") else ""
    return f"{where}: {outcome['expectation']} expects {limits}, observed {shown}{detail}"


def _reason(outcome: dict[str, Any], passes: Sequence[dict[str, Any]]) -> str:
    """Who let an expectation pass, and why: the last decision about it."""
    key = (outcome["table"], outcome["expectation"])
    known = [one for one in passes if (one["table"], one["expectation"]) == key]
    why = f": {known[-1]['reason']}" if known else ""
    return f"{outcome['table']}.{outcome['expectation']} by {outcome['passed_by']}{why}"


def _drift(partition: Partition) -> tuple[Drift, ...]:
    """Population stability of every input of the models, as the feature report measured it."""
    where = partition.url("feature_report.json")
    try:
        record = partition.json("feature_report.json")
        return tuple(
            Drift(
                feature=one["name"],
                value=one["psi"],
                limit=DRIFT_LIMIT,
                state="missing" if one["psi"] is None else "warned" if one["psi"] > DRIFT_LIMIT else "passed",
                reason=None if one["psi"] is not None else "nothing to compare it with in the days before",
            )
            for one in record["features"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{where} is no feature report: {error!r}; run 'mfh step feature_report' again") from error


def _skew(context: Context, partition: Partition) -> Skew:
    """Online values against the offline join, as the step that compares them found."""
    where = partition.url("skew.json")
    limit = context.pipeline.identity.get("online", {}).get("max_mismatch_rate")
    try:
        record = partition.json("skew.json")
        compared, mismatched = record["compared"], record["mismatches"]
        state = "missing" if not compared else "passed" if not mismatched else "warned"
        if limit is not None and compared and mismatched / compared > limit:
            state = "failed"
        by_feature = ", ".join(f"{name}: {count}" for name, count in (record.get("by_feature") or {}).items())
        entities = ", ".join(f"{count} {name}s" for name, count in record["entities"].items())
        return Skew.model_validate(
            {
                "entity": entities or "none",
                "compared": compared,
                "mismatched": mismatched,
                "share": mismatched / compared if compared else None,
                "limit": limit,
                "state": state,
                "detail": record.get("not_compared") or by_feature or "every value is the same",
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{where} is no comparison: {error!r}; run 'mfh step check_skew' again") from error


def _documents(lake: Lake, partitions: dict[str, Partition], day: date) -> Iterator[Document]:
    for name, partition in partitions.items():
        page, title = DOCS, f"Data Docs, {GATES.get(name, name).lower()}"
        if name == FEATURE_REPORT:
            page, title = f"{FEATURE_REPORT}.html", "Feature report"
        if lake.fs.exists(partition.aside(page)):
            yield Document(title=title, href=f"../../{name}/ds={day}/{page}")
