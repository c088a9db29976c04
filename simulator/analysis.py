"""From per-user outcomes to the experiment's results, its calibration table and its session depths."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.config import DecisionRule
from simulator import inference
from simulator.comparison import ARMS, Arms, Comparison, Design, estimate, joined, level_estimate, users_of
from simulator.cuped import Covariates
from simulator.experiment import Calibration, Interaction, MetricResult, Variant
from simulator.inference import SampleRatio
from simulator.metrics import GROUPS, INTERACTIONS, METRICS, OUTCOMES, SEGMENTS, Metric
from simulator.response_data import ResponseData
from simulator.result import Segment
from simulator.variants import adjusted, largest_kept, resampled, winsorised

FloatArray = NDArray[np.float64]

LOG = "log"


def metric_results(
    outcomes: pa.Table, rule: DecisionRule, design: Design = "paired", covariates: pa.Table | None = None
) -> tuple[MetricResult, ...]:
    """All metrics in all segments.

    Args:
        outcomes: ``metrics.OUTCOMES`` with the arms "treatment" and "baseline".
        rule: Confidence, margins, the number of users below which a segment is exploratory, and which other methods
            stand beside the plain one.
        design: Whether every user was simulated in both arms or in one.
        covariates: ``user_id`` and numeric columns fixed before the exposure, for CUPED of the primary metrics and
            the guardrails; None leaves it out.

    Returns:
        One result per metric and segment; p-values are adjusted over all of them.

    Raises:
        ConfigError: When a user has several rows, or the paired design's arms do not hold the same users.
    """
    arms = Arms(outcomes, design)
    known = None if covariates is None else Covariates.of(covariates)
    found = []
    for metric in METRICS:
        largest = None if rule.winsorise is None else largest_kept(arms, metric, rule.winsorise)
        for segment in SEGMENTS:
            members = arms.members(metric, segment)
            result = _result(metric, segment, members, rule)
            others = _variants(metric, members, rule, covariates=known, largest=largest)
            found.append(result.model_copy(update={"variants": others}))
    return corrected(found, rule)


def corrected(results: Sequence[MetricResult], rule: DecisionRule) -> tuple[MetricResult, ...]:
    """Correct the p-values of differences for their number.

    Args:
        results: All metrics and segments of an experiment; an earlier correction is replaced.
        rule: Holm's or Benjamini and Hochberg's method.

    Returns:
        The results with ``p_adjusted``, None where there is no p-value.
    """
    adjust = inference.holm if rule.multiplicity == "holm" else inference.benjamini_hochberg
    p_values = adjust([r.difference.p_value for r in results])
    return tuple(r.model_copy(update={"p_adjusted": p}) for r, p in zip(results, p_values, strict=True))


def interactions(outcomes: pa.Table, rule: DecisionRule, design: Design = "paired") -> tuple[Interaction, ...]:
    """Is the lift of the primary segment's users another than that of all others?

    Args:
        outcomes: As for ``metric_results``.
        rule: Confidence and primary segment; if that is "all", the new users are set against the others.
        design: As for ``metric_results``.

    Returns:
        One result per primary metric: the difference of relative lifts, in percentage points of lift.
    """
    segment: Segment = "new" if rule.primary_segment == "all" else rule.primary_segment
    others = tuple(one for one in SEGMENTS if one not in ("all", segment))
    arms = Arms(outcomes, design)
    found = []
    for metric in METRICS:
        if metric.role != "primary":
            continue
        one = [m.moments for m in arms.members(metric, segment)]
        rest = [joined(parts).moments for parts in zip(*(arms.members(metric, s) for s in others), strict=True)]
        plain = inference.interaction(list(zip(one, rest, strict=True)), rule.confidence)
        effect = inference.widened(plain, rule.widening, rule.confidence)
        found.append(
            Interaction(
                metric=metric.name,
                title=metric.title,
                segment=segment,
                others=others,
                difference=estimate(effect, "pp", 100.0),
            )
        )
    return tuple(found)


def power_notes(outcomes: pa.Table, rule: DecisionRule, design: Design = "paired") -> tuple[str, ...]:
    """Minimum detectable effects at 80 % power, as sentences; every metric's and segment's stand in its result.

    Args:
        outcomes: As for ``metric_results``.
        rule: Confidence and primary segment.
        design: As for ``metric_results``.

    Returns:
        One sentence per primary metric and for the primary segment and all users.
    """
    arms = Arms(outcomes, design)
    notes = []
    for metric in METRICS:
        if metric.role != "primary":
            continue
        for segment in dict.fromkeys((rule.primary_segment, "all")):
            moments = [m.moments for m in arms.members(metric, segment)]
            share = metric.unit == "share"
            plain = (inference.difference if share else inference.relative)(moments, rule.confidence)
            effect = inference.widened(plain, rule.widening, rule.confidence)
            smallest = inference.detectable(effect, rule.confidence)
            size = (
                f"unknown ({effect.reason})" if smallest is None else f"{100 * smallest:.1f} {'pp' if share else '%'}"
            )
            notes.append(f"{metric.title}, {segment} users: smallest effect found with 80 % power {size}")
    return tuple(notes)


def absent_guardrails(outcomes: pa.Table) -> tuple[str, ...]:
    """Guardrails that this feed can not have, as sentences.

    Args:
        outcomes: ``metrics.OUTCOMES``.

    Returns:
        One sentence per share that is unknown, and one on margin, for which no feed has a column.
    """
    wanted = {"fresh": "fresh videos", "trending": "trending videos", "tail_creator": "tail creators' videos"}
    found = [
        f"The share of {what} is no guardrail here: the feed does not say which videos they are."
        for name, what in wanted.items()
        if outcomes.column(name).null_count == outcomes.num_rows
    ]
    return (*found, "Margin is no guardrail: the feed has no column of what a video earns.")


def sample_ratio(outcomes: pa.Table, design: Design, treatment_share: float = 0.5) -> SampleRatio:
    """The check that goes before every other number.

    Args:
        outcomes: As for ``metric_results``.
        design: As for ``metric_results``.
        treatment_share: Intended share of the treatment.

    Returns:
        The check of the split design; without a p-value and an alert in the paired one, which needs none.
    """
    if design == "paired":
        return SampleRatio(None, False, "not applicable: every user is simulated in both arms")
    users = [len(pc.unique(_arm(outcomes, arm).column("user_id"))) for arm in ARMS]
    return inference.sample_ratio(users[0], users[1], treatment_share)


def sample_ratio_sentence(outcomes: pa.Table, design: Design) -> str:
    """The report's line on sample-ratio mismatch.

    Args:
        outcomes: As for ``metric_results``.
        design: As for ``metric_results``.

    Returns:
        The check's sentence, or that the paired design needs none.
    """
    return sample_ratio(outcomes, design).sentence


def logged_outcomes(
    data: ResponseData,
    skip_below_s: float,
    topic: NDArray[np.int32] | None = None,
    fresh: NDArray[np.int8] | None = None,
    trending: NDArray[np.int8] | None = None,
    tail_creator: NDArray[np.int8] | None = None,
) -> pa.Table:
    """What the held-out day's log says, in the shape of the simulated outcomes (arm "log", member 0).

    Args:
        data: N logged impressions of the held-out day.
        skip_below_s: The skip rule that the response model used.
        topic: int32 [N], -1 = unknown.
        fresh: int8 [N], -1 = unknown.
        trending: int8 [N], -1 = unknown (see ``metrics.OUTCOMES``).
        tail_creator: int8 [N], -1 = unknown.

    Returns:
        ``metrics.OUTCOMES`` with one row per user; ``return_probability`` is 0 or 1.
    """
    order = np.lexsort((data.position, data.session_id, data.user_id))
    data = data.select(order)
    user_id, first = np.unique(data.user_id, return_index=True)
    session = np.ones(len(order), dtype=bool)
    session[1:] = (data.user_id[1:] != data.user_id[:-1]) | (data.session_id[1:] != data.session_id[:-1])

    def total(values: NDArray[np.float64] | NDArray[np.bool_]) -> FloatArray:
        sums: FloatArray = np.add.reduceat(values.astype(np.float64), first) if len(first) else np.zeros(0)
        return sums

    def total_of(flag: NDArray[np.int8] | None) -> FloatArray | None:
        return total(flag[order] == 1) if flag is not None and (flag >= 0).any() else None

    topics = None
    if topic is not None and (topic >= 0).any():
        known = topic[order]
        code = np.column_stack([np.cumsum(session), known])
        new = np.zeros(len(order), dtype=bool)
        new[np.unique(code, axis=0, return_index=True)[1]] = True
        topics = total(new & (known >= 0))
    columns: dict[str, object] = {
        "user_id": user_id,
        "group": data.group[first],
        "arm": pa.array([LOG] * len(first), pa.string()),
        "member": np.zeros(len(first), dtype=np.int32),
        "app_time_s": total(data.watch_s),
        "sessions": total(session).astype(np.int32),
        "impressions": total(np.ones(len(order))),
        "skips": total(data.watch_s < skip_below_s),
        "topics": topics,
        "fresh": total_of(fresh),
        "trending": total_of(trending),
        "tail_creator": total_of(tail_creator),
        "return_probability": np.where(data.returned[first] >= 0, data.returned[first], np.nan).astype(np.float64),
    }
    for i, name in enumerate(data.behaviours):
        if name in INTERACTIONS and (data.interactions[:, i] >= 0).any():
            columns[name] = total(data.interactions[:, i] == 1)
    arrays = [
        pa.nulls(len(first), f.type) if columns.get(f.name) is None else pa.array(columns[f.name], f.type)
        for f in OUTCOMES
    ]
    return pa.table(arrays, schema=OUTCOMES)


def calibration(outcomes: pa.Table, logged: pa.Table) -> tuple[Calibration, ...]:
    """The log beside both simulated arms, on the same users of the held-out day.

    Neither arm is the logging policy, so the numbers need not be equal; levels that are far apart say that the
    response model does not fit. The backtest that can fail is rung V2.

    Args:
        outcomes: Simulated ``metrics.OUTCOMES``.
        logged: ``logged_outcomes``; users without a simulation are left out.

    Returns:
        One row per metric and segment.
    """
    simulated = pc.unique(outcomes.column("user_id"))
    logged = logged.filter(pc.is_in(logged.column("user_id"), value_set=simulated))
    rows = []
    for metric in METRICS:
        for segment in SEGMENTS:
            tables = {LOG: logged} | {arm: _arm(outcomes, arm) for arm in ARMS}
            means = {name: _mean(_segment(table, segment), metric) for name, table in tables.items()}
            missing = [name for name, value in means.items() if value is None]
            rows.append(
                Calibration(
                    metric=metric.name,
                    segment=segment,
                    unit=metric.unit,
                    logged=means[LOG],
                    baseline=means["baseline"],
                    treatment=means["treatment"],
                    reason=f"no value for {', '.join(missing)}" if missing else None,
                )
            )
    return tuple(rows)


def session_depths(depths: pa.Table, data: ResponseData) -> dict[str, tuple[int, ...]]:
    """Sessions by number of impressions, per arm and in the log.

    Args:
        depths: ``session.DEPTHS``; counts are of rollouts and become sessions by the ratio of the totals.
        data: Logged impressions of the held-out day; sessions without a simulation may be left out before.

    Returns:
        Arm or "log" to counts; index 0 is sessions of one impression.
    """
    _, sizes = np.unique(np.column_stack([data.user_id, data.session_id]), axis=0, return_counts=True)
    found = {LOG: tuple(int(n) for n in np.bincount(sizes)[1:])}
    for arm in ARMS:
        rows = _arm(depths, arm)
        at, count = rows.column("impressions").to_numpy(), rows.column("rollouts").to_numpy()
        histogram = np.bincount(at, weights=count)[1:] if len(at) else np.zeros(0)
        scale = len(sizes) / histogram.sum() if len(at) else 0.0
        found[arm] = tuple(int(n) for n in np.rint(histogram * scale))
    return found


def _result(metric: Metric, segment: Segment, members: Sequence[Comparison], rule: DecisionRule) -> MetricResult:
    moments = [m.moments for m in members]
    users = users_of(members)
    margins = {"skip_share": 100 * rule.max_skip_rate_increase, "return": rule.max_return_loss_pp}
    arms = [m.arms for m in members]
    treatment = inference.level([pair[0] for pair in arms], rule.confidence)
    baseline = inference.level([pair[1] for pair in arms], rule.confidence)
    difference, relative = (
        inference.widened(effect(moments, rule.confidence), rule.widening, rule.confidence)
        for effect in (inference.difference, inference.relative)
    )
    smallest, smallest_lift = (inference.detectable(one, rule.confidence) for one in (difference, relative))
    return MetricResult(
        name=metric.name,
        title=metric.title,
        role=metric.role,
        segment=segment,
        higher_is_better=metric.higher_is_better,
        users=users,
        treatment=level_estimate(treatment, metric.unit),
        baseline=level_estimate(baseline, metric.unit),
        difference=estimate(difference, metric.difference_unit, metric.difference_factor),
        relative=estimate(relative, "percent", 100.0),
        margin=margins.get(metric.name),
        exploratory=users < rule.min_users,
        detectable=None if smallest is None else smallest * metric.difference_factor,
        detectable_percent=None if smallest_lift is None else smallest_lift * 100,
    )


def _variants(
    metric: Metric,
    members: Sequence[Comparison],
    rule: DecisionRule,
    *,
    covariates: Covariates | None,
    largest: float | None,
) -> tuple[Variant, ...]:
    found = []
    if covariates is not None and metric.role != "secondary":
        plain = inference.difference([m.moments for m in members], rule.confidence)
        found.append(adjusted(members, covariates, metric, rule, plain))
    if largest is not None:
        found.append(winsorised(members, largest, metric, rule))
    if rule.bootstrap and metric.role == "primary":
        found.append(resampled(members, metric, rule))
    return tuple(found)


def _arm(table: pa.Table, arm: str) -> pa.Table:
    return table.filter(pc.equal(table.column("arm"), arm))


def _segment(table: pa.Table, segment: Segment) -> pa.Table:
    return table if segment == "all" else table.filter(pc.equal(table.column("group"), GROUPS.index(segment)))


def _mean(table: pa.Table, metric: Metric) -> float | None:
    values = metric.value(table)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None
