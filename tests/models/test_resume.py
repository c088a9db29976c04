import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from components.errors import CheckpointError, TrainingInterruptedError
from components.models import bundle, loading
from components.models.batches import Streamed
from tests.conftest import CHECKOUT
from tests.models import planted, training_child
from tests.models.training_child import HARD, store, train

LAZY = replace(HARD, table_optimizer="lazy")


class StoppedError(Exception):
    """What a test throws out of a training."""


def files(fitted):
    """Weights, curves, scores and settings as bytes."""
    return bundle.save(fitted, {})


def throw_at(chosen):
    def tell(step, steps, loss):
        if step == chosen:
            raise StoppedError

    return tell


@pytest.fixture(scope="module")
def undisturbed():
    return {settings.table_optimizer: files(train(settings)) for settings in (HARD, LAZY)}


def started(folder, wait_at):
    """A training in a process of its own, once it has made its step ``wait_at`` and waits for a line."""
    plan = folder / "plan.json"
    trainings = [{"name": "model", "settings": {}}]
    plan.write_text(json.dumps({"folder": str(folder), "trainings": trainings, "wait_at": wait_at}))
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.models.training_child", str(plan)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == f"step {wait_at} of 18\n"
    return child


def test_a_process_that_is_asked_to_end_keeps_its_last_step(tmp_path, undisturbed):
    child = started(tmp_path, 6)
    child.send_signal(signal.SIGTERM)
    child.communicate("go on\n", timeout=60)
    # It finishes the step that it was asked in: it was told after step 6, and looks before step 7.
    assert (
        "after step 7 of 18; its state is in a checkpoint"
        in json.loads((tmp_path / "model-0.json").read_text())["ended"]
    )
    kept = store(tmp_path / "model")
    assert kept.latest()[1]["step"] == 7
    steps = []
    resumed = train(HARD, checkpoints=kept, on_step=lambda step, steps_, loss: steps.append(step))
    assert steps[0] == 8
    assert files(resumed) == undisturbed["dense"]


def test_a_killed_process_goes_on_from_its_last_checkpoint(tmp_path, undisturbed):
    child = started(tmp_path, 10)
    child.kill()
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    kept = store(tmp_path / "model")
    assert kept.latest()[1]["step"] == 8
    assert files(train(HARD, checkpoints=kept)) == undisturbed["dense"]


@pytest.mark.parametrize("settings", [HARD, LAZY], ids=["dense", "lazy"])
@pytest.mark.parametrize("chosen", [5, 11])
def test_a_training_that_broke_off_ends_with_the_same_bits(tmp_path, undisturbed, settings, chosen):
    with pytest.raises(StoppedError):
        train(settings, checkpoints=store(tmp_path), on_step=throw_at(chosen))
    assert files(train(settings, checkpoints=store(tmp_path))) == undisturbed[settings.table_optimizer]


def test_a_streamed_training_resumes_what_a_resident_one_began(tmp_path, undisturbed, monkeypatch):
    with pytest.raises(StoppedError):
        train(HARD, checkpoints=store(tmp_path), on_step=throw_at(9))
    monkeypatch.setattr(loading, "make_shelf", lambda layout, rows, limit, device: Streamed(layout, rows, device))
    assert files(train(HARD, checkpoints=store(tmp_path))) == undisturbed["dense"]


def test_a_training_that_has_ended_ends_again(tmp_path, undisturbed):
    steps = []

    def tell(step, steps_, loss):
        steps.append(step)
        if step == 18:
            os.kill(os.getpid(), signal.SIGTERM)

    patient = replace(HARD, patience=100)
    with pytest.raises(TrainingInterruptedError, match="after step 18 of 18"):
        train(patient, checkpoints=store(tmp_path), on_step=lambda *told: tell(told[0] + 1, *told[1:]))
    steps.clear()
    resumed = train(patient, checkpoints=store(tmp_path), on_step=tell)
    assert steps == []
    assert files(resumed) == files(train(patient))


def test_the_handler_before_comes_back(tmp_path):
    def mine(number, frame):
        raise AssertionError("the handler of the test was called")

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with pytest.raises(TrainingInterruptedError, match="no place for a checkpoint"):
            train(HARD, on_step=lambda step, steps, loss: os.kill(os.getpid(), signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_train_without_a_handler(undisturbed):
    found = []
    thread = threading.Thread(target=lambda: found.append(files(train(HARD))))
    thread.start()
    thread.join()
    assert found == [undisturbed["dense"]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": replace(HARD, learning_rate=1e-3)}, "differs in train"),
        ({"rows": 2_000}, "differs in .*window"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, change, named):
    with pytest.raises(StoppedError):
        train(HARD, checkpoints=store(tmp_path), on_step=throw_at(5))
    with pytest.raises(CheckpointError, match=named):
        train(**{"settings": HARD} | change, checkpoints=store(tmp_path))


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path, monkeypatch):
    with pytest.raises(StoppedError):
        train(HARD, checkpoints=store(tmp_path), on_step=throw_at(5))
    monkeypatch.setattr(planted, "RECIPE", replace(planted.RECIPE, merge="mean"))
    with pytest.raises(CheckpointError, match="differs in recipe"):
        train(HARD, checkpoints=store(tmp_path))


def test_settings_of_how_it_runs_may_change(tmp_path, undisturbed):
    with pytest.raises(StoppedError):
        train(HARD, checkpoints=store(tmp_path), on_step=throw_at(5))
    found = train(replace(HARD, checkpoint_steps=100), checkpoints=store(tmp_path))
    assert files(found)[bundle.WEIGHTS] == undisturbed["dense"][bundle.WEIGHTS]


class Changed:
    """Checkpoints that come back changed."""

    def __init__(self, inner, change):
        self.inner, self.change = inner, change

    def save(self, step, tensors, facts):
        self.inner.save(step, tensors, facts)

    def latest(self):
        tensors, facts = self.inner.latest()
        self.change(tensors, facts)
        return tensors, facts


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors, facts: facts.update(format=99), "format 99"),
        (lambda tensors, facts: tensors.pop("sums/loss"), "does not fit the model"),
        (
            lambda tensors, facts: tensors.pop(min(n for n in tensors if n.startswith("model/"))),
            "does not fit the model",
        ),
        (lambda tensors, facts: facts.pop("history"), "does not fit the model"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change, named):
    with pytest.raises(StoppedError):
        train(HARD, checkpoints=store(tmp_path), on_step=throw_at(5))
    with pytest.raises(CheckpointError, match=named):
        train(HARD, checkpoints=Changed(store(tmp_path), change))


def test_the_child_trains_what_the_tests_compare_with():
    assert training_child.HARD is HARD
    assert -(-training_child.ROWS // HARD.batch_size) * HARD.epochs == 18
