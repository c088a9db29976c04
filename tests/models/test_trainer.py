import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.errors import SourceError, TrainingError
from components.models.fitted import CHUNK_ROWS
from components.models.metrics import auc
from components.models.settings import SwitcherSettings, Task
from components.models.trainer import fit
from tests.models import planted
from tests.models.planted import GROUPS, RECIPE, SPEC, TASKS, TRAIN


def train(table, tasks=TASKS, settings=TRAIN, **options):
    return fit(RECIPE, settings, tasks, GROUPS, SPEC, table, **options)


def without(table, name, values):
    return table.set_column(table.column_names.index(name), name, values)


@pytest.fixture(scope="module")
def table():
    return planted.window()


@pytest.fixture(scope="module")
def short():
    return planted.window(600)


# Training losses of completion, finish and like in the last epoch. They move only when the arithmetic does.
GOLDEN = {"mfh": [0.01700898, 0.47147114, 0.44181501], "ple": [0.0171121, 0.47806147, 0.44936027]}

CONSTANT = "column 'constant' does not vary in the training window: it is read as 0"

QUICK = replace(TRAIN, epochs=1, batch_size=128)


def test_a_planted_signal_is_learned(fitted, table):
    scores = fitted.predict(table)
    assert scores.dtype == np.float32
    assert scores.shape == (table.num_rows, 3)
    for at, name in ((1, "finish"), (2, "like")):
        assert auc(table[name].to_numpy(), scores[:, at]).value > 0.8
    ratio = table["completion"].to_numpy()
    assert ((scores[:, 0] - ratio) ** 2).mean() < 0.3 * ratio.var()
    assert fitted.warnings == (CONSTANT,)


def test_losses_are_recorded_per_epoch_task_and_group(fitted):
    assert len(fitted.history) == 3 * 3 * 4
    whole = [r for r in fitted.history if r.group is None and r.task == "finish"]
    assert [(r.epoch, r.step) for r in whole] == [(1, 16), (2, 32), (3, 48)]
    assert (fitted.step, fitted.scores) == (48, ())
    assert whole[-1].train_loss < whole[0].train_loss
    assert (whole[0].train_entries, whole[0].valid_entries) == (4_000, 500)
    parts = [r for r in fitted.history if r.epoch == 3 and r.task == "finish" and r.group is not None]
    assert [r.group for r in parts] == list(GROUPS)
    mean = sum(r.train_loss * r.train_entries for r in parts) / sum(r.train_entries for r in parts)
    assert mean == pytest.approx(whole[-1].train_loss)


def test_golden_losses(fitted):
    golden = GOLDEN[fitted.recipe.kind]
    found = [r.train_loss for r in fitted.history if r.group is None and r.epoch == 3]
    assert found == pytest.approx(golden, rel=1e-3)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone(short):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = train(short, settings=QUICK)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    second = train(short, settings=QUICK)
    other = train(short, settings=replace(QUICK, seed=8))
    states = [f.model.state_dict() for f in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["network.level0.0"], states[2]["network.level0.0"])
    assert first.history == second.history


def test_validation_rows_and_the_callback_do_not_change_the_weights(short):
    steps = []
    plain = train(short, settings=QUICK)
    watched = train(short, settings=QUICK, valid=planted.window(100, seed=2), on_step=lambda *s: steps.append(s))
    assert torch.equal(plain.model.network.level0[0], watched.model.network.level0[0])
    assert [s[:2] for s in steps] == [(n, 5) for n in range(1, 6)]
    assert all(math.isfinite(s[2]) for s in steps)


def test_a_row_scores_the_same_bits_whatever_it_is_asked_with(fitted, table):
    large = pa.concat_tables([table, table.slice(0, 1_500)])
    whole = fitted.predict(large)
    edge = CHUNK_ROWS
    for start, stop in ((0, edge), (edge, 2 * edge), (large.num_rows - 100, large.num_rows)):
        np.testing.assert_array_equal(whole[start:stop], fitted.predict(large.slice(start, stop - start)))
    order = np.random.default_rng(0).permutation(large.num_rows)
    np.testing.assert_array_equal(whole[order], fitted.predict(large.take(pa.array(order))))
    np.testing.assert_array_equal(whole[:1], fitted.predict(large.slice(0, 1)))
    assert fitted.predict(large.slice(0, 0)).shape == (0, 3)


