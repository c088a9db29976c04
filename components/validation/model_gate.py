"""The gate of a day's models: are their predictions numbers and calibrated, and are they like those of the days before.

Which earlier models there are depends on which days have run. So what a comparison with them shows is said beside the
verdict and changes no byte of a day that passes; but a model that is suddenly off stops its day.
"""

import math
from collections.abc import Sequence
from datetime import date

from scipy.special import ndtri

from components.validation.control import recent
from components.validation.drift import drift
from components.validation.learned import LEVEL_ALPHA, learned
from components.validation.log_gate import Verdict
from components.validation.model_profile import Profile
from components.validation.outcome import Level, Outcome, within
from components.validation.summary import Histogram, Measure, Summary

# Mean prediction over mean label: what ranks well may be off by some. Chance comes on top.
CALIBRATED_FACTOR = 1.25

# What fewer users show stops no day: users are the units of chance, and its own error is not known of so few.
STOPPING_USERS = 30


def check_models(day: date, profiles: Sequence[Profile]) -> Verdict:
    """Check both arms' predictions on the held-out day.

    Args:
        day: Interval day.
        profiles: Of every arm, task and group.

    Returns:
        The verdict.
    """
    outcomes: list[Outcome] = []
    surely = -float(ndtri(LEVEL_ALPHA / 2 / max(len(profiles), 1)))
    for one in profiles:
        outcomes.append(_calibrated(one, surely))
        if one.group == "all":
            outcomes += _alive(one)
    return Verdict(tuple(outcomes), _summary(day, profiles))


def compare_models(today: Summary, history: Sequence[Summary]) -> list[Outcome]:
    """Hold a day's models to those of earlier days.

    Args:
        today: What ``check_models`` keeps of a day.
        history: The same of other days; only those shortly before the day count.

    Returns:
        The expectations.
    """
    earlier = recent(history, today.day)
    alpha = LEVEL_ALPHA / 4
    return [
        *learned("models", today, earlier, _level, _task, {"warn": alpha, "fail": alpha}),
        *drift("models", today, earlier, alpha),
    ]


def _level(name: str) -> Level:
    """A model that is off as its predecessors were is only said; one that suddenly is has learned from a broken day."""
    return "fail" if name.endswith("_calibration[all]") else "warn"


def _alive(one: Profile) -> list[Outcome]:
    name, rule = f"{one.arm}_{one.task}", "holds of any model"
    differ = within("models", f"{name}_differ", one.spread, low=1e-9, column=one.task, level=_stopping(one), rule=rule)
    return [within("models", f"{name}_are_numbers", one.broken, high=0, column=one.task, rule=rule), differ]


def _stopping(one: Profile) -> Level:
    return "fail" if one.users >= STOPPING_USERS else "warn"


def _ratio(one: Profile) -> float:
    """Mean prediction over mean label, with half an event in both."""
    return (one.predicted + 0.5) / (one.observed + 0.5)


def _calibrated(one: Profile, surely: float) -> Outcome:
    ratio = _ratio(one)
    # The difference's error as a factor; half an event or less says nothing.
    noise = surely * one.error / (max(one.observed, one.predicted) + 0.5)
    factor = math.exp(min(noise, 50.0))
    reach = CALIBRATED_FACTOR * factor
    rule = f"within a factor of {CALIBRATED_FACTOR:g}, and {factor:.3g} for chance"
    name = f"{one.arm}_{one.task}_calibrated[{one.group}]"
    return within("models", name, ratio, 1 / reach, reach, column=one.task, level="warn", rule=rule)


def _summary(day: date, profiles: Sequence[Profile]) -> Summary:
    measures, histograms = {}, {}
    for one in profiles:
        name = f"{one.arm}_{one.task}"
        mean = one.predicted / one.rows
        error = one.error / max(one.predicted, 1e-9)
        measures[f"{name}_mean[{one.group}]"] = Measure(mean, "mean", one.rows, error)
        measures[f"{name}_calibration[{one.group}]"] = Measure(_ratio(one), "mean", one.rows, error)
        if one.group == "all":
            counts = {f"{index:+05d}": count for index, count in enumerate(one.counts)}
            histograms[name] = Histogram(counts, one.users)
    return Summary(day, measures, histograms)


def _task(name: str) -> str:
    return name.partition("_")[2].partition("_mean")[0].partition("_calibration")[0]
