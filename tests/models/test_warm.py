from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.errors import TrainingError
from components.models.fields import Vocabularies
from components.models.fitted import Ranker
from components.models.settings import Task
from components.models.trainer import fit
from components.models.warm import adopt, difference
from tests.models import planted

QUICK = replace(planted.TRAIN, epochs=1, batch_size=500, min_id_count=1, number_bins=3)
# So small a step that the weights are where they started, to five digits.
STILL = replace(QUICK, learning_rate=1e-9, weight_decay=0.0)


def window(keep):
    """Rows of some users only, whose ids and topics other rows have, too, at other places of the tables."""
    table = planted.window(2_000)
    return table.filter(pa.array(keep(table["user_id"].to_numpy() // 1_000)))


@pytest.fixture(scope="module")
def yesterday():
    return train(window(lambda user: user < 60))


def train(table, settings=QUICK, **options):
    return fit(planted.RECIPE, settings, planted.TASKS, planted.GROUPS, planted.SPEC, table, **options)


def row(fitted, model, name, value):
    """The embedding of a value: the row that the encoder reads for it."""
    at = fitted.spec.indexed.index(name)
    index = torch.zeros(1, len(fitted.spec.indexed), dtype=torch.int32)
    values = fitted.vocab.values[at].to_pylist()
    index[0, at] = fitted.vocab.offsets[at] + (1 + values.index(value) if value in values else 0)
    numeric, history = torch.zeros(1, len(fitted.spec.numeric)), torch.zeros(1, 1, dtype=torch.int32)
    with torch.no_grad():
        return model.encoder.eval()(index, numeric, history)[0]


@pytest.mark.parametrize("kind", ["mfh", "single"])
def test_known_values_take_their_embeddings_along(kind):
    recipe = replace(planted.RECIPE, kind=kind)
    arguments = (QUICK, planted.TASKS, planted.GROUPS, planted.SPEC)
    start = fit(recipe, *arguments, window(lambda user: user < 60))
    table = window(lambda user: user >= 30)
    vocab = Vocabularies.fit(table, planted.SPEC, 1)
    model = Ranker(recipe, QUICK, planted.SPEC, vocab, behaviours=3, facets=(3,))
    fresh = Ranker(recipe, QUICK, planted.SPEC, vocab, behaviours=3, facets=(3,))
    fresh.load_state_dict(model.state_dict())
    taken = adopt(model, vocab, start)
    here = replace(start, vocab=vocab, model=model)

    known = [
        set(mine.to_pylist()) & set(theirs.to_pylist())
        for mine, theirs in zip(vocab.values, start.vocab.values, strict=True)
    ]
    assert taken == sum(map(len, known))
    assert len(known[0]) == 30
    for name, values in zip(planted.SPEC.indexed, known, strict=True):
        # Each known value, and what no window has seen.
        for value in (*values, "never seen"):
            assert torch.equal(row(here, model, name, value), row(start, start.model, name, value))
    assert torch.equal(model.encoder.tables["bins"], start.model.encoder.tables["bins"])
    for new in (75_000, 89_000):
        assert torch.equal(row(here, model, "user_id", new), row(here, fresh, "user_id", new))
        assert row(here, model, "user_id", new).abs().max() > 0
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, start.model.network.state_dict()[name])


def test_a_warm_start_begins_where_the_earlier_one_ended(yesterday):
    table = window(lambda user: user < 60)
    again = train(table, STILL, start=yesterday)
    np.testing.assert_allclose(again.predict(table), yesterday.predict(table), atol=1e-4)
    cold = train(table, STILL)
    assert np.abs(cold.predict(table) - yesterday.predict(table)).max() > 0.1


def test_the_earlier_model_stays_as_it_is(yesterday):
    before = {name: tensor.clone() for name, tensor in yesterday.model.state_dict().items()}
    train(window(lambda user: user >= 30), start=yesterday)
    assert all(torch.equal(before[name], tensor) for name, tensor in yesterday.model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": replace(planted.RECIPE, kind="ple")}, "layer sizes"),
        ({"train": replace(QUICK, id_embedding=4)}, "embedding widths"),
        ({"train": replace(QUICK, embedding_widths={"topic": 8})}, "embedding widths"),
        ({"tasks": planted.TASKS[::-1]}, "tasks"),
        ({"group_names": ("all",)}, "groups"),
        ({"spec": replace(planted.SPEC, numeric=("user_rate", "video_rate", "constant")[::-1])}, "inputs"),
        (
            {
                "train": replace(QUICK, learning_rate=1.0, epochs=9),
                "tasks": (Task("completion", 3.0), *planted.TASKS[1:]),
            },
            "",
        ),
    ],
)
def test_what_can_not_be_started_from_is_named(yesterday, change, named):
    given = {
        "recipe": planted.RECIPE,
        "train": QUICK,
        "tasks": planted.TASKS,
        "group_names": planted.GROUPS,
        "spec": planted.SPEC,
    } | change
    assert difference(yesterday, **given) == named
    if named:
        with pytest.raises(TrainingError, match=f"has other {named}"):
            fit(*given.values(), planted.window(100), start=yesterday)
