"""From sufficient statistics to differences and lifts with intervals.

Unit of analysis everywhere: the user. Two designs: *paired*, where every user is simulated in both arms and
within-user differences count, and *split*, where users are assigned to one arm each, as online.

The ensemble's members are pooled by Rubin's rules (Rubin 1987, Multiple Imputation for Nonresponse in Surveys,
equations 3.1.2 to 3.1.5): the response model's own uncertainty stands in the interval beside the users', and few
members give few degrees of freedom. With one member the interval is of users alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from simulator.metrics import ArmSums, PairedSums

# Sums of squares carry about sixteen digits; a variance below this share of them is rounding, not variation.
_ROUNDING = 1e-13

SRM_ALERT = 0.001


@dataclass(frozen=True)
class Effect:
    """An estimate with its interval, or why there is none.

    Attributes:
        value: Point estimate; it may stand without an interval, then ``reason`` says why.
        low: Lower end.
        high: Upper end.
        p_value: Two-sided, of the null hypothesis 0.
        se: Standard error, users and ensemble.
        df: Degrees of freedom of the t distribution.
        reason: Why the value or the interval is missing.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    se: float | None = None
    df: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Moments:
    """First and second moments of two arms' means, of one ensemble member.

    Attributes:
        users: Users that the comparison rests on (the smaller arm's in the split design).
        treatment: Mean of the treatment.
        baseline: Mean of the baseline.
        var_treatment: Variance of the treatment's mean.
        var_baseline: Variance of the baseline's mean.
        covariance: Covariance of the two means; 0 in the split design.
        df: Degrees of freedom.
        rounding: Variances up to this are zero.
    """

    users: int
    treatment: float
    baseline: float
    var_treatment: float
    var_baseline: float
    covariance: float
    df: float
    rounding: float


def paired(sums: PairedSums) -> Moments | str:
    """Moments of a paired comparison.

    Args:
        sums: Of one metric, segment and ensemble member.

    Returns:
        Moments with n - 1 degrees of freedom, or the reason why there are none.
    """
    n = sums.n
    if n < 2:
        return _too_few(n)
    t, b = sums.t / n, sums.b / n
    scale = n * (n - 1)
    return Moments(
        users=n,
        treatment=t,
        baseline=b,
        var_treatment=max(sums.tt - n * t * t, 0.0) / scale,
        var_baseline=max(sums.bb - n * b * b, 0.0) / scale,
        covariance=(sums.tb - n * t * b) / scale,
        df=n - 1,
        rounding=_ROUNDING * (sums.tt + sums.bb) / scale,
    )


def welch(treatment: ArmSums, baseline: ArmSums) -> Moments | str:
    """Moments of a split comparison with unequal variances (Welch, Biometrika 1947).

    Args:
        treatment: Users assigned to the treatment.
        baseline: Users assigned to the baseline.

    Returns:
        Moments with Welch and Satterthwaite's degrees of freedom, or the reason why there are none.
    """
    small = min(treatment.n, baseline.n)
    if small == 0 < max(treatment.n, baseline.n):
        return f"no user with this metric in the {'treatment' if treatment.n == 0 else 'baseline'} arm"
    if small < 2:
        return _too_few(small)
    means, variances, rounding = [], [], 0.0
    for arm in (treatment, baseline):
        mean = arm.total / arm.n
        means.append(mean)
        variances.append(max(arm.squares - arm.n * mean * mean, 0.0) / (arm.n * (arm.n - 1)))
        rounding += _ROUNDING * arm.squares / (arm.n * (arm.n - 1))
    df = satterthwaite(variances, (treatment.n - 1, baseline.n - 1))
    return Moments(small, means[0], means[1], variances[0], variances[1], 0.0, df, rounding)


def difference(members: Sequence[Moments | str], confidence: float) -> Effect:
    """Treatment minus baseline: estimand E[T] - E[B] over users.

    Variance of one member: V(T) + V(B) - 2 Cov(T, B), of the means.

    Args:
        members: One comparison per ensemble member.
        confidence: Of the two-sided interval.

    Returns:
        The effect in the metric's unit.
    """
    good = _all_good(members)
    if isinstance(good, str):
        return Effect(None, reason=good)
    values = [m.treatment - m.baseline for m in good]
    variances = [_above(m.var_treatment + m.var_baseline - 2 * m.covariance, m.rounding) for m in good]
    return _pool(values, variances, [m.df for m in good], confidence)


