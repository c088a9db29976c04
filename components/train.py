"""Train step: one arm's model on the training window, written as a bundle.

Interrupted by SIGTERM or killed, a repeated step goes on from its last checkpoint. Started by ``torchrun``, the
processes share every batch and the first one writes.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from components.checkpoints import LakeCheckpoints
from components.compute import joined, use_threads
from components.config import ModelRecipe, TrainSettings
from components.context import Context, StepResult, inputs_of
from components.feature_list import service_name
from components.feed.source import features_of
from components.inputs import GROUPS, input_spec, user_group
from components.lake import Partition
from components.tracking import log_training

if TYPE_CHECKING:
    from components.models.fields import InputSpec
    from components.models.fitted import Fitted

log = logging.getLogger("mfh")

Role = Literal["treatment", "baseline"]
ROLES: tuple[Role, ...] = ("treatment", "baseline")


def recipe_of(context: Context, role: Role) -> tuple[str, ModelRecipe]:
    """Name and recipe of an arm's model."""
    name = context.pipeline.treatment if role == "treatment" else context.pipeline.baseline
    return name, context.pipeline.recipe(name)


@dataclass(frozen=True)
class Examples:
    """Examples of several days, one row group at a time, with the group of each impression's user.

    Attributes:
        context: Pipeline and settings.
        days: Days whose examples are in the lake.
        threshold: Activity threshold of the training window.
        columns: Columns to read beside those that the group needs.
    """

    context: Context
    days: tuple[date, ...]
    threshold: float
    columns: tuple[str, ...]

    def __iter__(self) -> Iterator[pa.Table]:
        """The tables, in order of days."""
        groups = self.context.pipeline.groups
        activity = f"user_impressions_{groups.activity_days}d"
        columns = list(dict.fromkeys([*self.columns, "tenure_days", activity]))
        for day in self.days:
            partition = self.context.data.get("examples", day)
            path = f"{partition.folder}/part-0.parquet"
            with pq.ParquetFile(path, filesystem=partition.lake.arrow_fs) as file:
                for number in range(file.num_row_groups):
                    table = file.read_row_group(number, columns=columns)
                    group = user_group(table["tenure_days"], table[activity], self.threshold, groups)
                    yield table.append_column("group", group)


def train(context: Context, day: date, role: Role) -> StepResult:
    """Train one arm on the window of ``day`` and write its bundle.

    With ``train.patience`` above 0 the window's last day is the validation set, so training stops early by the rule of
    ``components.models.stopping``; a window of one day has none to spare and trains all epochs, with a warning. With
    ``train.warm_start`` the weights begin as those of the same arm's bundle of the interval day before, which learned
    from days up to three before ``day``; whether it was there changes the result, so the bundle and its manifest name
    it, and a cold start is a warning.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its training set must be in the lake.
        role: Which arm.

    Returns:
        Hash of the bundle, parameters, rows, epochs' losses and warnings of the model card.

    Raises:
        MissingPartitionError: When the training set is not in the lake.
        TrainingError: When the loss is not finite or no label is there at all.
        TrainingInterruptedError: On SIGTERM; a checkpoint was written.
        CheckpointError: When the checkpoint of an interrupted run is of another training.
    """
    use_threads(context.pipeline)
    training_set = context.runs.get("training_set", day)
    with joined(context.pipeline) as team:
        if team.rank:
            context = replace(context, notify=lambda done, total, what: None)
        checkpoints = LakeCheckpoints(context.runs, f"model_{role}/ds={day}", training_set.content_hash)
        fitted, inputs = _fit(context, day, role, training_set, checkpoints)
        if team.rank == 0:
            _write(context, day, role, fitted, inputs)
            checkpoints.clear()
        team.wait()
        written = context.runs.get(f"model_{role}", day)
    facts: dict[str, Any] = {
        "model": fitted.extra["model"],
        "parameters": fitted.parameters,
        "rows": fitted.rows,
        "steps": fitted.step,
        "seconds": round(fitted.seconds or 0.0, 1),
        "warnings": list(fitted.warnings),
    }
    if context.settings.mlflow_uri and team.rank == 0:
        facts["mlflow"] = log_training(context, day, role, written)
    return StepResult(f"train_{role}", day, inputs_of(written), facts)


