"""The diagnose step on a hand-written lake, and which reports show what it found."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components import steps
from components.config import TrainSettings
from components.context import Context
from components.diagnose import LEAST_EPOCHS, diagnose
from components.errors import MissingPartitionError
from components.inputs import crosses
from components.lake import Partition
from components.models import bundle
from components.report import DAY_PAGE, find_diagnostics, find_report, report
from components.steps import BY_NAME, run_day
from components.train import bundle_files, train
from simulator.experiment import Experiment
from simulator.report.diagnostics import Diagnostics
from tests.simulator.experiment_example import example
from tests.small_lake import context_at, day_at, feature_columns, write

DAY = day_at(4)
TRAINED, HELD = (day_at(1), day_at(2)), day_at(3)
TASKS = ("completion", "finish", "like")
SECTION = "Inside the models"

SIZES: dict[str, Any] = {
    "level0_width": 8,
    "level1": {"widths": [8, 8], "experts": 1, "shared": 1},
    "deeper": {"kind": "cgc", "widths": [8], "experts": 1, "shared": 1},
    "tower_widths": [8],
    "small_tower_widths": [4],
}
PIPELINE: dict[str, Any] = {
    "tasks": [{"name": name} for name in TASKS],
    "sizes": SIZES,
    "train": {"window_days": 2, "epochs": 2, "batch_size": 128, "device": "cpu", "min_id_count": 1},
    "simulator": {"fusion": {"like": 1.0}},
}


def examples(rng: np.random.Generator, rows: int) -> pa.Table:
    """Impressions whose labels follow one numeric input, of users of all three groups."""
    user = rng.integers(0, 12, rows)
    signal = rng.normal(size=rows)
    chance = 1 / (1 + np.exp(-2 * signal))
    columns: dict[str, Any] = {
        "user_id": user,
        "video_id": rng.integers(0, 20, rows),
        "surface": ["feed"] * rows,
        "hour": pa.array(rng.integers(0, 24, rows), pa.int8()),
        "log_tenure_days": pa.array(rng.normal(size=rows), pa.float32()),
        "log_video_age_days": pa.array(signal, pa.float32()),
        # Users 0 to 3 are new; of the others half have seen more than the threshold.
        "tenure_days": pa.array(np.where(user < 4, 1, 400), pa.int64()),
        "completion": pa.array(chance, pa.float32()),
        "finish": pa.array((rng.random(rows) < chance).astype(np.int8)),
        "like": pa.array((rng.random(rows) < chance).astype(np.int8)),
    }
    for entity in ("user", "video"):
        for name, column in feature_columns(entity, rows, 0.5):
            columns.setdefault(name, column)
    for cross in crosses():
        columns[cross.name] = pa.array(rng.normal(size=rows), pa.float32())
    columns["user_impressions_14d"] = pa.array(np.where(user < 8, 1.0, 9.0), pa.float32())
    return pa.table(columns)


def prepared(home: Path, **changes: Any) -> Context:
    """A lake in which the day's dataset step has run."""
    context = context_at(home, **{**PIPELINE, **changes})
    rng = np.random.default_rng(0)
    for day in (*TRAINED, HELD):
        write(context, "examples", day, examples(rng, 300))
    record = {
        "train_days": [day.isoformat() for day in TRAINED],
        "holdout_day": HELD.isoformat(),
        "return_day": DAY.isoformat(),
        "rows": 600,
        "activity_threshold": 5.0,
    }
    with context.runs.write("training_set", DAY, context.pipeline.config_hash) as writer:
        writer.json("training_set.json", record)
    return context


