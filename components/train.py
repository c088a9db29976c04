"""Train step: one arm's model on the training window, written as a bundle."""

from datetime import date
from typing import Literal

from components.compute import use_threads
from components.config import ModelRecipe
from components.context import Context, StepResult, inputs_of
from components.dataset import read_examples
from components.feed.source import open_source
from components.inputs import GROUPS, input_spec
from components.lake import Partition

Role = Literal["treatment", "baseline"]
ROLES: tuple[Role, ...] = ("treatment", "baseline")


def recipe_of(context: Context, role: Role) -> tuple[str, ModelRecipe]:
    """Name and recipe of an arm's model."""
    name = context.pipeline.treatment if role == "treatment" else context.pipeline.baseline
    return name, context.pipeline.models[name]


def train(context: Context, day: date, role: Role) -> StepResult:
    """Train one arm on the window of ``day`` and write its bundle.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its training set must be in the lake.
        role: Which arm.

    Returns:
        Hash of the bundle, parameters, rows, epochs' losses and warnings of the model card.

    Raises:
        MissingPartitionError: When the training set is not in the lake.
        TrainingError: When the loss is not finite or no label is there at all.
    """
    from components.models import bundle, trainer

    pipeline = context.pipeline
    use_threads(context.pipeline)
    name, recipe = recipe_of(context, role)
    training_set = context.runs.get("training_set", day)
    record = training_set.json("training_set.json")
    spec = input_spec(open_source(pipeline.feed).user_attributes)
    labels = [task.name for task in pipeline.tasks]
    days = [date.fromisoformat(one) for one in record["train_days"]]
    columns = list(dict.fromkeys([*spec.columns, *labels]))
    table = read_examples(context, days, record["activity_threshold"], columns)
    fitted = trainer.fit(
        recipe,
        pipeline.train,
        pipeline.tasks,
        GROUPS,
        spec,
        table,
        valid=None,
        on_step=lambda done, total, loss: context.notify(done, total, f"train {name}"),
    )
    extra = {"model": name, "role": role, "day": day.isoformat(), **record}
    with context.runs.write(f"model_{role}", day, pipeline.config_hash, inputs_of(training_set)) as writer:
        for file, data in bundle.save(fitted, extra).items():
            writer.bytes(file, data)
        writer.run["seconds"] = fitted.seconds
    facts = {
        "model": name,
        "parameters": fitted.parameters,
        "rows": table.num_rows,
        "seconds": round(fitted.seconds or 0.0, 1),
        "warnings": list(fitted.warnings),
    }
    return StepResult(f"train_{role}", day, inputs_of(context.runs.get(f"model_{role}", day)), facts)


def bundle_files(partition: Partition) -> dict[str, bytes]:
    """Files of a bundle's partition, by name."""
    return {entry.name: partition.bytes(entry.name) for entry in partition.manifest.files}