def _fit(
    context: Context, day: date, role: Role, training_set: Partition, checkpoints: LakeCheckpoints
) -> tuple["Fitted", dict[str, str]]:
    """The trained arm, with what is recorded beside it, and the hashes of what it was made from."""
    from components.models import trainer

    pipeline = context.pipeline
    name, recipe = recipe_of(context, role)
    record = training_set.json("training_set.json")
    spec = input_spec(features_of(pipeline.feed))
    days = tuple(date.fromisoformat(one) for one in record["train_days"])
    columns = tuple(dict.fromkeys([*spec.columns, *(task.name for task in pipeline.tasks)]))

    settings, warnings = pipeline.train, []
    held = days[-1:] if settings.patience and len(days) > 1 else ()
    if settings.patience and not held:
        settings = replace(settings, patience=0)
        warnings.append(f"the window has one day, {days[0]}: no validation day, so training did not stop early")
    threshold = record["activity_threshold"]
    window = Examples(context, days[: len(days) - len(held)], threshold, columns)
    valid = Examples(context, held, threshold, columns) if held else None

    inputs = inputs_of(training_set)
    start = None
    if settings.warm_start:
        found = _previous(context, day, role, recipe, settings, spec)
        if isinstance(found, str):
            warnings.append(f"cold start: {found}")
        else:
            start, hashes = found
            inputs |= hashes
            recipe = start.recipe
    if recipe.kind == "mtnas" and not recipe.search.route:
        from components.models.search import search

        recipe = search(recipe, settings, pipeline.tasks, GROUPS, spec, window)
    fitted = trainer.fit(
        recipe,
        settings,
        pipeline.tasks,
        GROUPS,
        spec,
        window,
        valid,
        start=start,
        checkpoints=checkpoints,
        on_step=lambda done, total, loss: context.notify(done, total, f"train {name}"),
    )
    extra = {
        "model": name,
        "role": role,
        "day": day.isoformat(),
        **record,
        "validation_days": [one.isoformat() for one in held],
        "feature_service": service_name(features_of(pipeline.feed)),
        "inputs": {**training_set.manifest.inputs, **inputs},
    }
    return replace(fitted, warnings=(*fitted.warnings, *warnings), extra=extra), inputs


def _previous(
    context: Context, day: date, role: Role, recipe: ModelRecipe, settings: TrainSettings, spec: "InputSpec"
) -> tuple["Fitted", dict[str, str]] | str:
    """The bundle of the interval day before with its hash, or why there is none to start from."""
    from components.models import bundle
    from components.models.warm import difference

    before = day - timedelta(days=1)
    partition = context.runs.find(f"model_{role}", before)
    if partition is None:
        return f"the lake has no model_{role} of {before}"
    start = bundle.load(bundle_files(partition))
    if max(start.extra["train_days"]) > (day - timedelta(days=2)).isoformat():
        return f"model_{role} of {before} has learned from days that {day} must not know"
    if found := difference(start, recipe, settings, context.pipeline.tasks, GROUPS, spec):
        return f"model_{role} of {before} is of other {found}"
    return start, inputs_of(partition)


def _write(context: Context, day: date, role: Role, fitted: "Fitted", inputs: dict[str, str]) -> None:
    from components.models import bundle

    with context.runs.write(f"model_{role}", day, context.pipeline.config_hash, inputs) as writer:
        for file, data in bundle.save(fitted, fitted.extra).items():
            writer.bytes(file, data)
        writer.run["seconds"] = fitted.seconds


def bundle_files(partition: Partition) -> dict[str, bytes]:
    """Files of a bundle's partition, by name."""
    return {entry.name: partition.bytes(entry.name) for entry in partition.manifest.files}
