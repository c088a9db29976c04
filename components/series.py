"""The running series of an experiment over days, from the records that the lake holds."""

from datetime import date

from components.context import Context
from components.lake import Partition
from simulator.experiment import Experiment, MetricResult, Series, SeriesPoint
from simulator.metrics import METRICS, SEGMENTS
from simulator.result import Segment, Unit
from simulator.sequences import DayEffect, running


def experiments_until(context: Context, day: date) -> list[tuple[Experiment, Partition]]:
    """Experiments of this pipeline, under this very configuration, up to a day.

    Args:
        context: Pipeline and settings.
        day: The last day; what a later day found is not read, so a backfilled day sees only days before it.

    Returns:
        Records and the partitions they come from, in order of days; days that were not analysed are not in it.
    """
    days = [one for one in context.runs.days("experiment") if one <= day]
    partitions = [context.runs.get("experiment", one) for one in days]
    return [(Experiment.model_validate_json(p.bytes("experiment.json")), p) for p in partitions]


def running_series(context: Context, day: date) -> tuple[Series, ...]:
    """Running estimates of the primary metrics in every segment, as of a day.

    What comes out depends on which earlier days the lake holds, so it is no part of a day's experiment: a day that
    runs again must give the same bytes.

    Args:
        context: Pipeline and settings.
        day: The last day of the series.

    Returns:
        One series per primary metric and segment; see ``series_of``.
    """
    records = [record for record, _ in experiments_until(context, day)]
    confidence = context.pipeline.decision.confidence
    return tuple(
        series_of(records, metric.name, segment, confidence)
        for metric in METRICS
        if metric.role == "primary"
        for segment in SEGMENTS
    )


def series_of(records: list[Experiment], metric: str, segment: Segment, confidence: float) -> Series:
    """The running estimate of one metric in one segment, with a confidence sequence (see ``simulator.sequences``).

    Args:
        records: Experiments of one pipeline and configuration, in order of days.
        metric: Name of the metric.
        segment: Whose users.
        confidence: That no day's interval misses its target.

    Returns:
        For a share differences in percentage points, for any other metric relative lifts in percent. Days without an
        estimate are left out, with the reason; one day alone gives a point and a reason why it is no series yet.
    """
    definition = next(one for one in METRICS if one.name == metric)
    share = definition.unit == "share"
    unit: Unit = "pp" if share else "percent"
    days: list[DayEffect] = []
    left_out: dict[str, str] = {}
    for record in records:
        result = next((m for m in record.metrics if m.name == metric and m.segment == segment), None)
        found = _effect(record, result, share=share)
        if isinstance(found, str):
            left_out[record.day] = found
        else:
            days.append(found)
    by_day = {one.day: one for one in days}
    points = tuple(
        SeriesPoint(
            day=one.day.isoformat(),
            users=one.users,
            value=by_day[one.day].value,
            estimate=one.value,
            low=one.low,
            high=one.high,
        )
        for one in running(days, confidence)
    )
    reason = None
    if len(points) < 2:
        reason = "only one day has an estimate: a series needs two" if points else "no day has an estimate"
    return Series(
        metric=metric,
        title=definition.title,
        segment=segment,
        unit=unit,
        confidence=confidence,
        points=points,
        left_out=left_out,
        reason=reason,
    )


def _effect(record: Experiment, result: MetricResult | None, *, share: bool) -> DayEffect | str:
    if result is None:
        return "the metric was not estimated"
    estimate = result.difference if share else result.relative
    if estimate.value is None:
        return estimate.reason or "no estimate"
    if estimate.se is None or not estimate.se > 0:
        return "the record holds no standard error; analyse the day again"
    return DayEffect(date.fromisoformat(record.day), result.users, estimate.value, estimate.se)