def relative(members: Sequence[Moments | str], confidence: float) -> Effect:
    """Relative lift: estimand E[T] / E[B] - 1 over users, by the delta method.

    With R = T/B the variance of one member is [V(T) - 2 R Cov(T, B) + R^2 V(B)] / B^2 (Deng, Knoblich and Lu,
    KDD 2018, section 3.1, percent change; here with the paired covariance). Assumes a denominator well away from 0.

    Args:
        members: One comparison per ensemble member.
        confidence: Of the two-sided interval.

    Returns:
        The lift as a fraction: 0.05 is 5 %.
    """
    good = _all_good(members)
    if isinstance(good, str):
        return Effect(None, reason=good)
    if any(m.baseline <= 0 for m in good):
        return Effect(None, reason=_no_denominator(good))
    lifts = [_lift(m) for m in good]
    return _pool([value for value, _ in lifts], [v for _, v in lifts], [m.df for m in good], confidence)


def interaction(members: Sequence[tuple[Moments | str, Moments | str]], confidence: float) -> Effect:
    """Is the relative lift of some users another than that of the others?

    Estimand: E[T] / E[B] - 1 over the one group of users minus the same over the other. No user is in both groups, so
    the two delta-method variances (see ``relative``) add up; degrees of freedom by Welch and Satterthwaite.

    Args:
        members: Per ensemble member the moments of the one group and of the other.
        confidence: Of the two-sided interval.

    Returns:
        The difference of lifts as a fraction: 0.05 is five percentage points of lift.
    """
    both = _all_good([m for pair in members for m in pair])
    if isinstance(both, str):
        return Effect(None, reason=both)
    if any(m.baseline <= 0 for m in both):
        return Effect(None, reason=_no_denominator(both))
    values, variances, dfs = [], [], []
    for one, other in zip(both[::2], both[1::2], strict=True):
        (a, v), (b, w) = _lift(one), _lift(other)
        values.append(a - b)
        # Where one group has no variation, nothing is known of other users like them.
        variances.append(v + w if v > 0 and w > 0 else 0.0)
        dfs.append(satterthwaite((v, w), (one.df, other.df)))
    return _pool(values, variances, dfs, confidence)


def level(members: Sequence[ArmSums], confidence: float) -> Effect:
    """Mean of one arm: estimand E[X] over users.

    Args:
        members: One sum per ensemble member.
        confidence: Of the two-sided interval.

    Returns:
        The mean; one user or equal users give a mean without an interval.
    """
    users = min((m.n for m in members), default=0)
    if users == 0:
        return Effect(None, reason="no user with this metric")
    means = [m.total / m.n for m in members]
    if users == 1:
        return Effect(float(np.mean(means)), reason=_too_few(1))
    variances = [
        _above((m.squares - m.n * x * x) / (m.n * (m.n - 1)), _ROUNDING * m.squares / (m.n * (m.n - 1)))
        for m, x in zip(members, means, strict=True)
    ]
    return _pool(means, variances, [m.n - 1.0 for m in members], confidence)


def from_se(value: float, se: float, df: float, confidence: float) -> Effect:
    """An estimate with the t interval and test of its standard error, which is above 0."""
    half = float(stats.t.ppf(0.5 + confidence / 2, df)) * se
    p = float(2 * stats.t.sf(abs(value) / se, df))
    return Effect(value, value - half, value + half, p, se, df)


def widened(effect: Effect, factor: float, confidence: float) -> Effect:
    """The effect with a larger standard error: what users and ensemble do not say of the response model's own error.

    Args:
        effect: An estimate.
        factor: Of the standard error, at least 1; ``mfh check truth`` calibrates it in worlds of known truth.
        confidence: Of the two-sided interval.

    Returns:
        The same value with interval and p-value of the larger error; an effect without an error stays as it is.
    """
    if effect.value is None or effect.se is None or effect.df is None or factor == 1.0:
        return effect
    return from_se(effect.value, effect.se * factor, effect.df, confidence)


