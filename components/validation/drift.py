"""How far a distribution has moved from those of earlier days: PSI and Kolmogorov-Smirnov with limits of their own.

With f today's shares and g the reference's (per bin the median of the earlier days, normalised),
PSI = Σ (f - g) ln(f / g), whose value by chance is (1/n + 1/m) χ²(B - 1) (Yurdakul 2018, Statistical properties of the
population stability index, section 3), and D = max |F - G| over the bins' edges, whose critical value is
K(a) sqrt(1/n + 1/m) with Kolmogorov's K. n and m count users, since rows of one user are not independent.

A limit is the largest of three: what counts as a shift by convention, what chance gives at the check's share of the
gate's false alarms (Bonferroni over all distributions), and three times what the earlier days themselves show against
each other.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, kolmogi

from components.validation.control import STOPPING_DAYS, limits
from components.validation.outcome import Level, Outcome, within
from components.validation.profiles import MISSING, OTHER, shares
from components.validation.summary import Histogram, Measure, Summary

# By convention a PSI of 0.25 is a shift, 0.10 a small one.
PSI_FAIL, PSI_WARN = 0.25, 0.10
KS_WARN = 0.10

# Bins with less than this share of the reference are merged with their neighbours: their logarithms are noise.
LEAST_SHARE = 0.01

# The newest earlier days that count: two of each weekday, and no more, since every feed's users grow older.
REFERENCE_DAYS = 14

# Earlier days that differ among each other (weekends, a feed that changes) leave so much room above their quartile.
ROOM = 3.0

# A share of categories that no earlier day had.
NEW_CATEGORY_FAIL, NEW_CATEGORY_WARN = 0.10, 0.01

# Categories from this share on have a check of their own.
CATEGORY_SHARE = 0.05


@dataclass(frozen=True)
class Shift:
    """Two distributions compared on the same bins."""

    psi: float
    ks: float
    bins: int
    units: float

    def psi_by_chance(self, alpha: float) -> float:
        """What the PSI of two samples of one distribution exceeds with probability alpha."""
        return float(chdtri(max(self.bins - 1, 1), alpha)) * self.units

    def ks_by_chance(self, alpha: float) -> float:
        """What the distance of two samples of one distribution exceeds with probability alpha."""
        return float(kolmogi(alpha)) * math.sqrt(self.units)


def shift(today: Histogram, earlier: Sequence[Histogram]) -> Shift:
    """Compare a distribution with those of earlier days.

    Args:
        today: The day's.
        earlier: At least one, of the same column.

    Returns:
        PSI and largest distance, and what chance needs: bins and 1/n + 1/m.
    """
    now, *past = _aligned([today, *earlier])
    behind = sum(one.units for one in earlier)
    return _shift(now, np.array(past), 1 / max(today.units, 1) + 1 / max(behind, 1), today.ordered)


def _among(days: Sequence[Histogram]) -> list[Shift]:
    """What each of some days shows against the others."""
    table, units = np.array(_aligned(days)), sum(one.units for one in days)
    return [
        _shift(
            table[row],
            np.delete(table, row, axis=0),
            1 / max(one.units, 1) + 1 / max(units - one.units, 1),
            one.ordered,
        )
        for row, one in enumerate(days)
    ]


def _aligned(days: Sequence[Histogram]) -> list[NDArray[np.float64]]:
    """Shares of the days over the bins of all of them, in order."""
    names = sorted({name for one in days for name in one.counts})
    return [np.array([share.get(name, 0.0) for name in names]) for share in map(shares, days)]


def _shift(now: NDArray[np.float64], past: NDArray[np.float64], units: float, ordered: bool) -> Shift:
    """Shares of a day, [bins], against those of others, [days, bins]."""
    middle = np.median(past, axis=0) if len(past) > 2 else past.mean(axis=0)
    if middle.sum() == 0:
        middle = past.mean(axis=0)
    reference = middle / middle.sum()
    if not now.sum():
        return Shift(math.inf, 1.0, len(now), 1.0)
    distance = float(np.abs(np.cumsum(now) - np.cumsum(reference)).max()) if ordered else 0.0
    f, g = _merged(now, reference)
    # Half an event in each, so that an empty bin has a logarithm.
    half = 0.5 * units
    f, g = (f + half) / (f + half).sum(), (g + half) / (g + half).sum()
    return Shift(float(((f - g) * np.log(f / g)).sum()), distance, len(f), units)


def _merged(
    now: NDArray[np.float64], reference: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Neighbouring bins put together until each has its least share in one of both."""
    rows: list[tuple[float, float]] = []
    f = g = 0.0
    for a, b in zip(now, reference, strict=True):
        f, g = f + float(a), g + float(b)
        if max(f, g) >= LEAST_SHARE:
            rows.append((f, g))
            f = g = 0.0
    if rows:
        rows[-1] = (rows[-1][0] + f, rows[-1][1] + g)
    pairs = np.array(rows or [(f, g)])
    return pairs[:, 0], pairs[:, 1]


