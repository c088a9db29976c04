import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import distributed

from components.errors import ConfigError, SourceError, TrainingError
from components.models import bundle
from components.models import search as searching
from components.models.fields import InputSpec
from components.models.metrics import auc
from components.models.mtnas import QUERIES, Choice, Route, RoutedNetwork
from components.models.search import DRAWS, Draws, Policy, Supernet, first_half, search
from components.models.settings import ModelRecipe, SearchSettings, SwitcherSettings, Task
from components.models.trainer import fit
from tests.conftest import CHECKOUT
from tests.models import planted
from tests.models.planted import GROUPS, SPEC, TASKS, TRAIN

SPACE = SearchSettings(layers=2, blocks=3, epochs=2)
RECIPE = replace(planted.RECIPE, kind="mtnas", search=SPACE)
QUICK = replace(TRAIN, epochs=1, batch_size=64)


@pytest.fixture(scope="module")
def short():
    return planted.window(1_000)


@pytest.fixture(scope="module")
def found(short):
    return search(RECIPE, QUICK, TASKS, GROUPS, SPEC, short)


# The policy


def test_draws_name_every_set_and_query():
    policy = Policy(SPACE, behaviours=2)
    draws = policy.draw(4_000, torch.Generator().manual_seed(0))
    assert draws.sets.shape == draws.queries.shape == (4_000, 3 + 2)
    kept = draws.kept(3)
    assert kept.any(-1).all()
    # Uniform at first: each of 7 sets and each of 3 queries, for every reader.
    for reader in range(5):
        sets = np.bincount(draws.sets[:, reader].numpy(), minlength=7)
        queries = np.bincount(draws.queries[:, reader].numpy(), minlength=3)
        assert len(sets) == 7
        assert len(queries) == 3
        assert sets.min() > 450
        assert queries.min() > 1_150
    assert Draws(torch.tensor([[0b101 - 1]]), draws.queries).kept(3).tolist() == [[[True, False, True]]]


def test_a_draw_is_a_route_of_the_space():
    policy = Policy(SPACE, behaviours=2)
    sets = torch.tensor([[0b111, 0b010, 0b101, 0b110, 0b100]]) - 1
    queries = torch.tensor([[0, 1, 2, 1, 0]])
    # Nothing reads block 0 of layer 2; blocks 1 and 2 read all of layer 1.
    assert policy.route(Draws(sets, queries)) == Route(
        ((Choice((0,)),) * 3, (Choice((1,)), Choice((0, 2), "constant"))), (Choice((0, 1), "mean"), Choice((1,)))
    )


def test_reinforce_finds_the_route_that_is_rewarded():
    policy = Policy(replace(SPACE, learning_rate=0.05), behaviours=2)
    wanted = Draws(torch.tensor([[2, 6, 0, 4, 5]]), torch.tensor([[0, 2, 1, 1, 2]]))
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        draws = policy.draw(DRAWS, generator)
        hits = (draws.sets == wanted.sets).sum(1) + (draws.queries == wanted.queries).sum(1)
        # Far from 0, as rewards are: without a baseline all that is drawn would seem good.
        policy.learn(draws, hits.float() - 100.0 + torch.randn(DRAWS, generator=generator))
    best = policy.best()
    assert torch.equal(best.sets, wanted.sets)
    # Readers 2 read one block each: their query is never asked.
    gated = wanted.kept(3)[0].sum(-1) > 1
    assert torch.equal(best.queries[:, gated], wanted.queries[:, gated])
    assert policy.baseline == pytest.approx(hits.float().mean().item() - 100.0, abs=2.0)


def test_the_query_of_a_single_source_learns_nothing():
    policy = Policy(SPACE, behaviours=2)
    single = Draws(torch.tensor([[0, 1, 3, 0, 0]] * 2), torch.tensor([[0, 1, 2, 0, 1], [1, 1, 1, 1, 1]]))
    policy.learn(single, torch.tensor([1.0, 0.0]))
    policy.learn(single, torch.tensor([0.0, 1.0]))
    assert not policy.queries.any()


def test_the_baseline_is_the_running_mean_and_only_what_differs_from_it_teaches():
    policy = Policy(replace(SPACE, baseline_decay=0.75), behaviours=2)
    draws = policy.draw(1, torch.Generator().manual_seed(0))
    policy.learn(draws, torch.tensor([8.0]))
    assert policy.baseline == 8.0
    assert not policy.sets.any()
    policy.learn(draws, torch.tensor([4.0]))
    assert policy.baseline == 7.0
    # A worse reward than usual: what was drawn becomes less likely, all else likelier.
    assert (policy.sets.gather(1, draws.sets.T) < 0).all()
    assert ((policy.sets < 0).sum(1) == 1).all()


