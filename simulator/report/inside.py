"""The section on the inside of the treatment: ``Diagnostics`` arranged for reading."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from simulator.report import inside_charts, numbers
from simulator.report.diagnostics import DiagnosedTask, Diagnostics, Gain, GateWeight, Overfitting
from simulator.report.segments import SHORT
from simulator.result import Segment

_GROUPS: tuple[Segment, ...] = ("new", "low", "high")
_FACETS = {"A": "task", "G": "user group"}
_METRICS = {"auc": "AUC", "gauc": "GAUC", "mse": "Squared error"}

# Tasks whose curves are drawn, in the pipeline's order; the table has them all.
CURVES_DRAWN = 6


@dataclass(frozen=True)
class GainRow:
    """One segment of one task's gain, formatted; ``reason`` stands for all numbers where neither model has any."""

    segment: Segment
    reason: str | None
    single: str
    treatment: str
    gain: str
    relative: str
    rows: str
    positives: str


@dataclass(frozen=True)
class GainGroup:
    """One offline metric of one task over its segments."""

    task: str
    metric: str
    rows: tuple[GainRow, ...]


@dataclass(frozen=True)
class Moment:
    """One comparison with flat, formatted: the ratio or why there is none, and both improvements."""

    ratio: str
    improvements: str


@dataclass(frozen=True)
class OverfittingRow:
    """One segment of one task: both comparisons, and how far each model's held-out loss has risen at the end."""

    segment: Segment
    best: Moment
    last: Moment
    model_rise: str
    flat_rise: str


@dataclass(frozen=True)
class Drawing:
    """A figure with its caption and a second line."""

    title: str
    note: str
    chart: Markup


@dataclass(frozen=True)
class Inside:
    """Everything that the section shows.

    Attributes:
        record: The diagnostics.
        gains: The table of gains.
        gain_charts: Its figures.
        overfitting: Per task the rows of the table.
        curves: The small multiples.
        left_out: Tasks whose curves are not drawn.
        gates: The heat maps.
    """

    record: Diagnostics
    gains: tuple[GainGroup, ...]
    gain_charts: tuple[Drawing, ...]
    overfitting: tuple[tuple[str, tuple[OverfittingRow, ...]], ...]
    curves: tuple[Drawing, ...]
    left_out: tuple[str, ...]
    gates: tuple[Drawing, ...]


def inside(record: Diagnostics, segments: Mapping[Segment, str]) -> Inside:
    """Arrange the diagnostics of a treatment.

    Args:
        record: The diagnostics.
        segments: How the page calls each segment.

    Returns:
        Formatted rows and drawings.
    """
    drawn = record.tasks[:CURVES_DRAWN] if record.curves else ()
    return Inside(
        record=record,
        gains=_gains(record.gains),
        gain_charts=tuple(_gain_charts(record.gains)),
        overfitting=_overfitting(record.overfitting),
        curves=tuple(_curves(record, number, task, segments) for number, task in enumerate(drawn)),
        left_out=tuple(task.name for task in record.tasks[len(drawn) :]) if record.curves else (),
        gates=tuple(_heat_maps(record.gates)),
    )


def _gains(gains: Iterable[Gain]) -> tuple[GainGroup, ...]:
    found: dict[tuple[str, str], list[GainRow]] = {}
    for one in gains:
        rows = found.setdefault((one.task, _METRICS[one.metric]), [])
        rows.append(
            GainRow(
                segment=one.group,
                reason=numbers.not_estimable(one.reason) if one.single is None and one.model is None else None,
                single=numbers.quality(one.single, one.reason),
                treatment=numbers.quality(one.model, one.reason),
                gain=numbers.quality(one.gain, one.reason, signed=True),
                relative=_percent(one.relative, one.reason),
                rows=numbers.whole(one.rows),
                positives=numbers.whole(one.positives),
            )
        )
    return tuple(GainGroup(task, metric, tuple(rows)) for (task, metric), rows in found.items())


def _gain_charts(gains: tuple[Gain, ...]) -> Iterable[Drawing]:
    """One figure per metric, since their gains differ in size; GAUC stands in the table alone."""
    for metric in ("auc", "mse"):
        bars = [
            inside_charts.GainBar(
                task=one.task,
                label=SHORT[one.group],
                text="not estimable" if one.relative is None else _percent(one.relative),
                value=None if one.relative is None else 100 * one.relative,
            )
            for one in gains
            if one.metric == metric
        ]
        if bars:
            note = "relative gain over single-task models"
            title = f"{_METRICS[metric]}: {note}, by task and group"
            yield Drawing(_METRICS[metric], note, inside_charts.gains(f"gains-{metric}", title, bars, "gain, %"))


def _overfitting(records: Iterable[Overfitting]) -> tuple[tuple[str, tuple[OverfittingRow, ...]], ...]:
    found: dict[str, dict[Segment, dict[str, Overfitting]]] = {}
    for one in records:
        found.setdefault(one.task, {}).setdefault(one.group, {})[one.at] = one
    return tuple(
        (
            task,
            tuple(
                OverfittingRow(
                    segment=segment,
                    best=_moment(both.get("best")),
                    last=_moment(both.get("last")),
                    model_rise=_rise(both.get("last"), "model_rise"),
                    flat_rise=_rise(both.get("last"), "flat_rise"),
                )
                for segment, both in segments.items()
            ),
        )
        for task, segments in found.items()
    )


