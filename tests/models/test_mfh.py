"""The routed, stacked forest against the full graph with a module per expert, and the published sizes."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.plain_graph import PlainForest
from components.models.mfh import FacetForest
from components.models.network import Grid, Towers
from components.models.settings import MODEL_KINDS, ModelRecipe, SwitcherSettings
from components.models.switchers import activate, switcher
from components.models.zoo import build, nodes, trees

SMALL = ModelRecipe(
    kind="mfh",
    level0_width=12,
    level1=SwitcherSettings("ple", (10, 8), experts=2, shared=2),
    deeper=SwitcherSettings("cgc", (6,), experts=1, shared=1),
    tower_widths=(7, 5),
    small_tower_widths=(4,),
)
FORESTS = [kind for kind in MODEL_KINDS if kind not in ("single", "mtnas", "biasnet")]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def away_from_zero(model: nn.Module) -> None:
    """Biases of zero would hide mistakes."""
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)


def assert_equal_graphs(model: FacetForest, cells: int, rows: int = 64) -> None:
    away_from_zero(model)
    plain = PlainForest(model)
    x, cell = torch.randn(rows, model.inputs - (0 if model.group is None else model.group.shape[1])), None
    cell = torch.randint(0, cells, (rows,))
    target = torch.randn(rows, model.grid.behaviours)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    routed, everything = model(ours, cell), plain(theirs, cell)
    full = everything[torch.arange(rows), cell if model.routes else torch.zeros_like(cell)]
    torch.testing.assert_close(routed, full, atol=1e-5, rtol=1e-5)
    (routed * target).sum().backward()
    (full * target).sum().backward()

    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)
    seen: dict[nn.Parameter, int] = {}
    for link in plain.all_links():
        for mine, grad in zip(link.read(gradient), (link.layer.weight.grad, link.layer.bias.grad), strict=True):
            torch.testing.assert_close(mine, torch.zeros_like(mine) if grad is None else grad, atol=1e-5, rtol=1e-5)
        for stack, size in ((link.weight[0], link.layer.weight.numel()), (link.bias[0], link.layer.bias.numel())):
            seen[stack] = seen.get(stack, 0) + size
    # The links cover every number of every stack, each once.
    rest = {p for p in model.parameters() if p not in seen}
    assert all(p.numel() == seen[p] for p in seen)
    stitches = {s for name, s in model.named_parameters() if ".stitches." in name}
    assert rest == stitches | ({model.group} if model.group is not None else set())


def gradient(stack: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(stack) if stack.grad is None else stack.grad


@pytest.mark.parametrize("kind", FORESTS)
def test_every_forest_equals_its_full_graph_in_outputs_and_all_gradients(kind):
    torch.manual_seed(0)
    assert_equal_graphs(build(replace(SMALL, kind=kind), 9, 4, (3,)), cells=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"level0_width": 0},
        {"level1": SwitcherSettings("ple", (10, 8), experts=1, shared=3, gate="sigmoid"), "merge": "mean"},
        {"level1": SwitcherSettings("cgc", (10, 8), experts=2, shared=1), "merge": "concat"},
        {"level1": SwitcherSettings("mmoe", (8,)), "deeper": SwitcherSettings("mmoe", (6, 5))},
        {"level1": SwitcherSettings("cross_stitch", (10, 8)), "deeper": SwitcherSettings("shared_bottom", (6,))},
        {"level1": SwitcherSettings("shared_bottom", (10, 8)), "deeper": SwitcherSettings("ple", (7, 6), 2, 1)},
    ],
    ids=["no level 0", "sigmoid gates, mean", "cgc, concat", "mmoe", "stitches", "ple below a shared bottom"],
)
@pytest.mark.parametrize(("m", "facets"), [(3, (3,)), (1, (4,)), (2, (3, 2))])
def test_any_switchers_and_facets_equal_the_full_graph(changes, m, facets):
    torch.manual_seed(1)
    model = build(replace(SMALL, **changes), 9, m, facets)
    assert_equal_graphs(model, cells=model.grid.cells, rows=96)


def test_stitches_get_the_gradient_of_the_full_graph():
    torch.manual_seed(2)
    model = build(replace(SMALL, kind="cross_stitch"), 9, 3, (3,))
    away_from_zero(model)
    plain = PlainForest(model)
    x, cell = torch.randn(20, 9), torch.randint(0, 3, (20,))
    model(x, cell).square().sum().backward()
    plain(x, cell)[:, 0].square().sum().backward()
    ours = [p.grad[0, 0] for name, p in model.named_parameters() if ".stitches." in name]
    theirs = [p.grad for name, p in plain.named_parameters() if ".stitches." in name]
    assert len(ours) == 2
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_a_gated_merge_mixes_the_trees_of_each_task():
    torch.manual_seed(3)
    model = build(replace(SMALL, merge="gate"), 9, 2, (3,))
    away_from_zero(model)
    x, cell = torch.randn(5, 9), torch.full((5,), 1)
    z = activate(x @ model.level0[0][0] + model.level0[1][0])
    leaves = torch.stack([tree(z.unsqueeze(0), 1) for tree in model.trees])
    gate = model.merger.gates[1]
    weights = (z @ gate.weight[0] + gate.bias[0]).view(5, 2, 2).softmax(-1)
    merged = torch.einsum("bat,tabd->abd", weights, leaves)
    torch.testing.assert_close(model(x, cell), model.towers[1](merged).T)
    assert all(grad is not None for grad in torch.autograd.grad(model(x, cell).sum(), list(gate.parameters())))


def test_biasnet_adds_one_logit_of_the_group_to_every_task():
    torch.manual_seed(4)
    model = build(replace(SMALL, kind="biasnet"), 9, 3, (3,))
    away_from_zero(model)
    x, cell = torch.randn(6, 9), torch.tensor([0, 1, 2, 0, 1, 2])
    difference = model(x, cell) - model(x, torch.zeros_like(cell))
    torch.testing.assert_close(difference, difference[:, :1].expand(-1, 3))
    assert difference[1:3].abs().min() > 0
    torch.testing.assert_close(difference[1], difference[4])


def test_a_batch_of_one_group_trains_only_its_heads():
    torch.manual_seed(0)
    model = build(SMALL, 9, 2, (3,))
    model(torch.randn(8, 9), torch.ones(8, dtype=torch.int8)).sum().backward()
    by_behaviour, by_group = model.trees
    assert model.towers[0].weights[0].grad is None
    assert model.towers[1].weights[0].grad is not None
    root = by_group.levels[0][0]
    assert root.gates_2[0].weight.grad is None
    assert root.gates_2[1].weight.grad is not None
    # First-layer experts of the other groups feed the shared gate.
    assert root.experts_1.weight.grad.view(12, 8, 10).abs().sum((0, 2)).min() > 0
    assert by_group.levels[1][0].shared.weight.grad is None
    assert by_behaviour.levels[1][0].own[2].weight.grad is None


def test_rows_keep_their_place_whatever_the_order_of_groups():
    torch.manual_seed(0)
    model = build(SMALL, 9, 2, (3,))
    x, group = torch.randn(30, 9), torch.randint(0, 3, (30,))
    order = torch.randperm(30)
    torch.testing.assert_close(model(x, group)[order], model(x[order], group[order]))


def test_parameter_counts_are_the_published_ones():
    ple = switcher(1, 512, 1, 3, SwitcherSettings("ple", (256, 128), experts=2, shared=2))
    cgc = switcher(1, 128, 1, 3, SwitcherSettings("cgc", (128,), experts=1, shared=1))
    assert count(ple) == ple.parameters_each == 1_327_136
    assert count(cgc) == cgc.parameters_each == 66_822
    assert count(Towers(1, 128, (128, 64))) == 24_833
    # The same switcher with its branches as routes, and as a bank of several.
    assert count(switcher(1, 512, 3, 1, SwitcherSettings("ple", (256, 128)))) == 1_327_136
    bank = switcher(3, 128, 3, 1, SwitcherSettings("cgc", (128,), experts=1, shared=1))
    assert (count(bank), bank.parameters_each) == (3 * 66_822, 66_822)
    model = build(ModelRecipe(kind="mfh_equal"), 100, 3, (3,))
    total = 51_712 + 2 * 1_327_136 + 6 * 66_822 + 9 * 24_833
    assert count(model) == sum(node.parameters for node in nodes(model)) == total
    assert {node.name: node.parameters for node in nodes(model)}["level0"] == 512 * 100 + 512


@pytest.mark.parametrize("kind", [kind for kind in MODEL_KINDS if kind != "mtnas"])
def test_printed_nodes_account_for_every_parameter(kind):
    model = build(ModelRecipe(kind=kind), 100, 4, (3,))
    assert sum(node.parameters for node in nodes(model)) == count(model)
    names = [node.name for node in nodes(model)]
    assert len(names) == len(set(names))


def test_towers_are_large_for_the_most_active_group_only():
    towers = build(ModelRecipe(), 10, 2, (3,)).towers
    assert [tuple(t.weights[0].shape) for t in towers] == [(2, 128, 64), (2, 128, 64), (2, 128, 128)]
    equal = build(ModelRecipe(kind="mfh_equal"), 10, 2, (3,)).towers
    assert {tuple(t.weights[0].shape) for t in equal} == {(2, 128, 128)}


def test_one_tree_per_facet_each_with_its_facet_first():
    assert trees("mfh", 1) == (((0,), (1,)), ((1,), (0,)))
    assert trees("mfh", 2) == (((0,), (1,), (2,)), ((1,), (0,), (2,)), ((2,), (0,), (1,)))
    assert trees("flat", 2) == (((0, 1, 2),),)
    assert trees("hmtl_behaviour", 1) == (((0,), (1,)),)
    assert trees("hmtl_group", 1) == (((1,), (0,)),)


def test_the_printed_graph_names_every_switcher_by_its_path():
    found = {node.name: node for node in nodes(build(ModelRecipe(), 50, 2, (3, 2)))}
    assert (found["A"].kind, found["A"].level, found["A"].branches, found["A"].inputs) == ("ple", 1, 2, 512)
    assert (found["A/1/G"].kind, found["A/1/G"].level, found["A/1/G"].branches) == ("cgc", 2, 3)
    assert {"A/0/G/2/I", "G/2/A/1/I", "I/1/A/0/G", "tower/1/2/1"} <= set(found)
    assert found["tower/1/2/1"].level > found["A/0/G/2/I"].level


def test_models_by_behaviour_read_the_group_as_an_input():
    torch.manual_seed(0)
    for kind in ("shared_bottom", "cross_stitch", "mmoe", "cgc", "ple"):
        model = build(replace(SMALL, kind=kind), 9, 4, (3,))
        x = torch.randn(6, 9)
        first, second = model(x, torch.zeros(6, dtype=torch.int8)), model(x, torch.full((6,), 2))
        assert first.shape == (6, 4)
        assert (first != second).any(1).all()
        first.sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        assert model.grid == Grid(4)


def test_single_task_models_share_nothing():
    torch.manual_seed(0)
    model = build(replace(SMALL, kind="single"), 9, 3, (3,))
    x = torch.randn(6, 3, 9, requires_grad=True)
    model(x, torch.zeros(6, dtype=torch.int8))[:, 1].sum().backward()
    assert not x.grad[:, [0, 2]].any()
    assert x.grad[:, 1].abs().min() > 0
    for p in model.parameters():
        parts = p.grad.view(3, 3, -1).transpose(0, 1) if p is model.group else p.grad
        assert not parts[[0, 2]].any()
        assert parts[1].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level1": ("ple", (8,))}, "PLE has two layers"),
        ({"level1": ("cgc", ())}, "widths must be positive"),
        ({"tower_widths": (0,)}, "tower_widths must be positive"),
    ],
)
def test_sizes_that_make_no_graph_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        level1 = {"level1": SwitcherSettings(*changes["level1"])} if "level1" in changes else changes
        build(replace(SMALL, **level1), 9, 2, (3,))