# The supernet


def own_network(supernet, recipe, draws, inputs):
    """The network of a draw's route, with the supernet's weights."""
    route = Policy(recipe.search, len(TASKS)).route(draws)
    network = RoutedNetwork(
        len(TASKS), replace(recipe, search=replace(recipe.search, route=route.text())), inputs, (len(GROUPS), 4)
    )
    readers = [len(mixture.kept) for mixture in supernet.mixtures]
    kept, queries = torch.split(draws.kept(3)[0], readers), torch.split(draws.queries[0], readers)
    # Which of the supernet's blocks something reads, layer by layer from above.
    read, rows = [], list(range(readers[-1]))
    for choices in reversed(kept):
        used = choices[rows].any(0).nonzero().flatten().tolist()
        read.insert(0, used)
        rows = used
    state = {name: value for name, value in supernet.state_dict().items() if name.startswith(("group", "level0"))}
    state |= {name: value for name, value in supernet.state_dict().items() if name.startswith("towers")}
    network.load_state_dict(state, strict=False)
    with torch.no_grad():
        width = supernet.first.weight.shape[-1] // 3
        columns = torch.cat([torch.arange(width) + block * width for block in read[0]])
        network.first.weight.copy_(supernet.first.weight[:, :, columns])
        network.first.bias.copy_(supernet.first.bias[:, columns])
        for own, blocks, used in zip(network.blocks, supernet.blocks, read[1:], strict=True):
            own.weight.copy_(blocks.weight[used])
            own.bias.copy_(blocks.bias[used])
        for at, own in enumerate(network.mixtures):
            rows = read[at + 1] if at + 1 < len(read) else range(readers[-1])
            for place, query in enumerate(QUERIES):
                gated = [r for r in rows if kept[at][r].sum() > 1 and queries[at][r] == place]
                pairs = [r * 3 + block for r in gated for block in kept[at][r].nonzero().flatten().tolist()]
                if pairs:
                    logits = supernet.mixtures[at].logits[place]
                    own.logits[query].bias.copy_(logits.bias[pairs])
                    if logits.weight is not None:
                        own.logits[query].weight.copy_(logits.weight[:, pairs])
                else:
                    assert query not in own.logits
    return network


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_under_a_route_the_supernet_is_that_routes_network(layers):
    torch.manual_seed(0)
    recipe = replace(RECIPE, level1=SwitcherSettings("mmoe", (12, 8, 8)[:layers]), search=replace(SPACE, layers=layers))
    supernet = Supernet(len(TASKS), recipe, 9, (len(GROUPS), 4))
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    x, cell = torch.randn(40, 9), torch.randint(0, 3, (40,))
    draws = Policy(recipe.search, len(TASKS)).draw(20, torch.Generator().manual_seed(0))
    for at in range(20):
        supernet.choose(draws, at)
        own = own_network(supernet, recipe, Draws(draws.sets[[at]], draws.queries[[at]]), 9)
        torch.testing.assert_close(supernet(x, cell), own(x, cell), atol=1e-5, rtol=1e-5)
    assert sum(node.parameters for node in supernet.nodes()) == sum(p.numel() for p in supernet.parameters())


# The search


TWO_TASKS = (Task("completion"), Task("finish"))
TWO_NUMBERS = InputSpec(ids=(), numeric=("a", "b"), user_columns=("a", "b"))
# One unit a block, and towers of one product: a block can tell of one number alone.
NARROW = ModelRecipe(
    kind="mtnas",
    level0_width=0,
    level1=SwitcherSettings("mmoe", (1,)),
    tower_widths=(),
    search=SearchSettings(layers=1, blocks=2, epochs=2),
)


def two_numbers(rows=6_000):
    """A window in which each task is about a number of its own."""
    a, b = np.random.default_rng(0).normal(size=(2, rows))
    labels = {"completion": np.clip(0.5 * a + 2.0, 0.0, None), "finish": pa.array((b > 0).astype(np.int8))}
    return pa.table({"a": a, "b": b, "group": pa.array(np.zeros(rows, np.int8)), **labels})


@pytest.mark.parametrize("seed", range(4))
def test_tasks_about_different_numbers_do_not_share_one_block(seed):
    settings = replace(QUICK, learning_rate=1e-2, seed=seed)
    found = search(NARROW, settings, TWO_TASKS, GROUPS, TWO_NUMBERS, two_numbers())
    assert len(Route.parse(found.search.route).layers[0]) == 2


