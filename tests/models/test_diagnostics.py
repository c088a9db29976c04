"""Gains and local overfitting: hand-made predictions and curves with known answers."""

import math
from dataclasses import replace

import numpy as np
import pytest

from components.models.curves import EpochLoss
from components.models.diagnostics import Gain, Overfitting, local_overfitting, multi_task_gains
from components.models.settings import Task
from components.models.trainer import fit
from tests.models import planted

GROUPS = ("new", "low")
TASKS = (Task("completion"), Task("like"))


def history(points: list[tuple[float | None, float | None]], group: str | None = "new") -> list[EpochLoss]:
    """One cell's curve: pairs of training and test loss, one per epoch."""
    return [
        EpochLoss(float(at), 10 * at, "like", group, train, 7, test, 3)
        for at, (train, test) in enumerate(points, start=1)
    ]


def compared(model: list[EpochLoss], flat: list[EpochLoss]) -> dict[str, Overfitting]:
    return {one.at: one for one in local_overfitting(model, flat)}


def test_the_ratio_is_that_of_relative_improvements_at_each_models_own_best_and_last() -> None:
    # Flat is best at epoch 2 and rises to 0.55; the model is best at 3, its last.
    flat = history([(0.80, 0.60), (0.50, 0.50), (0.40, 0.55)])
    model = history([(0.70, 0.58), (0.50, 0.50), (0.36, 0.44)])
    found = compared(model, flat)
    last, best = found["last"], found["best"]
    assert (last.model_epoch, last.flat_epoch) == (3.0, 3.0)
    assert last.train_improvement == pytest.approx(0.1)
    assert last.test_improvement == pytest.approx(0.2)
    assert last.ratio == pytest.approx(2.0)
    assert (best.model_epoch, best.flat_epoch) == (3.0, 2.0)
    assert best.train_improvement == pytest.approx((0.50 - 0.36) / 0.50)
    assert best.test_improvement == pytest.approx((0.50 - 0.44) / 0.50)
    assert best.ratio == pytest.approx(0.12 / 0.28)
    assert (best.model_rise, best.flat_rise) == (0.0, 0.0)
    assert last.model_rise == 0.0
    assert last.flat_rise == pytest.approx(0.1)
    assert (last.reason, best.reason) == (None, None)


def test_the_published_ratio_comes_back() -> None:
    # A hundredth better on the rows that trained, 2.5 hundredths better on those that did not.
    found = compared(history([(0.99, 0.975)]), history([(1.0, 1.0)]))
    assert found["last"].ratio == pytest.approx(2.5)


def test_a_gain_on_training_rows_that_is_a_loss_on_the_others_has_a_negative_ratio() -> None:
    assert compared(history([(0.9, 1.1)]), history([(1.0, 1.0)]))["last"].ratio == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("model", "flat", "reason"),
    [
        ((1.00002, 0.9), (1.0, 1.0), "differ by less than 0.01 %"),
        ((1.05, 0.9), (1.0, 1.0), "training loss is 5.00 % above flat's"),
        ((0.0, 0.9), (0.0, 1.0), "flat's loss is 0"),
        ((None, 0.9), (1.0, 1.0), "the model has no evaluation in which like has labels"),
        ((0.9, 0.9), (1.0, None), "flat has no evaluation in which like has labels"),
    ],
)
def test_where_there_is_no_ratio_the_reason_stands(
    model: tuple[float | None, float | None], flat: tuple[float | None, float | None], reason: str
) -> None:
    for one in compared(history([model]), history([flat])).values():
        assert one.ratio is None
        assert one.reason is not None
        assert reason in one.reason


def test_evaluations_without_a_label_are_passed_over() -> None:
    found = compared(history([(0.9, 0.8), (0.5, None)]), history([(1.0, 1.0), (None, 0.1)]))
    assert (found["last"].model_epoch, found["last"].flat_epoch) == (1.0, 1.0)
    assert found["last"].ratio == pytest.approx(2.0)


def test_every_cell_of_the_history_is_compared_with_its_own() -> None:
    model = [*history([(0.9, 0.8)], None), *history([(0.9, 0.9)], "low")]
    flat = [*history([(1.0, 1.0)], "low"), *history([(1.0, 1.0)], None)]
    found = local_overfitting(model, flat)
    assert [(one.group, one.at) for one in found] == [(None, "best"), (None, "last"), ("low", "best"), ("low", "last")]
    assert [one.ratio for one in found] == pytest.approx([2.0, 2.0, 1.0, 1.0])


