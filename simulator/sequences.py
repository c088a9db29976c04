"""A running series over days whose interval may be looked at every day: asymptotic confidence sequences.

An interval at a fixed confidence that is looked at every day misses its target on some day far more often than
promised. A confidence sequence holds on all days at once, so one may stop on any day for any reason.

Estimand on day t: the mean of the daily effects up to t, weighted by users, sum(n_d effect_d) / sum(n_d); the effects
may differ from day to day. With daily estimates x_d of standard error s_d and

    N = sum(n_d),  mean = sum(n_d x_d) / N,  V = sum(n_d^2 s_d^2),

the interval is

    mean +- sqrt(2 (V rho^2 + 1) / rho^2 x log(sqrt(V rho^2 + 1) / alpha)) / N

(Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory and asymptotic confidence
sequences, Annals of Statistics 2024, arXiv 2103.06476, proposition 2.5: the Gaussian-mixture boundary for means and
variances that change under martingale dependence, with a day's weighted estimate as the observation). The smallest
width relative to sqrt(V) falls on V = V* with

    rho^2 = (-2 log(alpha) + log(-2 log(alpha)) + 1) / V*

(their approximation of the Lambert-W solution). V* is the variance of the first day times ``days_ahead``, chosen
before the series begins.

Assumptions: given the past, a day's estimate is unbiased for the day's effect with about normal errors of the stated
standard error, as means over many users are; the number of users and which days are analysed do not depend on how the
estimates came out. Errors that several days share, as of response models fitted on overlapping days, are not covered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from math import log, sqrt

from components.errors import ConfigError

DAYS_AHEAD = 7


@dataclass(frozen=True)
class DayEffect:
    """Sufficient statistics of one day: what the series adds up.

    Attributes:
        day: The experiment's day.
        users: Users of the comparison.
        value: The day's estimate.
        se: Its standard error, above 0.
    """

    day: date
    users: int
    value: float
    se: float


@dataclass(frozen=True)
class RunningEffect:
    """The series on one day.

    Attributes:
        day: The last day that it uses.
        users: User-days so far.
        value: Mean of the daily effects, weighted by users.
        low: Lower end of the confidence sequence.
        high: Upper end.
    """

    day: date
    users: int
    value: float
    low: float
    high: float


def running(days: Sequence[DayEffect], confidence: float, days_ahead: int = DAYS_AHEAD) -> tuple[RunningEffect, ...]:
    """The running estimate of every day with its confidence sequence.

    Args:
        days: Daily estimates, each day once, in any order.
        confidence: Probability that no day's interval misses its target.
        days_ahead: Number of days like the first one at which the interval is narrowest for what is known then.

    Returns:
        One entry per day, in order of days; what a day shows depends on no later day.

    Raises:
        ConfigError: When a day occurs twice, or has no users or no standard error above 0.
    """
    ordered = sorted(days, key=lambda one: one.day)
    for one, after in pairwise(ordered):
        if one.day == after.day:
            raise ConfigError(f"running series: {one.day} occurs twice; give each day once")
    for one in ordered:
        if one.users < 1 or not one.se > 0:
            raise ConfigError(f"running series: {one.day} has {one.users} users and a standard error of {one.se}")
    found: list[RunningEffect] = []
    users, total, variance, rho_2 = 0, 0.0, 0.0, 0.0
    for one in ordered:
        users += one.users
        total += one.users * one.value
        variance += (one.users * one.se) ** 2
        if not found:
            rho_2 = narrowest_at(variance * days_ahead, confidence)
        half = boundary(variance, rho_2, confidence) / users
        found.append(RunningEffect(one.day, users, total / users, total / users - half, total / users + half))
    return tuple(found)


def boundary(variance: float, rho_2: float, confidence: float) -> float:
    """What a sum of variance V never leaves with probability ``confidence``, over all V.

    Args:
        variance: V, the sum's variance so far.
        rho_2: rho squared, in units of 1 / V.
        confidence: 1 - alpha.

    Returns:
        sqrt(2 (V rho^2 + 1) / rho^2 x log(sqrt(V rho^2 + 1) / alpha)).
    """
    scale = variance * rho_2 + 1
    return sqrt(2 * scale / rho_2 * (log(scale) / 2 - log(1 - confidence)))


def narrowest_at(variance: float, confidence: float) -> float:
    """The rho squared whose boundary is narrowest, relative to sqrt(V), at the given V."""
    loss = -2 * log(1 - confidence)
    return (loss + log(loss) + 1) / variance
