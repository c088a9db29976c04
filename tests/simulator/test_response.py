"""The response model recovers what was planted in a log, and a user's fits never saw that user."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from components.errors import BundleError, TrainingError
from simulator.appeal import Shifts, expected_share
from simulator.evidence import HIDDEN, OUTCOMES, gather
from simulator.logit import fit_group_logit, recalibrate
from simulator.response import Pairs, ResponseModel, ResponseSettings, stage_1_features
from simulator.response_data import ResponseData
from simulator.response_fit import balanced, fit_response, inverse_propensity
from simulator.response_state import APPEALS, DAY_STATE, LEAVE_STATE, Centre, day_rows, leave_state, session_states
from tests.simulator.conftest import KEEPS, RETURNS, STAYS, Planted

SETTINGS = ResponseSettings(seed=3, folds=2, ensemble=2, epochs=8)
QUICK = replace(SETTINGS, epochs=1)
KEPT = APPEALS.index("kept_logit")


@pytest.fixture(scope="module")
def model(planted: Planted) -> ResponseModel:
    fit = fit_response(planted.data, SETTINGS, planted.scores)
    assert fit.reason is None
    assert fit.model is not None
    return fit.model


def some(planted: Planted, users: int) -> ResponseData:
    """The log of the first users."""
    return planted.data.select(planted.data.user_id < 1000 + users)


def unshifted(model: ResponseModel) -> ResponseModel:
    """The model without what is pooled over folds: what the networks say."""
    none = Shifts((0.0,) * 3, ((0.0,) * len(model.behaviours),) * 3)
    return replace(model, members=tuple(replace(member, shifts=none) for member in model.members))


def in_order(planted: Planted) -> tuple[ResponseData, np.ndarray]:
    """The ordered log and the liking behind its rows."""
    data = planted.data
    order = np.lexsort((data.position, data.session_id, data.day, data.user_id))
    return data.select(order), planted.liked[order]


def test_recovers_the_planted_appeal_out_of_fold(model, planted):
    data, liked = in_order(planted)
    for member in range(model.size):
        found = model.appeal(member, data.pairs())
        assert stats.spearmanr(found.appeal[:, KEPT], liked).statistic > 0.9
        # Not only the order: the planted logit of not skipping is 0.5 + KEEPS x liking.
        slope, level = np.polyfit(found.appeal[:, KEPT], 0.5 + KEEPS * liked, 1)
        assert slope == pytest.approx(1.0, abs=0.15)
        assert level == pytest.approx(0.0, abs=0.15)


def test_scores_say_more_than_the_features(model, planted):
    data, liked = in_order(planted)
    without = fit_response(planted.data, replace(SETTINGS, ensemble=1)).model
    assert without is not None
    with_scores, blind = (stats.pearsonr(m.appeal(0, data.pairs()).appeal[:, KEPT], liked)[0] for m in (model, without))
    assert 1 - with_scores**2 < 0.7 * (1 - blind**2)


def test_predicted_rates_match_the_log(model, planted):
    data, _ = in_order(planted)
    found = model.appeal(0, data.pairs())
    skips = data.watch_s < SETTINGS.skip_below_s
    assert found.skip.mean() == pytest.approx(skips.mean(), abs=0.02)
    assert found.interactions[:, 0].mean() == pytest.approx((data.interactions[:, 0] == 1).mean(), abs=0.02)


def test_a_video_that_nobody_has_watched_is_guessed_like_the_others(planted):
    data, _ = in_order(planted)
    unseen = data.video_id % 10 == 0
    model = fit_response(data.select(~unseen), replace(SETTINGS, ensemble=1, epochs=3)).model
    assert model is not None
    skips = data.watch_s[unseen] < SETTINGS.skip_below_s
    assert model.appeal(0, data.pairs()).skip[unseen].mean() == pytest.approx(skips.mean(), abs=0.05)


def test_networks_learn_from_some_rows_without_what_others_made_of_the_video(planted):
    data, _ = in_order(planted)
    found = gather(data, planted.scores, SETTINGS.skip_below_s)
    whole = found.features_of_log(data, SETTINGS.skip_below_s)
    taught = found.taught(whole, data, seed=3)
    of_video = len(OUTCOMES) + 1
    hidden = (taught[:, :of_video] == 0).all(axis=1) & (whole[:, of_video - 1] > 0)
    assert hidden.mean() == pytest.approx(HIDDEN, abs=0.02)
    assert np.array_equal(taught[~hidden], whole[~hidden], equal_nan=True)
    assert np.array_equal(taught[:, of_video:], whole[:, of_video:], equal_nan=True)
    # Its choice is the pair's, so that a repeated exposure does not give the hidden one away.
    pair = data.user_id * 10**6 + data.video_id
    assert len(np.unique(pair[hidden])) + len(np.unique(pair[~hidden & (whole[:, of_video - 1] > 0)])) == len(
        np.unique(pair[whole[:, of_video - 1] > 0])
    )


def test_leaving_and_returning_are_calibrated(model):
    for member in model.members:
        assert member.leave_fit.slope == pytest.approx(1.0, abs=0.25)
        assert abs(member.leave_fit.shift) < 0.1
        assert member.return_fit is not None
        # A thousand users, half of them in a bootstrapped fit: noise spreads the predictions.
        assert member.return_fit.slope == pytest.approx(1.0, abs=0.5)
        assert abs(member.return_fit.shift) < 0.1


def test_the_effect_of_appeal_on_leaving_and_returning_is_not_attenuated(model):
    leave = np.mean(
        [fit.coefficients[:, 4 + LEAVE_STATE.index("kept_logit")] for m in model.members for fit in m.leave]
    )
    assert leave == pytest.approx(-STAYS / KEEPS, rel=0.2)
    back = np.mean([f.coefficients[:, 4 + DAY_STATE.index("kept_logit")] for m in model.members for f in m.returning])
    assert back == pytest.approx(RETURNS / KEEPS, rel=0.3)


def test_leave_terms_are_the_fits_own_logit(model, planted):
    """offset + slopes . state is the fitted logit of every user's own fold and group, recalibrated."""
    data, _ = in_order(planted)
    data = data.select(np.arange(0, len(data.user_id), 97))
    fold = model.fold(data.user_id)
    rng = np.random.default_rng(0)
    rows = len(fold)
    state = leave_state(rng.integers(1, 20, rows).astype(float), rng.normal(size=(rows, 3)), *rng.random((2, rows)))
    user = model.user_columns(data.user_id, data.group, data.newness, data.user_features)
    assert np.array_equal(user[:, :-1], data.user_features)
    offset, slopes = model.leave_terms(1, fold, data.group, user)
    member = model.members[1]
    for row in range(rows):
        features = np.concatenate([user[row].astype(float), state[row]])[None]
        expected = member.leave[fold[row]].logit(features, data.group[row : row + 1])[0] + member.leave_fit.shift
        assert offset[row] + slopes[row] @ state[row] == pytest.approx(expected)


