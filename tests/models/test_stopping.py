import math
from dataclasses import replace

import numpy as np
import pytest

from components.errors import TrainingError
from components.models.curves import EpochLoss
from components.models.loading import Tally
from components.models.settings import Task
from components.models.stopping import EarlyStopping
from components.models.trainer import fit
from tests.models import planted

TASKS = (Task("completion", weight=2.0), Task("finish"), Task("like", weight=0.0), Task("share"))


def tally(labels):
    found = Tally.empty(1, labels.shape[1])
    # In two parts, as a window comes.
    for part in np.array_split(labels.astype(np.float32), 2):
        found.add(np.zeros(len(part), np.int8), part)
    return found


def losses(step, *values):
    return [
        EpochLoss(step / 10, step, task.name, None, None, 0, value, 10)
        for task, value in zip(TASKS, values, strict=True)
    ]


def test_the_best_constant_is_the_mean_label():
    nan = np.nan
    labels = np.array([[0.5, 1, 0, 0], [1.5, 0, 0, 0], [1.0, 0, nan, 0], [nan, 0, 1, 0]])
    found = tally(labels).constant_losses(TASKS)
    assert found[0] == pytest.approx(1 / 6)
    assert found[1] == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    assert found[2] == pytest.approx(-(math.log(1 / 3) / 3 + 2 * math.log(2 / 3) / 3))
    assert found[3] is None
    assert tally(np.full((3, 4), nan)).constant_losses(TASKS) == [None] * 4


def test_the_score_weighs_relative_losses_and_leaves_out_what_has_no_say():
    rule = EarlyStopping.over(1, TASKS, [0.5, 0.2, 0.1, None])
    assert rule.observe(10, losses(10, 0.4, 0.3, 99.0, 99.0))
    assert rule.scores == [(10, pytest.approx((2 * 0.8 + 1.5) / 3))]
    # A group's own loss has no say.
    other = [*losses(20, 0.4, 0.2, 0.1, 0.1), EpochLoss(2.0, 20, "finish", "new", None, 0, 50.0, 10)]
    assert rule.observe(20, other)
    assert rule.scores[1][1] == pytest.approx((2 * 0.8 + 1.0) / 3)


def test_it_ends_after_the_patience_and_remembers_the_best():
    rule = EarlyStopping.over(2, (Task("finish"),), [1.0])

    def see(step, value):
        return rule.observe(step, [EpochLoss(0.0, step, "finish", None, None, 0, value, 1)]), rule.ended

    assert [see(*one) for one in ((1, 0.9), (2, 0.95), (3, 0.8), (4, 0.8), (5, 0.81))] == [
        (True, False),
        (False, False),
        (True, False),
        (False, False),
        (False, True),
    ]
    assert rule.best_step == 3


def test_rows_that_say_nothing_are_refused():
    with pytest.raises(TrainingError, match="validation labels vary"):
        EarlyStopping.over(1, TASKS, [None, None, 0.3, None])


def test_patience_without_validation_rows_is_refused_before_anything_is_read():
    settings = replace(planted.TRAIN, patience=1)
    with pytest.raises(TrainingError, match="needs validation rows"):
        fit(planted.RECIPE, settings, planted.TASKS, planted.GROUPS, planted.SPEC, None)


def test_training_goes_back_to_the_weights_of_the_best_evaluation():
    """A window too small for the model: the validation loss falls, then rises."""
    settings = replace(planted.TRAIN, epochs=40, batch_size=100, patience=3, evaluations=2)
    seen = []
    arguments = (planted.TASKS, planted.GROUPS, planted.SPEC, planted.window(400), planted.window(400, seed=4))
    found = fit(planted.RECIPE, settings, *arguments, on_step=lambda step, steps, loss: seen.append((step, steps)))
    scores = dict(found.scores)
    assert found.step == min(scores, key=scores.get)
    assert seen[-1][0] == max(scores) < seen[-1][1] == 160
    assert len([step for step in scores if step > found.step]) == 3
    assert sorted(scores) == list(range(2, max(scores) + 1, 2))
    assert [one.epoch for one in found.history[:24:12]] == [0.5, 1.0]
    # The weights are those of that step, not the last ones.
    valid = next(one for one in found.history if one.step == found.step and one.task == "finish" and one.group is None)
    scored = found.predict(planted.window(400, seed=4))[:, 1].astype(np.float64)
    labels = planted.window(400, seed=4)["finish"].to_numpy()
    loss = -np.where(labels > 0, np.log(scored), np.log1p(-scored)).mean()
    assert valid.valid_loss == pytest.approx(loss, rel=1e-5)
