"""Diagnose step: what happens inside the day's treatment, as data for the report.

It costs three trainings, so it runs only where the pipeline asks for it. It chooses nothing and leaves no model: the
held-out day's labels serve to draw curves and to measure.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from components.compute import use_threads
from components.config import ModelKind, ModelRecipe, TrainSettings
from components.context import Context, StepResult, inputs_of
from components.dataset import read_examples
from components.train import Examples, bundle_files
from simulator.report.diagnostics import CurvePoint, DiagnosedTask, Diagnostics, Gain, GateWeight, Overfitting

if TYPE_CHECKING:
    from components.models.fitted import Fitted

# With fewer passes over the window no curve has begun to rise.
LEAST_EPOCHS = 5


def diagnose(context: Context, day: date) -> StepResult:
    """Compare the day's treatment with single-task models and with flat, and look at its gates.

    - Gates: the treatment's bundle on the held-out day.
    - Gains: the bundle against single-task models trained as it was: the same days, settings and seed.
    - Curves: the bundle's recipe and flat, both trained anew on the whole window with the held-out day beside it, for
      at least ``LEAST_EPOCHS`` passes and never stopped early, since overfitting is what they are to show.

    A model called ``single`` or ``flat`` in the pipeline file has its sizes from there, else the treatment's.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its treatment must be in the lake.

    Returns:
        Hash of the record and what it holds.

    Raises:
        MissingPartitionError: When the treatment or the training set is not in the lake.
        TrainingError: When a loss is not finite.
    """
    from components.models import bundle
    from components.models.gates import gate_weights

    began = time.monotonic()
    use_threads(context.pipeline)
    training_set = context.runs.get("training_set", day)
    partition = context.runs.get("model_treatment", day)
    treatment = bundle.load(bundle_files(partition))
    held = date.fromisoformat(treatment.extra["holdout_day"])
    columns = [*_columns(treatment), "user_id"]
    table = read_examples(context, [held], treatment.extra["activity_threshold"], columns)
    settings = replace(treatment.train, patience=0, epochs=max(treatment.train.epochs, LEAST_EPOCHS))
    curves, overfitting = _against_flat(context, treatment, settings, held)
    record = Diagnostics(
        day=day.isoformat(),
        holdout_day=held.isoformat(),
        train_days=tuple(treatment.extra["train_days"]),
        treatment=treatment.extra["model"],
        kind=treatment.recipe.kind,
        bundle=partition.content_hash,
        bundle_epochs=treatment.step / -(-treatment.rows // treatment.train.batch_size),
        epochs=settings.epochs,
        tasks=tuple(DiagnosedTask(name=task.name, loss=task.loss) for task in treatment.tasks),
        notes=tuple(_notes(treatment)),
        gains=_against_single(context, treatment, table),
        curves=curves,
        overfitting=overfitting,
        gates=tuple(GateWeight(**_record(one)) for one in gate_weights(treatment, table)),
    )
    inputs = inputs_of(training_set, partition)
    with context.runs.write("diagnostics", day, context.pipeline.config_hash, inputs) as writer:
        writer.json("diagnostics.json", record.model_dump(mode="json"))
        writer.run["seconds"] = time.monotonic() - began
    found = context.runs.get("diagnostics", day)
    counts = {name: len(getattr(record, name)) for name in ("gains", "curves", "overfitting", "gates")}
    return StepResult("diagnose", day, inputs_of(found), {"rows": table.num_rows, "epochs": record.epochs, **counts})


def _against_single(context: Context, treatment: "Fitted", table: pa.Table) -> tuple[Gain, ...]:
    """The bundle's gains over single-task models that trained and stopped on the same days as it."""
    from components.models import trainer
    from components.models.diagnostics import multi_task_gains

    if treatment.recipe.kind == "single":
        return ()
    days = [date.fromisoformat(one) for one in treatment.extra["train_days"]]
    stopped = tuple(date.fromisoformat(one) for one in treatment.extra["validation_days"])
    single = trainer.fit(
        _recipe(context, treatment, "single"),
        treatment.train,
        treatment.tasks,
        treatment.group_names,
        treatment.spec,
        _examples(context, treatment, tuple(one for one in days if one not in stopped)),
        _examples(context, treatment, stopped) if stopped else None,
        on_step=lambda done, total, loss: context.notify(done, total, "diagnose: single"),
    )
    labels = [table[task.name].to_numpy(zero_copy_only=False).astype(np.float64) for task in treatment.tasks]
    gains = multi_task_gains(
        treatment.tasks,
        treatment.group_names,
        np.stack(labels, axis=1),
        table["group"].to_numpy(),
        table["user_id"].to_numpy(),
        model=treatment.predict(table),
        single=single.predict(table),
    )
    return tuple(Gain(**_record(one)) for one in gains)


def _against_flat(
    context: Context, treatment: "Fitted", settings: TrainSettings, held: date
) -> tuple[tuple[CurvePoint, ...], tuple[Overfitting, ...]]:
    """Curves of two trainings on the whole window with the held-out day beside it, and what comes of comparing them."""
    from components.models import trainer
    from components.models.diagnostics import local_overfitting

    if treatment.recipe.kind == "flat":
        return (), ()
    days = tuple(date.fromisoformat(one) for one in treatment.extra["train_days"])
    model, flat = (
        trainer.fit(
            recipe,
            settings,
            treatment.tasks,
            treatment.group_names,
            treatment.spec,
            _examples(context, treatment, days),
            _examples(context, treatment, (held,)),
            on_step=lambda done, total, loss: context.notify(done, total, "diagnose: curves"),
        ).history
        for recipe in (treatment.recipe, _recipe(context, treatment, "flat"))
    )
    points = [("treatment", one) for one in model] + [("flat", one) for one in flat]
    curves = tuple(CurvePoint.model_validate({"model": name, **_record(one)}) for name, one in points)
    return curves, tuple(Overfitting(**_record(one)) for one in local_overfitting(model, flat))


def _columns(treatment: "Fitted") -> tuple[str, ...]:
    """What a training of any of the models reads."""
    return tuple(dict.fromkeys([*treatment.spec.columns, *(task.name for task in treatment.tasks)]))


def _recipe(context: Context, treatment: "Fitted", kind: ModelKind) -> ModelRecipe:
    return context.pipeline.models.get(kind) or replace(treatment.recipe, kind=kind)


def _examples(context: Context, treatment: "Fitted", days: tuple[date, ...]) -> Examples:
    return Examples(context, days, treatment.extra["activity_threshold"], _columns(treatment))


def _notes(treatment: "Fitted") -> Iterator[str]:
    """What a reader has to know beside the numbers."""
    if treatment.recipe.kind == "single":
        yield "The treatment shares nothing between tasks, so that there is no gain to measure."
    if treatment.recipe.kind == "flat":
        yield "The treatment is flat itself, so that there are no curves to compare it with."
    if any(name.startswith("model_treatment/") for name in treatment.extra["inputs"]):
        yield (
            "The treatment began from the weights of the day before, the single-task models from fresh ones: a part of "
            "the gain may be the longer training."
        )


def _record(one: Any) -> dict[str, Any]:
    """A record of ``components.models`` as the report's: rows of every group are the segment ``all``."""
    found = asdict(one)
    return found | {"group": found["group"] or "all"}