def read(partition: Partition) -> Diagnostics:
    return Diagnostics.model_validate_json(partition.bytes("diagnostics.json"))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A lake in which the treatment has been trained and looked into."""
    found = prepared(tmp_path_factory.mktemp("lake"), diagnostics=True)
    train(found, DAY, "treatment")
    diagnose(found, DAY)
    return found


@pytest.fixture(scope="module")
def record(context: Context) -> Diagnostics:
    return read(context.runs.get("diagnostics", DAY))


def analysed(context: Context, bundle_hash: str | None = None, day: date = DAY) -> Experiment:
    """The day's experiment, whose treatment is the lake's unless told."""
    treatment = bundle_hash or context.runs.get("model_treatment", day).content_hash
    full = example()
    arms = tuple(arm.model_copy(update={"bundle": treatment}) if arm.role == "treatment" else arm for arm in full.arms)
    found = full.model_copy(update={"day": day.isoformat(), "arms": arms})
    with context.runs.write("experiment", day, context.pipeline.config_hash) as writer:
        writer.text("experiment.json", found.model_dump_json())
    return found


def test_the_record_says_what_it_is_of(context: Context, record: Diagnostics) -> None:
    partition = context.runs.get("diagnostics", DAY)
    bundle_hash = context.runs.get("model_treatment", DAY).content_hash
    assert (record.day, record.holdout_day, record.train_days) == (str(DAY), str(HELD), tuple(map(str, TRAINED)))
    assert (record.treatment, record.kind, record.bundle) == ("mfh", "mfh", bundle_hash)
    assert (record.bundle_epochs, record.epochs) == (2.0, LEAST_EPOCHS)
    assert record.notes == ()
    assert partition.manifest.inputs[f"model_treatment/{DAY}"] == bundle_hash
    assert partition.manifest.inputs[f"training_set/{DAY}"] == context.runs.get("training_set", DAY).content_hash
    assert {one.manifest.dataset for one in (partition,)} == {"diagnostics"}
    assert not list(context.runs.fs.glob(context.runs.path("model_single*"))), "it leaves no model"


def test_curves_have_a_point_per_epoch_model_task_and_group(record: Diagnostics) -> None:
    seen = {(one.model, one.epoch, one.task, one.group) for one in record.curves}
    groups = ("all", "new", "low", "high")
    epochs = [float(epoch) for epoch in range(1, LEAST_EPOCHS + 1)]
    assert seen == {
        (model, epoch, task, group)
        for model in ("treatment", "flat")
        for epoch in epochs
        for task in TASKS
        for group in groups
    }
    assert len(record.curves) == len(seen)
    assert sum(one.valid_entries for one in record.curves if one.group == "all" and one.task == "like") == 300 * 10
    cells = {(one.task, one.group, one.at) for one in record.overfitting}
    assert cells == {(task, group, at) for task in TASKS for group in groups for at in ("best", "last")}


def test_improvements_come_from_the_recorded_curves(record: Diagnostics) -> None:
    points = {(one.model, one.task, one.group, one.epoch): one for one in record.curves}
    for one in record.overfitting:
        if one.at == "last":
            mine, flat = (points[m, one.task, one.group, float(LEAST_EPOCHS)] for m in ("treatment", "flat"))
            assert (one.model_train, one.model_test) == (mine.train_loss, mine.valid_loss)
            assert mine.valid_loss is not None
            assert flat.valid_loss is not None
            assert one.test_improvement == pytest.approx(1 - mine.valid_loss / flat.valid_loss)


def test_gains_and_gates_are_those_of_the_days_own_bundle(context: Context, record: Diagnostics) -> None:
    treatment = bundle.load(bundle_files(context.runs.get("model_treatment", DAY)))
    table = context.data.get("examples", HELD).table()
    activity, tenure = table["user_impressions_14d"].to_numpy(), table["tenure_days"].to_numpy()
    group = np.where(tenure <= 30, 0, np.where(activity > 5, 2, 1)).astype(np.int8)
    predicted = treatment.predict(table.append_column("group", pa.array(group)))
    errors = (predicted[:, 0].astype(np.float64) - table["completion"].to_numpy()) ** 2
    gains = {(one.task, one.group, one.metric): one for one in record.gains}
    assert gains["completion", "new", "mse"].model == pytest.approx(errors[group == 0].mean())
    assert gains["completion", "all", "mse"].rows == 300
    assert {(one.task, one.metric) for one in record.gains} == {
        ("completion", "mse"),
        *((task, metric) for task in TASKS[1:] for metric in ("auc", "gauc")),
    }
    one = gains["like", "all", "auc"]
    assert one.single is not None
    assert one.model is not None
    assert one.single > 0.6, "single-task models have learned"
    assert one.gain == pytest.approx(one.model - one.single)
    rows = {one.group: one.rows for one in record.gates}
    assert rows == {name: int((group == code).sum()) for code, name in enumerate(("new", "low", "high"))}
    assert {one.block for one in record.gates} >= {"A", "A/0/G", "G", "G/2/A"}


def test_the_same_inputs_give_the_same_content(context: Context) -> None:
    before = context.runs.get("diagnostics", DAY)
    result = diagnose(replace(context, run={"try": 2}), DAY)
    assert result.outputs == {f"diagnostics/{DAY}": before.content_hash}
    assert (result.facts["epochs"], result.facts["rows"]) == (LEAST_EPOCHS, 300)


def test_single_task_models_are_stopped_as_the_treatment_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With early stopping the window's last day stops both, and the held-out day still stops nothing."""
    from components.models import trainer

    settings = PIPELINE["train"] | {"patience": 1, "evaluations": 1}
    context = prepared(tmp_path, train=settings)
    train(context, DAY, "treatment")
    seen: list[tuple[str, TrainSettings, tuple[date, ...], tuple[date, ...]]] = []
    fit = trainer.fit

    def watched(recipe: Any, settings: Any, tasks: Any, groups: Any, spec: Any, window: Any, valid: Any, **rest: Any):
        seen.append((recipe.kind, settings, window.days, () if valid is None else valid.days))
        return fit(recipe, settings, tasks, groups, spec, window, valid, **rest)

    monkeypatch.setattr(trainer, "fit", watched)
    diagnose(context, DAY)
    assert [(kind, one.patience, days, valid) for kind, one, days, valid in seen] == [
        ("mfh", 0, TRAINED, (HELD,)),
        ("flat", 0, TRAINED, (HELD,)),
        ("single", 1, TRAINED[:1], TRAINED[1:]),
    ]


