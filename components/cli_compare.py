"""How ``mfh report compare`` writes a comparison in a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simulator.experiment import Estimate
from simulator.report import numbers
from simulator.report.compare import Change, Comparison, LiftChange, NumberChange
from simulator.report.summary import Lift, Summary


def print_comparison(found: Comparison, console: Console) -> None:
    """Print a comparison as tables; what is the same on both sides is left out.

    Args:
        found: The comparison.
        console: Where to.
    """
    names = tuple(_name(side, found) for side in (found.first, found.second))
    for name, side in zip(names, (found.first, found.second), strict=True):
        console.print(f"[bold]{escape(name)}[/]  {escape(side.sentence)}", soft_wrap=True)
    confidence = numbers.percentage(found.lifts[0].confidence) if found.lifts else ""
    table = Table("metric", "segment", *map(escape, names), "change", f"{confidence} interval", title="Lift")
    for one in found.lifts:
        table.add_row(*map(escape, _lift_cells(one)))
    console.print(table)
    _numbers(found.numbers, "Sizes", names, console)
    for title, changes in (("Data", found.data), ("Models", found.models), ("Gates", found.gates)):
        _changes(changes, title, names, console)
    _changes(found.config, "Configuration", names, console)
    _numbers([one for one in found.quality if one.change], "Offline quality", names, console)
    for note in found.notes:
        console.print(escape(note), style="dim", soft_wrap=True)


def _name(side: Summary, found: Comparison) -> str:
    """The day, with what else tells the sides apart."""
    parts = [side.day]
    if found.first.pipeline != found.second.pipeline:
        parts.insert(0, side.pipeline)
    if found.first.config_hash != found.second.config_hash:
        parts.append(side.config_hash)
    return " ".join(parts)


def _lift_cells(one: LiftChange) -> tuple[str, ...]:
    change = one.change
    return (
        one.title,
        one.segment,
        _lift(one.first),
        _lift(one.second),
        numbers.value(change, signed=True),
        numbers.interval(change, signed=True) or ("" if change.value is None else "no interval"),
    )


def _lift(lift: Lift | None) -> str:
    if lift is None:
        return "not in the record"
    return numbers.value(
        Estimate(value=lift.value, low=lift.low, high=lift.high, unit=lift.unit, reason=lift.reason), signed=True
    )


def _changes(changes: Sequence[Change], title: str, names: Sequence[str], console: Console) -> None:
    if not changes:
        console.print(f"{title}: the same on both sides")
        return
    table = Table("what", *map(escape, names), title=f"{title}: what differs")
    for one in changes:
        table.add_row(*map(escape, (one.what, one.first or "none", one.second or "none")))
    console.print(table)


def _numbers(rows: Sequence[NumberChange], title: str, names: Sequence[str], console: Console) -> None:
    if not rows:
        return
    table = Table("what", *map(escape, names), "change", title=title)
    for one in rows:
        table.add_row(*map(escape, (one.what, *_number_cells(one))))
    console.print(table)


def _number_cells(one: NumberChange) -> tuple[str, ...]:
    if one.unit == "count":
        shown = ["unknown" if x is None else numbers.whole(int(x)) for x in (one.first, one.second)]
        change = "unknown" if one.change is None else numbers.number(one.change, "percent", signed=True)
        return (*shown, change)
    return (*(numbers.quality(x) for x in (one.first, one.second)), numbers.quality(one.change, signed=True))
