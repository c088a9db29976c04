"""What a response model is calibrated on: seconds by group and length, skips and interactions by group."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.appeal import WatchScale, expected_share
from simulator.logit import cell_shifts
from simulator.response import ResponseModel
from simulator.response_fit import fit_response
from tests.simulator.conftest import Planted
from tests.simulator.test_response import SETTINGS, in_order, unshifted


@pytest.fixture(scope="module")
def model(planted: Planted) -> ResponseModel:
    fit = fit_response(planted.data, replace(SETTINGS, epochs=4), planted.scores)
    assert fit.model is not None, fit.reason
    return fit.model


def test_skips_and_interactions_come_back_in_every_group(planted):
    """Groups count alike in learning, whatever their size, and one epoch learns little: the shifts mend the means."""
    data, _ = in_order(planted)
    rare = (data.user_id % 7 == 0) & (data.group == 1)
    likes = np.where(rare[:, None], 1, data.interactions)
    data = replace(data, watch_s=np.where(rare, 1.0, data.watch_s), interactions=likes)
    fit = fit_response(data, replace(SETTINGS, ensemble=1, epochs=1))
    assert fit.model is not None
    without = unshifted(fit.model)
    skips, off, off_without = data.watch_s < SETTINGS.skip_below_s, [], []
    for model, found in ((fit.model, off), (without, off_without)):
        said = model.appeal(0, data.pairs())
        for g in range(3):
            mine = data.group == g
            found += [said.skip[mine].mean() - skips[mine].mean()]
            found += [said.interactions[mine, 0].mean() - (data.interactions[mine, 0] == 1).mean()]
        assert np.array_equal(said.appeal, fit.model.appeal(0, data.pairs()).appeal)
    assert np.abs(off).max() < 0.005
    assert np.abs(off_without).max() > 0.02


def test_cells_are_shifted_to_their_means_and_empty_ones_are_left():
    """By hand: without a prior the shift of a cell is the logit of its mean less that of its prediction."""
    rows = 4000
    cell = np.repeat([0, 1], rows // 2)
    outcome = (np.arange(rows) % 4 == 0).astype(np.int8)
    outcome[-1] = -1
    weight = np.ones(rows)
    weight[1::2] = 0.0
    shift = cell_shifts(np.zeros(rows), outcome, weight, cell, 3)
    # Every second row counts: half of those are ones, so nothing is to be moved.
    assert shift[0] == pytest.approx(0.0, abs=1e-9)
    assert cell_shifts(np.zeros(rows), outcome, np.ones(rows), cell, 3)[:2] == pytest.approx(np.log(1 / 3), rel=0.02)
    assert shift[2] == 0.0


def test_expected_seconds_have_the_logged_mean(model, planted):
    data, _ = in_order(planted)
    fold = model.fold(data.user_id)
    kept = data.watch_s >= SETTINGS.skip_below_s
    for member in range(model.size):
        found = model.appeal(member, data.pairs())
        scales = model.scales(member)
        cap = np.array([s.cap_share for s in scales])[fold]
        level = scales[0].level(data.group, data.duration_s)
        assert cap.min() > 1
        share = expected_share(found.log_share, found.log_share_sd, cap)
        seconds = share * data.duration_s * level
        assert seconds[kept].mean() == pytest.approx(data.watch_s[kept].mean(), rel=0.03)
        skip_s = np.array([s.skip_s for s in scales])[fold]
        assert skip_s.mean() == pytest.approx(data.watch_s[~kept].mean(), rel=0.03)


def test_seconds_fit_the_log_of_every_group_and_length(planted):
    """Planted: of long videos a smaller share is watched, and by one group less; the features know of neither."""
    data, _ = in_order(planted)
    blunt = (data.duration_s / 20) ** -0.5 * np.where(data.group == 2, 0.7, 1.0)
    watch_s = np.where(data.watch_s < SETTINGS.skip_below_s, 1.0, 3 + blunt * data.watch_s)
    data = replace(data, watch_s=watch_s)
    fit = fit_response(data, replace(SETTINGS, ensemble=1, epochs=1))
    assert fit.model is not None
    found = fit.model.appeal(0, data.pairs())
    scales = fit.model.scales(0)
    cap = np.array([s.cap_share for s in scales])[fit.model.fold(data.user_id)]
    plain = expected_share(found.log_share, found.log_share_sd, cap) * data.duration_s
    seconds = plain * scales[0].level(data.group, data.duration_s)
    kept = data.watch_s >= SETTINGS.skip_below_s
    third = np.searchsorted(np.quantile(data.duration_s, [1 / 3, 2 / 3]), data.duration_s)
    cells = [kept & (data.group == g) & (third == t) for g in range(3) for t in range(3)]
    off = [seconds[cell].mean() / data.watch_s[cell].mean() - 1 for cell in cells]
    assert np.abs(off).max() < 0.08
    # One epoch is too few to learn it: without levels the seconds would be wrong.
    assert max(abs(plain[cell].mean() / data.watch_s[cell].mean() - 1) for cell in cells) > 0.15


def test_levels_are_linear_between_knots_of_the_groups_own():
    scale = WatchScale(2.0, 1.0, 10.0, knots=(0.0, 2.0), levels=((1.0, 2.0), (3.0, 3.0), (0.0, 1.0)))
    group, duration = np.array([0, 0, 0, 1, 2], dtype=np.int8), np.exp([0.0, 0.5, 9.0, 1.0, 1.0])
    assert scale.level(group, duration).tolist() == pytest.approx([1.0, 1.25, 2.0, 3.0, 0.5])
    assert WatchScale(2.0, 1.0, 10.0).level(group, duration).tolist() == [1.0] * 5