def test_a_model_of_the_file_lends_its_sizes(tmp_path: Path) -> None:
    wide = SIZES | {"kind": "flat", "level0_width": 12}
    context = prepared(tmp_path, models={"flat": wide}, treatment="ple", baseline="mfh")
    train(context, DAY, "treatment")
    diagnose(context, DAY)
    found = read(context.runs.get("diagnostics", DAY))
    assert found.kind == "ple"
    assert {one.block for one in found.gates} == {"A"}


def test_a_day_without_a_treatment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingPartitionError, match="'model_treatment'"):
        diagnose(prepared(tmp_path), DAY)


def test_a_report_shows_the_diagnostics_of_its_treatment(context: Context) -> None:
    analysed(context)
    result = report(context, DAY)
    assert result.facts["diagnostics"] is True
    partition = context.runs.get("report", DAY)
    assert SECTION in partition.bytes(DAY_PAGE).decode()
    assert SECTION in Path(find_report(context, DAY)).read_text()
    assert partition.manifest.inputs[f"diagnostics/{DAY}"] == context.runs.get("diagnostics", DAY).content_hash


def test_a_report_leaves_out_what_is_of_another_treatment(context: Context) -> None:
    """Asked for, it is an error that says what to run; else the section is not there."""
    asked_for = analysed(context, "0" * 64)
    with pytest.raises(MissingPartitionError, match=f"mfh step diagnose --date {DAY}"):
        find_diagnostics(context, asked_for)
    off = replace(context, pipeline=context.pipeline.model_copy(update={"diagnostics": False}))
    assert off.pipeline.config_hash == context.pipeline.config_hash, "the same folder of the lake"
    assert find_diagnostics(off, asked_for) == (None, {})
    assert report(off, DAY).facts["diagnostics"] is False
    page = off.runs.get("report", DAY)
    assert SECTION not in page.bytes(DAY_PAGE).decode()
    assert SECTION not in Path(find_report(off, DAY)).read_text()
    assert f"diagnostics/{DAY}" not in page.manifest.inputs


def test_the_step_is_part_of_a_day_where_the_pipeline_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(steps, "run_step", lambda context, name, day: ran.append(name) or [])
    run_day(context_at(tmp_path, diagnostics=True), DAY)
    assert ran == [name for name in BY_NAME if name not in ("tune", "champion")]
    assert ran.index("train_treatment") < ran.index("diagnose") < ran.index("report")
    ran.clear()
    run_day(context_at(tmp_path), DAY)
    assert ran == [name for name in BY_NAME if name not in ("tune", "champion", "diagnose")]


@pytest.mark.parametrize(
    ("kind", "note", "empty", "full"),
    [
        ("single", "shares nothing between tasks", ("gains", "gates"), ("curves", "overfitting")),
        ("flat", "is flat itself", ("curves", "overfitting"), ("gains", "gates")),
    ],
)
def test_a_treatment_is_not_compared_with_itself(
    tmp_path: Path, kind: str, note: str, empty: tuple[str, ...], full: tuple[str, ...]
) -> None:
    context = prepared(tmp_path, treatment=kind)
    train(context, DAY, "treatment")
    diagnose(context, DAY)
    found = read(context.runs.get("diagnostics", DAY))
    assert note in found.notes[0]
    assert all(not getattr(found, name) for name in empty)
    assert all(getattr(found, name) for name in full)


def test_a_treatment_that_began_warm_is_noted(tmp_path: Path) -> None:
    context = prepared(tmp_path, train=PIPELINE["train"] | {"warm_start": True})
    before = day_at(3)
    record = context.runs.get("training_set", DAY).json("training_set.json")
    with context.runs.write("training_set", before, context.pipeline.config_hash) as writer:
        writer.json("training_set.json", record | {"train_days": [str(TRAINED[0])], "holdout_day": str(TRAINED[1])})
    train(context, before, "treatment")
    train(context, DAY, "treatment")
    diagnose(context, DAY)
    (note,) = read(context.runs.get("diagnostics", DAY)).notes
    assert "began from the weights of the day before" in note
