"""What is known of the inside of a day's models: ``diagnostics.json``, which a report shows where there is one."""

from typing import Literal

from simulator.result import Result, Segment

SCHEMA_VERSION = 1


class DiagnosedTask(Result):
    """One task of the models: squared error for ratios, cross-entropy for everything else."""

    name: str
    loss: Literal["mse", "bce"]


class Gain(Result):
    """What the treatment gains over single-task models on one offline metric; a positive gain is better.

    ``gain`` is treatment minus single-task, for squared error single-task minus treatment; ``relative`` is the gain
    over the single-task value. ``reason`` says why one of them is None.
    """

    task: str
    group: Segment
    metric: Literal["auc", "gauc", "mse"]
    single: float | None
    model: float | None
    gain: float | None
    relative: float | None
    rows: int
    positives: int
    reason: str | None = None


class CurvePoint(Result):
    """Losses of one task and group at one evaluation of a training: on rows that trained and on the held-out day."""

    model: Literal["treatment", "flat"]
    epoch: float
    step: int
    task: str
    group: Segment
    train_loss: float | None
    train_entries: int
    valid_loss: float | None
    valid_entries: int


class Overfitting(Result):
    """The treatment against the flat model on one task and group, at each one's evaluation ``at``.

    ``best`` is the evaluation of a model's lowest loss on the held-out day in this cell, ``last`` its last. An
    improvement is ``(flat - model) / flat``; ``ratio`` is that on the held-out day over that on the rows that trained,
    or None with a ``reason``. A rise is by which share a loss on the held-out day lies above the model's own lowest.
    """

    task: str
    group: Segment
    at: Literal["best", "last"]
    model_epoch: float | None
    flat_epoch: float | None
    model_train: float | None
    model_test: float | None
    flat_train: float | None
    flat_test: float | None
    model_rise: float | None
    flat_rise: float | None
    train_improvement: float | None
    test_improvement: float | None
    ratio: float | None
    reason: str | None = None


class GateWeight(Result):
    """Mean weight that one branch's gate of the treatment gives one expert, over the held-out rows of one user group.

    ``block`` is the switcher's name in the model's graph, ``level`` its level and ``layer`` the layer of gates inside
    it. ``task`` is None where the gate serves every task.
    """

    block: str
    tree: int | None
    level: int
    layer: int
    branch: str
    task: str | None
    group: Segment
    expert: str
    kind: Literal["softmax", "sigmoid"]
    weight: float
    rows: int


class Diagnostics(Result):
    """The inside of a day's treatment.

    ``bundle`` is the content hash of the day's treatment, whose gates and whose gains these are. Curves are of two
    trainings of ``epochs`` passes made for the purpose; ``bundle_epochs`` is how many passes the bundle has made.
    """

    schema_version: int = SCHEMA_VERSION
    day: str
    holdout_day: str
    train_days: tuple[str, ...]
    treatment: str
    kind: str
    bundle: str
    bundle_epochs: float
    epochs: int
    tasks: tuple[DiagnosedTask, ...]
    notes: tuple[str, ...] = ()
    gains: tuple[Gain, ...]
    curves: tuple[CurvePoint, ...]
    overfitting: tuple[Overfitting, ...]
    gates: tuple[GateWeight, ...]
