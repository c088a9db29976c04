from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from components.errors import BundleError, TrainingError
from simulator.appeal import expected_share
from simulator.logit import fit_group_logit, recalibrate
from simulator.response import Pairs, ResponseModel, ResponseSettings
from simulator.response_data import ResponseData
from simulator.response_fit import fit_response, inverse_propensity
from simulator.response_state import day_rows, session_states

SETTINGS = ResponseSettings(seed=3, folds=2, ensemble=2, epochs=8)


def pairs_of(data: ResponseData) -> Pairs:
    return Pairs(data.user_id, data.group, data.user_features, data.video_features, data.duration_s)


@pytest.fixture(scope="module")
def model(planted) -> ResponseModel:
    fit = fit_response(planted.data, SETTINGS)
    assert fit.reason is None
    assert fit.model is not None
    return fit.model


def test_recovers_the_planted_appeal_out_of_fold(model, planted):
    found = model.appeal(0, pairs_of(planted.data))
    for column in range(2):
        assert stats.spearmanr(found.appeal[:, column], planted.appeal).statistic > 0.8


def test_predicted_rates_match_the_log(model, planted):
    found = model.appeal(0, pairs_of(planted.data))
    skips = planted.data.watch_s < SETTINGS.skip_below_s
    assert found.skip.mean() == pytest.approx(skips.mean(), abs=0.02)
    assert found.interactions[:, 0].mean() == pytest.approx((planted.data.interactions[:, 0] == 1).mean(), abs=0.02)


def test_drawn_seconds_have_the_logged_mean(model, planted):
    data = planted.data
    found = model.appeal(0, pairs_of(data))
    noise = np.random.default_rng(1).normal(size=len(data.user_id))
    drawn = model.seconds(
        0,
        model.fold(data.user_id),
        mean=found.log_share,
        sd=found.log_share_sd,
        duration_s=data.duration_s,
        noise=noise,
    )
    kept = data.watch_s >= SETTINGS.skip_below_s
    assert drawn[kept].mean() == pytest.approx(data.watch_s[kept].mean(), rel=0.05)


def test_leaving_and_returning_are_calibrated(model):
    for member in model.members:
        assert member.leave_fit.slope == pytest.approx(1.0, abs=0.25)
        assert abs(member.leave_fit.shift) < 0.1
        assert member.return_fit is not None
        # 700 users, half of them in a bootstrapped fit: noise spreads the predictions.
        assert member.return_fit.slope == pytest.approx(1.0, abs=0.5)
        assert abs(member.return_fit.shift) < 0.1


def test_better_appeal_keeps_users_and_brings_them_back(model):
    group, fold = np.zeros(2, dtype=np.int8), np.zeros(2, dtype=np.int64)
    state = np.array([[1.0, 0.3, 0.2, 0.3, 0.3, 4.0], [1.0, 0.3, 0.7, 0.9, 0.3, 4.0]])
    leave = model.leave_probability(0, fold, group, state)
    assert leave[1] < leave[0]
    day = np.array([[0.0, 0.0, 0.2, 0.3, 4.0, 2.0], [0.0, 0.0, 0.7, 0.9, 4.0, 2.0]])
    back = model.return_probability(0, fold, group, day)
    assert back is not None
    assert back[1] > back[0]


def test_a_users_fits_never_saw_the_user(planted):
    """Changing one user's whole log changes neither that user's networks nor their predictions."""
    data = planted.data.select(planted.data.user_id < 1150)
    settings = replace(SETTINGS, ensemble=1, epochs=1)
    model = fit_response(data, settings).model
    user = data.user_id == data.user_id[0]
    changed = fit_response(replace(data, watch_s=np.where(user, 900.0, data.watch_s)), settings).model
    assert model is not None
    assert changed is not None
    mine = pairs_of(data.select(user))
    assert np.array_equal(model.appeal(0, mine).appeal[:, 1], changed.appeal(0, mine).appeal[:, 1])
    fold = model.fold(data.user_id)
    others = pairs_of(data.select(fold != fold[0]))
    assert not np.array_equal(model.appeal(0, others).appeal[:, 1], changed.appeal(0, others).appeal[:, 1])