def test_scores_are_probabilities_and_ratios(fitted, table):
    odd = without(table, "user_rate", pa.array(np.full(table.num_rows, 1e6), pa.float32()))
    scores = fitted.predict(odd)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    assert (scores[:, 0] <= 2).all()
    assert (scores[:, 1:] <= 1).all()


def test_unseen_ids_score_without_error(fitted, table):
    strange = without(table, "user_id", pa.array(np.full(table.num_rows, 10**15)))
    assert np.isfinite(fitted.predict(strange)).all()


def test_a_task_without_positives_trains_with_a_warning(short):
    found = train(without(short, "like", pa.array(np.zeros(600, np.int8))), settings=QUICK)
    assert found.warnings == (CONSTANT, "task 'like' has no positive among 600 labels of the training window")
    assert np.isfinite(found.predict(short)).all()


def test_a_task_without_labels_keeps_its_head_untrained(short):
    empty = without(short, "like", pa.nulls(600, pa.int8()))
    found = train(empty, settings=QUICK)
    assert found.warnings[1:] == ("task 'like' has no label in the training window: its head is untrained",)
    assert [r.train_loss for r in found.history if r.task == "like"] == [None] * 4
    # The other tasks train as if their labels were all there is.
    assert all(r.train_loss is not None for r in found.history if r.task == "finish")


def test_an_empty_group_trains_with_a_warning(short):
    kept = short.filter(pa.array(short["group"].to_numpy() != 0))
    found = train(kept, settings=QUICK)
    assert found.warnings[1:] == ("group 'new' has no row in the training window: heads of its own are untrained",)
    assert np.isfinite(found.predict(short)).all()


def test_half_of_the_labels_missing(table):
    half = pa.array(np.arange(table.num_rows) % 2 == 0)
    found = train(without(table, "finish", pa.array(table["finish"].to_numpy(), pa.int8(), mask=half.to_numpy(False))))
    assert found.warnings[1:] == ("task 'finish' has no label in 2000 of 4000 rows: they are masked",)
    record = next(r for r in found.history if r.task == "finish" and r.group is None)
    assert record.train_entries == table.num_rows // 2
    assert auc(table["finish"].to_numpy(), found.predict(table)[:, 1]).value > 0.78


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(0, 0), "no rows"),
        (lambda t: without(t, "like", pa.array(np.full(600, 2, np.int8))), "'like' are out of range: 0 to 1"),
        (lambda t: without(t, "completion", pa.array(np.full(600, -0.5))), "'completion' are out of range"),
        (lambda t: without(t, "group", pa.array(np.full(600, 3, np.int8))), "600 of 600 rows have a 'group' outside"),
        (
            lambda t: without(
                without(without(t, "like", pa.nulls(600)), "finish", pa.nulls(600)), "completion", pa.nulls(600)
            ),
            "none of the 600 rows",
        ),
    ],
)
def test_windows_that_can_not_be_trained_on(short, change, message):
    with pytest.raises(TrainingError, match=message):
        train(change(short))


def test_settings_that_can_not_be_trained_with(short):
    with pytest.raises(TrainingError, match="every task has weight 0"):
        train(short, tasks=(Task("finish", weight=0),))
    with pytest.raises(SourceError, match="label column 'share'"):
        train(short, tasks=(Task("share"),))


def test_a_diverging_run_names_task_and_batch(short):
    wild = without(short, "completion", pa.array(np.full(600, 1e30)))
    with pytest.raises(TrainingError, match=r"epoch 1, batch 1 of 3: completion"):
        train(wild)


def test_sizes_that_make_no_graph_are_a_named_error():
    # MMoE takes experts of any depth; PLE, which the kind puts in its place, has two layers.
    recipe = replace(planted.RECIPE, kind="ple", level1=SwitcherSettings("mmoe", (8, 8, 8)))
    with pytest.raises(TrainingError, match="sizes of ple make no graph: PLE has two layers"):
        fit(recipe, planted.TRAIN, planted.TASKS, planted.GROUPS, planted.SPEC, planted.window(500))
