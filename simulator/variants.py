"""The same comparison by other methods, beside the plain one: CUPED, winsorised values, a user-level bootstrap.

**Heavy tails.** A few users with very long days carry much of a mean's variance. The rule: a user's value above the
stated quantile of all users' values, both arms and all ensemble members together and whatever the segment, counts as
that quantile (one-sided winsorising; Kohavi, Tang and Xu, Trustworthy Online Controlled Experiments, 2020, chapter
18, on outliers). The cut is computed before the comparison and blind to the arm, so it can not favour one; it applies
to seconds and counts, not to shares, which are bounded. It is off by default, since the question is about the mean of
all that was watched and a cut mean is another number; where it is on, it stands beside the raw mean and decides
nothing.
"""

from collections.abc import Sequence

import numpy as np

from components.config import DecisionRule
from simulator import bootstrap, cuped, inference
from simulator.comparison import Arms, Comparison, estimate
from simulator.cuped import Covariates, CrossSums
from simulator.experiment import Variant
from simulator.inference import Effect, Moments
from simulator.metrics import Metric

BOOTSTRAP_SEED = 1


def adjusted(
    members: Sequence[Comparison], covariates: Covariates, metric: Metric, rule: DecisionRule, plain: Effect
) -> Variant:
    """The comparison with CUPED (see ``cuped``).

    Args:
        members: One comparison per ensemble member.
        covariates: Of the users, fixed before the exposure.
        metric: What is compared.
        rule: Confidence.
        plain: The unadjusted difference, which the gain is measured against.

    Returns:
        The variant; its note says how much smaller the difference's variance is.
    """
    moments = [_adjusted_moments(m, covariates) for m in members]
    difference = inference.difference(moments, rule.confidence)
    gain = ""
    if difference.se is not None and plain.se is not None:
        smaller = round(100 * (1 - (difference.se / plain.se) ** 2))
        how = f"{abs(smaller)} % {'smaller' if smaller > 0 else 'larger'}" if smaller else "the same"
        gain = f"; the difference's variance is {how}"
    note = f"adjusted by up to {covariates.count} covariates from before the exposure{gain}"
    return Variant(
        method="cuped",
        difference=estimate(_widened(difference, rule), metric.difference_unit, metric.difference_factor),
        relative=estimate(_widened(inference.relative(moments, rule.confidence), rule), "percent", 100.0),
        note=note,
    )


def _widened(effect: Effect, rule: DecisionRule) -> Effect:
    return inference.widened(effect, rule.widening, rule.confidence)


def _adjusted_moments(m: Comparison, covariates: Covariates) -> Moments | str:
    if m.design == "paired":
        return cuped.adjusted_paired(CrossSums.of([m.t, m.b], covariates.matrix(m.t_id)))
    # One call for both arms: which columns need an "unknown" beside them is a matter of all users.
    columns = covariates.matrix(np.concatenate([m.t_id, m.b_id]))
    count = len(m.t)
    return cuped.adjusted_split(CrossSums.of([m.t], columns[:count]), CrossSums.of([m.b], columns[count:]))


def largest_kept(arms: Arms, metric: Metric, quantile: float) -> float | None:
    """The value above which a user's values are cut: a quantile over all users, both arms and members.

    Args:
        arms: Both arms' outcomes.
        metric: Seconds or a count.
        quantile: Between 0 and 1.

    Returns:
        The cut, or None for shares and where no value is known.
    """
    if metric.unit == "share":
        return None
    members = arms.members(metric, "all")
    values = np.concatenate([np.concatenate([m.t, m.b]) for m in members]) if members else np.zeros(0)
    return float(np.quantile(values, quantile)) if len(values) else None


def winsorised(members: Sequence[Comparison], largest: float, metric: Metric, rule: DecisionRule) -> Variant:
    """The comparison with values above ``largest`` cut (see the module).

    Args:
        members: One comparison per ensemble member.
        largest: From ``largest_kept``.
        metric: What is compared.
        rule: Confidence and the quantile, for the note.

    Returns:
        The variant; its note says where values were cut, and how many.
    """
    moments = [m.capped(largest).moments for m in members]
    values = np.concatenate([np.concatenate([m.t, m.b]) for m in members]) if members else np.zeros(0)
    cut = int((values > largest).sum())
    share = 0.0 if rule.winsorise is None else 100 * rule.winsorise
    note = (
        f"values above {largest:.4g}, the {share:g} % quantile of all users in both arms, count as {largest:.4g}: "
        f"{cut} of {len(values)} values were cut"
    )
    return Variant(
        method="winsorised",
        difference=estimate(
            _widened(inference.difference(moments, rule.confidence), rule),
            metric.difference_unit,
            metric.difference_factor,
        ),
        relative=estimate(_widened(inference.relative(moments, rule.confidence), rule), "percent", 100.0),
        note=note,
    )


def resampled(members: Sequence[Comparison], metric: Metric, rule: DecisionRule) -> Variant:
    """The comparison with percentile intervals of a user-level bootstrap (see ``bootstrap``).

    Args:
        members: One comparison per ensemble member.
        metric: What is compared.
        rule: Confidence and the number of resamples.

    Returns:
        The variant; it has no p-values.
    """
    parts = []
    for at, m in enumerate(members):
        draw = bootstrap.Draw(BOOTSTRAP_SEED, rule.bootstrap, at, len(members))
        if m.design == "paired":
            parts.append(bootstrap.resample_paired(m.t_id, m.t, m.b, draw))
        else:
            parts.append(bootstrap.resample_split(m.t_id, m.t, m.b_id, m.b, draw))
    return Variant(
        method="bootstrap",
        difference=estimate(
            bootstrap.bootstrap(parts, rule.confidence, "difference"), metric.difference_unit, metric.difference_factor
        ),
        relative=estimate(bootstrap.bootstrap(parts, rule.confidence, "relative"), "percent", 100.0),
        note=f"percentile interval of {rule.bootstrap} resamples of users",
    )
