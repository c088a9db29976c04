"""Evaluate step: both arms on every impression of the held-out day, per task and user group."""

from dataclasses import asdict
from datetime import date

import numpy as np
import pyarrow as pa

from components.compute import use_threads
from components.context import Context, StepResult, inputs_of
from components.dataset import read_examples
from components.inputs import GROUPS
from components.partials import MAX_COMPLETION
from components.train import ROLES, bundle_files
from components.validation.model_profile import Profile, profiles_of
from simulator.experiment import Quality


def evaluate(context: Context, day: date) -> StepResult:
    """Measure both bundles on the held-out day.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; both bundles must be in the lake.

    Returns:
        Hash of the measurements and the headline figures.

    Raises:
        MissingPartitionError: When a bundle or the training set is not in the lake.
    """
    from components.models import bundle

    use_threads(context.pipeline)
    training_set = context.runs.get("training_set", day)
    record = training_set.json("training_set.json")
    held = date.fromisoformat(record["holdout_day"])
    table = read_examples(context, [held], record["activity_threshold"])
    models = {role: context.runs.get(f"model_{role}", day) for role in ROLES}
    rows: list[Quality] = []
    profiles: list[Profile] = []
    for done, (role, partition) in enumerate(models.items()):
        context.notify(done, len(models), f"evaluate {role}")
        predicted = bundle.load(bundle_files(partition)).predict(table)
        for index, task in enumerate(context.pipeline.tasks):
            rows += quality_of(role, task.name, task.loss, table, predicted[:, index])
            profiles += _profiles(role, task.name, task.loss, table, predicted[:, index])
    context.notify(len(models), len(models), "evaluated")
    with context.runs.write(
        "evaluation", day, context.pipeline.config_hash, inputs_of(training_set, *models.values())
    ) as writer:
        writer.json("quality.json", [one.model_dump() for one in rows])
        writer.json("profiles.json", [one.record() for one in profiles])
    headline = {
        f"{one.arm}_{one.task}_{one.metric}": round(one.value, 4)
        for one in rows
        if one.group == "all" and one.metric in ("gauc", "mse") and one.value is not None
    }
    return StepResult("evaluate", day, inputs_of(context.runs.get("evaluation", day)), headline)


def _profiles(role: str, task: str, loss: str, table: pa.Table, predicted: np.ndarray) -> list[Profile]:
    """What the models' gate reads of the predictions."""
    label = table[task].to_numpy(zero_copy_only=False).astype(np.float64)
    top = MAX_COMPLETION if loss == "mse" else 1.0
    return profiles_of(role, task, top, label, predicted, table["group"].to_numpy(), table["user_id"].to_numpy())


def quality_of(role: str, task: str, loss: str, table: pa.Table, predicted: np.ndarray) -> list[Quality]:
    """Offline metrics of one task, over all users and per group.

    Args:
        role: What to call the arm.
        task: The task's name, a column of ``table``.
        loss: ``mse`` or ``bce``, which decides what is measured.
        table: N examples with label, ``user_id`` and ``group``.
        predicted: float [N].

    Returns:
        One row per group and metric.
    """
    from components.models import metrics

    label = table[task].to_numpy(zero_copy_only=False).astype(np.float64)
    user = table["user_id"].to_numpy()
    group = table["group"].to_numpy()
    rows = []
    for name in ("all", *GROUPS):
        inside = ~np.isnan(label) & (True if name == "all" else group == GROUPS.index(name))
        y, p, u = label[inside], predicted[inside].astype(np.float64), user[inside]
        measured = (
            {"mse": metrics.mse(y, p)}
            if loss == "mse"
            else {"auc": metrics.auc(y, p), "gauc": metrics.gauc(y, p, u), "logloss": metrics.logloss(y, p)}
        )
        for metric, result in measured.items():
            rows.append(Quality(arm=role, task=task, group=name, metric=metric, **asdict(result)))
    return rows