_NOT_COMPARED = "the record does not compare them there"


def _rise(one: Overfitting | None, name: Literal["model_rise", "flat_rise"]) -> str:
    if one is None:
        return numbers.not_estimable(_NOT_COMPARED)
    return _percent(getattr(one, name), one.reason or "its lowest loss is 0")


def _moment(one: Overfitting | None) -> Moment:
    if one is None:
        return Moment(numbers.not_estimable(_NOT_COMPARED), "")
    parts = (("training", one.train_improvement), ("held-out", one.test_improvement))
    known = [f"{name} {_percent(value)}" for name, value in parts if value is not None]
    return Moment(_ratio(one), ", ".join(known))


def _ratio(one: Overfitting) -> str:
    if one.ratio is None:
        return numbers.not_estimable(one.reason and one.reason.replace(" %", f"{numbers.SPACE}%"))
    return numbers.number(one.ratio, "count", largest=max(abs(one.ratio), 0.1))


def _curves(record: Diagnostics, number: int, task: DiagnosedTask, segments: Mapping[Segment, str]) -> Drawing:
    best = {one.group: one for one in record.overfitting if one.task == task.name and one.at == "best"}
    panels = []
    for segment in _GROUPS:
        points = [one for one in record.curves if (one.task, one.group) == (task.name, segment)]
        model, flat = ([one for one in points if one.model == name] for name in ("treatment", "flat"))
        known = best.get(segment)
        panels.append(
            inside_charts.Panel(
                label=segments[segment],
                note="no ratio" if known is None or known.ratio is None else f"ratio {_ratio(known)}",
                epochs=([one.epoch for one in model], [one.epoch for one in flat]),
                train=([one.train_loss for one in model], [one.train_loss for one in flat]),
                test=([one.valid_loss for one in model], [one.valid_loss for one in flat]),
            )
        )
    mark = record.bundle_epochs if record.bundle_epochs < record.epochs else None
    loss = {"mse": "squared error", "bce": "cross-entropy"}[task.loss]
    title = f"Mean {loss} of {task.name} by passes over the training window, {record.treatment} and flat"
    chart = inside_charts.curves(f"curves-{number}", title, panels, (record.treatment, "flat"), mark)
    return Drawing(task.name, f"mean {loss}", chart)


def _heat_maps(gates: tuple[GateWeight, ...]) -> Iterable[Drawing]:
    """One figure per tree, and one for the gate over trees where there is one.

    Shared gates of PLE are in the record alone: they mix for no task.
    """
    shown = [one for one in gates if one.branch != "shared"]
    tasks = list(dict.fromkeys(one.task for one in shown if one.task is not None))
    trees = list(dict.fromkeys(one.tree for one in shown))
    for tree in trees:
        mine = [one for one in shown if one.tree == tree]
        places = sorted({(one.level, one.layer) for one in mine})
        weights: dict[tuple[int, int], dict[tuple[str | None, Segment], dict[str, float]]] = {p: {} for p in places}
        for one in mine:
            weights[one.level, one.layer].setdefault((one.task, one.group), {})[one.expert] = one.weight
        columns = [
            inside_charts.GateColumn(_place(place, places), tuple(next(iter(weights[place].values()))))
            for place in places
        ]
        rows = [
            inside_charts.GateRow(
                task=task,
                label=SHORT[group],
                weights=tuple(
                    # A gate above the tasks serves them all.
                    _found(weights[place], task, group, column.experts)
                    for place, column in zip(places, columns, strict=True)
                ),
            )
            for task in tasks
            for group in _GROUPS
            if any(one.group == group for one in mine)
        ]
        title, note = _tree_title(tree, mine, sum(one is not None for one in trees))
        chart = inside_charts.heat_map(f"gates-{len(trees) if tree is None else tree}", title, columns, rows)
        yield Drawing(title, note, chart)


def _found(
    weights: dict[tuple[str | None, Segment], dict[str, float]], task: str, group: Segment, experts: tuple[str, ...]
) -> tuple[float | None, ...]:
    known = weights.get((task, group)) or weights.get((None, group)) or {}
    return tuple(known.get(expert) for expert in experts)


def _place(place: tuple[int, int], places: list[tuple[int, int]]) -> str:
    level, layer = place
    layers = [other for other_level, other in places if other_level == level]
    return f"level {level}, layer {layer}" if len(layers) > 1 else f"level {level}"


def _tree_title(tree: int | None, gates: list[GateWeight], trees: int) -> tuple[str, str]:
    """Which tree, and what its levels branch by: the last letters of their blocks' names."""
    if tree is None:
        return "Between the trees", "how much each task takes from each of them"
    title = f"Gates of tree {tree + 1} of {trees}" if trees > 1 else "Gates"
    said = []
    for level, letters in sorted({(one.level, one.block.rsplit("/", 1)[-1]) for one in gates}):
        by = " and ".join(_FACETS.get(letter, letter) for letter in letters)
        alike = ", alike for all tasks" if all(one.task is None for one in gates if one.level == level) else ""
        said.append(f"level {level} branches by {by}{alike}")
    return title, "; ".join(said)


def _percent(share: float | None, reason: str | None = None) -> str:
    """At most two decimals: what one training tells beyond them is noise."""
    if share is None:
        return numbers.not_estimable(reason)
    return numbers.number(100 * share, "percent", signed=True, largest=max(abs(100 * share), 0.1))
