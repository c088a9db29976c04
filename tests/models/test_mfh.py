import pytest
import torch
from torch import nn

from components.config import ModelRecipe
from components.models.mfh import MFH, Towers
from components.models.switchers import CGC, PLE, SharedBottom
from components.models.zoo import PLEBaseline, build, parameter_table
from tests.models.reference import PlainLayer, PlainMFH

SMALL = ModelRecipe(
    kind="mfh", level0_width=12, level1_widths=(10, 8), level2_width=6, tower_widths=(7, 5), small_tower_widths=(4,)
)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def grads_of(layers):
    return torch.stack([layer.weight.grad.T for layer in layers]), torch.stack([layer.bias.grad for layer in layers])


def assert_layer(plain: PlainLayer, weight, bias, gate_weight, gate_bias):
    for mine, (w, b) in (((weight, bias), grads_of(plain.experts)), ((gate_weight, gate_bias), grads_of(plain.gates))):
        torch.testing.assert_close(mine[0], w, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mine[1], b, atol=1e-5, rtol=1e-5)


def assert_block(plain: PlainLayer, block):
    assert_layer(plain, block.weight.grad, block.bias.grad, block.gate_weight.grad, block.gate_bias.grad)
    if plain.shared_gate is not None:
        torch.testing.assert_close(block.shared_gate_weight.grad, plain.shared_gate.weight.grad.T, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(block.shared_gate_bias.grad, plain.shared_gate.bias.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "recipe",
    [
        SMALL,
        SMALL.model_copy(update={"level0_width": 0}),
        SMALL.model_copy(update={"level1_experts": 1, "level1_shared": 3, "level2_experts": 3, "level2_shared": 2}),
    ],
)
@pytest.mark.parametrize(("m", "k"), [(3, 3), (5, 2), (1, 4)])
def test_routed_graph_equals_the_full_graph_in_outputs_and_all_gradients(recipe, m, k):
    torch.manual_seed(0)
    model = MFH(recipe, 9, m, k)
    for p in model.parameters():  # biases of zero would hide mistakes
        p.data += 0.1 * torch.randn_like(p)
    plain = PlainMFH(model)
    x, group = torch.randn(64, 9), torch.randint(0, k, (64,))
    x_plain = x.clone().requires_grad_()
    x.requires_grad_()
    target = torch.randn(64, m)
    routed = model(x, group)
    full = plain(x_plain)[torch.arange(64), group]
    torch.testing.assert_close(routed, full, atol=1e-5, rtol=1e-5)
    (routed * target).sum().backward()
    (full * target).sum().backward()

    torch.testing.assert_close(x.grad, x_plain.grad, atol=1e-5, rtol=1e-5)
    if model.level0 is not None:
        torch.testing.assert_close(model.level0.weight.grad, plain.level0.weight.grad.T, atol=1e-5, rtol=1e-5)
    for mine, theirs in ((model.by_behaviour, plain.by_behaviour), (model.by_group, plain.by_group)):
        assert_block(theirs.first, mine.first)
        assert_block(theirs.second, mine.second)
    bank = model.group_leaves
    for a, leaf in enumerate(plain.group_leaves):
        assert_layer(
            leaf, bank.weight.grad[:, a], bank.bias.grad[:, a], bank.gate_weight.grad[:, a], bank.gate_bias.grad[:, a]
        )
    for leaf, block in zip(plain.behaviour_leaves, model.behaviour_leaves, strict=True):
        assert_block(leaf, block)
    for g, towers in enumerate(model.towers):
        for a in range(m):
            layers = [layer for layer in plain.towers[g * m + a] if isinstance(layer, nn.Linear)]
            for at, layer in enumerate(layers):
                torch.testing.assert_close(towers.weights[at].grad[a], layer.weight.grad.T, atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(towers.biases[at].grad[a, 0], layer.bias.grad, atol=1e-5, rtol=1e-5)


def test_a_batch_of_one_group_trains_only_its_heads():
    torch.manual_seed(0)
    model = MFH(SMALL, 9, 2, 3)
    model(torch.randn(8, 9), torch.ones(8, dtype=torch.int8)).sum().backward()
    assert model.towers[0].weights[0].grad is None
    assert model.towers[1].weights[0].grad is not None
    assert not model.by_group.second.gate_weight.grad[0].any()


def test_rows_keep_their_place_whatever_the_order_of_groups():
    torch.manual_seed(0)
    model = MFH(SMALL, 9, 2, 3)
    x, group = torch.randn(30, 9), torch.randint(0, 3, (30,))
    order = torch.randperm(30)
    torch.testing.assert_close(model(x, group)[order], model(x[order], group[order]))


def test_parameter_counts_are_the_published_ones():
    assert count(SharedBottom(100, 512)) == 512 * 100 + 512
    assert count(PLE(512, (256, 128), branches=3, experts=2, shared=2)) == 1_327_136
    assert count(CGC(128, 128, branches=3, experts=1, shared=1)) == 66_822
    assert count(Towers(1, 128, (128, 64))) == 24_833
    paper = ModelRecipe(kind="mfh", small_tower_widths=(128, 64))
    table = parameter_table(build(paper, 100, 3, 3))
    total = 51_712 + 2 * 1_327_136 + 6 * 66_822 + 9 * 24_833
    assert (table[-1].block, table[-1].parameters) == ("total", total)
    assert {row.block: row.parameters for row in table}["group_leaves"] == 3 * 66_822


def test_towers_are_large_for_the_most_active_group_only():
    towers = MFH(ModelRecipe(kind="mfh"), 10, 2, 3).towers
    assert [tuple(t.weights[0].shape) for t in towers] == [(2, 128, 64), (2, 128, 64), (2, 128, 128)]


def test_ple_baseline_reads_the_group_as_an_input():
    torch.manual_seed(0)
    model = build(SMALL.model_copy(update={"kind": "ple"}), 9, 4, 3)
    assert isinstance(model, PLEBaseline)
    x = torch.randn(6, 9)
    first, second = model(x, torch.zeros(6, dtype=torch.int8)), model(x, torch.full((6,), 2))
    assert first.shape == (6, 4)
    assert (first != second).any(1).all()
    first.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
