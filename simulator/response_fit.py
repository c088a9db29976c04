"""Fits the response model: cross-fitted networks first, then leaving and returning on their predictions."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simulator import draws
from simulator.appeal import (
    FloatArray,
    Inputs,
    Network,
    Shifts,
    WatchScale,
    expected_share,
    fit_network,
    log_share_of,
    predict,
)
from simulator.evidence import Evidence, LoggedScores, gather
from simulator.logit import GroupLogit, Recalibration, fit_group_logit, recalibrate, too_few
from simulator.metrics import GROUPS
from simulator.response import Member, ResponseModel, ResponseSettings, stage_1_features
from simulator.response_data import Pairs, ResponseData
from simulator.response_levels import levels, shifts, watch_scale
from simulator.response_state import (
    APPEALS,
    DAY_STATE,
    LEAVE_STATE,
    Centre,
    day_features,
    day_rows,
    leave_state,
    session_states,
    user_columns,
    user_state,
    watched_share,
)
from simulator.yardstick import Yardstick

# Larger weights would let a few rows rule the fit.
_PROPENSITY_CAP = 10.0
# The column of appeal that speaks of liking, and the least that it is trusted: noise beyond would be invented.
_LIKING, _LEAST_RELIABLE = APPEALS.index("kept_logit"), 0.4


@dataclass(frozen=True)
class ResponseFit:
    """Outcome of a fit: a model, or the reason why there is none."""

    model: ResponseModel | None
    reason: str | None


def fit_response(data: ResponseData, settings: ResponseSettings, scores: LoggedScores | None = None) -> ResponseFit:
    """Fit the cross-fitted ensemble.

    Args:
        data: Logged impressions of the window and of the held-out day.
        settings: How to fit.
        scores: Production scores of the candidates of the same days, None where the feed logs none.

    Returns:
        The model; or None and why: too few skips, watched videos or leavings to learn from. A model without a
        return label comes with ``return_reason`` instead.
    """
    data = data.ordered()
    skip = (data.watch_s < settings.skip_below_s).astype(np.int8)
    fold = draws.bucket(settings.seed, "response fold", settings.folds, data.user_id)
    for what, outcome in (("skipping", skip), ("leaving", data.left)):
        for f in range(settings.folds):
            if reason := too_few(outcome[fold != f]):
                return ResponseFit(None, f"{what} can not be modelled without fold {f}: {reason}")
    usable, unfitted = _behaviours(data, fold, settings.folds)
    data = replace(data, behaviours=tuple(usable), interactions=data.interactions[:, list(usable.values())])
    days = day_rows(data)
    return_reason = None
    day_fold = fold[days.first]
    for f in range(settings.folds):
        known = (days.returned >= 0) & (day_fold != f)
        return_reason = return_reason or too_few(days.returned[known])
    evidence, yardstick = gather(data, scores, settings.skip_below_s), Yardstick.of(data, settings.seed)
    found = evidence.features_of_log(data, settings.skip_below_s)
    taught = evidence.taught(found, data, settings.seed)
    log = _Log(data, found, taught, skip, fold, *_measured(data, evidence, yardstick))
    drafts = [_train(log, yardstick, settings, member) for member in range(settings.ensemble)]
    # Leaving and returning read the mean over members: a single network's error would attenuate the effect of appeal.
    appeal = np.mean([draft.appeal for draft in drafts], axis=0)
    compared = np.mean([draft.compared for draft in drafts], axis=0)
    trust = reliability(
        np.array([days.mean(draft.appeal)[:, _LIKING] - draft.compared for draft in drafts]),
        user_state(user_columns(data.user_features[days.first], compared)),
        data.group[days.first],
    )
    members = tuple(
        _finish(log, draft, appeal, compared, settings, trust=trust if return_reason is None else None)
        for draft in drafts
    )
    model = ResponseModel(settings, tuple(usable), unfitted, members, evidence, yardstick, return_reason)
    return ResponseFit(model, None)


def _behaviours(data: ResponseData, fold: NDArray[np.int64], folds: int) -> tuple[dict[str, int], dict[str, str]]:
    """Behaviours with enough events (name to column), and why the others have none."""
    usable, unfitted = {}, {}
    for column, name in enumerate(data.behaviours):
        values = data.interactions[:, column]
        reasons = [too_few(values[(values >= 0) & (fold != f)]) for f in range(folds)]
        if any(reasons):
            unfitted[name] = next(reason for reason in reasons if reason)
        else:
            usable[name] = column
    return usable, unfitted


@dataclass(frozen=True)
class _Log:
    """Ordered rows with what all members share.

    Attributes:
        data: The rows.
        evidence: float64 [N, E].
        taught: float64 [N, E], what the networks learn from (``Evidence.taught``).
        skip: int8 [N].
        fold: int64 [N].
        compared: Every user-day with every video of the yardstick.
        compared_evidence: float64 [D x R, E].
    """

    data: ResponseData
    evidence: FloatArray
    taught: FloatArray
    skip: NDArray[np.int8]
    fold: NDArray[np.int64]
    compared: Pairs
    compared_evidence: FloatArray


def _measured(data: ResponseData, evidence: Evidence, yardstick: Yardstick) -> tuple[Pairs, FloatArray]:
    first = day_rows(data).first
    pairs = yardstick.pairs(data.user_id[first], data.group[first], data.newness[first], data.user_features[first])
    return pairs, evidence.features(pairs)


@dataclass(frozen=True)
class _Draft:
    """A member after stage 1.

    Attributes:
        networks: One per fold.
        scales: One per fold.
        shifts: Of skips and interactions.
        bootstrap: float64 [N], copies of each row's user.
        appeal: float64 [N, A], out of fold.
        compared: float64 [D], out of fold, each user-day's appeal of the yardstick.
    """

    networks: tuple[Network, ...]
    scales: tuple[WatchScale, ...]
    shifts: Shifts
    bootstrap: FloatArray
    appeal: FloatArray
    compared: FloatArray


def _train(log: _Log, yardstick: Yardstick, settings: ResponseSettings, member: int) -> _Draft:
    data, evidence, skip, fold = log.data, log.evidence, log.skip, log.fold
    days = day_rows(data)
    bootstrap = np.ones(len(skip))
    if settings.ensemble > 1:
        # Poisson(1) copies of every user: the bootstrap that needs no list of users (Chamandy et al. 2012).
        u = draws.uniform(settings.seed, "response bootstrap", data.user_id, member)
        bootstrap = np.searchsorted(np.cumsum(np.exp(-1.0) / np.array([1, 1, 2, 6, 24, 120, 720])), u).astype(float)
    weight = bootstrap * balanced(inverse_propensity(data.propensity), data.group)
    pairs = data.pairs()
    networks, scales = [], []
    appeal = np.zeros((len(skip), len(APPEALS)))
    expected, skipping = np.zeros(len(skip)), np.zeros(len(skip))
    interacting = np.zeros((len(skip), len(data.behaviours)))
    compared = np.zeros((len(log.compared.user_id), len(APPEALS)))
    compared_fold = np.repeat(fold[days.first], len(yardstick.video_id))
    for f in range(settings.folds):
        inside, outside = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        scale = watch_scale(data, skip, inside)
        seconds = scale.duration(data.duration_s)
        share = log_share_of(data.watch_s, seconds)
        log_cap = float(np.log(scale.cap_share))
        rows = inside[weight[inside] > 0]
        inputs = Inputs(
            stage_1_features(pairs.select(rows), log.taught[rows], seconds[rows]),
            skip[rows],
            share[rows],
            share[rows] >= log_cap,
            data.interactions[rows],
            weight[rows],
        )
        seed = int(draws.bucket(settings.seed, "response network", 2**31, member, f))
        networks.append(fit_network(inputs, log_cap, settings.epochs, seed))
        scales.append(scale)
        features = stage_1_features(pairs.select(outside), evidence[outside], seconds[outside])
        found = predict(networks[f], features, seconds[outside], scale)
        appeal[outside], skipping[outside], interacting[outside] = found.appeal, found.skip, found.interactions
        mean = expected_share(found.log_share, found.log_share_sd, scale.cap_share) * seconds[outside]
        expected[outside] = np.where(skip[outside] == 1, 0.0, mean)
        rows = np.flatnonzero(compared_fold == f)
        seconds = scale.duration(log.compared.duration_s[rows])
        features = stage_1_features(log.compared.select(rows), log.compared_evidence[rows], seconds)
        compared[rows] = predict(networks[f], features, seconds, scale).appeal
    # Calibrated on the log as it is: the weights above serve learning, not the means of a day.
    factors = levels(data, expected, bootstrap * (skip == 0), scales[0].duration(data.duration_s))
    scales = [replace(scale, **factors) for scale in scales]
    mended = shifts(data, skip, skipping, interacting, bootstrap)
    return _Draft(tuple(networks), tuple(scales), mended, bootstrap, appeal, yardstick.mean(compared))


def _finish(
    log: _Log,
    draft: _Draft,
    appeal: FloatArray,
    compared: FloatArray,
    settings: ResponseSettings,
    *,
    trust: FloatArray | None,
) -> Member:
    """Stage 2 of a member, on its own bootstrap of the users and the appeal that all members agree on.

    Without ``trust`` (``reliability``, float64 [G]) there is no return model.
    """
    data, fold, bootstrap, scales = log.data, log.fold, draft.bootstrap, draft.scales
    days = day_rows(data)
    seconds = scales[0].duration(data.duration_s)
    centre = Centre(appeal.mean(axis=0), float(watched_share(data.watch_s, seconds).mean()))
    state = leave_state(*session_states(data, appeal, seconds, centre))
    columns = user_columns(data.user_features[days.first], compared)
    leave, leave_fit = _cross_fit(
        np.column_stack([user_state(columns[days.of(len(fold))]), state]),
        data.group,
        data.left,
        weight=bootstrap,
        fold=fold,
        folds=settings.folds,
        own=len(LEAVE_STATE),
    )
    returning, return_fit = None, None
    if trust is not None:
        known = np.flatnonzero(days.returned >= 0)
        first = days.first[known]
        day = day_features(columns, days.mean(appeal))[known]
        returning, return_fit = _cross_fit(
            day,
            data.group[first],
            days.returned[known],
            weight=bootstrap[first],
            fold=fold[first],
            folds=settings.folds,
            own=len(DAY_STATE),
            trust=trust,
        )
    return Member(draft.networks, leave, returning, scales, draft.shifts, centre, leave_fit, return_fit)


def inverse_propensity(propensity: FloatArray) -> FloatArray:
    """Training weights: clipped inverse propensities with mean 1, and 1 where the propensity is unknown (NaN).

    Args:
        propensity: float64 [N] in (0, 1], NaN = unknown.

    Returns:
        float64 [N].
    """
    weight = np.ones(len(propensity))
    known = np.isfinite(propensity)
    if known.any():
        clipped = np.minimum(1 / np.maximum(propensity[known], 1e-12), _PROPENSITY_CAP)
        weight[known] = clipped / clipped.mean()
    return weight


def balanced(weight: FloatArray, group: NDArray[np.int8]) -> FloatArray:
    """Weights under which every group that occurs counts as much as every other; mean 1.

    Without it the networks fit the many: an under-dispersed prediction for new users, whose rows are few, was the
    largest error of their simulated app time.

    Args:
        weight: float64 [N], not negative.
        group: int8 [N].

    Returns:
        float64 [N].
    """
    total = np.bincount(group, weights=weight, minlength=len(GROUPS))
    scaled = weight / np.where(total > 0, total, 1.0)[group]
    result: FloatArray = scaled / scaled.mean()
    return result


def reliability(contrast: FloatArray, columns: FloatArray, group: NDArray[np.int8]) -> FloatArray:
    """How much of the variation in predicted appeal is signal: the factor by which its effect is attenuated.

    Members differ by a bootstrap of the users, so their spread s^2 is also that of the networks themselves; the mean of
    M members carries noise of about s^2 (1 + 1/M). With V the variance that the other columns leave, the reliability
    is 1 - s^2 (1 + 1/M) / V (Carroll, Ruppert, Stefanski and Crainiceanu, Measurement Error in Nonlinear Models, 2006,
    chapter 3).

    Args:
        contrast: float64 [M, D], each member's mean appeal of a user-day, less its appeal of the yardstick.
        columns: float64 [D, C], what else the return model knows of the user.
        group: int8 [D].

    Returns:
        float64 [G], between ``_LEAST_RELIABLE`` and 1; 1 for one member, which says nothing of its own error.
    """
    found = np.ones(len(GROUPS))
    members = len(contrast)
    if members < 2:
        return found
    for g in range(len(GROUPS)):
        rows = np.flatnonzero(group == g)
        design = np.column_stack([np.ones(len(rows)), columns[rows]])
        if len(rows) <= 2 * design.shape[1]:
            continue
        mean = contrast[:, rows].mean(axis=0)
        left = mean - design @ np.linalg.lstsq(design, mean, rcond=None)[0]
        spread = float(left @ left) / (len(rows) - design.shape[1])
        noise = float(contrast[:, rows].var(axis=0, ddof=1).mean()) * (1 + 1 / members)
        found[g] = np.clip(1 - noise / spread, _LEAST_RELIABLE, 1.0) if spread > 0 else 1.0
    return found


def _disattenuated(fit: GroupLogit, features: FloatArray, group: NDArray[np.int8], trust: FloatArray) -> GroupLogit:
    """The fit with the effect of appeal divided by its reliability, and the same logits at each group's mean appeal."""
    column = features.shape[1] - len(DAY_STATE) + _LIKING
    coefficients = fit.coefficients.copy()
    for g in range(len(GROUPS)):
        rows = group == g
        centre = float(features[rows, column].mean()) if rows.any() else 0.0
        slope = coefficients[g, 1 + column]
        coefficients[g, 1 + column] = slope / trust[g]
        coefficients[g, 0] -= (slope / trust[g] - slope) * centre
    return GroupLogit(coefficients)


def _cross_fit(
    features: FloatArray,
    group: NDArray[np.int8],
    outcome: NDArray[np.int8],
    *,
    weight: FloatArray,
    fold: NDArray[np.int64],
    folds: int,
    own: int,
    trust: FloatArray | None = None,
) -> tuple[tuple[GroupLogit, ...], Recalibration]:
    fits, logits = [], np.zeros(len(outcome))
    for f in range(folds):
        rows = fold != f
        fit = fit_group_logit(features[rows], group[rows], outcome[rows], weight[rows], len(GROUPS), own)
        fits.append(fit if trust is None else _disattenuated(fit, features[rows], group[rows], trust))
        logits[~rows] = fits[f].logit(features[~rows], group[~rows])
    return tuple(fits), recalibrate(logits, outcome)
