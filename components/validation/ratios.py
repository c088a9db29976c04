"""Shares and means of a day with errors by chance, all of a table in one pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from components.validation.scan import GROUPS, micro
from components.validation.summary import Measure, Scale

# Below so many events, the spread between groups says nothing about chance.
FEW_EVENTS = 20


@dataclass(frozen=True)
class Ratio:
    """A sum over a sum.

    Attributes:
        name: Of the measure.
        top: SQL of a whole number per row; null counts as 0.
        bottom: SQL of a whole number per row; null counts as 0.
        scale: How the ratio varies.
        unit: What the ratio is divided by, for tops in other units.
        logarithm: The ratio is a mean logarithm, and the measure what it is the logarithm of.
    """

    name: str
    top: str
    bottom: str
    scale: Scale
    unit: float = 1.0
    logarithm: bool = False


def share(name: str, condition: str, of: str = "TRUE") -> Ratio:
    """Share of the rows of ``of`` on which the condition holds; rows where it is unknown count in neither."""
    return Ratio(name, f"(({condition}) AND ({of}))::INT", f"(({condition}) IS NOT NULL AND ({of}))::INT", "share")


def mean(name: str, value: str, unit: float = 1.0) -> Ratio:
    """Mean of a whole number over the rows that have one."""
    return Ratio(name, value, f"(({value}) IS NOT NULL)::INT", "mean", unit)


def typical(name: str, value: str) -> Ratio:
    """Geometric mean of the rows' positive values: what a few very large ones do not move."""
    top = f"CASE WHEN ({value}) > 0 THEN {micro(f'ln({value})')} END"
    return Ratio(name, top, f"(({value}) > 0)::INT", "mean", 1e6, logarithm=True)


def measured(
    connection: duckdb.DuckDBPyConnection, source: str, key: str, ratios: Sequence[Ratio]
) -> dict[str, Measure]:
    """Compute ratios of a table.

    Args:
        connection: Sees the table.
        source: SQL of a relation with the columns that the ratios use.
        key: Column whose values are independent of each other: the user.
        ratios: What to compute.

    Returns:
        Measures by name; a ratio without any row below it is left out.
    """
    sums, units = _sums(connection, source, key, ratios)
    found = {}
    for index, ratio in enumerate(ratios):
        top, bottom = sums[:, 2 * index], sums[:, 2 * index + 1]
        rows = float(bottom.sum())
        if rows > 0:
            value = float(top.sum()) / rows
            deviation = _deviation(top, bottom, value)
            if ratio.scale == "share":
                found[ratio.name] = Measure(value, "share", rows, _share_error(value, rows, deviation, units))
            elif ratio.logarithm:
                found[ratio.name] = Measure(math.exp(value / ratio.unit), "mean", rows, deviation / ratio.unit)
            else:
                found[ratio.name] = Measure(value / ratio.unit, "mean", rows, deviation / value if value > 0 else 0.0)
    return found


def _sums(
    connection: duckdb.DuckDBPyConnection, source: str, key: str, ratios: Sequence[Ratio]
) -> tuple[NDArray[np.float64], int]:
    """[groups, 2 ratios]: tops and bottoms, side by side; and the number of distinct keys."""
    # Equal expressions are computed once; most bottoms are alike.
    distinct = list(dict.fromkeys(sql for ratio in ratios for sql in (ratio.top, ratio.bottom)))
    listed = ", ".join(f"sum({sql})::DOUBLE" for sql in distinct)
    rows: list[tuple[Any, ...]] = connection.execute(
        f"SELECT {listed} FROM {source} GROUP BY hash({key}) % {GROUPS}"  # noqa: S608 - names of the schema
    ).fetchall()
    table = np.array([[one or 0.0 for one in row] for row in rows], dtype=np.float64).reshape(len(rows), len(distinct))
    # By size, so that no order of threads shows in the last bit of a sum.
    table = table[np.lexsort(table.T)]
    place = {sql: index for index, sql in enumerate(distinct)}
    (units,) = connection.execute(f"SELECT count(DISTINCT {key}) FROM {source}").fetchall()[0]  # noqa: S608
    return table[:, [place[sql] for ratio in ratios for sql in (ratio.top, ratio.bottom)]], int(units)


def _deviation(top: NDArray[np.float64], bottom: NDArray[np.float64], value: float) -> float:
    """Standard error of a ratio by linearisation over random groups."""
    groups = len(top)
    rest = top - value * bottom
    return math.sqrt(groups / max(groups - 1, 1) * float((rest**2).sum())) / float(bottom.sum())


def _share_error(value: float, rows: float, deviation: float, units: int) -> float:
    """Standard error of a share on its scale; of few events as if each user had all of them or none."""
    least = 1 / math.sqrt(rows)
    events = rows * min(value, 1 - value)
    if events < FEW_EVENTS:
        return max(least, 1 / math.sqrt(max(units, 1)))
    return max(least, deviation / math.sqrt(value * (1 - value)))
