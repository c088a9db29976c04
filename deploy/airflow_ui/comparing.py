"""A comparison's numbers as the page writes them."""

from dataclasses import dataclass

from deploy.airflow_ui.catalogue import estimate_of
from simulator.experiment import Estimate
from simulator.report import numbers
from simulator.report.compare import Comparison, NumberChange
from simulator.result import Segment

SEGMENT_NAMES: dict[Segment, str] = {"all": "all", "new": "new", "low": "low activity", "high": "high activity"}


@dataclass(frozen=True)
class LiftRow:
    """One primary metric in one segment on both sides; None where a side does not have it."""

    title: str
    segment: str
    first: Estimate | None
    second: Estimate | None
    change: Estimate


def lift_rows(comparison: Comparison) -> list[LiftRow]:
    """The lifts of a comparison, in its order."""
    return [
        LiftRow(one.title, SEGMENT_NAMES[one.segment], estimate_of(one.first), estimate_of(one.second), one.change)
        for one in comparison.lifts
    ]


def plain(value: float | None, unit: str) -> str:
    """One side of a number: a count whole, an offline metric with four decimals, a dash where there is none."""
    if value is None:
        return "–"
    return numbers.whole(int(value)) if unit == "count" else numbers.quality(value)


def change(row: NumberChange) -> str:
    """How much a number changed: in percent, or in the metric's own unit."""
    if row.change is None:
        return "–"
    if row.change_unit == "percent":
        return numbers.number(row.change, "percent", signed=True)
    return numbers.quality(row.change, signed=True)