def test_better_appeal_brings_users_back(model):
    group, fold = np.zeros(2, dtype=np.int8), np.zeros(2, dtype=np.int64)
    day = np.zeros((2, 3 + len(DAY_STATE)))
    day[:, 3 + DAY_STATE.index("kept_logit")] = [0.2, 1.2]
    back = model.return_probability(0, fold, group, day)
    assert back is not None
    assert back[1] > back[0] + 0.1


def test_a_users_fits_never_saw_the_user(planted):
    """Interactions and leaving are no evidence: changing a user's changes others' fits, but not the user's own."""
    data = some(planted, 150)
    settings = replace(QUICK, ensemble=1)
    model = fit_response(data, settings).model
    user = data.user_id == data.user_id[0]
    changed = fit_response(
        replace(
            data,
            interactions=np.where(user[:, None], [1, -1], data.interactions).astype(np.int8),
            left=np.where(user, 1, data.left).astype(np.int8),
        ),
        settings,
    ).model
    assert model is not None
    assert changed is not None
    model, changed = unshifted(model), unshifted(changed)
    mine = data.select(user).pairs()
    assert np.array_equal(model.appeal(0, mine).interactions, changed.appeal(0, mine).interactions)
    fold = model.fold(data.user_id)
    others = data.select(fold != fold[0]).pairs()
    assert not np.array_equal(model.appeal(0, others).interactions, changed.appeal(0, others).interactions)


