"""What is kept of a day for the days after it: a few hundred numbers, never rows."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

# How a measure varies from day to day: counts, means and distances by factors, shares by odds.
Scale = Literal["count", "mean", "share", "distance"]

# What is added before the logarithm, so that nothing has a place too: half an event, a thousandth of a unit.
_NOTHING: Mapping[Scale, float] = {"count": 0.5, "mean": 1e-3, "distance": 1e-3}


@dataclass(frozen=True)
class Measure:
    """One number of a day.

    Attributes:
        value: In its own unit.
        scale: Where its differences are judged: the logarithm, or for a share twice the arcsine of its root, on which
            chance is the same for all shares, also for those of nothing.
        rows: What it is a share or a mean of; 0 where there is no such number.
        error: Standard error on that scale by chance alone, users taken as the units; 0 where chance plays no part.
    """

    value: float
    scale: Scale
    rows: float = 0.0
    error: float = 0.0

    def position(self) -> float:
        """The value on its scale."""
        if self.scale == "share":
            return 2 * math.asin(math.sqrt(min(max(self.value, 0.0), 1.0)))
        return math.log(max(self.value, 0.0) + _NOTHING[self.scale])

    def value_at(self, position: float) -> float:
        """The value that has a place on the scale: the inverse of ``position``."""
        if self.scale == "share":
            return math.sin(min(max(position, 0.0), math.pi) / 2) ** 2
        return max(math.exp(min(max(position, -700.0), 700.0)) - _NOTHING[self.scale], 0.0)

    def slope_at(self, position: float) -> float:
        """How far a relative change (of the odds, where it is a share) moves the place."""
        return abs(math.sin(min(max(position, 0.0), math.pi))) / 2 if self.scale == "share" else 1.0


@dataclass(frozen=True)
class Histogram:
    """How a column is distributed over fixed bins or named categories.

    Attributes:
        counts: Rows by bin.
        units: Independent units behind them (users), which chance is counted in.
        ordered: Whether the bins have an order; names of categories have none.
        coverage: What two days must have in common to be compared: a feature over fourteen days is another one
            while the feed is younger than that.
    """

    counts: Mapping[str, int]
    units: int
    ordered: bool = True
    coverage: int = 0


@dataclass(frozen=True)
class Summary:
    """A day's numbers.

    Attributes:
        day: The local day.
        measures: By name.
        histograms: By name.
        samples: Small hash samples of ids by name, from which overlap with another day is estimated.
    """

    day: date
    measures: Mapping[str, Measure] = field(default_factory=dict)
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    samples: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "day": self.day.isoformat(),
            "measures": {name: [m.value, m.scale, m.rows, m.error] for name, m in self.measures.items()},
            "histograms": {
                name: {"counts": dict(h.counts), "units": h.units, "ordered": h.ordered, "coverage": h.coverage}
                for name, h in self.histograms.items()
            },
            "samples": {name: list(ids) for name, ids in self.samples.items()},
        }


def parse_summary(data: bytes | Mapping[str, Any]) -> Summary:
    """Read a summary.

    Args:
        data: ``Summary.record``, or its JSON.

    Returns:
        The summary.
    """
    plain: Mapping[str, Any] = json.loads(data) if isinstance(data, bytes) else data
    return Summary(
        date.fromisoformat(plain["day"]),
        {name: Measure(*one) for name, one in plain["measures"].items()},
        {name: Histogram(**one) for name, one in plain["histograms"].items()},
        {name: tuple(ids) for name, ids in plain["samples"].items()},
    )