@pytest.mark.parametrize("seed", range(3))
def test_a_search_finds_the_one_route_that_is_right(seed, monkeypatch):
    build = searching.build_supernet

    def with_answers(*arguments):
        """Block 0 tells a, block 1 tells b, block 2 nothing; the towers take them as they are."""
        supernet = build(*arguments)
        with torch.no_grad():
            supernet.first.weight.zero_()
            supernet.first.weight[0, 0, 0] = supernet.first.weight[0, 1, 1] = 1.0
            supernet.first.bias[:] = torch.tensor([5.0, 7.0, 0.0])
            supernet.towers.weights[0][:, 0, 0] = torch.tensor([0.5, 4.0])
            supernet.towers.biases[0][:, 0, 0] = torch.tensor([-0.5, -28.0])
        return supernet

    monkeypatch.setattr(searching, "build_supernet", with_answers)
    monkeypatch.setattr(searching, "one_step", lambda *arguments: (torch.zeros(()), False))
    recipe = replace(NARROW, search=replace(NARROW.search, blocks=3, epochs=4))
    found = search(recipe, replace(QUICK, seed=seed), TWO_TASKS, GROUPS, TWO_NUMBERS, two_numbers())
    # One of 13 x 13 routes of the two towers.
    assert found.search.route == '{"layers":[["0","0"]],"towers":["0","1"]}'


class Days:
    """A window in parts."""

    def __init__(self, table):
        self.table = table

    def __iter__(self):
        yield from (self.table.slice(0, 300), self.table.slice(300, 1), self.table.slice(301))


def test_the_same_seed_gives_the_same_route(found, short):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert search(RECIPE, QUICK, TASKS, GROUPS, SPEC, Days(short)) == found
    assert torch.equal(before, torch.get_rng_state())
    # A route that a recipe has does not change the search for another one.
    assert search(found, QUICK, TASKS, GROUPS, SPEC, short) == found
    others = [search(RECIPE, replace(QUICK, seed=seed), TASKS, GROUPS, SPEC, short) for seed in (8, 9)]
    assert {one.search.route for one in others} != {found.search.route}


def test_a_found_route_is_the_recipes_only_change(found):
    assert replace(found, search=SPACE) == RECIPE
    assert Route.parse(found.search.route).text() == found.search.route


@pytest.mark.parametrize("change", [{"table_optimizer": "lazy"}, {"precision": "bf16"}])
def test_a_search_runs_under_the_training_settings(change, short, found, monkeypatch):
    monkeypatch.setattr(searching, "WARM_UP", 0.0)
    settings = replace(QUICK, embedding_dropout=0.1, dropout=0.1, loss_weights="uncertainty", patience=2, **change)
    route = Route.parse(search(RECIPE, settings, TASKS, GROUPS, SPEC, short).search.route)
    assert len(route.layers) == 2
    assert len(route.towers) == 3


def test_what_trains_weights_never_gives_rewards(short, monkeypatch):
    trained, compared = [], []
    one_step, losses = searching.one_step, searching.losses

    def step(setup, state, words, *rest):
        trained.append(words)
        return one_step(setup, state, words, *rest)

    def judged(setup, state, supernet, draws, words, present):
        before = [parameter.clone() for parameter in state.model.parameters()]
        found = losses(setup, state, supernet, draws, words, present)
        assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
        assert state.model.training
        batch = setup.window.shelf.layout.unpack(words)
        for at in (0, DRAWS):
            supernet.choose(draws, at)
            with torch.no_grad():
                logits = state.model.eval()(batch.index, batch.numeric, batch.history, batch.cell)
            own = state.loss(logits, batch.labels, (~batch.labels.isnan()).sum().item(), "a test").total
            torch.testing.assert_close(found[at], own)
        state.model.train()
        compared.append((words, found))
        return found

    monkeypatch.setattr(searching, "one_step", step)
    monkeypatch.setattr(searching, "losses", judged)
    steps = []
    settings = replace(QUICK, embedding_dropout=0.5, dropout=0.5)
    search(RECIPE, settings, TASKS, GROUPS, SPEC, short, on_step=lambda *given: steps.append(given))
    assert [given[:2] for given in steps] == [(turn, 16) for turn in range(1, 17)]
    assert all(0 < given[2] < 10 for given in steps)
    # 16 turns; in the first fifth of them only weights learn.
    assert (len(trained), len(compared)) == (16, 12)
    assert all(len(found) == 1 + DRAWS for _, found in compared)
    assert all(len(found.unique()) > 1 for _, found in compared)
    one = {tuple(row) for words in trained for row in words.tolist()}
    other = {tuple(row) for words, _ in compared for row in words.tolist()}
    assert not one & other
    assert 0.45 < len(one) / 1_000 < 0.55
    assert len(one | other) == 1_000


