"""Limits learned from earlier days: robust, with the weekday, wide while few days are known.

A measure is judged on a scale (``summary.Measure``). The centre is the median of the earlier days,
moved by the weekday's own median where enough of that weekday are known. The spread between days is Qn (Rousseeuw and
Croux 1993, JASA 88, eq. 2.2: as robust as the MAD, 82 % instead of 37 % efficient) about those medians, moderated
towards a prior spread as in Smyth 2004 (SAGMB 3, eq. for s~²): with d0 prior and d observed degrees of freedom

    s² = max(Qn², (d0 s0² + d Qn²) / (d0 + d)),   limits = centre ± t(1 - a/2; d0 + d) sqrt(s² (1 + pi / 2n) + chance²)

``chance`` is the standard error that a day of this size has by chance, from the earlier days' own errors, so that
a day which lost its events is not excused by the noise of having none. The a of one check is its share of what
all checks of a gate may be wrong together on a clean day (Bonferroni, weighted).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median

from scipy.special import stdtrit

from components.feature_list import LONGEST_WINDOW
from components.validation.summary import Measure, Scale, Summary

# Days of the past that count: those that the longest feature window reads, which every run has at hand.
MEMORY_DAYS = LONGEST_WINDOW

# Spread between clean days before any is known: what a busy feed's counts, means and odds do from day to day.
PRIOR_SPREAD: Mapping[Scale, float] = {"count": 0.15, "mean": 0.10, "share": 0.10, "distance": 0.50}
PRIOR_DAYS = 3.0

# What fewer earlier days teach stops no day: one of them may be the odd one, and a day that is stopped teaches nothing,
# so that nobody would ever learn better.
STOPPING_DAYS = 3

# So many days of one weekday make a weekday's own centre.
WEEKDAY_DAYS = 3

# Efficiency of Qn, as which a day counts for the spread.
EFFICIENCY = 0.82

# Corrections of Qn for 2 to 9 values (Croux and Rousseeuw 1992, table 1).
_SMALL = {2: 0.399, 3: 0.994, 4: 0.512, 5: 0.844, 6: 0.611, 7: 0.857, 8: 0.669, 9: 0.872}


@dataclass(frozen=True)
class Limits:
    """Between what a measure may lie, in its own unit, and how the limits came about."""

    low: float
    high: float
    centre: float
    days: int
    rule: str


def qn(values: Sequence[float]) -> float:
    """Rousseeuw and Croux's Qn: a quartile of the pairwise distances, consistent for a normal's standard deviation.

    Args:
        values: At least two.

    Returns:
        The scale.
    """
    count = len(values)
    distances = sorted(abs(a - b) for i, a in enumerate(values) for b in values[:i])
    half = count // 2 + 1
    kth = distances[half * (half - 1) // 2 - 1]
    small = _SMALL.get(count) or (count / (count + 1.4) if count % 2 else count / (count + 3.8))
    return 2.2219 * small * kth


def recent(history: Sequence[Summary], day: date) -> list[Summary]:
    """The earlier days that count for a day, oldest first, whatever else is given.

    Args:
        history: Summaries of any days, in any order.
        day: The day that is judged.

    Returns:
        Those of the ``MEMORY_DAYS`` before it.
    """
    inside = [one for one in history if 0 < (day - one.day).days <= MEMORY_DAYS]
    return sorted(inside, key=lambda one: one.day)


def limits(today: Measure, day: date, earlier: Sequence[tuple[date, Measure]], alpha: float) -> Limits | None:
    """Control limits of one measure.

    Args:
        today: The measure; only its rows and its scale count, never its value.
        day: Its day.
        earlier: The measure on earlier days.
        alpha: Share of clean days on which it may lie outside.

    Returns:
        The limits, None when no earlier day is known.
    """
    if not earlier:
        return None
    places = [(one, measure.position()) for one, measure in earlier]
    same = [place for one, place in places if one.weekday() == day.weekday()]
    by_weekday = len(same) >= WEEKDAY_DAYS
    centre = median(same if by_weekday else [place for _, place in places])
    middles: dict[int, float] = {}
    if by_weekday:
        for weekday in range(7):
            of_weekday = [place for one, place in places if one.weekday() == weekday]
            if of_weekday:
                middles[weekday] = median(of_weekday)
    rest = [place - middles.get(one.weekday(), centre) for one, place in places]
    lost = max(len(middles), 1)
    freedom = EFFICIENCY * max(len(rest) - lost, 0)
    observed2 = qn(rest) ** 2 if len(rest) > 1 and freedom > 0 else 0.0
    # Distances to seven medians of the same days are smaller than those to seven true centres.
    observed2 *= len(rest) / (len(rest) - lost) if by_weekday and freedom > 0 else 1.0
    prior2 = (PRIOR_SPREAD[today.scale] * today.slope_at(centre)) ** 2
    # What the days show may widen what was expected of them at once, but narrows it only as they become many.
    moderated2 = (PRIOR_DAYS * prior2 + freedom * observed2) / (PRIOR_DAYS + freedom)
    spread2 = max(observed2, moderated2)
    # Where the prior was too small, it has told nothing.
    certain = PRIOR_DAYS + freedom if moderated2 >= observed2 else max(freedom, PRIOR_DAYS)
    behind = len(same) if by_weekday else len(places)
    chance2 = _chance(today, [one for _, one in earlier]) ** 2
    reach = float(stdtrit(certain, 1 - alpha / 2))
    width = reach * math.sqrt(spread2 * (1 + math.pi / 2 / behind) + chance2)
    which = f"{len(same)} days of this weekday" if by_weekday else f"{len(places)} earlier days"
    return Limits(
        low=today.value_at(centre - width),
        high=today.value_at(centre + width),
        centre=today.value_at(centre),
        days=len(places),
        rule=f"learned from {which}, centre {today.value_at(centre):.4g}",
    )


def _chance(today: Measure, earlier: Sequence[Measure]) -> float:
    """Standard error by chance of a day of this size, had nothing happened."""
    if today.scale == "count":
        # The size itself is what is judged, so the earlier days' counts.
        return median(one.error for one in earlier)
    errors = [one.error * math.sqrt(one.rows) for one in earlier if one.rows > 0]
    return median(errors) / math.sqrt(max(today.rows, 1.0)) if errors else 0.0