def test_same_seed_same_model_and_saved_model_predicts_the_same(planted):
    data = planted.data.select(planted.data.user_id < 1120)
    settings = replace(SETTINGS, epochs=1)
    one, two = (fit_response(data, settings).model for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.save() == two.save()
    back = ResponseModel.load(one.save())
    pairs = pairs_of(data)
    for member in range(2):
        assert np.array_equal(one.appeal(member, pairs).appeal, back.appeal(member, pairs).appeal)
    assert back.save() == one.save()
    assert not np.array_equal(one.appeal(0, pairs).appeal, one.appeal(1, pairs).appeal)


def test_damaged_files_are_refused():
    with pytest.raises(BundleError, match="fit it again"):
        ResponseModel.load({"response.json": b"{}"})


def test_without_a_return_day_there_is_a_model_without_return(planted):
    data = planted.data.select(planted.data.user_id < 1120)
    fit = fit_response(replace(data, returned=np.full_like(data.returned, -1)), replace(SETTINGS, epochs=1))
    assert fit.model is not None
    assert fit.model.return_reason == "0 of 0 rows are positive; at least 20 of both outcomes are needed"
    zeros = np.zeros(1, dtype=np.int8)
    assert fit.model.return_probability(0, zeros.astype(np.int64), zeros, np.zeros((1, 6))) is None
    assert fit.model.unfitted == {"dislike": "0 of 0 rows are positive; at least 20 of both outcomes are needed"}


@pytest.mark.parametrize(("value", "text"), [(0, "0 of"), (1, "are positive")])
def test_without_variation_in_leaving_there_is_a_reason(planted, value, text):
    data = planted.data.select(planted.data.user_id < 1050)
    fit = fit_response(replace(data, left=np.full_like(data.left, value)), SETTINGS)
    assert fit.model is None
    assert fit.reason is not None
    assert "leaving" in fit.reason
    assert text in fit.reason


def test_bad_data_is_refused(planted):
    with pytest.raises(TrainingError, match="watch_s"):
        replace(planted.data, watch_s=-planted.data.watch_s)
    with pytest.raises(TrainingError, match="left has"):
        replace(planted.data, left=planted.data.left[:-1])


def test_unknown_features_and_durations_do_not_spread(planted):
    data = planted.data.select(planted.data.user_id < 1120)
    video = data.video_features.copy()
    video[::7, 1] = np.nan
    data = replace(data, video_features=video, duration_s=np.where(np.arange(len(video)) % 9 == 0, 0, data.duration_s))
    fit = fit_response(data, replace(SETTINGS, epochs=1, ensemble=1))
    assert fit.model is not None
    assert np.isfinite(fit.model.appeal(0, pairs_of(data)).appeal).all()


def test_session_states_by_hand(planted):
    data = planted.data.ordered()
    first = np.flatnonzero(np.append(True, data.session_id[1:] != data.session_id[:-1]))
    row = first[np.argmax(np.diff(first) >= 3)]
    appeal = np.column_stack([np.arange(len(data.user_id)), np.ones(len(data.user_id))]).astype(float)
    position, mean_appeal, share, seconds = session_states(data, appeal, data.duration_s)
    a, b, c = appeal[row : row + 3, 0]
    assert position[row : row + 3].tolist() == [1, 2, 3]
    assert mean_appeal[row + 2, 0] == pytest.approx(0.7 * (0.7 * a + 0.3 * b) + 0.3 * c)
    assert seconds[row + 2] == pytest.approx(data.watch_s[row : row + 3].sum())
    assert share[row] == min(data.watch_s[row] / data.duration_s[row], 1)
    assert len(day_rows(data).first) == len(np.unique(data.user_id * 10 + data.day))


def test_expected_share_equals_numerical_integration():
    draws = np.minimum(stats.lognorm(s=0.7, scale=np.exp(-0.4)).ppf((np.arange(200_000) + 0.5) / 200_000), 1.3)
    assert expected_share(np.array([-0.4]), np.array([0.7]), 1.3)[0] == pytest.approx(draws.mean(), abs=1e-5)


def test_inverse_propensities_are_clipped_and_neutral_where_unknown():
    assert inverse_propensity(np.array([0.5, 0.001, np.nan])).tolist() == pytest.approx([2 / 6, 10 / 6, 1])


def test_group_logit_recovers_coefficients_and_recalibration_undoes_a_distortion():
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(20_000, 2)), rng.integers(0, 3, 20_000).astype(np.int8)
    eta = np.array([-1.0, 0.0, 0.5])[group] + 0.8 * x[:, 0] - 0.5 * x[:, 1]
    y = (rng.random(20_000) < 1 / (1 + np.exp(-eta))).astype(np.int8)
    fit = fit_group_logit(x, group, y, np.ones(20_000), 3)
    assert fit.coefficients[:, 0] == pytest.approx([-1.0, 0.0, 0.5], abs=0.1)
    assert fit.coefficients[:, 1] == pytest.approx(0.8, abs=0.1)
    found = recalibrate(2 * eta + 1, y)
    assert found.slope == pytest.approx(0.5, abs=0.05)
    assert found.intercept == pytest.approx(-0.5, abs=0.06)
    assert recalibrate(np.zeros(100), np.repeat([0, 1], [75, 25]).astype(np.int8)).shift == pytest.approx(-np.log(3))