def drift(
    table: str,
    today: Summary,
    history: Sequence[Summary],
    alpha: float,
    *,
    fails: Mapping[str, Level] | None = None,
) -> list[Outcome]:
    """Hold all distributions of a day to those of earlier days.

    Args:
        table: Name of the table in the outcomes.
        today: The day.
        history: Earlier days that count, oldest first.
        alpha: Share of clean days on which any of them may alarm by chance.
        fails: Level by name of the histogram where it is not a warning.

    Returns:
        Per distribution that three earlier days have too: PSI, for ordered bins the distance, for categories new ones.
    """
    levels = fails or {}
    comparable = {name: _comparable(name, one, history) for name, one in today.histograms.items()}
    # Fewer days do not tell how much days differ, least of all in columns of few values (smoothed rates of one row).
    comparable = {name: past for name, past in comparable.items() if len(past) >= STOPPING_DAYS}
    each = alpha / max(2 * len(comparable), 1)
    found: list[Outcome] = []
    for name, past in comparable.items():
        now = today.histograms[name]
        earlier = [one for _, one in past]
        level = levels.get(name, "warn")
        moved = shift(now, earlier)
        # What each of the earlier days shows against the others.
        among = _among(earlier)
        floor = PSI_FAIL if level == "fail" else PSI_WARN
        high = max(floor, moved.psi_by_chance(each), _usual([one.psi for one in among]))
        rule = f"population stability index against {len(past)} earlier days"
        column = name.split("[", maxsplit=1)[0]
        found.append(within(table, f"{name}_psi", moved.psi, high=high, column=column, level=level, rule=rule))
        if now.ordered:
            high = max(KS_WARN, moved.ks_by_chance(each), _usual([one.ks for one in among]))
            rule = f"Kolmogorov-Smirnov distance to {len(past)} earlier days"
            found.append(within(table, f"{name}_ks", moved.ks, high=high, column=column, level="warn", rule=rule))
        else:
            found += _categories(table, name, now, past, today.day, each, level)
    return found


def _comparable(name: str, now: Histogram, history: Sequence[Summary]) -> list[tuple[date, Histogram]]:
    pairs = [(one.day, one.histograms[name]) for one in history if name in one.histograms]
    known = [(day, one) for day, one in pairs if one.coverage == now.coverage and any(one.counts.values())]
    return known[-REFERENCE_DAYS:]


def _usual(among: Sequence[float]) -> float:
    """What the earlier days show against each other, with room.

    No quantile of one day in a million can be learned of some weeks, so it is a factor of their upper quartile, which a
    few odd days do not move.
    """
    return ROOM * float(np.quantile(among, 0.75))


def _new_among(days: Sequence[Mapping[str, float]]) -> list[float]:
    """Share of each day's rows in categories that no other day has."""
    held_by = Counter(category for one in days for category in one)
    return [sum(share for category, share in one.items() if held_by[category] == 1) for one in days]


def _categories(
    table: str,
    name: str,
    now: Histogram,
    past: Sequence[tuple[date, Histogram]],
    day: date,
    alpha: float,
    level: Level,
) -> list[Outcome]:
    own = shares(now)
    seen = {category for _, one in past for category in one.counts} | {OTHER, MISSING}
    fresh = {category: share for category, share in own.items() if category not in seen}
    largest = max(fresh, key=lambda one: fresh[one], default="")
    new = sum(fresh.values())
    floor = NEW_CATEGORY_FAIL if level == "fail" else NEW_CATEGORY_WARN
    # Of many rare categories every day has some that the others lack.
    high = max(floor, _usual(_new_among([shares(one) for _, one in past])))
    rule = f"rows of categories that none of {len(past)} earlier days had"
    detail = f"the largest is {largest}" if fresh else ""
    found = [within(table, f"{name}_new_share", new, high=high, column=name, level=level, rule=rule, detail=detail)]
    days = [(one, shares(h), h) for one, h in past]
    usual = {c: median(share.get(c, 0.0) for _, share, _ in days) for c in seen}
    large = sorted(category for category, share in usual.items() if share >= CATEGORY_SHARE)
    total = float(sum(now.counts.values()))
    for category in large:
        today = Measure(own.get(category, 0.0), "share", total, 1 / max(now.units, 1) ** 0.5)
        series = [
            (one, Measure(share.get(category, 0.0), "share", total, 1 / max(h.units, 1) ** 0.5))
            for one, share, h in days
        ]
        limit = limits(today, day, series, alpha / len(large))
        if limit is not None:
            check = f"{name}_share[{category}]"
            found.append(
                within(table, check, today.value, limit.low, limit.high, column=name, level=level, rule=limit.rule)
            )
    return found
