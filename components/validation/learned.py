"""All measures of a day against the limits that earlier days teach, under one budget of false alarms."""

from collections.abc import Callable, Mapping, Sequence

from components.validation.control import STOPPING_DAYS, limits
from components.validation.outcome import Level, Outcome, within
from components.validation.profiles import overlap
from components.validation.summary import Measure, Summary

# Of all clean days, at most this share may raise any alarm, failure or warning, at any gate.
DAY_ALPHA = 0.01
GATES = 4

# What one gate may be wrong together: half of it by failures, half by warnings.
GATE_ALPHA = DAY_ALPHA / GATES
LEVEL_ALPHA = GATE_ALPHA / 2

# Checks that a broken day shows first may be wrong so many times as often as another one.
SENTINEL_WEIGHT = 5.0


def learned(
    table: str,
    today: Summary,
    history: Sequence[Summary],
    level_of: Callable[[str], Level],
    column_of: Callable[[str], str],
    alpha: Mapping[Level, float],
    sentinels: frozenset[str] = frozenset(),
) -> list[Outcome]:
    """Hold every measure that an earlier day has too to its control limits.

    Args:
        table: Name of the table in the outcomes.
        today: The day.
        history: Earlier days that count, oldest first.
        level_of: What a measure outside its limits means, by its name.
        column_of: Which column a measure is about, by its name.
        alpha: Share of clean days on which any of a level's measures may lie outside.
        sentinels: Names with a larger share of it.

    Returns:
        One outcome per measure, in the order of the summary.
    """
    past = {name: [(one.day, one.measures[name]) for one in history if name in one.measures] for name in today.measures}
    names = [name for name, series in past.items() if series]
    weights = {name: SENTINEL_WEIGHT if name in sentinels else 1.0 for name in names}
    total: dict[Level, float] = {}
    for name in names:
        total[level_of(name)] = total.get(level_of(name), 0.0) + weights[name]
    found = []
    for name in names:
        level = level_of(name)
        measure = today.measures[name]
        limit = limits(measure, today.day, past[name], alpha[level] * weights[name] / total[level])
        if limit is not None:
            found.append(
                within(
                    *(table, name, measure.value, limit.low, limit.high),
                    column=column_of(name),
                    level=level if limit.days >= STOPPING_DAYS else "warn",
                    rule=limit.rule,
                )
            )
    return found


def with_overlap(today: Summary, history: Sequence[Summary]) -> tuple[Summary, list[Summary]]:
    """Add to every day how many ids it shares with the nearest day before it, at most a week back.

    Args:
        today: The day.
        history: Earlier days, oldest first.

    Returns:
        Both, with a measure ``<name>_overlap`` per sample wherever there is a day to compare with.
    """
    days = [*history, today]
    found = []
    for index, one in enumerate(days):
        before = [other for other in days[:index] if 0 < (one.day - other.day).days <= 7]
        measures = dict(one.measures)
        if before:
            for name, ids in one.samples.items():
                common = overlap(ids, before[-1].samples.get(name, ()))
                if common is not None:
                    size = max(len(ids), 1)
                    measures[f"{name}_overlap"] = Measure(common, "share", size, 1 / size**0.5)
        found.append(Summary(one.day, measures, one.histograms, one.samples))
    return found[-1], found[:-1]
