"""Two reports side by side: what changed in data, models, configuration, and in the lift, with its interval."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from simulator.experiment import Estimate, Experiment, MetricResult
from simulator.report.summary import Lift, Summary, shown, summarise
from simulator.result import Result, Segment, Unit

SCHEMA_VERSION = 1

# A record's units to those of a difference of two estimates.
_APART: dict[Unit, Unit] = {"percent": "pp", "share": "pp"}

INDEPENDENT = (
    "The two estimates are taken as independent. Where they share users whose lifts go together the interval is wider "
    "than it need be; where those go against each other, as when arms are swapped, it is too narrow."
)


class Change(Result):
    """One thing that is not the same; None where one side does not have it."""

    what: str
    first: str | None
    second: str | None


class NumberChange(Result):
    """One number of both sides; ``change`` is second minus first, in percent of the first for counts."""

    what: str
    unit: str
    first: float | None
    second: float | None
    change: float | None
    change_unit: str


class LiftChange(Result):
    """The lift of one primary metric in one segment on both sides, and how much it changed.

    ``change`` is second minus first, in percentage points of lift or of the share, with an interval at the lower of
    both confidences; or the reason why there is none.
    """

    metric: str
    title: str
    segment: Segment
    first: Lift | None
    second: Lift | None
    change: Estimate
    confidence: float


class Comparison(Result):
    """What changed from a first report to a second one.

    ``data``, ``models`` and ``config`` hold what differs and nothing else; ``numbers`` always holds the sizes, and
    offline quality of both arms where both sides measured it.
    """

    schema_version: int = SCHEMA_VERSION
    first: Summary
    second: Summary
    lifts: tuple[LiftChange, ...]
    data: tuple[Change, ...]
    models: tuple[Change, ...]
    config: tuple[Change, ...]
    gates: tuple[Change, ...]
    numbers: tuple[NumberChange, ...]
    quality: tuple[NumberChange, ...]
    notes: tuple[str, ...]


def compare(first: Experiment, second: Experiment) -> Comparison:
    """Compare two records, of two days or of two pipelines.

    Args:
        first: What the other is held against.
        second: The other.

    Returns:
        The comparison.
    """
    notes = [INDEPENDENT]
    whole = bool(first.lineage.config and second.lineage.config)
    if not whole:
        notes.append(
            "One of the records is of an earlier version and holds no configuration: hashes alone are compared."
        )
    if first.confidence != second.confidence:
        notes.append(
            f"Confidence differs: {first.confidence:g} and {second.confidence:g}; changes are at the lower one."
        )
    return Comparison(
        first=summarise(first),
        second=summarise(second),
        lifts=tuple(_lifts(first, second)),
        data=_changes(_data(first), _data(second)),
        models=_changes(_models(first), _models(second)),
        config=_changes(*(_config(one, whole=whole) for one in (first, second))),
        gates=_changes(_gates(first), _gates(second)),
        numbers=tuple(_numbers(first, second)),
        quality=tuple(_quality(first, second)),
        notes=tuple(notes),
    )


def change_of(first: Estimate, second: Estimate) -> Estimate:
    """Second minus first, with an interval, both taken as independent.

    Standard errors add up as squares. The multiple of the standard error is the larger one of the two intervals': that
    of the fewer degrees of freedom. Welch and Satterthwaite's are never fewer, so the interval is never too short.

    Args:
        first: An estimate.
        second: Another one, in the same unit.

    Returns:
        The change, or the reason why there is none.
    """
    unit = _APART.get(first.unit, first.unit)
    for name, one in (("first", first), ("second", second)):
        if one.value is None:
            return Estimate(value=None, unit=unit, reason=f"the {name} has none: {one.reason or 'no reason given'}")
    if first.unit != second.unit:
        return Estimate(value=None, unit=unit, reason=f"units differ: {first.unit} and {second.unit}")
    assert first.value is not None
    assert second.value is not None
    factor = 100.0 if first.unit == "share" else 1.0
    value = factor * (second.value - first.value)
    widths = [_width(one) for one in (first, second)]
    if any(width is None for width in widths):
        return Estimate(value=value, unit=unit)
    (se_a, t_a), (se_b, t_b) = (width for width in widths if width is not None)
    se = factor * math.hypot(se_a, se_b)
    half = max(t_a, t_b) * se
    return Estimate(value=value, low=value - half, high=value + half, se=se, unit=unit)


def _width(estimate: Estimate) -> tuple[float, float] | None:
    """Standard error, and the multiple of it that half the interval is."""
    if estimate.low is None or estimate.high is None or estimate.se is None or not estimate.se > 0:
        return None
    return estimate.se, (estimate.high - estimate.low) / 2 / estimate.se


def _lifts(first: Experiment, second: Experiment) -> Iterator[LiftChange]:
    confidence = min(first.confidence, second.confidence)
    sides = [{(m.name, m.segment): m for m in one.metrics if m.role == "primary"} for one in (first, second)]
    lifts = [{(one.metric, one.segment): one for one in summarise(record).lifts} for record in (first, second)]
    for key in dict.fromkeys((*sides[0], *sides[1])):
        a, b = sides[0].get(key), sides[1].get(key)
        known = a or b
        assert known is not None
        yield LiftChange(
            metric=key[0],
            title=known.title,
            segment=key[1],
            first=lifts[0].get(key),
            second=lifts[1].get(key),
            change=change_of(_estimate(a, known), _estimate(b, known)),
            confidence=confidence,
        )


def _estimate(result: MetricResult | None, known: MetricResult) -> Estimate:
    if result is None:
        return Estimate(value=None, unit=shown(known).unit, reason="the record does not have this metric and segment")
    return shown(result)


def _changes(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[Change, ...]:
    names = dict.fromkeys((*first, *second))
    pairs = ((name, first.get(name), second.get(name)) for name in names)
    return tuple(Change(what=name, first=a, second=b) for name, a, b in pairs if a != b)


def _data(one: Experiment) -> dict[str, str]:
    found = {"feed": one.lineage.source, "held-out day": one.holdout_day, "return day": one.return_day}
    if one.data:
        window = [d.day for d in one.data]
        found["days read"] = f"{window[0]} to {window[-1]}, {len(window)}"
        refused: dict[str, int] = {}
        for day in one.data:
            for reason, count in day.refused.items():
                refused[reason] = refused.get(reason, 0) + count
        found |= {f"refused rows, {reason}": f"{count:,}" for reason, count in refused.items() if count}
        found["failed expectations"] = str(sum(day.failed_expectations for day in one.data))
    return found


def _models(one: Experiment) -> dict[str, str]:
    found = {"code version": one.lineage.code_version}
    for arm in one.arms:
        found |= {
            f"{arm.role}, model": arm.model,
            f"{arm.role}, kind": arm.kind,
            f"{arm.role}, parameters": f"{arm.parameters:,}",
            f"{arm.role}, trained on": f"{arm.first_day} to {arm.last_day}, {arm.rows:,} impressions",
            f"{arm.role}, bundle": arm.bundle[:16],
            f"{arm.role}, warnings": "; ".join(arm.warnings) or "none",
        }
    return found


def _config(one: Experiment, *, whole: bool) -> dict[str, str]:
    found = {"config hash": one.lineage.config_hash, "pipeline": one.lineage.pipeline}
    if not whole:
        return found
    return found | dict(flat_settings(one.lineage.config))


def flat_settings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as pairs of a path and a text.

    Args:
        value: Plain data, as a pipeline's configuration.
        name: Path so far.

    Yields:
        Such as ``train.window_days`` and ``7``, in the order given; what is empty or unset is ``none``.
    """
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat_settings(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for at, inner in enumerate(value):
            yield from flat_settings(inner, f"{name}[{at}]")
    elif name:
        text = ", ".join(map(str, value)) if isinstance(value, list) else "" if value == {} else value
        yield name, "none" if text in (None, "") else str(text)


def _gates(one: Experiment) -> dict[str, str]:
    return {gate.name: gate.state for gate in summarise(one).gates}


def _numbers(first: Experiment, second: Experiment) -> Iterator[NumberChange]:
    yield _counted("users", first.users, second.users)
    yield _counted("sessions", first.sessions, second.sessions)
    for name, held in (("impressions of the held-out day", "holdout_day"), ("impressions of the day", "day")):
        rows = [next((d.rows for d in one.data if d.day == getattr(one, held)), None) for one in (first, second)]
        yield _counted(name, *rows)
    for role in ("treatment", "baseline"):
        yield _counted(
            f"training impressions of the {role}",
            *(next((arm.rows for arm in one.arms if arm.role == role), None) for one in (first, second)),
        )


def _counted(what: str, first: int | None, second: int | None) -> NumberChange:
    change = None if not first or second is None else 100 * (second / first - 1)
    return NumberChange(what=what, unit="count", first=first, second=second, change=change, change_unit="percent")


def _quality(first: Experiment, second: Experiment) -> Iterator[NumberChange]:
    sides = [{(q.arm, q.task, q.metric, q.group): q.value for q in one.quality} for one in (first, second)]
    for key in sides[0]:
        if key in sides[1] and key[2] in ("auc", "gauc", "mse"):
            a, b = sides[0][key], sides[1][key]
            arm, task, metric, group = key
            yield NumberChange(
                what=f"{task} · {metric} · {group} · {arm}",
                unit=metric,
                first=a,
                second=b,
                change=None if a is None or b is None else b - a,
                change_unit=metric,
            )