def test_a_users_leave_fit_never_saw_the_users_leaving(planted):
    data = some(planted, 150)
    settings = replace(QUICK, ensemble=1)
    user = data.user_id == data.user_id[0]
    model = fit_response(data, settings).model
    changed = fit_response(replace(data, left=np.where(user, 1, data.left).astype(np.int8)), settings).model
    assert model is not None
    assert changed is not None
    mine = int(model.fold(data.user_id[:1])[0])
    before, after = model.members[0].leave, changed.members[0].leave
    assert np.array_equal(before[mine].coefficients, after[mine].coefficients)
    assert not np.array_equal(before[1 - mine].coefficients, after[1 - mine].coefficients)


def test_same_seed_same_model_and_saved_model_predicts_the_same(planted):
    data = some(planted, 120)
    one, two = (fit_response(data, QUICK, planted.scores).model for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.save() == two.save()
    back = ResponseModel.load(one.save())
    pairs = data.pairs()
    for member in range(2):
        assert np.array_equal(one.appeal(member, pairs).appeal, back.appeal(member, pairs).appeal)
    fold = one.fold(data.user_id)
    users = [m.user_columns(data.user_id, data.group, data.newness, data.user_features) for m in (one, back)]
    assert np.array_equal(*users)
    for mine, other in zip(
        one.leave_terms(1, fold, data.group, users[0]), back.leave_terms(1, fold, data.group, users[1]), strict=True
    ):
        assert np.array_equal(mine, other)
    assert back.centre(0).appeal.tolist() == one.centre(0).appeal.tolist()
    assert back.save() == one.save()
    assert not np.array_equal(one.appeal(0, pairs).appeal, one.appeal(1, pairs).appeal)


def test_predictions_do_not_depend_on_the_batch_nor_on_who_looks_up_the_evidence(model, planted):
    pairs = planted.data.select(np.arange(500)).pairs()
    found = model.appeal(1, pairs)
    assert np.array_equal(model.appeal(1, pairs, model.evidence.features(pairs)).appeal, found.appeal)
    rows = np.random.default_rng(1).permutation(500)
    np.testing.assert_allclose(model.appeal(1, pairs.select(rows)).appeal, found.appeal[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lacking", ["response.json", "response.safetensors", "evidence.safetensors"])
def test_damaged_files_are_refused(planted, lacking):
    fit = fit_response(some(planted, 120), replace(QUICK, ensemble=1))
    assert fit.model is not None
    files = {name: content for name, content in fit.model.save().items() if name != lacking}
    with pytest.raises(BundleError, match="fit it again"):
        ResponseModel.load(files)
    with pytest.raises(BundleError, match="fit it again"):
        ResponseModel.load(files | {lacking: b"{}"})


def test_without_a_return_day_there_is_a_model_without_return(planted):
    data = some(planted, 120)
    fit = fit_response(replace(data, returned=np.full_like(data.returned, -1)), QUICK)
    assert fit.model is not None
    assert fit.model.return_reason == "0 of 0 rows are positive; at least 20 of both outcomes are needed"
    zeros = np.zeros(1, dtype=np.int8)
    day = np.zeros((1, 3 + len(DAY_STATE)))
    assert fit.model.return_probability(0, zeros.astype(np.int64), zeros, day) is None
    assert fit.model.unfitted == {"dislike": "0 of 0 rows are positive; at least 20 of both outcomes are needed"}


@pytest.mark.parametrize(("value", "text"), [(0, "0 of"), (1, "are positive")])
def test_without_variation_in_leaving_there_is_a_reason(planted, value, text):
    data = some(planted, 50)
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
    with pytest.raises(TrainingError, match="interactions have shape"):
        replace(planted.data, behaviours=("like",))


def test_unknown_features_and_durations_do_not_spread(planted):
    data = some(planted, 120)
    video = data.video_features.copy()
    video[::7, 1] = np.nan
    data = replace(data, video_features=video, duration_s=np.where(np.arange(len(video)) % 9 == 0, 0, data.duration_s))
    fit = fit_response(data, replace(QUICK, ensemble=1))
    assert fit.model is not None
    assert np.isfinite(fit.model.appeal(0, data.pairs()).appeal).all()
    with pytest.raises(TrainingError, match="duration of at least one video"):
        fit_response(replace(data, duration_s=np.full(len(video), np.nan)), QUICK)


def test_session_states_by_hand(planted):
    data, _ = in_order(planted)
    first = np.flatnonzero(data.starts())
    row = first[np.argmax(np.diff(first) >= 3)]
    appeal = np.column_stack([np.arange(len(data.user_id)), *np.ones((2, len(data.user_id)))]).astype(float)
    centre = Centre(np.array([5.0, 1.0, 1.0]), 0.4)
    position, mean_appeal, share, seconds = session_states(data, appeal, data.duration_s, centre)
    a, b, c = appeal[row : row + 3, 0]
    assert position[row : row + 3].tolist() == [1, 2, 3]
    # Averages begin at the centre: nobody is pleased or bored by the first video alone.
    assert mean_appeal[row, 0] == pytest.approx(0.7 * 5 + 0.3 * a)
    assert mean_appeal[row + 2, 0] == pytest.approx(0.7 * (0.7 * (0.7 * 5 + 0.3 * a) + 0.3 * b) + 0.3 * c)
    assert mean_appeal[:, 1] == pytest.approx(1.0)
    assert seconds[row + 2] == pytest.approx(data.watch_s[row : row + 3].sum())
    assert share[row] == pytest.approx(0.7 * 0.4 + 0.3 * min(data.watch_s[row] / data.duration_s[row], 1))
    assert len(day_rows(data).first) == len(np.unique(data.user_id * 10 + data.day))


def test_repeats_count_the_topic_in_the_sessions_last_videos(planted):
    data = planted.data.select(np.arange(8))
    data = replace(
        data,
        user_id=np.ones(8, dtype=np.int64),
        day=np.zeros(8, dtype=np.int32),
        session_id=np.array([1] * 6 + [2] * 2),
        topic=np.array([4, 4, -1, 4, -1, 4, 4, 4], dtype=np.int32),
    )
    # Unknown topics repeat nothing, and what was seen in the session before is forgotten.
    assert data.repeats().tolist() == [0, 1, 0, 2, 0, 1, 0, 1]


def test_expected_share_equals_numerical_integration():
    draws = np.minimum(stats.lognorm(s=0.7, scale=np.exp(-0.4)).ppf((np.arange(200_000) + 0.5) / 200_000), 1.3)
    assert expected_share(np.array([-0.4]), np.array([0.7]), 1.3)[0] == pytest.approx(draws.mean(), abs=1e-5)


def test_inverse_propensities_are_clipped_and_neutral_where_unknown():
    assert inverse_propensity(np.array([0.5, 0.001, np.nan])).tolist() == pytest.approx([2 / 6, 10 / 6, 1])


def test_balanced_groups_weigh_the_same_and_rows_within_a_group_keep_their_ratio():
    weight, group = np.array([1.0, 3.0, 1.0, 1.0, 1.0, 1.0]), np.array([0, 0, 2, 2, 2, 2], dtype=np.int8)
    found = balanced(weight, group)
    # Two groups occur: each has half of the total weight of six.
    assert found.tolist() == pytest.approx([0.75, 2.25, 0.75, 0.75, 0.75, 0.75])


def test_stage_1_reads_what_is_known_of_a_pair_twice(planted):
    pairs: Pairs = planted.data.select(np.arange(20)).pairs()
    found = stage_1_features(pairs, np.full((20, 2), 7.0), pairs.duration_s)
    pair = pairs.video_features.shape[1] + 4
    user = pairs.user_features.shape[1]
    assert found.shape == (20, user + pair + 3 + 1 + pair)
    np.testing.assert_allclose(found[:, -pair:], pairs.newness[:, None] * found[:, user : user + pair], rtol=1e-6)
    assert found[:, user + pair : user + pair + 3].argmax(axis=1).tolist() == pairs.group.tolist()


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
