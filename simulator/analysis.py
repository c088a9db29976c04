"""From per-user outcomes to the experiment's results, its calibration table and its session depths."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.config import DecisionRule
from components.errors import ConfigError
from simulator import inference
from simulator.experiment import Calibration, Estimate, MetricResult, Segment, Unit
from simulator.inference import Effect, Moments
from simulator.metrics import GROUPS, INTERACTIONS, METRICS, OUTCOMES, SEGMENTS, ArmSums, Metric, PairedSums
from simulator.response_data import ResponseData

FloatArray = NDArray[np.float64]
Design = Literal["paired", "split"]

ARMS = ("treatment", "baseline")
LOG = "log"


def metric_results(outcomes: pa.Table, rule: DecisionRule, design: Design = "paired") -> tuple[MetricResult, ...]:
    """All metrics in all segments.

    Args:
        outcomes: ``metrics.OUTCOMES`` with the arms "treatment" and "baseline".
        rule: Confidence, margins, and the number of users below which a segment is exploratory.
        design: Whether every user was simulated in both arms or in one.

    Returns:
        One result per metric and segment; p-values are Holm-adjusted over all of them.

    Raises:
        ConfigError: When the paired design's arms do not hold the same users.
    """
    found = [
        _result(metric, segment, _cells(outcomes, metric, segment, design), rule)
        for metric in METRICS
        for segment in SEGMENTS
    ]
    adjusted = inference.holm([r.difference.p_value for r in found])
    return tuple(r.model_copy(update={"p_adjusted": p}) for r, p in zip(found, adjusted, strict=True))


def power_notes(outcomes: pa.Table, rule: DecisionRule, design: Design = "paired") -> tuple[str, ...]:
    """Minimum detectable effects at 80 % power, as sentences.

    Args:
        outcomes: As for ``metric_results``.
        rule: Confidence and primary segment.
        design: As for ``metric_results``.

    Returns:
        One sentence per primary metric and for the primary segment and all users.
    """
    notes = []
    for metric in METRICS:
        if metric.role != "primary":
            continue
        for segment in dict.fromkeys((rule.primary_segment, "all")):
            moments = [cell[2] for cell in _cells(outcomes, metric, segment, design)]
            share = metric.unit == "share"
            effect = (inference.difference if share else inference.relative)(moments, rule.confidence)
            smallest = inference.detectable(effect, rule.confidence)
            size = (
                f"unknown ({effect.reason})" if smallest is None else f"{100 * smallest:.1f} {'pp' if share else '%'}"
            )
            notes.append(f"{metric.title}, {segment} users: smallest effect found with 80 % power {size}")
    return tuple(notes)


def sample_ratio_sentence(outcomes: pa.Table, design: Design) -> str:
    """The report's line on sample-ratio mismatch.

    Args:
        outcomes: As for ``metric_results``.
        design: As for ``metric_results``.

    Returns:
        The check's sentence, or that the paired design needs none.
    """
    if design == "paired":
        return "not applicable: every user is simulated in both arms"
    users = [len(np.unique(_arm(outcomes, arm).column("user_id").to_numpy())) for arm in ARMS]
    return inference.sample_ratio(users[0], users[1]).sentence


def logged_outcomes(
    data: ResponseData,
    skip_below_s: float,
    topic: NDArray[np.int32] | None = None,
    fresh: NDArray[np.int8] | None = None,
) -> pa.Table:
    """What the held-out day's log says, in the shape of the simulated outcomes (arm "log", member 0).

    Args:
        data: N logged impressions of the held-out day.
        skip_below_s: The skip rule that the response model used.
        topic: int32 [N], -1 = unknown.
        fresh: int8 [N], -1 = unknown.

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
        "fresh": total(fresh[order] == 1) if fresh is not None and (fresh >= 0).any() else None,
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


_Cell = tuple[ArmSums, ArmSums, Moments | str]


def _cells(outcomes: pa.Table, metric: Metric, segment: Segment, design: Design) -> list[_Cell]:
    """Per ensemble member: both arms' sums and the moments of their comparison."""
    cells: list[_Cell] = []
    arms = [_segment(_arm(outcomes, arm), segment) for arm in ARMS]
    for member in sorted(pc.unique(outcomes.column("member")).to_pylist()):
        tables = [t.filter(pc.equal(t.column("member"), member)).sort_by("user_id") for t in arms]
        t, b = (metric.value(table) for table in tables)
        if design == "split":
            sums = tuple(ArmSums.of(values[~np.isnan(values)]) for values in (t, b))
            cells.append((sums[0], sums[1], inference.welch(sums[0], sums[1])))
            continue
        users = [table.column("user_id").to_numpy() for table in tables]
        if not np.array_equal(users[0], users[1]) or len(np.unique(users[0])) != len(users[0]):
            raise ConfigError(
                f"paired design, member {member}, segment {segment}: the arms must hold the same users, one row each; "
                f"found {len(users[0])} and {len(users[1])} rows"
            )
        known = ~(np.isnan(t) | np.isnan(b))
        pair = PairedSums.of(t[known], b[known])
        cells.append((ArmSums(pair.n, pair.t, pair.tt), ArmSums(pair.n, pair.b, pair.bb), inference.paired(pair)))
    return cells


def _result(metric: Metric, segment: Segment, cells: Sequence[_Cell], rule: DecisionRule) -> MetricResult:
    moments = [cell[2] for cell in cells]
    users = min((min(cell[0].n, cell[1].n) for cell in cells), default=0)
    margins = {"skip_share": 100 * rule.max_skip_rate_increase, "return": rule.max_return_loss_pp}
    treatment = inference.level([cell[0] for cell in cells], rule.confidence)
    baseline = inference.level([cell[1] for cell in cells], rule.confidence)
    return MetricResult(
        name=metric.name,
        title=metric.title,
        role=metric.role,
        segment=segment,
        higher_is_better=metric.higher_is_better,
        users=users,
        treatment=_level_estimate(treatment, metric.unit),
        baseline=_level_estimate(baseline, metric.unit),
        difference=_estimate(
            inference.difference(moments, rule.confidence), metric.difference_unit, metric.difference_factor
        ),
        relative=_estimate(inference.relative(moments, rule.confidence), "percent", 100.0),
        margin=margins.get(metric.name),
        exploratory=users < rule.min_users,
    )


def _estimate(effect: Effect, unit: Unit, factor: float) -> Estimate:
    """An effect without an interval is no evidence, so it is reported as its reason, which names the value."""
    if effect.value is None or effect.low is None or effect.high is None:
        return Estimate(value=None, unit=unit, reason=effect.reason or "no interval can be computed")
    return Estimate(
        value=effect.value * factor,
        low=effect.low * factor,
        high=effect.high * factor,
        p_value=effect.p_value,
        unit=unit,
    )


def _level_estimate(effect: Effect, unit: Unit) -> Estimate:
    """A level describes: it stays even where equal users leave it without an interval. It tests nothing."""
    if effect.value is None:
        return Estimate(value=None, unit=unit, reason=effect.reason)
    return Estimate(value=effect.value, low=effect.low, high=effect.high, unit=unit)


def _arm(table: pa.Table, arm: str) -> pa.Table:
    return table.filter(pc.equal(table.column("arm"), arm))


def _segment(table: pa.Table, segment: Segment) -> pa.Table:
    return table if segment == "all" else table.filter(pc.equal(table.column("group"), GROUPS.index(segment)))


def _mean(table: pa.Table, metric: Metric) -> float | None:
    values = metric.value(table)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None