def test_curves_of_real_trainings_fit(one_thread: None) -> None:
    train = replace(planted.TRAIN, epochs=2)
    window, valid = planted.window(400), planted.window(200, seed=1)
    found = [
        fit(
            replace(planted.RECIPE, kind=kind), train, planted.TASKS, planted.GROUPS, planted.SPEC, window, valid
        ).history
        for kind in ("mfh", "flat")
    ]
    cells = local_overfitting(*found)
    assert len(cells) == 2 * len(planted.TASKS) * (1 + len(planted.GROUPS))
    assert all((one.ratio is None) == (one.reason is not None) for one in cells)
    assert all(one.model_epoch == one.flat_epoch == 2.0 for one in cells if one.at == "last")
    same = local_overfitting(found[0], found[0])
    assert all("differ by less" in (one.reason or "") for one in same)


def gains(single: list[list[float]], model: list[list[float]], labels: list[list[float]]) -> list[Gain]:
    group = np.array([0, 0, 0, 0, 1, 1], np.int8)
    users = np.array([1, 1, 2, 2, 3, 3])
    arrays = (np.array(one, np.float32) for one in (labels, single, model))
    y, theirs, mine = arrays
    return list(multi_task_gains(TASKS, GROUPS, y, group, users, model=mine, single=theirs))


LABELS = [[1.0, 1], [1.0, 0], [1.0, 1], [1.0, 0], [2.0, 0], [math.nan, 0]]
# Off by a half everywhere, and a like score that puts one of the two positives of group 0 below a negative.
SINGLE = [[1.5, 0.9], [1.5, 0.5], [1.5, 0.2], [1.5, 0.3], [1.5, 0.1], [1.5, 0.1]]
MODEL = [[1.25, 0.9], [1.25, 0.2], [1.25, 0.8], [1.25, 0.1], [1.0, 0.1], [1.0, 0.1]]


def test_gains_are_positive_where_the_model_is_better() -> None:
    found = {(one.task, one.group, one.metric): one for one in gains(SINGLE, MODEL, LABELS)}
    assert list(found) == [
        (task, group, metric)
        for task, metric in (("completion", "mse"), ("like", "auc"), ("like", "gauc"))
        for group in (None, *GROUPS)
    ]
    ratio = found["completion", "new", "mse"]
    assert (ratio.single, ratio.model, ratio.gain) == pytest.approx((0.25, 0.0625, 0.1875))
    assert ratio.relative == pytest.approx(0.75)
    assert (ratio.rows, ratio.reason) == (4, None)
    worse = found["completion", "low", "mse"]
    assert (worse.single, worse.model, worse.gain, worse.relative) == pytest.approx((0.25, 1.0, -0.75, -3.0))
    assert worse.rows == 1, "a missing label counts for nothing"
    # Of the four pairs of group 0, single-task ranks two right: 0.9 above 0.5 and 0.3, 0.2 below both.
    like = found["like", "new", "auc"]
    assert (like.single, like.model, like.gain, like.relative) == pytest.approx((0.5, 1.0, 0.5, 1.0))
    assert (like.rows, like.positives) == (4, 2)
    # Within users: user 1 is right in both models, user 2 in the model alone.
    assert (found["like", "new", "gauc"].single, found["like", "new", "gauc"].model) == pytest.approx((0.5, 1.0))
    everyone = found["like", None, "auc"]
    assert (everyone.single, everyone.model) == pytest.approx((6 / 8, 1.0))


def test_a_metric_that_does_not_exist_says_why() -> None:
    found = {(one.task, one.group, one.metric): one for one in gains(SINGLE, MODEL, LABELS)}
    none = found["like", "low", "auc"]
    assert (none.single, none.model, none.gain, none.relative) == (None, None, None, None)
    assert none.reason == "one class is missing: 0 positives of 2 rows"
    assert found["like", "low", "gauc"].reason == "one class is missing within any user: 0 positives of 2 rows"


def test_nothing_is_relative_to_a_perfect_single_task_model() -> None:
    perfect = [[0.0 if math.isnan(y) else y, 0.5] for y, _ in LABELS]
    one = gains(perfect, MODEL, LABELS)[1]
    assert (one.single, one.gain, one.relative) == (0.0, pytest.approx(-0.0625), None)
    assert one.reason == "the single-task value is 0: nothing can be relative to it"