def detectable(effect: Effect, confidence: float, power: float = 0.8) -> float | None:
    """Smallest true effect that a two-sided test at ``confidence`` finds with probability ``power``.

    (t[1 - alpha/2] + t[power]) x standard error, alpha = 1 - confidence (Bloom, Evaluation Review 1995).

    Args:
        effect: An estimate with a standard error.
        confidence: Of the test.
        power: Probability of finding it.

    Returns:
        In the effect's unit, or None without a standard error.
    """
    if effect.se is None or effect.df is None:
        return None
    quantiles = stats.t.ppf([0.5 + confidence / 2, power], effect.df)
    return float(quantiles.sum() * effect.se)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (Holm, Scandinavian Journal of Statistics 1979).

    Args:
        p_values: Of all hypotheses; those without a p-value do not count.

    Returns:
        Adjusted p-values in the same order: reject those up to alpha at family-wise error alpha.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = largest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg's step-up adjustment (Journal of the Royal Statistical Society B 1995, section 3).

    Valid for independent tests and for positively dependent ones (Benjamini and Yekutieli, Annals of Statistics
    2001), as metrics and overlapping segments of one experiment mostly are.

    Args:
        p_values: Of all hypotheses; those without a p-value do not count.

    Returns:
        Adjusted p-values in the same order: reject those up to q at false discovery rate q.
    """
    known = sorted(((p, i) for i, p in enumerate(p_values) if p is not None), reverse=True)
    adjusted: list[float | None] = [None] * len(p_values)
    smallest = 1.0
    for rank, (p, i) in enumerate(known):
        smallest = min(smallest, p * len(known) / (len(known) - rank))
        adjusted[i] = smallest
    return adjusted


@dataclass(frozen=True)
class SampleRatio:
    """Sample-ratio mismatch check of the split design.

    Attributes:
        p_value: Of the chi-square test; None where it can not be computed.
        alert: Whether the results must not be trusted (p < 0.001).
        sentence: For the report.
    """

    p_value: float | None
    alert: bool
    sentence: str


def sample_ratio(treatment: int, baseline: int, treatment_share: float = 0.5) -> SampleRatio:
    """Were as many users assigned to each arm as intended? (Fabijan et al., KDD 2019).

    Args:
        treatment: Users found in the treatment.
        baseline: Users found in the baseline.
        treatment_share: Intended share of the treatment, between 0 and 1.

    Returns:
        The chi-square test with one degree of freedom.
    """
    total = treatment + baseline
    if total == 0:
        return SampleRatio(None, False, "no user was assigned: the sample ratio can not be checked")
    expected = [total * treatment_share, total * (1 - treatment_share)]
    p = float(stats.chisquare([treatment, baseline], expected).pvalue)
    alert = p < SRM_ALERT
    ending = "mismatch: do not trust the results" if alert else "as intended"
    return SampleRatio(p, alert, f"{treatment} : {baseline} users, p = {p:.3g}: {ending}")


def _too_few(users: int) -> str:
    return "no user with this metric" if users == 0 else "only one user: a variance needs two"


def _no_denominator(members: Sequence[Moments]) -> str:
    lowest = min(m.baseline for m in members)
    return f"the baseline's mean is {lowest:.4g}: a relative lift needs one above 0"


def _lift(m: Moments) -> tuple[float, float]:
    """One comparison's relative lift and its variance by the delta method."""
    ratio = m.treatment / m.baseline
    variance = m.var_treatment - 2 * ratio * m.covariance + ratio**2 * m.var_baseline
    return ratio - 1, _above(variance, m.rounding * max(1.0, ratio**2)) / m.baseline**2


def satterthwaite(variances: Sequence[float], dfs: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent variances."""
    weight = sum(v**2 / df for v, df in zip(variances, dfs, strict=True))
    return sum(variances) ** 2 / weight if weight > 0 else float(min(dfs))


def _all_good(members: Sequence[Moments | str]) -> list[Moments] | str:
    good = [m for m in members if isinstance(m, Moments)]
    if len(good) < len(members):
        return next(m for m in members if isinstance(m, str))
    return good or "no simulated outcome"


def _above(variance: float, rounding: float) -> float:
    return variance if variance > rounding else 0.0


def _pool(values: Sequence[float], variances: Sequence[float], dfs: Sequence[float], confidence: float) -> Effect:
    value, within = float(np.mean(values)), float(np.mean(variances))
    if within <= 0.0:
        # Without variation between users nothing is known of other users, whatever the ensemble says.
        return Effect(value, reason=f"every user has the same value ({value:.4g}): no interval can be computed")
    total, df = rubin(values, variances, min(dfs))
    return from_se(value, float(np.sqrt(total)), df, confidence)


def rubin(values: Sequence[float], variances: Sequence[float], df: float) -> tuple[float, float]:
    """Rubin's rules; degrees of freedom by Barnard and Rubin (Biometrika 1999, equation 3).

    Args:
        values: Estimate of each ensemble member.
        variances: Variance of each estimate over users, above 0 on average.
        df: Degrees of freedom of these variances.

    Returns:
        Variance of the mean estimate, users and ensemble, and its degrees of freedom.
    """
    count, within = len(values), float(np.mean(variances))
    between = float(np.var(values, ddof=1)) * (1 + 1 / count) if count > 1 else 0.0
    total = within + between
    if between > 0.0:
        missing = between / total
        observed = (df + 1) / (df + 3) * df * (1 - missing)
        df = 1 / (missing**2 / (count - 1) + 1 / observed)
    return total, df
