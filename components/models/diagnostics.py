"""What sharing gains, and where a small group overfits: records made of predictions and of curves.

Nothing here trains a model or chooses one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from components.models import metrics
from components.models.curves import EpochLoss
from components.models.settings import Task

GainMetric = Literal["auc", "gauc", "mse"]
Moment = Literal["best", "last"]

# Below this relative improvement of the training loss a ratio to it is noise.
SMALLEST_IMPROVEMENT = 1e-4


@dataclass(frozen=True)
class Gain:
    """What a model gains over single-task models on one metric of one task; positive is better.

    Attributes:
        task: Name of the task.
        group: Name of the group, None for all rows.
        metric: AUC and GAUC for behaviours, squared error for ratios.
        single: The single-task model's value, None when it does not exist.
        model: The model's value, None when it does not exist.
        gain: ``model - single``; for squared error ``single - model``.
        relative: ``gain / single``.
        rows: Rows with a label.
        positives: Rows whose label is above 0.
        reason: Why the gain or the relative gain does not exist, None when both do.
    """

    task: str
    group: str | None
    metric: GainMetric
    single: float | None
    model: float | None
    gain: float | None
    relative: float | None
    rows: int
    positives: int
    reason: str | None


@dataclass(frozen=True)
class Overfitting:
    """A model against flat on one task of one group, on the rows that trained and on those held out.

    Attributes:
        task: Name of the task.
        group: Name of the group, None for all rows.
        at: ``best``: both at their own evaluation of lowest test loss in this cell; ``last``: both at their last.
        model_epoch: Passes over the window at the model's evaluation.
        flat_epoch: The same of flat.
        model_train: The model's training loss there.
        model_test: Its test loss there.
        flat_train: Flat's training loss.
        flat_test: Flat's test loss.
        model_rise: By which share the model's test loss lies above its own lowest; 0 at ``best``.
        flat_rise: The same of flat.
        train_improvement: ``(flat_train - model_train) / flat_train``.
        test_improvement: ``(flat_test - model_test) / flat_test``.
        ratio: ``test_improvement / train_improvement``.
        reason: Why the ratio does not exist, None when it does.
    """

    task: str
    group: str | None
    at: Moment
    model_epoch: float | None = None
    flat_epoch: float | None = None
    model_train: float | None = None
    model_test: float | None = None
    flat_train: float | None = None
    flat_test: float | None = None
    model_rise: float | None = None
    flat_rise: float | None = None
    train_improvement: float | None = None
    test_improvement: float | None = None
    ratio: float | None = None
    reason: str | None = None


def multi_task_gains(
    tasks: Sequence[Task],
    group_names: Sequence[str],
    labels: NDArray[np.floating],
    group: NDArray[np.integer],
    users: NDArray[np.integer],
    *,
    model: NDArray[np.floating],
    single: NDArray[np.floating],
) -> tuple[Gain, ...]:
    """What a model gains over single-task models, per task and group.

    One training of each gives no interval: the difference holds the chance of two seeds as well.

    Args:
        tasks: m tasks.
        group_names: k groups.
        labels: [N, m], NaN = missing.
        group: Integer [N], 0 to k - 1.
        users: Integer [N], whose impressions GAUC compares.
        model: [N, m], predictions of the model.
        single: [N, m], predictions of the single-task models.

    Returns:
        Per task: per metric over all rows and then per group.
    """
    found = []
    for at, task in enumerate(tasks):
        names: tuple[GainMetric, ...] = ("mse",) if task.loss == "mse" else ("auc", "gauc")
        for metric in names:
            for name in (None, *group_names):
                inside = np.full(len(group), True) if name is None else group == group_names.index(name)
                y, who = labels[inside, at], users[inside]
                theirs, mine = (_measure(metric, y, scores[inside, at], who) for scores in (single, model))
                found.append(_gain(task.name, name, metric, theirs, mine))
    return tuple(found)


def _measure(
    metric: GainMetric, labels: NDArray[np.floating], scores: NDArray[np.floating], users: NDArray[np.integer]
) -> metrics.Metric:
    if metric == "gauc":
        return metrics.gauc(labels, scores, users)
    return metrics.auc(labels, scores) if metric == "auc" else metrics.mse(labels, scores)


def _gain(task: str, group: str | None, metric: GainMetric, single: metrics.Metric, model: metrics.Metric) -> Gain:
    rows, positives = single.rows, single.positives
    if single.value is None or model.value is None:
        reason = single.reason or model.reason
        return Gain(task, group, metric, single.value, model.value, None, None, rows, positives, reason)
    gain = single.value - model.value if metric == "mse" else model.value - single.value
    relative = gain / single.value if single.value else None
    reason = "the single-task value is 0: nothing can be relative to it" if relative is None else None
    return Gain(task, group, metric, single.value, model.value, gain, relative, rows, positives, reason)


def local_overfitting(model: Sequence[EpochLoss], flat: Sequence[EpochLoss]) -> tuple[Overfitting, ...]:
    """Compare a model's curves with flat's in every cell of task and group.

    On a small group a joint model's training loss keeps falling while that group's test loss stalls or rises. A ratio
    above 1 says that the model's advantage over flat is larger on rows held out than on rows that trained: it overfits
    the group less (Liu et al., CIKM 2022, report about 2.5 for sharing by new users).

    Training losses are means over the steps since the evaluation before, test losses those of the weights at the
    evaluation; both models are measured alike, so the difference of the two kinds cancels in neither improvement.

    Args:
        model: ``Fitted.history`` of the model, trained with validation rows.
        flat: ``Fitted.history`` of the flat model, trained on the same rows by the same settings.

    Returns:
        Two records, ``best`` and ``last``, per task and group of the model's history, in its order.
    """
    cells = dict.fromkeys((one.task, one.group) for one in model)
    moments: tuple[Moment, ...] = ("best", "last")
    return tuple(
        _compared(task, group, at, _points(model, task, group), _points(flat, task, group))
        for task, group in cells
        for at in moments
    )


@dataclass(frozen=True)
class _Point:
    epoch: float
    train: float
    test: float


def _points(history: Sequence[EpochLoss], task: str, group: str | None) -> list[_Point]:
    """Evaluations of a cell that have both losses."""
    return [
        _Point(one.epoch, one.train_loss, one.valid_loss)
        for one in history
        if (one.task, one.group) == (task, group) and one.train_loss is not None and one.valid_loss is not None
    ]


def _compared(task: str, group: str | None, at: Moment, model: list[_Point], flat: list[_Point]) -> Overfitting:
    if not model or not flat:
        what = "flat" if model else "the model"
        missing = f"{what} has no evaluation in which {task} has labels both to train and to test on"
        return Overfitting(task, group, at, reason=missing)
    lows = [min(points, key=lambda point: point.test) for points in (model, flat)]
    mine, theirs = lows if at == "best" else (model[-1], flat[-1])
    train, test = _share(theirs.train - mine.train, theirs.train), _share(theirs.test - mine.test, theirs.test)
    ratio, reason = _ratio(train, test)
    return Overfitting(
        task,
        group,
        at,
        model_epoch=mine.epoch,
        flat_epoch=theirs.epoch,
        model_train=mine.train,
        model_test=mine.test,
        flat_train=theirs.train,
        flat_test=theirs.test,
        model_rise=_share(mine.test - lows[0].test, lows[0].test),
        flat_rise=_share(theirs.test - lows[1].test, lows[1].test),
        train_improvement=train,
        test_improvement=test,
        ratio=ratio,
        reason=reason,
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _ratio(train: float | None, test: float | None) -> tuple[float | None, str | None]:
    """Improvement on test over that on train, or why there is none."""
    if train is None or test is None:
        return None, "flat's loss is 0: nothing can be relative to it"
    if abs(train) < SMALLEST_IMPROVEMENT:
        return None, f"the training losses differ by less than {100 * SMALLEST_IMPROVEMENT:g} %"
    if train < 0:
        return (
            None,
            f"the model's training loss is {-100 * train:.2f} % above flat's",
        )
    return test / train, None