# The last batch has one row, so that one half of it and one of two processes have none.
UNEVEN = 8 * 2 * 64 + 1


def search_together(folder, rank):
    """The route that two processes find, as one of them tells it, with the losses of its turns."""
    losses = []
    options = {"init_method": f"file://{folder}/meeting", "timeout": timedelta(seconds=60)}
    distributed.init_process_group("gloo", rank=rank, world_size=2, **options)
    try:
        table = planted.window(UNEVEN)
        found = search(RECIPE, QUICK, TASKS, GROUPS, SPEC, table, on_step=lambda *given: losses.append(float(given[2])))
        return [found.search.route, losses]
    finally:
        distributed.destroy_process_group()


OTHER = """
import json, sys, torch
from tests.models.test_search import search_together
torch.set_num_threads(1)
print(json.dumps(search_together(sys.argv[1], 1)))
"""


def test_two_processes_find_the_same_route(tmp_path):
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as other:
        told = search_together(tmp_path, 0)
        assert json.loads(other.communicate(timeout=60)[0]) == told
    alone = []
    search(
        RECIPE, QUICK, TASKS, GROUPS, SPEC, planted.window(UNEVEN), on_step=lambda *given: alone.append(float(given[2]))
    )
    # Later turns may draw other routes, since sums in another order round differently.
    assert told[1][:6] == pytest.approx(alone[:6], rel=1e-4)
    assert len(told[1]) == len(alone) == 2 * 9


def test_halves_are_of_the_rows_content():
    words = torch.randint(-(2**31), 2**31 - 1, (2_000, 7), generator=torch.Generator().manual_seed(0)).int()
    first = first_half(words, 7)
    assert 0.45 < first.float().mean() < 0.55
    order = torch.randperm(2_000)
    assert torch.equal(first_half(words[order], 7), first[order])
    # Neighbours, such as ids counted up, fall into either half; another seed cuts anew.
    words[:] = words[0].clone()
    words[:, 2] = torch.arange(2_000)
    assert 0.45 < first_half(words, 7).float().mean() < 0.55
    assert 0.4 < (first_half(words, 7) ^ first_half(words, 8)).float().mean() < 0.6


def test_a_searched_model_is_trained_saved_and_loaded(found):
    table = planted.window()
    fitted = fit(found, TRAIN, TASKS, GROUPS, SPEC, table)
    scores = fitted.predict(table)
    for at, name in ((1, "finish"), (2, "like")):
        assert auc(table[name].to_numpy(), scores[:, at]).value > 0.75
    np.testing.assert_array_equal(fitted.predict(table.slice(1_000, 50)), scores[1_000:1_050])
    files = bundle.save(fitted, {})
    restored = bundle.load(files)
    assert restored.recipe == found
    assert restored.parameters == fitted.parameters
    np.testing.assert_array_equal(restored.predict(table), scores)
    assert bundle.save(restored, {}) == files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "mmoe"}, "only mtnas has routes to search, found a recipe of kind 'mmoe'"),
        ({"search": replace(SPACE, blocks=11)}, "search.blocks must be at most 10 for a search, found 11"),
        ({"search": replace(SPACE, layers=1)}, "level1.widths has 2 widths, search.layers asks for 1"),
    ],
)
def test_what_can_not_be_searched_is_refused(change, message, short):
    with pytest.raises(ConfigError, match=message):
        search(replace(RECIPE, **change), QUICK, TASKS, GROUPS, SPEC, short)


def test_windows_that_can_not_be_searched_on(short):
    with pytest.raises(TrainingError, match="every task has weight 0"):
        search(RECIPE, QUICK, (Task("finish", weight=0),), GROUPS, SPEC, short)
    with pytest.raises(TrainingError, match="no rows"):
        search(RECIPE, QUICK, TASKS, GROUPS, SPEC, short.slice(0, 0))
    with pytest.raises(TrainingError, match="a window of 1 rows is too small to search on"):
        search(RECIPE, QUICK, TASKS, GROUPS, SPEC, unlucky(short))
    with pytest.raises(SourceError, match="label column 'share'"):
        search(RECIPE, QUICK, (Task("share"),), GROUPS, SPEC, short)


def unlucky(table):
    """One row, which the hash gives to the weights."""
    for at in range(20):
        row = table.slice(at, 1)
        try:
            search(RECIPE, QUICK, TASKS, GROUPS, SPEC, row)
        except TrainingError:
            return row
    raise AssertionError("every row was left for the rewards")
